/* SPDX-License-Identifier: Apache-2.0 */
/* sparse24, and GPTQ's loop that leaves weights at 0: masks by a sort written here, columns by oracles in
 * double. */
#include "gptq_problem.h"
#include "same_bits.h"

static bq_scheme grid(int bits, int64_t group, bool symmetric) {
    return (bq_scheme){bits, group, symmetric, BQ_F32, BQ_GRID_AIMET, 1, 0};
}

/* Which of four stay: two times the first of the least ones goes. */
static void two_stay(const double *importance, bool *stays) {
    for (int i = 0; i < 4; i++) stays[i] = true;
    for (int goes = 0; goes < 2; goes++) {
        int least = -1;
        for (int i = 0; i < 4; i++)
            if (stays[i] && (least < 0 || importance[i] < importance[least])) least = i;
        stays[least] = false;
    }
}

/* ---- sparse24 ---- */

enum { MAGNITUDE, STATISTIC, ROOT };

static void check_mask(bq_mat w, bq_mat statistic, int kind) {
    bq_mat to = clone(w);
    dev.op->sparse24(&dev, to, statistic, kind == ROOT);
    dev.op->wait(&dev);
    for (int64_t r = 0; r < w.rows; r++)
        for (int64_t c = 0; c < w.cols; c += 4) {
            double importance[4];
            bool stays[4];
            for (int i = 0; i < 4; i++) {
                float s = kind == MAGNITUDE ? 1 : f32(statistic, 0, c + i);
                float x = fabsf(f32(w, r, c + i) * (kind == ROOT ? sqrtf(s) : s));
                importance[i] = isnan(x) ? (double)INFINITY : (double)x;
            }
            two_stay(importance, stays);
            for (int i = 0; i < 4; i++) {
                float want = stays[i] ? f32(w, r, c + i) : 0, have = f32(to, r, c + i);
                assert_memory_equal(&want, &have, sizeof want);
            }
        }
    assert_true(intact(to));
    bq_mat twice = clone(to);
    if (kind == MAGNITUDE) {
        dev.op->sparse24(&dev, twice, (bq_mat){0}, false);
        dev.op->wait(&dev);
        assert_true(same(to, twice));
    }
    drop(to), drop(twice);
}

static void masks(void **state) {
    (void)state;
    static const int64_t cols[] = {4, 12, 32, 100, 260};
    for (int k = 0; k < 5; k++)
        for (int i = 0; i < 3; i++) {
            bq_mat w = make_filled(few_rows[i], cols[k], k, 5, 1), s = make_filled(1, cols[k], 0, 6, 1);
            for (int64_t c = 0; c < cols[k]; c++) *ptr(s, 0, c) = fabsf(*ptr(s, 0, c));
            *ptr(s, 0, cols[k] - 1) = 0;
            check_mask(w, (bq_mat){0}, MAGNITUDE), check_mask(w, s, STATISTIC), check_mask(w, s, ROOT);
            drop(w), drop(s);
        }
}

/* Ties, zeros of both signs, infinities and NaN in all places. */
static void odd_numbers(void **state) {
    (void)state;
    const float of[] = {0, -0.0f, 1, -1, 2, INFINITY, -INFINITY, NAN};
    bq_mat w = make(8 * 8, 4 * 8 * 8, 3, BQ_F32), s = make(1, w.cols, 0, BQ_F32);
    for (int64_t r = 0; r < w.rows; r++)
        for (int64_t c = 0; c < w.cols; c++) {
            int64_t n[4] = {r / 8, r % 8, c / 32, c / 4 % 8};
            *ptr(w, r, c) = of[n[c % 4]], *ptr(s, 0, c) = of[c * 7 % 5 < 2 ? 2 : 4];
        }
    check_mask(w, (bq_mat){0}, MAGNITUDE), check_mask(w, s, STATISTIC), check_mask(w, s, ROOT);
    drop(w), drop(s);
}

/* ---- in GPTQ's loop ---- */

/* The dequantized weights of a row as SparseGPT makes them, in double.  W - Q = E U as without zeros. */
static void naive_row(const layer *l, int64_t n, double *now, double *what) {
    bool stays[4];
    for (int64_t i = 0; i < l->k; i++) {
        int64_t c = order_at(l->order, i);
        now[i] = *ptr(l->diag, c, 0) == 0 ? 0 : at(l->w, n, c);
    }
    for (int64_t i = 0; i < l->k; i++) {
        int64_t c = order_at(l->order, i);
        double importance[4];
        for (int k = 0; k < 4 && l->sparse == BQ_SPARSE_TWO && i % 4 == 0; k++)
            importance[k] = fabs(now[i + k] / at(l->u, i + k, i + k));
        if (l->sparse == BQ_SPARSE_TWO && i % 4 == 0) two_stay(importance, stays);
        bool stay = l->sparse == BQ_SPARSE_TWO ? stays[i % 4] : at(l->w, n, c) != 0;
        what[c] = stay ? on_grid(l, n, c, now[i]) : 0;
        double e = (now[i] - what[c]) / at(l->u, i, i);
        for (int64_t j = i; j < l->k; j++) now[j] -= e * at(l->u, j, i);
    }
}

