/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/rotation.h"

#include "base/die.h"
#include "io/files.h"
#include "io/state/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void path_of(const bq_run *s, char path[BQ_PATH_MAX + 32]) {
    snprintf(path, BQ_PATH_MAX + 32, "%s/ckpt/rotation.f32", s->dir);
}

size_t bq_rotations_bytes(const bq_rotations *all) { return sizeof all->done + bq_learned_bytes(all->size); }

void bq_rotations_open(bq_rotations *all, const bq_run *s) {
    const bq_learned_size size = bq_learned_size_of(&s->recipe, &s->src.arch.model);
    *all = (bq_rotations){.size = size};
    all->memory = calloc(1, bq_rotations_bytes(all));
    BQ_CHECK(all->memory, "no memory for rotations of size %ld", (long)bq_learned_cols(size));
    all->loss = (double *)((char *)all->memory + sizeof all->done);
    float *values = (float *)(all->loss + size.steps);
    const int64_t one = size.h * size.h, two = size.blocks * size.d * size.d;
    if (size.h) all->r1 = values, all->m1 = values + one;
    if (size.d) all->r2 = values + 2 * one, all->m2 = all->r2 + two;
}

void bq_rotations_close(bq_rotations *all) {
    free(all->memory);
    *all = (bq_rotations){0};
}

bool bq_rotations_read(bq_rotations *all, const bq_run *s) {
    char path[BQ_PATH_MAX + 32];
    const size_t bytes = bq_rotations_bytes(all);
    int64_t size;
    uint64_t tag;
    int fd;
    path_of(s, path);
    bool good = !bq_file_open_own(path, O_RDONLY, &fd);
    good = good && bq_seal_check(fd, true, &size, &tag) && tag == s->fingerprint && size == (int64_t)bytes &&
           bq_raw_read(fd, all->memory, bytes, 0);
    if (fd >= 0) close(fd);
    if (!good) memset(all->memory, 0, bytes);
    memcpy(&all->done, all->memory, sizeof all->done);
    return good;
}

void bq_rotations_write(const bq_rotations *all, const bq_run *s) {
    char path[BQ_PATH_MAX + 32], temp[BQ_PATH_MAX + 64];
    const size_t bytes = bq_rotations_bytes(all);
    int fd;
    path_of(s, path);
    bq_temp_name(temp, sizeof temp, path);
    memcpy(all->memory, &all->done, sizeof all->done);
    int error = bq_file_create(temp, &fd);
    BQ_CHECK(!error, "'%s' cannot be made: %s", temp, bq_file_why(error));
    bool good = bq_raw_write(fd, all->memory, bytes, 0) && bq_seal_append(fd, (int64_t)bytes, s->fingerprint);
    BQ_CHECK(good, "write of '%s' failed: %s", temp, strerror(errno));
    error = bq_raw_sync(fd);
    close(fd);
    if (!error) error = bq_file_rename(temp, path);
    BQ_CHECK(!error, "write of '%s' failed: %s", path, bq_file_why(error));
}
