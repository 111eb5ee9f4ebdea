/* SPDX-License-Identifier: Apache-2.0 */
/* Coordinate descent after GPTQ on the cpu.  Panels as in cpu_gptq.c: a lane is a row, and a line is a column
 * in processing order.  Threads share the panels.  Changes are gathered for BLOCK columns; inside the block R
 * is brought up to date when a column's turn comes, elsewhere at the end of the block. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/cpu_scratch.h"

#include "base/die.h"
#include "kernels/cpu/vec.h"

#include <limits.h>
#include <string.h>

enum { PANEL = BQ_GPTQ_ROWS, BLOCK = 128, TILE = 64, LANES = 16 };

/* One panel.  Lanes from `rows` on are 0, on a grid of scale 1. */
typedef struct {
    const bq_refine *p;
    bq_scheme s;
    const int32_t *place; /* of each column: its number in processing order */
    float extra;          /* on the diagonal of h */
    int64_t first, rows;  /* its rows of the linear */
    int64_t k, group, groups;
    float *code, *r;     /* k lines each: numbers on the grid; R */
    float *other;        /* k lines: targets, or a product */
    float *scale, *zero; /* a line for each group */
} panel;

static int64_t lines(int64_t k, int64_t group) { return 3 * k + 2 * (k / group); }

size_t bq_cpu_refine_scratch(int64_t rows, int64_t k, int64_t group) {
    int64_t panels = (rows + PANEL - 1) / PANEL;
    return bq_arena_need(k, 1, BQ_I32) +
           bq_arena_need(panels * lines(k, group > 0 ? group : k), PANEL, BQ_F32);
}

static int64_t column(const panel *a, int64_t i) { return *(const int32_t *)bq_mat_at(a->p->order, i, 0); }
static bool dead(const panel *a, int64_t c) { return *(const float *)bq_mat_at(a->p->diag, c, 0) == 0; }

/* H of two columns. */
static float entry(const panel *a, const float *row, int64_t c, int64_t other) {
    return c == other ? row[c] + a->extra : row[other];
}
static const float *row_of(const panel *a, int64_t c) { return bq_mat_at(a->p->h, c, 0); }

static float *grid_at(bq_mat m, const panel *a, int64_t lane, int64_t group) {
    return bq_mat_at(m, (a->first + lane) * a->groups + group, 0);
}

/* Lines from rows of m. */
static void load(const panel *a, bq_mat m, float *to) {
    memset(to, 0, (size_t)(a->k * PANEL) * sizeof *to);
    for (int64_t l = 0; l < a->rows; l++) {
        const float *from = bq_mat_at(m, a->first + l, 0);
        for (int64_t i = 0; i < a->k; i++) to[i * PANEL + l] = from[column(a, i)];
    }
}

static void load_grids(panel *a) {
    const bq_refine *p = a->p;
    for (int64_t g = 0; g < a->groups; g++) {
        for (int64_t l = 0; l < PANEL; l++) {
            bool there = l < a->rows;
            a->scale[g * PANEL + l] = there ? *grid_at(p->scale, a, l, g) : 1;
            a->zero[g * PANEL + l] = there && p->zero.data ? *grid_at(p->zero, a, l, g) : 0;
        }
    }
}

/* Lines [begin, end) of `to` lose e[i] H for the columns c[0] ... c[n - 1], one after the other. */
static void spread(const panel *a, const float *e, const int32_t *c, int64_t n, int64_t begin, int64_t end,
                   float *to) {
    float tile[TILE * BLOCK];
    for (int64_t i = begin; i < end; i += TILE) {
        int64_t count = end - i < TILE ? end - i : TILE;
        for (int64_t j = 0; j < count; j++) {
            int64_t mine = column(a, i + j);
            const float *row = row_of(a, mine);
            for (int64_t k = 0; k < n; k++) tile[j * BLOCK + k] = entry(a, row, mine, c[k]);
        }
        bq_vec()->gptq_update_all(to + i * PANEL, count, e, tile, BLOCK, n);
    }
}

/* target - q of column c, from the targets in `other`. */
static void error_of(const panel *a, int64_t c, float *e) {
    int64_t i = a->place[c], g = c / a->group;
    if (dead(a, c))
        memset(e, 0, PANEL * sizeof *e);
    else
        bq_vec()->refine_error(a->code + i * PANEL, a->other + i * PANEL, a->scale + g * PANEL,
                               a->zero + g * PANEL, a->s, e);
}