static void check_layer(int64_t rows, int64_t k, bq_scheme s, bq_order kind, bq_sparse sparse, bool dynamic) {
    layer l = open_layer(rows, k, k + 9, s, kind);
    l.sparse = sparse;
    for (int64_t t = 0; t < l.x.rows; t++) *ptr(l.x, t, k / 2) = 0; /* a column without inputs */
    dev.op->gram(&dev, l.x, l.h);
    if (sparse == BQ_SPARSE_KEPT) dev.op->sparse24(&dev, l.w, (bq_mat){0}, false);
    assert_true(run_layer(&l, 2, 0.01, dynamic, BQ_CLIP_MINMAX));
    double *now = zeros(k), *what = zeros(k);
    int64_t unlike = 0;
    for (int64_t n = 0; n < rows; n++) {
        bool equal = true;
        naive_row(&l, n, now, what);
        for (int64_t c = 0, nothing = 0; c < k; c++) {
            equal &= fabs(what[c] - at(l.what, n, c)) < 1e-6;
            nothing = (c % 4 ? nothing : 0) + (at(l.what, n, c) == 0 && at(l.fold, n, c) == 0);
            if (c % 4 == 3) assert_true(nothing >= 2);
        }
        unlike += !equal;
    }
    assert_true(unlike <= rows / 20 || !bq_element_whole(s.element)); /* the oracle rounds to integers */
    free(now), free(what), close_layer(&l);
}

static void zeros_are_chosen_on_the_way(void **state) {
    (void)state;
    check_layer(1, 4, grid(4, -1, true), BQ_ORDER_NONE, BQ_SPARSE_TWO, false);
    check_layer(130, 124, grid(4, -1, true), BQ_ORDER_NONE, BQ_SPARSE_TWO, false);
    check_layer(33, 300, grid(8, -1, false), BQ_ORDER_NONE, BQ_SPARSE_TWO, false);
    check_layer(17, 288, grid(4, 32, false), BQ_ORDER_NONE, BQ_SPARSE_TWO, true);
    check_layer(17, 400, grid(4, 200, true), BQ_ORDER_NONE, BQ_SPARSE_TWO, true);
    check_layer(17, 96, (bq_scheme){BQ_E2M1, 16, true, BQ_F32, BQ_GRID_ABSMAX, 1, 0}, BQ_ORDER_NONE,
                BQ_SPARSE_TWO, true);
}

static void zeros_stay(void **state) {
    (void)state;
    static const bq_order kinds[] = {BQ_ORDER_NONE, BQ_ORDER_ACT, BQ_ORDER_GAR};
    for (int o = 0; o < 3; o++) {
        check_layer(130, 124, grid(4, -1, true), kinds[o], BQ_SPARSE_KEPT, false);
        check_layer(33, 300, grid(3, -1, false), kinds[o], BQ_SPARSE_KEPT, false);
        check_layer(17, 288, grid(4, 32, true), kinds[o], BQ_SPARSE_KEPT, o != 1);
    }
}

/* The outputs of SparseGPT are nearer than those of weights that are zeroed first.  With these GPTQ makes up
 * for its rounding alone, so it gains little. */
static void compensation_helps(void **state) {
    (void)state;
    double losses[3];
    for (int n = 0; n < 3; n++) {
        layer l = open_layer(64, 200, 300, grid(4, -1, true), BQ_ORDER_NONE);
        bq_mat whole = clone(l.w);
        if (n) dev.op->sparse24(&dev, l.w, (bq_mat){0}, false);
        l.sparse = n ? BQ_SPARSE_KEPT : BQ_SPARSE_TWO;
        assert_true(run_layer(&l, 1, 0.01, false, BQ_CLIP_MINMAX));
        if (n == 2) encode(&l, l.w);
        drop(l.w), l.w = whole;
        losses[n] = loss(&l, l.what);
        close_layer(&l);
    }
    assert_true(losses[0] < 0.7 * losses[1] && losses[1] < losses[2]);
}

static uint64_t all_bits(void) {
    uint64_t sum = 1;
    int64_t k = 300;
    bq_mat h = make_filled(1, k, 0, 8, 0.1f);
    for (int n = 0; n < 4; n++) {
        layer l = open_layer(90, k, 5, grid(3, -1, true), BQ_ORDER_NONE);
        for (int64_t i = 0; i < k; i++) {
            *ptr(l.diag, i, 0) = fabsf(*ptr(h, 0, i)), *(int32_t *)bq_mat_at(l.order, i, 0) = (int32_t)i;
            for (int64_t j = 0; j < k; j++) *ptr(l.u, j, i) = i == j ? 2 : j > i ? *ptr(h, 0, j - i) : 0;
        }
        if (n)
            dev.op->sparse24(&dev, l.w, n == 1 ? (bq_mat){0} : bq_mat_host(l.diag.data, 1, k, BQ_F32),
                             n == 3);
        dev.op->range(&dev, l.w, l.s, l.scale, l.zero);
        bq_gptq p = {.w = l.w, .ut = l.u, .order = l.order, .diag = l.diag, .scale = l.scale, .zero = l.zero};
        p.sparse = n ? BQ_SPARSE_KEPT : BQ_SPARSE_TWO;
        dev.op->gptq(&dev, &p, l.s, l.fold);
        sum = bits_of(bits_of(sum, l.fold), l.w);
        close_layer(&l);
    }
    drop(h);
    return sum;
}

int main(void) {
    dev = cpu_with(2, (size_t)16 << 20);
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {cmocka_unit_test(masks),
                                       cmocka_unit_test(odd_numbers),
                                       cmocka_unit_test(zeros_are_chosen_on_the_way),
                                       cmocka_unit_test(zeros_stay),
                                       cmocka_unit_test(compensation_helps),
                                       SAME_BITS};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    return failed;
}
