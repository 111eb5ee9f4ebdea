/* SPDX-License-Identifier: Apache-2.0 */
/* What trainings compute, against torchao and auto-round (tests/vectors/README.md): auto-round's whole
 * training of a layer; the rest is in replay_peer_train.c. */
#include "golden.h"

#include "kernels/adam.h"

static golden g;
static bq_dev dev;
static const bq_mat none;

static bq_mat mat(const char *name, const char *key) {
    return golden_read(&g, BQ_F32, -1, -1, "%s/%s", name, key);
}
static bq_mat room(int64_t rows, int64_t cols) {
    return bq_mat_host(golden_keep(&g, (size_t)(rows * cols) * sizeof(float)), rows, cols, BQ_F32);
}

/* a^T b in double. */
static bq_mat product(bq_mat a, bq_mat b) {
    bq_mat c = room(a.cols, b.cols);
    for (int64_t i = 0; i < a.cols; i++)
        for (int64_t j = 0; j < b.cols; j++) {
            double sum = 0;
            for (int64_t k = 0; k < a.rows; k++)
                sum += (double)bq_f32(a)[k * a.cols + i] * (double)bq_f32(b)[k * b.cols + j];
            bq_f32(c)[i * b.cols + j] = (float)sum;
        }
    return c;
}

/* Elements as near as limit * the largest, but for those with `free`; at least half of them are compared. */
static void near_to(const char *what, bq_mat have, int64_t ld, const float *want, double limit,
                    const bool *open) {
    double most = 0;
    int64_t compared = 0, all = have.rows * have.cols;
    for (int64_t i = 0; i < all; i++) most = fmax(most, fabs((double)want[i]));
    for (int64_t i = 0; i < all; i++) {
        double x = (double)bq_f32(have)[i / have.cols * ld + i % have.cols];
        if (open && open[i]) continue;
        compared++;
        if (!(fabs(x - (double)want[i]) <= limit * most))
            fail_msg("%s, element %ld: %.9g, not %.9g", what, (long)i, x, (double)want[i]);
    }
    assert_true(2 * compared >= all);
}

static void qat(void **state) {
    (void)state;
    golden_report r = golden_check("peer_train", NULL);
    assert_int_equal(golden_compared(&r, "gradients of weights"), 8);
    assert_int_equal(golden_compared(&r, "outputs"), 8);
    assert_int_equal(r.left, 2);
}

enum { ROWS = 24, COLS = 64, GROUP = 32, GROUPS = ROWS * COLS / GROUP, ITERATIONS = 40 };

/* dL/dw_hat of the mean squared error of w_hat x beside w x; *loss. */
static bq_mat slope(bq_mat w_hat, bq_mat w, bq_mat moments, double tokens, double *loss) {
    bq_mat d = room(ROWS, COLS);
    *loss = 0;
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t c = 0; c < COLS; c++) {
            double sum = 0;
            for (int64_t k = 0; k < COLS; k++)
                sum += ((double)bq_f32(w_hat)[r * COLS + k] - (double)bq_f32(w)[r * COLS + k]) *
                       (double)bq_f32(moments)[k * COLS + c];
            *loss += sum * ((double)bq_f32(w_hat)[r * COLS + c] - (double)bq_f32(w)[r * COLS + c]) /
                     (tokens * ROWS);
            bq_f32(d)[r * COLS + c] = (float)(2 * sum / (tokens * ROWS));
        }
    return bq_mat_reshape(d, GROUP);
}

typedef struct {
    bq_tuned p;
    bq_mat w_hat, scale, zero, fold, grad;
} layer;

static layer layer_of(bq_mat w, bool symmetric) {
    layer l = {.w_hat = room(GROUPS, GROUP),
               .scale = room(GROUPS, 1),
               .fold = room(GROUPS, GROUP),
               .grad = room(GROUPS, GROUP + 2)};
    if (!symmetric) l.zero = room(GROUPS, 1);
    l.p = (bq_tuned){.form = BQ_TUNE_ROUNDING,
                     .optimizer = BQ_SIGN,
                     .w = w,
                     .lo = room(GROUPS, 1),
                     .hi = room(GROUPS, 1),
                     .low = room(GROUPS, 1),
                     .high = room(GROUPS, 1),
                     .value = room(GROUPS, GROUP)};
    dev.op->zero(&dev, l.p.value), dev.op->set(&dev, l.p.low, 1), dev.op->set(&dev, l.p.high, 1);
    return l;
}

/* All steps; the codes are those of the step with the least loss.  auto-round rounds the gradient of a scale
 * in f16 to f16, and so may take another way from some step on. */
