/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of any bytes, and a good one with bytes changed, with and without a seal that agrees.  Run with
 * -max_len=512 -close_fd_mask=2.  The HDF5 library makes the good one and reads none. */
#include "io/state/checkpoint.h"
#include "io/state/raw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char good[65536];
static size_t good_size; /* seal included */

static void make_good(void) {
    float w[30] = {0}, scale[9] = {0}, norm[6] = {0};
    int8_t code[30] = {0};
    double loss[4] = {0};
    char path[] = "/tmp/fuzz-checkpoint-XXXXXX";
    bq_ckpt c = {.fingerprint = 9, .linears = 4, .steps = 4, .loss = loss};
    for (int i = 0; i < 2; i++) c.norm[i] = bq_mat_host(norm, 1, 6, BQ_F32);
    for (int l = 0; l < 4; l++) /* packed; not quantized; packed, with all else; 8 bits */
        c.linear[l] = (bq_ckpt_linear){.name = "q",
                                       .scheme = {l == 3 ? 8 : 4, 4, l != 2, BQ_F32, BQ_GRID_AIMET, 1, 0},
                                       .fold = bq_mat_host(w, l % 3 ? 3 : 0, 10, BQ_F32),
                                       .code = bq_mat_host(code, l == 1 ? 0 : 3, 10, BQ_I8),
                                       .scale = bq_mat_host(scale, l == 1 ? 0 : 3, 3, BQ_F32),
                                       .zero = bq_mat_host(scale, l == 2 ? 3 : 0, 3, BQ_F32),
                                       .bias = bq_mat_host(norm, l == 1, 3, BQ_F32),
                                       .pre = bq_mat_host(w, l == 2, 10, BQ_F32)};
    int fd = mkstemp(path);
    if (fd < 0) abort();
    bq_ckpt_write(path, &c);
    FILE *f = fopen(path, "rb");
    if (!f) abort();
    good_size = fread(good, 1, sizeof good, f);
    fclose(f);
    close(fd);
    unlink(path);
}

/* First byte even: the rest is the file.  Odd: the rest are edits of the good file, (place, place, value). */
static size_t compose(const uint8_t *data, size_t bytes, char *file) {
    if (bytes == 0 || data[0] % 2 == 0) {
        memcpy(file, data, bytes);
        return bytes;
    }
    memcpy(file, good, good_size);
    for (size_t i = 1; i + 3 <= bytes; i += 3)
        file[(data[i] << 8 | data[i + 1]) % (int)good_size] = (char)data[i + 2];
    return good_size - BQ_SEAL;
}

static void read_part(bq_ckpt_file *f, int linear, bq_ckpt_part part, bq_mat m) {
    if (m.rows == 0) return;
    m.data = malloc((size_t)(m.rows * m.cols) * bq_type_size(m.type));
    if (!m.data) abort();
    bq_ckpt_read(f, linear, part, m);
    free(m.data);
}

static void read_all(bq_ckpt_file *f, const bq_ckpt *head) {
    double *loss = calloc((size_t)head->steps + 1, sizeof *loss);
    if (!loss) abort();
    bq_ckpt_read_loss(f, loss);
    free(loss);
    for (int l = 0; l < head->linears; l++) {
        read_part(f, l, BQ_CKPT_FOLD, head->linear[l].fold);
        read_part(f, l, BQ_CKPT_CODE, head->linear[l].code);
        read_part(f, l, BQ_CKPT_SCALE, head->linear[l].scale);
        read_part(f, l, BQ_CKPT_ZERO, head->linear[l].zero);
        read_part(f, l, BQ_CKPT_BIAS, head->linear[l].bias);
        read_part(f, l, BQ_CKPT_PRE, head->linear[l].pre);
    }
    for (int i = 0; i < 2 && bq_ckpt_folded(head); i++) {
        bq_mat norm = head->norm[i];
        norm.data = malloc((size_t)norm.cols * sizeof(float));
        if (!norm.data) abort();
        bq_ckpt_read_norm(f, i, norm);
        free(norm.data);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static char file[1 << 20];
    static bq_ckpt head;
    char path[64];
    bq_ckpt_file *f;
    if (!good_size) make_good();
    if (bytes > sizeof file) return 0;
    size_t n = compose(data, bytes, file);
    int fd = memfd_create("checkpoint", 0);
    if (fd < 0 || !bq_raw_write(fd, file, n, 0)) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (bytes == 0 || data[0] % 4 != 1) { /* else without a seal, or with what the input has in its place */
        if (!bq_seal_append(fd, (int64_t)n, 9)) abort();
    } else if (bq_ckpt_peek(path, 9) == BQ_CKPT_OK)
        abort();
    if (bq_ckpt_open(&f, path, 9, &head, NULL) == BQ_CKPT_OK) read_all(f, &head);
    bq_ckpt_close(f);
    close(fd);
    return 0;
}