/* The numbers of column c, negative. */
static void number_of(const panel *a, int64_t c, float *e) {
    const float *code = a->code + a->place[c] * PANEL;
    bool none = dead(a, c);
    for (int64_t l = 0; l < PANEL; l++) e[l] = none ? 0 : -code[l];
}

/* to = a product with H of columns [first, first + count), which `of` gives as negative lines. */
static void product(const panel *a, int64_t first, int64_t count,
                    void (*of)(const panel *a, int64_t c, float *e), float *to) {
    float e[BLOCK * PANEL];
    int32_t c[BLOCK];
    memset(to, 0, (size_t)(a->k * PANEL) * sizeof *to);
    for (int64_t b = 0; b < count; b += BLOCK) {
        int64_t n = count - b < BLOCK ? count - b : BLOCK;
        for (int64_t k = 0; k < n; k++) {
            c[k] = (int32_t)(first + b + k);
            of(a, c[k], e + k * PANEL);
        }
        spread(a, e, c, n, 0, a->k, to);
    }
}

/* sum over the columns [first, first + count) of -e times the lines `by`, in 16 lanes. */
static void sum_lines(const panel *a, int64_t first, int64_t count,
                      void (*of)(const panel *a, int64_t c, float *e), const float *by, double *sum) {
    double lane[LANES * PANEL] = {0};
    float e[PANEL];
    for (int64_t j = 0; j < count; j++) {
        of(a, first + j, e);
        bq_vec()->refine_sum(e, by + a->place[first + j] * PANEL, lane + j % LANES * PANEL);
    }
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half * PANEL; i++) lane[i] += lane[i + half * PANEL];
    for (int l = 0; l < PANEL; l++) sum[l] = -lane[l];
}

/* The loss of each row. */
static void losses(const panel *a, double *loss) {
    load(a, a->p->target, a->other);
    sum_lines(a, 0, a->k, error_of, a->r, loss);
}

/* What multiplies the changes [from, n) of a block that begins at line b in its column k. */
static void factors(const panel *a, int64_t b, int64_t k, int64_t from, int64_t n, float *u) {
    int64_t mine = column(a, b + k);
    const float *row = row_of(a, mine);
    for (int64_t i = from; i < n; i++) u[i - from] = entry(a, row, mine, column(a, b + i));
}

static void sweep(panel *a) {
    const bq_vec_table *vec = bq_vec();
    float e[BLOCK * PANEL], u[BLOCK];
    int32_t cols[BLOCK];
    for (int64_t b = 0; b < a->k; b += BLOCK) {
        int64_t n = a->k - b < BLOCK ? a->k - b : BLOCK;
        for (int64_t k = 0; k < n; k++) {
            int64_t c = column(a, b + k), g = c / a->group;
            float *r = a->r + (b + k) * PANEL;
            cols[k] = (int32_t)c;
            factors(a, b, k, 0, k, u);
            vec->gptq_update(r, e, u, k);
            memset(e + k * PANEL, 0, PANEL * sizeof *e);
            if (dead(a, c)) continue;
            vec->refine_step(a->code + (b + k) * PANEL, r, a->scale + g * PANEL, a->zero + g * PANEL, a->s,
                             entry(a, row_of(a, c), c, c), e + k * PANEL);
        }
        for (int64_t k = 0; k < n; k++) {
            factors(a, b, k, k, n, u);
            vec->gptq_update(a->r + (b + k) * PANEL, e + k * PANEL, u, n - k);
        }
        spread(a, e, cols, n, 0, b, a->r);
        spread(a, e, cols, n, b + n, a->k, a->r);
    }
}

/* Refit the scales, one group after the other. */
static void refit(panel *a) {
    double slope[PANEL], curve[PANEL];
    float by[PANEL];
    for (int64_t g = 0; g < a->groups; g++) {
        float *scale = a->scale + g * PANEL;
        product(a, g * a->group, a->group, number_of, a->other);
        sum_lines(a, g * a->group, a->group, number_of, a->r, slope);
        sum_lines(a, g * a->group, a->group, number_of, a->other, curve);
        for (int l = 0; l < PANEL; l++) {
            float to = bq_refine_scale(scale[l], slope[l], curve[l], a->s);
            by[l] = scale[l] - to, scale[l] = to;
        }
        for (int64_t i = 0; i < a->k; i++) bq_vec()->refine_shift(a->r + i * PANEL, by, a->other + i * PANEL);
    }
}

