/* SPDX-License-Identifier: Apache-2.0 */
/* Weights rounded in another basis, the gradient of that basis, and the steps that follow it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "block/common/cayley.h"
#include "block/common/turned.h"
#include "block/model/rotate.h"
#include "rig.h"

enum { H = 24, HD = 6, TOKENS = 11 };

static const bq_scheme w3 = {3, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0};

/* A random rotation by rows, (n, n). */
static double *rotation(int64_t n, uint64_t seed) {
    bq_rotation r;
    double *memory = rig_room(bq_rotation_need(BQ_ROTATE_ORTHOGONAL, n, 0), sizeof *memory),
           *m = rig_room((size_t)(n * n), sizeof *m), x[H * BQ_ROTATE_LANES];
    bq_rotation_make(&r, BQ_ROTATE_ORTHOGONAL, n, 0, (bq_rng_key){.seed = seed}, memory);
    for (int64_t i = 0; i < n; i++) {
        memset(x, 0, sizeof x);
        x[i * BQ_ROTATE_LANES] = 1;
        bq_rotation_apply(&r, x);
        for (int64_t j = 0; j < n; j++) m[i * n + j] = x[j * BQ_ROTATE_LANES];
    }
    free(memory);
    return m;
}

/* The largest |R^T R - I|. */
static double apart(const float *r, int64_t n) {
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = i == j ? -1 : 0;
            for (int64_t k = 0; k < n; k++) sum += (double)r[k * n + i] * (double)r[k * n + j];
            most = fmax(most, fabs(sum));
        }
    return most;
}

static void narrow(const double *from, int64_t count, float *to) {
    for (int64_t i = 0; i < count; i++) to[i] = (float)from[i];
}

/* ---- a block ---- */

/* c (m, n) = op(a) b or a op(b), by plain loops; b (n, n), or a (m, m) with `left`. */
static void turn(const double *a, const double *r, int64_t m, int64_t n, bool left, bool transposed,
                 double *c) {
    const int64_t k_end = left ? m : n;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t k = 0; k < k_end; k++)
                sum += left ? r[transposed ? k * m + i : i * m + k] * a[k * n + j]
                            : a[i * n + k] * r[transposed ? j * n + k : k * n + j];
            c[i * n + j] = sum;
        }
}

/* Weights of a site in the rotated basis, or back: as rotated.h says, by its own loops. */
static void turn_site(const bq_arch *arch, int site, double *w, const double *r1, const double *r2,
                      bool back) {
    const int64_t rows = arch->site[site].rows, cols = arch->site[site].cols;
    double *other = rig_room((size_t)(rows * cols), sizeof *other);
    bool writes = bq_role_writes(arch->site[site].role);
    turn(w, r1, rows, cols, writes, writes ? !back : back, other);
    memcpy(w, other, (size_t)(rows * cols) * sizeof *w);
    if (arch->site[site].role == BQ_QKV)
        for (int64_t at = 6 * HD; at < 8 * HD; at += HD)
            turn(w + at * cols, r2, HD, cols, true, !back, other + at * cols);
    if (arch->site[site].role == BQ_O) turn(w, r2, rows * cols / HD, HD, false, back, other);
    memcpy(w, other, (size_t)(rows * cols) * sizeof *w);
    free(other);
}

typedef struct {
    rig *r;
    double *e[RIG_SITES]; /* what rounding adds to the rotated weights */
    bq_mat target;
} state;

/* The loss with the weights W + E in the basis of r1 and r2. */
static double loss_at(const state *s, const double *r1, const double *r2) {
    const rig *r = s->r;
    bq_dev *dev = &s->r->dev;
    double loss;
    for (int m = 0; m < r->arch.sites; m++) {
        const int64_t n = r->arch.site[m].rows * r->arch.site[m].cols;
        double *d = rig_room((size_t)n, sizeof *d);
        memcpy(d, s->e[m], (size_t)n * sizeof *d);
        turn_site(&r->arch, m, d, r1, r2, true);
        for (int64_t i = 0; i < n; i++)
            bq_f32(r->q.w_hat[m])[i] = (float)((double)bq_f32(r->blk.w[m])[i] + d[i]);
        free(d);
    }
    bq_block_forward(dev, &r->blk, r->q.w_hat, &s->r->work, rig_fetch(s->r, BQ_STREAM_FP, 0), r->work.y);
    dev->op->mse(dev, r->work.y, s->target, 1, r->work.y, &loss);
    return loss;
}

/* r <- (1 + a s + a^2 s^2 / 2) r */
static void move(double *r, const double *s, int64_t n, double a) {
    double *one = rig_room((size_t)(n * n), sizeof *one), *two = rig_room((size_t)(n * n), sizeof *two);
    turn(r, s, n, n, true, false, one);
    turn(one, s, n, n, true, false, two);
    for (int64_t i = 0; i < n * n; i++) r[i] += a * one[i] + a * a / 2 * two[i];
    free(one);
    free(two);
}

