/* SPDX-License-Identifier: Apache-2.0 */
/* torchao's quantization-aware training of a linear: rounded weights and inputs, outputs, gradients, learned
 * scales, and what a trained weight is converted to.  auto-round's training is in test_peer_train.c. */
#include "golden/replay.h"

#include "base/die.h"
#include "kernels/ops.h"

#include <float.h>
#include <string.h>

#define EPS       1.1920928955078125e-7
#define SYM(bits) .element = bits, .symmetric = true, .grid = BQ_GRID_TORCHAO, .scale = BQ_F32
#define ZEROS(bits, least)                                                                                   \
    { bits, false, false, BQ_ROUND_RECIPROCAL, -1, BQ_F32, least }
#define E4M3_LEAST (1e-12f / 448)

typedef struct {
    const char *name;
    bq_scheme s;
    bq_rounding inputs; /* element 0: as they are */
    bool bias, slopes;  /* slopes: torchao's gradients are blockq's */
    bq_tune form;
} train_case;

static const train_case cases[] = {
    {"8da4w", {SYM(4), .group = 32, .eps = FLT_MIN}, ZEROS(BQ_INT8, FLT_MIN), true, true, BQ_TUNE_WEIGHTS},
    {"8da4w_legacy", {SYM(4), .group = 32, .eps = FLT_MIN}, ZEROS(BQ_INT8, EPS), true, true, BQ_TUNE_WEIGHTS},
    {"int2wo_ch", {SYM(2), .group = 128, .eps = FLT_MIN}, {0}, true, true, BQ_TUNE_WEIGHTS},
    {"int8_ch", {SYM(8), .group = 128, .eps = FLT_MIN}, {0}, true, true, BQ_TUNE_WEIGHTS},
    {"range_sym", {SYM(4), .group = 32}, {0}, false, true, BQ_TUNE_SCALES},
    {"range_asym",
     {.element = 4, .group = 32, .grid = BQ_GRID_TORCHAO, .scale = BQ_F32},
     {0},
     false,
     true,
     BQ_TUNE_SCALES},
    {"mxfp4",
     {BQ_E2M1, 32, true, BQ_F8_E8M0, BQ_GRID_TORCHAO, .power = BQ_POWER_RCEIL},
     {BQ_E2M1, true, false, BQ_ROUND_RECIPROCAL, 32, BQ_F8_E8M0, 0, BQ_POWER_RCEIL},
     false,
     true,
     BQ_TUNE_WEIGHTS},
    /* torchao rounds the gradients of FP8 to e4m3, and has one for the scale */
    {"fp8_row",
     {SYM(BQ_E4M3), .group = 128, .eps = (double)E4M3_LEAST},
     {BQ_E4M3, true, false, BQ_ROUND_DIVIDE, -1, BQ_F32, E4M3_LEAST},
     true,
     false,
     BQ_TUNE_WEIGHTS},
    {"fp8_tensor",
     {SYM(BQ_E4M3), .group = 16 * 128},
     {BQ_E4M3, true, true, BQ_ROUND_DIVIDE, -1, BQ_F32, 0},
     true,
     false,
     BQ_TUNE_WEIGHTS},
};

typedef struct {
    golden *g;
    golden_report *r;
    bq_dev dev;
    bq_mat w_hat, scale, zero, slopes; /* of the case at hand: rows are groups */
} trained;

static bq_mat room(trained *t, int64_t rows, int64_t cols) {
    return bq_mat_host(golden_keep(t->g, (size_t)(rows * cols) * sizeof(float)), rows, cols, BQ_F32);
}

/* a b in double; of a and of b the transposes where said. */
static bq_mat product(trained *t, bq_mat a, bool at, bq_mat b, bool bt) {
    const int64_t n = at ? a.rows : a.cols;
    bq_mat c = room(t, at ? a.cols : a.rows, bt ? b.rows : b.cols);
    for (int64_t i = 0; i < c.rows; i++)
        for (int64_t j = 0; j < c.cols; j++) {
            double sum = 0;
            for (int64_t k = 0; k < n; k++)
                sum += (double)(at ? bq_f32(a)[k * a.cols + i] : bq_f32(a)[i * a.cols + k]) *
                       (double)(bt ? bq_f32(b)[j * b.cols + k] : bq_f32(b)[k * b.cols + j]);
            bq_f32(c)[i * c.cols + j] = (float)sum;
        }
    return c;
}

