/* SPDX-License-Identifier: Apache-2.0 */
/* Round to nearest on matrices that are Q4_1 already: 4 bits, groups of 32, with zero points.
 *
 * Q4_1 has d * q + m, blockq has scale * (code - zero) with a whole zero.  The scale is d, and the code is
 * that of q.  What is lost is the fraction of m / d: all 32 values move by the same distance, at most d / 2.
 * Where m is a multiple of d every bit is the same; where it is half a step off, ties are to even codes. */
#include "gguf_file.h"

#include "base/num.h"
#include "io/in/gguf.h"
#include "kernels/ops.h"

#include <math.h>

enum { GROUPS = 121, COLS = 32 };
static const bq_scheme scheme = {BQ_INT4, COLS, false, BQ_F32, BQ_GRID_AIMET, 1, 0};

/* Group g has m = -g / 8 * d.  Its q are 0 ... 15, twice. */
static int q_of(int group, int col) { return col < 16 ? (col * 7 + group) % 16 : 31 - col; }
static float d_of(int group) { return (float)(1 + group % 16) / 4096; }

static void make_file(void) {
    static char line[GGUF_ROOM];
    size_t n = (size_t)snprintf(line, sizeof line, "%s", HEAD(1, 0) TENSOR2("t", 32, 121, 3, 0) "|32 ");
    for (int g = 0; g < GROUPS; g++) {
        float d = d_of(g), m = -(float)g / 8 * d;
        n += (size_t)snprintf(line + n, sizeof line - n, "h%u h%u ", bq_to_f16(d), bq_to_f16(m));
        for (int c = 0; c < 16; c++)
            n += (size_t)snprintf(line + n, sizeof line - n, "b%d ", q_of(g, c) | q_of(g, c + 16) << 4);
    }
    gguf_save("q41.gguf", line);
}

static void check_group(int g, const float *w, const float *back, const int8_t *code, float scale) {
    float d = d_of(g), away = (float)((g + 4) / 8 * 8 - g) / 8 * d; /* to the nearest whole zero */
    assert_true(scale == d);
    for (int c = 0; c < COLS; c++) {
        assert_true(w[c] == d * (float)q_of(g, c) - (float)g / 8 * d);
        if (g % 8 == 4) {
            assert_true(fabsf(back[c] - w[c]) == d / 2);
        } else {
            assert_int_equal(code[c], q_of(g, c) - 8);
            assert_true(w[c] - back[c] == away);
        }
    }
}

static void groups(void **state) {
    (void)state;
    static float w[GROUPS][COLS], back[GROUPS][COLS], scale[GROUPS], zero[GROUPS];
    static int8_t code[GROUPS][COLS];
    bq_gguf *g;
    bq_dev dev;
    make_file();
    assert_int_equal(bq_gguf_open(&g, temp_path("q41.gguf")), BQ_OK);
    bq_mat from = bq_mat_host(w, GROUPS, COLS, BQ_F32), to = bq_mat_host(back, GROUPS, COLS, BQ_F32);
    bq_gguf_read(g, bq_gguf_at(g, 0), 0, GROUPS, from);
    bq_gguf_close(g);
    assert_int_equal(bq_dev_open(&dev, "cpu", 1, 0), BQ_OK);
    bq_mat scales = bq_mat_host(scale, GROUPS, 1, BQ_F32), zeros = bq_mat_host(zero, GROUPS, 1, BQ_F32);
    bq_mat codes = bq_mat_host(code, GROUPS, COLS, BQ_I8);
    dev.op->range(&dev, from, scheme, scales, zeros);
    dev.op->quantize(&dev, from, scales, zeros, scheme, codes);
    dev.op->dequantize(&dev, codes, scales, zeros, scheme, to);
    dev.op->wait(&dev);
    bq_dev_close(&dev);
    for (int i = 0; i < GROUPS; i++) check_group(i, w[i], back[i], code[i], scale[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(groups)};
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