/* The direction of the gradient: skew(a), of norm 1.  Along random directions the slopes are so small that
 * f32 hides them. */
static double *direction(bq_mat a) {
    const int64_t n = a.rows;
    double *s = rig_room((size_t)(n * n), sizeof *s), sum = 0;
    for (int64_t i = 0; i < n * n; i++) {
        s[i] = (double)bq_f32(a)[i] - (double)bq_f32(a)[i % n * n + i / n];
        sum += s[i] * s[i];
    }
    for (int64_t i = 0; i < n * n; i++) s[i] /= sqrt(sum);
    return s;
}

static void gradient(void **unused) {
    (void)unused;
    state s = {.r = rig_open(&(rig_spec){.model = {bq_family_find("llama"), H, 40, .heads = 4, .kv_heads = 2},
                                         .scheme = &w3,
                                         .samples = 1,
                                         .tokens = TOKENS,
                                         .noise = {2},
                                         .steps = 1})};
    rig *r = s.r;
    bq_dev *dev = &r->dev;
    double *r1 = rotation(H, 5), *r2 = rotation(HD, 6);
    bq_mat m1 = bq_arena_push(&dev->mem, H, H, BQ_F32), m2 = bq_arena_push(&dev->mem, HD, HD, BQ_F32),
           a1 = bq_arena_push(&dev->mem, H, H, BQ_F32), a2 = bq_arena_push(&dev->mem, HD, HD, BQ_F32);
    narrow(r1, H * H, m1.data), narrow(r2, HD * HD, m2.data);
    s.target = bq_arena_push(&dev->mem, TOKENS, H, BQ_F32);
    bq_block_forward(dev, &r->blk, r->blk.w, &r->work, rig_fetch(r, BQ_STREAM_FP, 0), s.target);

    bq_turned_weights(dev, &r->blk, &r->q, m1, m2);
    for (int m = 0; m < r->arch.sites; m++) { /* against rounding by the definition */
        const bq_site *site = &r->arch.site[m];
        const int64_t n = site->rows * site->cols;
        double *w = s.e[m] = rig_room((size_t)n, sizeof *w);
        for (int64_t i = 0; i < n; i++) w[i] = (double)bq_f32(r->blk.w[m])[i];
        turn_site(&r->arch, m, w, r1, r2, false);
        int far = 0;
        for (int64_t row = 0; row < site->rows; row++) {
            double lo = 0, hi = 0, *at = w + row * site->cols;
            for (int64_t c = 0; c < site->cols; c++) lo = fmin(lo, at[c]), hi = fmax(hi, at[c]);
            double step = fmax(hi / 3, -lo / 4);
            for (int64_t c = 0; c < site->cols; c++)
                at[c] = fmin(3, fmax(-4, nearbyint(at[c] / step))) * step - at[c];
        }
        double *d = rig_room((size_t)n, sizeof *d);
        memcpy(d, w, (size_t)n * sizeof *d);
        turn_site(&r->arch, m, d, r1, r2, true);
        for (int64_t i = 0; i < n; i++) {
            far += fabs(d[i] - (double)bq_f32(r->q.fold[m])[i]) > 1e-5;
            assert_true(bq_f32(r->q.w_hat[m])[i] == bq_f32(r->blk.w[m])[i] + bq_f32(r->q.fold[m])[i]);
        }
        assert_int_equal(far, 0);
        free(d);
    }

    loss_at(&s, r1, r2);
    dev->op->zero(dev, a1), dev->op->zero(dev, a2);
    bq_mat dw[RIG_SITES];
    for (int m = 0; m < r->arch.sites; m++)
        dw[m] = bq_arena_push(&dev->mem, r->arch.site[m].rows, r->arch.site[m].cols, BQ_F32);
    bq_block_backward(dev, &r->blk, r->q.w_hat, &r->work, rig_fetch(r, BQ_STREAM_FP, 0), r->work.y, dw,
                      (bq_mat){0});
    bq_turned_gradient(dev, &r->q, dw, a1, a2);
    double *s1 = direction(a1), *s2 = direction(a2);
    const double step = 1e-2;
    for (int k = 0; k < 3; k++) { /* R1 alone, R2 alone, both */
        double end[2], want = 0;
        for (int up = 0; up < 2; up++) {
            double *p1 = rotation(H, 5), *p2 = rotation(HD, 6);
            if (k != 1) move(p1, s1, H, up ? step : -step);
            if (k != 0) move(p2, s2, HD, up ? step : -step);
            end[up] = loss_at(&s, p1, p2);
            free(p1), free(p2);
        }
        double slope = (end[1] - end[0]) / (2 * step);
        for (int i = 0; i < H * H && k != 1; i++) want += (double)bq_f32(a1)[i] * s1[i];
        for (int i = 0; i < HD * HD && k != 0; i++) want += (double)bq_f32(a2)[i] * s2[i];
        if (fabs(slope - want) > 1e-3 * fabs(want))
            fail_msg("case %d: slope %g, gradient %g", k, slope, want);
    }
    for (int m = 0; m < r->arch.sites; m++) free(s.e[m]);
    free(r1), free(r2), free(s1), free(s2);
    rig_close(r);
}

