/* SPDX-License-Identifier: Apache-2.0 */
/* States inside a block, of any bytes: a good one with bytes changed, its seal in order.  The HDF5
 * library makes the good one and reads none. */
#include "io/state/midblock.h"
#include "io/state/raw.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { PARTS = 2, ROWS = 3, COLS = 10 };
static char good[65536];
static size_t good_size; /* seal included */
static const bq_inside asked = {.fingerprint = 9,
                                .steps = 4,
                                .previous = NAN,
                                .parts = PARTS,
                                .part = {{"a_s2", ROWS, COLS}, {"a_beta", ROWS, COLS}}};

static void make_good(void) {
    float w[ROWS * COLS] = {0};
    double loss[4] = {0};
    char path[] = "/tmp/fuzz-inside-XXXXXX";
    bq_inside in = asked;
    in.loss = loss;
    int fd = mkstemp(path);
    if (fd < 0) abort();
    bq_inside_file *f = bq_inside_create(path, &in);
    for (int p = 0; p < PARTS; p++) bq_inside_write(f, p, bq_mat_host(w, ROWS, COLS, BQ_F32));
    bq_inside_commit(f);
    FILE *file = fopen(path, "rb");
    if (!file) abort();
    good_size = fread(good, 1, sizeof good, file);
    fclose(file);
    close(fd);
    unlink(path);
}

/* What opens is read to the last value. */
static void read_all(bq_inside_file *f, const bq_inside *in) {
    float w[ROWS * COLS];
    double *loss = calloc((size_t)in->steps, sizeof *loss);
    if (!loss || in->pass < 0) abort();
    bq_inside_read_loss(f, loss);
    for (int p = 0; p < PARTS; p++) bq_inside_read(f, p, 0, bq_mat_host(w, ROWS, COLS, BQ_F32));
    free(loss);
}

/* Edits of the good file: (place, place, value).  An odd first byte leaves the seal as it was. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static char file[sizeof good];
    char path[64], why[BQ_WHY];
    bq_inside in = asked;
    if (!good_size) make_good();
    bool seal = bytes == 0 || data[0] % 2 == 0;
    size_t n = seal ? good_size - BQ_SEAL : good_size;
    memcpy(file, good, good_size);
    for (size_t i = 1; i + 3 <= bytes; i += 3)
        file[(data[i] << 8 | data[i + 1]) % (int)n] = (char)data[i + 2];
    int fd = memfd_create("inside", 0);
    if (fd < 0 || !bq_raw_write(fd, file, n, 0)) abort();
    if (seal && !bq_seal_append(fd, (int64_t)n, 9)) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    bq_inside_file *f = bq_inside_open(path, &in, why);
    if (f && !seal && memcmp(file, good, n)) abort(); /* damaged, and believed */
    if (f) read_all(f, &in);
    if (!f && !why[0]) abort();
    bq_inside_close(f);
    close(fd);
    return 0;
}
