/* SPDX-License-Identifier: Apache-2.0 */
/* ckpt.h - checkpoint files for tests: opening one that does not count, and sealing any file. */
#ifndef CKPT_H
#define CKPT_H

#include "io/state/checkpoint.h"
#include "io/state/raw.h"
#include "unit/io/temp.h"

#include <fcntl.h>

static const uint64_t print = 0xabcdef0123456789u;

static inline void expect(const char *path, uint64_t fingerprint, int status, const char *needle) {
    bq_ckpt head;
    bq_ckpt_file *f;
    char why[BQ_WHY], err[256];
    int fd = captured_fd(0), rc = bq_ckpt_open(&f, path, fingerprint, &head, why);
    captured_text(fd, err, sizeof err);
    if (rc != status || !strstr(why, needle))
        fail_msg("status %d, not %d with '%s': %s", rc, status, needle, why);
    assert_string_equal(err, "");
    assert_null(f);
}

/* Whole files by their seal, with contents that no program of ours wrote. */
static inline void reseal(const char *path) {
    int fd = open(path, O_RDWR);
    struct stat st;
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    assert_true(bq_seal_append(fd, st.st_size, print));
    close(fd);
}

#endif