/* ---- steps ---- */

/* |R - Q|^2 has its optimum at Q: from a rotation far away the steps come there, and R stays orthogonal.
 * With L = -<Q, R> the loss changes by -<Q, S R> = <-Q R^T, S>. */
static void steps_find_an_optimum(void **unused) {
    (void)unused;
    rig *r = rig_open(&(rig_spec){.model = {bq_family_find("llama"), H, 40, .heads = 4, .kv_heads = 2},
                                  .scheme = &w3,
                                  .samples = 1,
                                  .tokens = TOKENS,
                                  .noise = {2}});
    enum { STEPS = 400 };
    double *q = rotation(H, 1), *start = rotation(H, 2), before = 0, after = 0;
    float at[H * H], momentum[H * H] = {0}, a[H * H];
    narrow(start, H * H, at);
    /* the same component of O(n): turn one axis of q round if needed */
    const size_t free_before = bq_arena_mark(&r->dev.mem);
    for (int k = 0; k < STEPS; k++) {
        for (int i = 0; i < H; i++)
            for (int j = 0; j < H; j++) {
                double sum = 0;
                for (int l = 0; l < H; l++) sum -= q[i * H + l] * (double)at[j * H + l];
                a[i * H + j] = (float)sum;
            }
        double trace = 0;
        for (int i = 0; i < H; i++) trace -= (double)a[i * H + i];
        if (k == 0) before = trace;
        after = trace;
        bq_cayley_step(&r->dev, H, at, momentum, bq_mat_host(a, H, H, BQ_F32), 0.1 * (1 - (double)k / STEPS));
        assert_true(apart(at, H) < 2e-6);
    }
    assert_true(bq_arena_mark(&r->dev.mem) == free_before);
    assert_true(before < 6 && after > H - 2.001); /* H, or H - 2 in the other component of O(n) */
    /* no gradient: no step */
    float was[H * H], none[H * H] = {0};
    memcpy(was, at, sizeof at);
    memset(momentum, 0, sizeof momentum);
    bq_cayley_step(&r->dev, H, at, momentum, bq_mat_host(none, H, H, BQ_F32), 0.1);
    assert_memory_equal(at, was, sizeof at);
    free(q), free(start);
    rig_close(r);
}

/* However large angle and matrix are, R stays orthogonal. */
static void large_steps(void **unused) {
    (void)unused;
    rig *r = rig_open(&(rig_spec){.model = {bq_family_find("llama"), H, 40, .heads = 4, .kv_heads = 2},
                                  .scheme = &w3,
                                  .samples = 1,
                                  .tokens = TOKENS,
                                  .noise = {2}});
    enum { N = 96 };
    float *at = rig_room(N * N, sizeof *at), *momentum = rig_room(N * N, sizeof *at),
          *a = rig_room(N * N, sizeof *at);
    for (int i = 0; i < N; i++) at[i * N + i] = 1;
    for (uint32_t k = 0; k < 50; k++) {
        rig_noise_fill(a, N * N, 3, k);
        if (k % 2) memset(a, 0, (N - 2) * N * sizeof *a); /* of low rank: the largest angle in one plane */
        bq_cayley_step(&r->dev, N, at, momentum, bq_mat_host(a, N, N, BQ_F32), 1);
        assert_true(apart(at, N) < 2e-6);
    }
    free(at), free(momentum), free(a);
    rig_close(r);
}

/* A dense matrix becomes reflections: the same rotation, exactly orthogonal. */
static void reflections(void **unused) {
    (void)unused;
    for (int64_t n = 1; n <= H; n++) {
        double *m = rotation(n, (uint64_t)n), *columns = rig_room((size_t)(n * n), sizeof *columns),
               *memory = rig_room(bq_rotation_need(BQ_ROTATE_ORTHOGONAL, n, 0), sizeof *memory);
        for (int64_t i = 0; i < n * n; i++) columns[i % n * n + i / n] = (double)(float)m[i];
        bq_rotation r;
        bq_rotation_of(&r, n, columns, memory);
        double x[H * BQ_ROTATE_LANES];
        for (int64_t i = 0; i < n; i++) {
            double norm = 0;
            memset(x, 0, sizeof x);
            x[i * BQ_ROTATE_LANES + 3] = 1;
            bq_rotation_apply(&r, x);
            for (int64_t j = 0; j < n; j++) {
                double got = x[j * BQ_ROTATE_LANES + 3];
                assert_true(fabs(got - m[i * n + j]) < 1e-6 && x[j * BQ_ROTATE_LANES] == 0);
                norm += got * got;
            }
            assert_true(fabs(norm - 1) < 1e-14);
        }
        free(m), free(columns), free(memory);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradient), cmocka_unit_test(steps_find_an_optimum),
                                       cmocka_unit_test(large_steps), cmocka_unit_test(reflections)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