static void store(const panel *a, int64_t l) {
    const bq_refine *p = a->p;
    float *to = bq_mat_at(p->fold, a->first + l, 0);
    for (int64_t c = 0; c < a->k; c++) {
        int64_t at = c / a->group * PANEL + l;
        bq_row_grid g = bq_row_grid_of(a->s, a->scale[at], a->zero[at]);
        if (!dead(a, c)) to[c] = bq_grid_value(a->code[a->place[c] * PANEL + l], g);
    }
    for (int64_t g = 0; g < a->groups; g++) *grid_at(p->scale, a, l, g) = a->scale[g * PANEL + l];
}

static void refine(panel *a) {
    double before[PANEL], after[PANEL];
    load_grids(a);
    load(a, a->p->fold, a->code);
    for (int64_t i = 0; i < a->k; i++) {
        int64_t g = column(a, i) / a->group;
        float w[PANEL];
        memcpy(w, a->code + i * PANEL, sizeof w);
        bq_vec()->refine_codes(w, a->scale + g * PANEL, a->zero + g * PANEL, a->s, a->code + i * PANEL);
    }
    load(a, a->p->target, a->other);
    product(a, 0, a->k, error_of, a->r);
    losses(a, before);
    for (int n = 0; n < a->p->sweeps; n++) {
        sweep(a);
        if (a->p->refit && bq_refine_refits(a->s)) refit(a);
    }
    losses(a, after);
    for (int64_t l = 0; l < a->rows; l++)
        if (after[l] < before[l]) store(a, l);
}

static void check(bq_dev *dev, const bq_refine *p, bq_scheme s) {
    int64_t rows = p->fold.rows, k = p->fold.cols, group = s.group > 0 ? s.group : k;
    BQ_CHECK(k > 0 && k <= INT_MAX && k % group == 0 && bq_scheme_valid(s, p->zero.data),
             "refine: %ld columns in groups of %ld, %s", (long)k, (long)group, bq_element_name(s.element));
    BQ_WANT(dev, rows, k, p->fold, p->target);
    BQ_WANT(dev, k, k, p->h);
    BQ_WANT_AS(dev, BQ_I32, k, 1, p->order);
    BQ_WANT(dev, k, 1, p->diag);
    BQ_WANT(dev, rows * (k / group), 1, p->scale);
    if (p->zero.data) BQ_WANT(dev, rows * (k / group), 1, p->zero);
}

/* damp times the mean of the diagonal. */
static float extra_of(const bq_refine *p) {
    double lane[LANES] = {0};
    for (int64_t c = 0; c < p->diag.rows; c++)
        lane[c % LANES] += (double)*(const float *)bq_mat_at(p->diag, c, 0);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return (float)(p->damp * lane[0] / (double)p->diag.rows);
}

void bq_cpu_refine(bq_dev *dev, const bq_refine *p, bq_scheme s) {
    check(dev, p, s);
    int64_t k = p->fold.cols, group = s.group > 0 ? s.group : k, groups = k / group;
    int64_t panels = (p->fold.rows + PANEL - 1) / PANEL, each = lines(k, group);
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat inverse = bq_arena_push(&dev->mem, k, 1, BQ_I32);
    bq_mat room = bq_arena_push(&dev->mem, panels * each, PANEL, BQ_F32);
    int32_t *place = (int32_t *)inverse.data;
    for (int64_t i = 0; i < k; i++) place[*(const int32_t *)bq_mat_at(p->order, i, 0)] = (int32_t)i;
    float extra = extra_of(p);
#pragma omp parallel for schedule(dynamic) if (panels > 1)
    for (int64_t n = 0; n < panels; n++) {
        float *at = bq_mat_at(room, n * each, 0);
        int64_t rest = p->fold.rows - n * PANEL;
        panel a = {.p = p,
                   .s = s,
                   .place = place,
                   .extra = extra,
                   .first = n * PANEL,
                   .rows = rest < PANEL ? rest : PANEL,
                   .k = k,
                   .group = group,
                   .groups = groups,
                   .code = at,
                   .r = at + k * PANEL,
                   .other = at + 2 * k * PANEL,
                   .scale = at + 3 * k * PANEL,
                   .zero = at + (3 * k + groups) * PANEL};
        refine(&a);
    }
    bq_arena_reset(&dev->mem, mark);
}