/* Compare with qat/<name>/<part> if it is there. */
static void compare(trained *t, const char *what, double limit, bq_mat have, const char *name,
                    const char *part) {
    if (!golden_has(t->g, "qat/%s/%s", name, part)) return;
    char at[64];
    snprintf(at, sizeof at, "%s/%s", name, part);
    golden_compare(golden_row_of(t->r, what, limit, 0), limit > 0 ? GOLDEN_LARGEST : GOLDEN_ABSOLUTE, have,
                   golden_read(t->g, BQ_F32, have.rows, have.cols, "qat/%s/%s", name, part), at);
}

/* Forward of w, (groups, columns), and the gradients from up = dL/dw_hat. */
static void fake_quantize(trained *t, const train_case *c, bq_mat w, bq_mat up) {
    bq_tuned p = {.form = c->form, .w = w, .value = w};
    t->w_hat = room(t, w.rows, w.cols), t->scale = room(t, w.rows, 1);
    t->zero = c->s.symmetric ? (bq_mat){0} : room(t, w.rows, 1);
    t->slopes = room(t, w.rows, w.cols + 2);
    if (c->form == BQ_TUNE_SCALES) {
        p.low = golden_read(t->g, BQ_F32, w.rows, 1, "qat/%s/zero", c->name);
        p.high = golden_read(t->g, BQ_F32, w.rows, 1, "qat/%s/scale", c->name);
    }
    t->dev.op->tuned_weights(&t->dev, &p, c->s, t->w_hat, t->scale, t->zero, (bq_mat){0});
    t->dev.op->tuned_step(&t->dev, &p, c->s, t->scale, t->zero, up, (bq_mat){0}, t->slopes);
}

/* Columns of the gradients as a matrix of this shape. */
static bq_mat slope(trained *t, int64_t first, int64_t cols, int64_t rows) {
    bq_mat part = room(t, t->slopes.rows, cols);
    t->dev.op->copy(&t->dev, bq_mat_cols(t->slopes, first, cols), part);
    return bq_mat_host(part.data, rows, part.rows * cols / rows, BQ_F32);
}

static bq_mat rounded(trained *t, bq_mat x, bq_rounding how) {
    bq_mat ends = room(t, bq_rounding_groups(how, x.cols), 2), y = room(t, x.rows, x.cols);
    if (!how.element) return x;
    t->dev.op->zero(&t->dev, ends);
    t->dev.op->ends(&t->dev, x, how.group, ends);
    t->dev.op->grid_of_ends(&t->dev, ends, how, ends);
    t->dev.op->round_rows(&t->dev, x, how, ends, y);
    return y;
}

static void compare_outputs(trained *t, bool biased, bq_mat xq, bq_mat wq, const char *name,
                            const char *part) {
    bq_mat y = product(t, xq, false, wq, true), bias = golden_read(t->g, BQ_F32, 1, 16, "qat/bias");
    for (int64_t i = 0; biased && i < y.rows * y.cols; i++) bq_f32(y)[i] += bq_f32(bias)[i % y.cols];
    compare(t, "outputs", 2e-6, y, name, part);
}