static void whole_training(const char *name, int bits, bq_type scale, double fine, double way, int others) {
    bq_scheme s = {.element = bits, .group = -1, .scale = scale, .rows = 1};
    bq_mat w = golden_read(&g, BQ_F32, ROWS, COLS, "autoround/W"),
           x = golden_read(&g, BQ_F32, -1, COLS, "autoround/X"),
           loss = golden_read(&g, BQ_F64, -1, -1, "%s/loss", name),
           code = golden_read(&g, BQ_U8, -1, -1, "%s/q", name), moments = product(x, x),
           numbers = room(1, BQ_ADAM_NUMBERS),
           made = bq_mat_host(golden_keep(&g, ROWS * COLS), GROUPS, GROUP, BQ_I8);
    layer l = layer_of(bq_mat_reshape(w, GROUP), false);
    double least = INFINITY, now;
    int different = 0;
    dev.op->range_ends(&dev, l.p.w, s, none, none, l.p.lo, l.p.hi);
    for (int i = 0; i < ITERATIONS; i++) {
        dev.op->tuned_weights(&dev, &l.p, s, l.w_hat, l.scale, l.zero, l.fold);
        bq_mat up = slope(l.w_hat, w, moments, (double)x.rows, &now);
        if (!(fabs(now - ((double *)loss.data)[i]) <= way * now))
            fail_msg("%s, step %d: loss %.9g, not %.9g", name, i, now, ((double *)loss.data)[i]);
        if (now < least) dev.op->quantize(&dev, l.fold, l.scale, l.zero, s, made);
        least = fmin(least, now);
        if (i == 0) {
            dev.op->tuned_step(&dev, &l.p, s, l.scale, l.zero, up, none, l.grad);
            near_to(name, bq_mat_cols(l.grad, 0, GROUP), GROUP + 2, bq_f32(mat(name, "grad_value_0")), 1e-5,
                    NULL);
            near_to(name, bq_mat_cols(l.grad, GROUP, 1), GROUP + 2, bq_f32(mat(name, "grad_min_0")), fine,
                    NULL);
            near_to(name, bq_mat_cols(l.grad, GROUP + 1, 1), GROUP + 2, bq_f32(mat(name, "grad_max_0")), fine,
                    NULL);
        }
        float rate = (float)((1.0 - i / (double)ITERATIONS) / ITERATIONS);
        bq_adam_put(&dev, (bq_adam){.lr_clip = rate, .lr_weight = rate, .step = 1}, numbers);
        dev.op->tuned_step(&dev, &l.p, s, l.scale, l.zero, up, numbers, none);
    }
    for (int i = 0; i < ROWS * COLS; i++)
        different += ((int8_t *)made.data)[i] - (int)bq_qmin(s) != ((uint8_t *)code.data)[i];
    print_message("%s: %d codes differ\n", name, different);
    assert_true(different <= others);
}

static void autoround(void **state) {
    (void)state;
    whole_training("autoround/asym4_g32_f32", 4, BQ_F32, 5e-6, 1e-5, 2);
    whole_training("autoround/asym4_g32", 4, BQ_F16, 3e-3, 2e-2, 30);
    whole_training("autoround/asym2_g32", 2, BQ_F16, 3e-3, 2e-2, 30);
}

/* auto-round's scale is negative where the largest |weight| is positive.  Negate such groups: with weights,
 * gradients and scale the rounding is the same, and blockq's scale is auto-round's where the other end is
 * smaller than 7 / 8 of it.  The first gradients of these groups. */
static void symmetric_gradients(void **state) {
    (void)state;
    bq_scheme s = {.element = 4, .group = -1, .symmetric = true, .scale = BQ_F16, .rows = 1};
    const char *name = "autoround/sym4_g32";
    bq_mat w = golden_read(&g, BQ_F32, ROWS, COLS, "autoround/W"),
           x = golden_read(&g, BQ_F32, -1, COLS, "autoround/X"), w_hat = room(ROWS, COLS),
           turned = room(GROUPS, GROUP), moments = product(x, x);
    bool flip[GROUPS], *open = golden_keep(&g, ROWS * COLS), off[GROUPS];
    for (int r = 0; r < GROUPS; r++) {
        const float *from = bq_f32(w) + r * GROUP;
        float lo = 0, hi = 0;
        for (int c = 0; c < GROUP; c++) lo = fminf(lo, from[c]), hi = fmaxf(hi, from[c]);
        float step = bq_scale_round(fmaxf(-lo, hi) / 8, BQ_F16);
        flip[r] = hi >= -lo, off[r] = fminf(-lo, hi) >= 0.875f * fmaxf(-lo, hi);
        for (int c = 0; c < GROUP; c++) {
            float t = flip[r] ? -from[c] : from[c];
            bq_f32(turned)[r * GROUP + c] = t, open[r * GROUP + c] = off[r];
            t = fminf(fmaxf(rintf(t / step), -8), 7) * step;
            bq_f32(w_hat)[r * GROUP + c] = flip[r] ? -t : t;
        }
    }
    double loss;
    bq_mat up = slope(w_hat, w, moments, (double)x.rows, &loss),
           first = golden_read(&g, BQ_F64, -1, -1, "%s/loss", name);
    assert_true(fabs(loss - *(double *)first.data) < 1e-5 * loss);
    for (int i = 0; i < ROWS * COLS; i++) bq_f32(up)[i] *= flip[i / GROUP] ? -1 : 1;
    layer l = layer_of(turned, true);
    dev.op->range_ends(&dev, l.p.w, s, none, none, l.p.lo, l.p.hi);
    dev.op->tuned_weights(&dev, &l.p, s, l.w_hat, l.scale, l.zero, l.fold);
    dev.op->tuned_step(&dev, &l.p, s, l.scale, l.zero, up, none, l.grad);
    near_to(name, bq_mat_cols(l.grad, 0, GROUP), GROUP + 2, bq_f32(mat(name, "grad_value_0")), 1e-5, open);
    bq_mat low = mat(name, "grad_min_0"), high = mat(name, "grad_max_0"), larger = room(GROUPS, 1);
    for (int r = 0; r < GROUPS; r++) bq_f32(larger)[r] = bq_f32(flip[r] ? high : low)[r];
    near_to(name, bq_mat_cols(l.grad, GROUP, 1), GROUP + 2, bq_f32(larger), 3e-3, off);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(qat), cmocka_unit_test(autoround),
                                       cmocka_unit_test(symmetric_gradients)};
    if (golden_open(&g, BQ_VECTORS "/peer_train.safetensors")) return 1;
    if (bq_dev_open(&dev, "cpu", 2, 0)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    golden_close(&g);
    return failed;
}
