/* SPDX-License-Identifier: Apache-2.0 */
/* bench_io - speed of the files that a run reads and writes, as csv on standard output.
 *
 *     bench_io DIR [MiB [RUNS]] [--compare OLD.csv]      defaults: 256 MiB a file, 5 runs; DIR is where the
 * files go
 *
 * Beside every run as many bytes go through plain write and fsync, or pread, of a file of their own in pieces
 * of a sample.  Before every read the kernel is asked to forget the file (POSIX_FADV_DONTNEED).  The fraction
 * is the median over runs of raw seconds by ours; seconds are the least.  A build with BQ_PHDF5 has rows for
 * activations through MPI-IO, by one rank. */
#include "base/clock.h"
#include "base/die.h"
#include "compare.h"
#include "io/state/checkpoint.h"
#include "io/state/reader.h"
#include "io/in/weights.h"
#include "io/out/writer.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS = 512, HIDDEN = 2048, SAMPLE = TOKENS * HIDDEN, RUNS_MAX = 99 };

static const char *dir;
static int64_t samples;
static int runs = 5;
static float *data; /* of all samples */

static const char *path_of(const char *name) {
    static char path[4][1024];
    static int turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static void forget(const char *path) {
    int fd = open(path, O_RDONLY);
    BQ_CHECK(fd >= 0 && fsync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0,
             "%s cannot be dropped from the cache", path);
    close(fd);
}

static void must(bool good, const char *what) { BQ_CHECK(good, "%s failed", what); }

/* ---- raw ---- */

static void raw_write(size_t bytes) {
    const char *from = (const char *)data;
    int fd = open(path_of("raw"), O_RDWR | O_CREAT | O_TRUNC, 0666);
    must(fd >= 0, "open");
    for (size_t at = 0, n; at < bytes; at += n) {
        n = bytes - at < sizeof *data * SAMPLE ? bytes - at : sizeof *data * SAMPLE;
        must(write(fd, from + at, n) == (ssize_t)n, "write");
    }
    must(fsync(fd) == 0 && close(fd) == 0, "sync");
}

static void raw_read(size_t bytes) {
    char *to = (char *)data;
    int fd = open(path_of("raw"), O_RDONLY);
    must(fd >= 0, "open");
    for (size_t at = 0, n; at < bytes; at += n) {
        n = bytes - at < sizeof *data * SAMPLE ? bytes - at : sizeof *data * SAMPLE;
        must(read(fd, to + at, n) == (ssize_t)n, "read");
    }
    close(fd);
}

/* ---- ours ---- */

static bq_comm comm;
static bool by_mpi; /* through MPI-IO */

static void acts_write(void) {
    bq_acts *a;
    bq_acts_create(&a, path_of("acts.h5"), samples, TOKENS, HIDDEN, 1);
    if (by_mpi) bq_acts_join(a, &comm);
    for (int64_t i = 0; i < samples; i++) bq_acts_write(a, i, data + i * SAMPLE);
    bq_acts_sync(a);
    bq_acts_close(a);
}

static bq_acts *acts_open(void) {
    bq_acts *a;
    must(bq_acts_open(&a, path_of("acts.h5"), samples, TOKENS, HIDDEN, 1, NULL) == BQ_ACTS_OK, "open");
    if (by_mpi) bq_acts_join(a, &comm);
    return a;
}

static void acts_read(void) {
    bq_acts *a = acts_open();
    for (int64_t i = 0; i < samples; i++) must(bq_acts_read(a, i, data + i * SAMPLE), "read of a sample");
    bq_acts_close(a);
}

static void acts_ahead(void) {
    bq_acts *a = acts_open();
    bq_reader *r = bq_reader_open(a, SAMPLE, 0, samples, 4);
    for (int64_t i = 0; i < samples; i++) must(bq_reader_next(r), "read of a sample");
    bq_reader_close(r);
    bq_acts_close(a);
}

static void weights_write(const char *dtype, const char *name) {
    bq_writer *w = bq_writer_plan();
    int64_t rows = samples * TOKENS, width = strcmp(dtype, "F32") ? 2 : 1;
    bq_writer_add(w, "weight", dtype, 2, (int64_t[]){rows * width, HIDDEN});
    bq_writer_open(w, path_of(name));
    for (int64_t i = 0; i < samples; i++) bq_writer_put(w, data + i * SAMPLE, sizeof *data * SAMPLE);
    bq_writer_close(w);
}

static void weights_read(const char *name) {
    bq_weights *w;
    must(bq_weights_open(&w, path_of(name)) == BQ_OK, "open");
    const bq_tensor *t = bq_weights_at(w, 0);
    for (int64_t r = 0; r < t->shape[0]; r += TOKENS)
        bq_weights_read(w, t, r, TOKENS, bq_mat_host(data, TOKENS, HIDDEN, BQ_F32));
    bq_weights_close(w);
}

static void f32_write(void) { weights_write("F32", "f32.safetensors"); }
static void f32_read(void) { weights_read("f32.safetensors"); }
static void bf16_write(void) { weights_write("BF16", "bf16.safetensors"); }
static void bf16_read(void) { weights_read("bf16.safetensors"); }

/* One linear: 4 bytes of a folded weight, one of its code. */
static bq_ckpt_linear linear(void) {
    static float scale[1 << 20];
    int64_t rows = samples * TOKENS * 4 / 5;
    bq_ckpt_linear l = {.name = "weight", .scheme = {4, -1, true, BQ_F32}};
    l.fold = bq_mat_host(data, rows, HIDDEN, BQ_F32);
    l.code = bq_mat_host(data + rows * HIDDEN, rows, HIDDEN, BQ_I8);
    l.scale = bq_mat_host(scale, rows, 1, BQ_F32);
    return l;
}

static void ckpt_write(void) {
    bq_ckpt c = {.fingerprint = 1, .linears = 1, .linear = {linear()}};
    bq_ckpt_write(path_of("ckpt.h5"), &c);
}

static void ckpt_read(void) {
    bq_ckpt head;
    bq_ckpt_file *f;
    bq_ckpt_linear l = linear();
    must(bq_ckpt_open(&f, path_of("ckpt.h5"), 1, &head, NULL) == BQ_CKPT_OK, "open");
    bq_ckpt_read(f, 0, BQ_CKPT_FOLD, l.fold);
    bq_ckpt_read(f, 0, BQ_CKPT_CODE, l.code);
    bq_ckpt_close(f);
}

/* ---- the table ---- */

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* file: forgotten before each run of `work`, NULL where it is written. */
static void report(const char *what, const char *file, void (*work)(void)) {
    double best = INFINITY, least = INFINITY, of[RUNS_MAX];
    size_t bytes = (size_t)samples * sizeof *data * SAMPLE;
    char shape[32];
    for (int r = 0; r < runs; r++) {
        if (file) forget(path_of("raw"));
        double start = bq_seconds();
        (file ? raw_read : raw_write)(bytes);
        double raw = bq_seconds() - start;
        if (file) forget(path_of(file));
        start = bq_seconds();
        work();
        double seconds = bq_seconds() - start;
        of[r] = raw / seconds, best = fmin(best, seconds), least = fmin(least, raw);
    }
    qsort(of, (size_t)runs, sizeof *of, by_size);
    snprintf(shape, sizeof shape, "%zu MiB", bytes >> 20);
    printf("%s,%s,%.4f,%.1f,%.1f,%.3f\n", what, shape, best, (double)bytes / best / 1e6,
           (double)bytes / least / 1e6, of[runs / 2]);
    fflush(stdout);
    compare_row(what, shape, 1, &of[runs / 2]);
}

static void clean(void) {
    static const char *const files[] = {
        "raw", "acts.h5", "acts.h5.valid", "f32.safetensors", "bf16.safetensors", "ckpt.h5"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) unlink(path_of(files[i]));
}

int main(int argc, char **argv) {
    compare_open(&argc, argv);
    int64_t mib = argc > 2 ? atol(argv[2]) : 256;
    if (argc > 3) runs = atoi(argv[3]);
    if (argc < 2 || mib < 20 || mib > 4096 || runs < 1 || runs > RUNS_MAX)
        return fprintf(stderr, "usage: bench_io DIR [MiB, 20 to 4096 [RUNS]] [--compare OLD.csv]\n"), 2;
    dir = argv[1];
    samples = mib * 1048576 / (int64_t)sizeof *data / SAMPLE;
    data = malloc((size_t)samples * sizeof *data * SAMPLE);
    BQ_CHECK(data, "no memory for %ld samples", (long)samples);
    for (int64_t i = 0; i < samples * SAMPLE; i++) data[i] = (float)(i * 2654435761 % 1999) * 1e-3f - 1;
    printf("# samples of %d x %d\nwhat,size,seconds,mb_s,raw_mb_s,of_raw\n", TOKENS, HIDDEN);
    report("activations write", NULL, acts_write);
    report("activations read", "acts.h5", acts_read);
    report("activations read ahead", "acts.h5", acts_ahead);
    if ((by_mpi = bq_mpio_built())) {
        must(bq_comm_open(&comm, &argc, &argv) == BQ_OK, "MPI");
        report("activations write, MPI-IO", NULL, acts_write);
        report("activations read, MPI-IO", "acts.h5", acts_read);
        bq_comm_close(&comm);
    }
    report("weights F32 write", NULL, f32_write);
    report("weights F32 read", "f32.safetensors", f32_read);
    report("weights BF16 write", NULL, bf16_write);
    report("weights BF16 read", "bf16.safetensors", bf16_read);
    report("checkpoint write", NULL, ckpt_write);
    report("checkpoint read", "ckpt.h5", ckpt_read);
    clean();
    free(data);
    return compare_close();
}