static void check(trained *t, const train_case *c) {
    bq_mat w = golden_read(t->g, BQ_F32, 16, 128, "in/W"), x = golden_read(t->g, BQ_F32, -1, 128, "in/X"),
           dy = golden_read(t->g, BQ_F32, x.rows, 16, "in/dY"), xq = rounded(t, x, c->inputs);
    fake_quantize(t, c, bq_mat_reshape(w, c->s.group),
                  bq_mat_reshape(product(t, dy, true, xq, false), c->s.group));
    bq_mat wq = bq_mat_host(t->w_hat.data, 16, 128, BQ_F32);
    compare(t, "weights", 0, wq, c->name, "wq");
    compare(t, "rounded inputs", 0, xq, c->name, "xq");
    compare_outputs(t, c->bias, xq, wq, c->name, "y");
    if (!c->slopes) {
        golden_pass_over(t->g, "qat/%s/d", c->name);
        t->r->left++;
        return;
    }
    const int64_t cols = c->s.group;
    compare(t, "gradients of weights", 1e-6, slope(t, 0, cols, 16), c->name, "dW");
    compare(t, "of inputs", 1e-6, product(t, dy, false, wq, false), c->name, "dX");
    compare(t, "of scales", 1e-6, slope(t, cols + 1, 1, 16), c->name, "dscale");
    if (!c->s.symmetric) compare(t, "of zero points", 5e-6, slope(t, cols, 1, 16), c->name, "dzero");
}

/* Rows of a table, some of them taken more than once. */
static void embedding(trained *t) {
    const train_case c = {"embedding",    {SYM(4), .group = 32, .eps = FLT_MIN}, {0}, false, true,
                          BQ_TUNE_WEIGHTS};
    bq_mat w = golden_read(t->g, BQ_F32, -1, 96, "in/B"), up = room(t, w.rows, w.cols),
           ids = golden_read(t->g, BQ_I32, -1, -1, "qat/embedding/ids"),
           d = golden_read(t->g, BQ_F32, -1, 96, "qat/embedding/dE"), out = room(t, d.rows, d.cols);
    const int32_t *id = ids.data;
    for (int64_t i = 0; i < d.rows; i++) {
        if (id[i] < 0 || id[i] >= w.rows)
            bq_refuse_job(BQ_DATA, "%s: a token is no row of 'in/B'", t->g->path);
        for (int64_t k = 0; k < 96; k++) bq_f32(up)[id[i] * 96 + k] += bq_f32(d)[i * 96 + k];
    }
    fake_quantize(t, &c, bq_mat_reshape(w, 32), bq_mat_reshape(up, 32));
    for (int64_t i = 0; i < d.rows; i++)
        memcpy(bq_f32(out) + i * 96, bq_f32(t->w_hat) + id[i] * 96, 96 * sizeof(float));
    compare(t, "weights", 0, out, "embedding", "out");
    compare(t, "gradients of weights", 1e-6, slope(t, 0, 32, w.rows), "embedding", "dW");
}

/* A trained weight becomes the codes of its last forward. */
static void convert(trained *t) {
    const train_case *c = &cases[0];
    bq_mat w = bq_mat_reshape(golden_read(t->g, BQ_F32, 16, 128, "in/W"), 32),
           code = bq_mat_host(golden_keep(t->g, 16 * 128), w.rows, w.cols, BQ_I8), back = room(t, w.rows, 32);
    fake_quantize(t, c, w, w);
    t->dev.op->quantize(&t->dev, w, t->scale, (bq_mat){0}, c->s, code);
    t->dev.op->dequantize(&t->dev, code, t->scale, (bq_mat){0}, c->s, back);
    golden_compare(golden_codes_of(t->r, "codes", 0, 0), GOLDEN_ABSOLUTE, code,
                   golden_read(t->g, BQ_I8, w.rows, 32, "qat/convert_8da4w/q"), "convert_8da4w");
    golden_compare(golden_row_of(t->r, "weights", 0, 0), GOLDEN_ABSOLUTE, back, t->w_hat, "convert_8da4w");
    compare(t, "scales", 0, t->scale, "convert_8da4w", "scale");
    compare_outputs(t, true, rounded(t, golden_read(t->g, BQ_F32, -1, 128, "in/X"), c->inputs),
                    bq_mat_host(back.data, 16, 128, BQ_F32), "convert_8da4w", "y_prepare");
}

void golden_train(golden *g, bq_comm *comm, golden_report *r) {
    trained t = {.g = g, .r = r};
    (void)comm;
    golden_require(bq_dev_open(&t.dev, "cpu", 1, (size_t)1 << 20));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check(&t, &cases[i]);
    embedding(&t);
    convert(&t);
    golden_pass_over(g, "autoround/");
    bq_dev_close(&t.dev);
}
