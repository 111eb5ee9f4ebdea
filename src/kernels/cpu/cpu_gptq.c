/* SPDX-License-Identifier: Apache-2.0 */
/* GPTQ on the cpu.  A lane is a row.  A panel of BQ_GPTQ_ROWS rows is stored transposed, with the columns in
 * processing order, so a column is one line of memory.  Threads share the panels. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/cpu_scratch.h"

#include "base/die.h"
#include "kernels/cpu/vec.h"
#include "kernels/order.h"

#include <limits.h>
#include <math.h>
#include <string.h>

enum { PARALLEL = 1 << 15, PANEL = BQ_GPTQ_ROWS, BLOCK = 128, SHRINKS = 80 };

/* ---- order ---- */

void bq_cpu_order(bq_dev *dev, bq_mat diag, bq_order kind, int64_t group, bq_mat order) {
    int64_t k = diag.rows;
    BQ_WANT(dev, k, 1, diag);
    BQ_WANT_AS(dev, BQ_I32, k, 1, order);
    BQ_CHECK(k <= INT_MAX && (kind != BQ_ORDER_GAR || (group > 0 && k % group == 0)),
             "order of %ld columns in groups of %ld", (long)k, (long)group);
    if (kind != BQ_ORDER_GAR) group = k;
#pragma omp parallel for schedule(static) if (k > 512)
    for (int64_t c = 0; c < k; c++) {
        int64_t at = kind == BQ_ORDER_NONE ? c : bq_order_rank(diag.data, diag.ld, k, group, c);
        *(int32_t *)bq_mat_at(order, at, 0) = (int32_t)c;
    }
}

/* ---- fit ---- */

/* The clipped scale of one row; scale and zero are those of its range. */
static float clipped(const float *w, const float *weight, int64_t n, bq_scheme s, float scale, float zero) {
    bq_row_grid grid = bq_row_grid_of(s, scale, zero);
    float kept = scale;
    double least = INFINITY;
    for (int i = 0; i < SHRINKS; i++) {
        bq_row_grid_scale(&grid, bq_scale_stored(scale * ((float)(100 - i) / 100), s));
        double error = bq_vec()->fit_error(w, weight, n, &grid, least);
        if (error < least) least = error, kept = grid.scale;
    }
    return kept;
}

void bq_cpu_fit(bq_dev *dev, bq_mat w, bq_mat weight, bq_scheme s, bq_mat scale, bq_mat zero) {
    BQ_WANT(dev, weight.rows, w.cols, weight);
    BQ_CHECK(weight.rows > 0, "fit: no weights");
    dev->op->range(dev, w, s, scale, zero);
#pragma omp parallel for schedule(dynamic, 8) if (w.rows * w.cols > PARALLEL / 16)
    for (int64_t r = 0; r < w.rows; r++) {
        const float *h = bq_mat_at(weight, r % weight.rows, 0);
        float *at = bq_mat_at(scale, r, 0);
        *at = clipped(bq_mat_at(w, r, 0), h, w.cols, s, *at, zero.data ? *(float *)bq_mat_at(zero, r, 0) : 0);
    }
}

/* ---- gptq ---- */

/* One panel: lines of PANEL floats.  Lanes from `rows` on are 0, on a grid of scale 1. */
typedef struct {
    const bq_gptq *p;
    bq_scheme s;
    int64_t first, rows; /* its rows of the linear */
    int64_t k, group, groups;
    float *w;            /* k lines: the columns in processing order */
    float *scale, *zero; /* a line for each group */
    float *gather;       /* the columns of a group in one lane, then their weights for `fit` */
} panel;

static int64_t lines(int64_t k, int64_t group) {
    return k + 2 * (k / group) + (2 * group + PANEL - 1) / PANEL;
}

size_t bq_cpu_gptq_scratch(int64_t rows, int64_t k, int64_t group) {
    int64_t panels = (rows + PANEL - 1) / PANEL;
    return bq_arena_need(panels * lines(k, group > 0 ? group : k), PANEL, BQ_F32);
}

static int64_t column(const panel *a, int64_t i) { return *(const int32_t *)bq_mat_at(a->p->order, i, 0); }

static float *grid_at(bq_mat m, const panel *a, int64_t lane, int64_t group) {
    return bq_mat_at(m, (a->first + lane) * a->groups + group, 0);
}

/* A panel is transposed in strips of STRIP lanes, so that all of a cache line is used
 * before it is evicted. */
enum { STRIP = 16 };

static void load(panel *a) {
    const bq_gptq *p = a->p;
    for (int64_t s = 0; s < PANEL; s += STRIP) {
        const float *from[STRIP];
        for (int64_t l = 0; l < STRIP; l++)
            from[l] = s + l < a->rows ? bq_mat_at(p->w, a->first + s + l, 0) : NULL;
        for (int64_t i = 0; i < a->k; i++) {
            int64_t c = column(a, i);
            bool dead = *(const float *)bq_mat_at(p->diag, c, 0) == 0;
            float *to = a->w + i * PANEL + s;
            for (int64_t l = 0; l < STRIP; l++) to[l] = dead || !from[l] ? 0 : from[l][c];
        }
    }
    for (int64_t g = 0; g < a->groups; g++) {
        for (int64_t l = 0; l < PANEL; l++) {
            bool there = l < a->rows;
            a->scale[g * PANEL + l] = there ? *grid_at(p->scale, a, l, g) : 1;
            a->zero[g * PANEL + l] = there && p->zero.data ? *grid_at(p->zero, a, l, g) : 0;
        }
    }
}

static void store(const panel *a, bq_mat fold) {
    for (int64_t s = 0; s < a->rows; s += STRIP) {
        int64_t lanes = a->rows - s < STRIP ? a->rows - s : STRIP;
        float *to[STRIP];
        for (int64_t l = 0; l < lanes; l++) to[l] = bq_mat_at(fold, a->first + s + l, 0);
        for (int64_t i = 0; i < a->k; i++) {
            int64_t c = column(a, i);
            const float *from = a->w + i * PANEL + s;
            for (int64_t l = 0; l < lanes; l++) to[l][c] = from[l];
        }
    }
}

/* Fit the grids of the group whose columns are at i, i + 1, ... to the weights as they are now. */
static void fit_group(bq_dev *dev, panel *a, int64_t i) {
    const bq_gptq *p = a->p;
    int64_t n = a->group, g = column(a, i) / n;
    bq_mat w = bq_mat_host(a->gather, 1, n, BQ_F32), weight = bq_mat_host(a->gather + n, 1, n, BQ_F32);
    for (int64_t j = 0; j < n; j++)
        bq_f32(weight)[j] = bq_diagonal(p->diag.data, p->diag.ld, column(a, i + j));
    for (int64_t l = 0; l < a->rows; l++) {
        for (int64_t j = 0; j < n; j++) a->gather[j] = a->w[(i + j) * PANEL + l];
        float *scale = grid_at(p->scale, a, l, g), *zero = p->zero.data ? grid_at(p->zero, a, l, g) : NULL;
        bq_mat to = bq_mat_host(scale, 1, 1, BQ_F32), z = bq_mat_host(zero, zero ? 1 : 0, 1, BQ_F32);
        if (p->clip == BQ_CLIP_MINMAX)
            dev->op->range(dev, w, a->s, to, z);
        else if (p->clip == BQ_CLIP_MSE)
            dev->op->range_mse(dev, w, a->s, p->ends, to, z);
        else
            dev->op->fit(dev, w, weight, a->s, to, z);
        a->scale[g * PANEL + l] = *scale;
        if (zero) a->zero[g * PANEL + l] = *zero;
    }
}

/* The end of the column block that begins at i.  With `dynamic` a group either lies inside one
 * column block or begins one. */
static int64_t block_end(const panel *a, int64_t i) {
    int64_t end = i + BLOCK;
    if (a->p->dynamic && a->group <= BLOCK) end = i + BLOCK / a->group * a->group;
    if (a->p->dynamic && a->group > BLOCK && end > (i / a->group + 1) * a->group)
        end = (i / a->group + 1) * a->group;
    return end < a->k ? end : a->k;
}

/* Which weights of column i stay.  keep: 4 lines, those of i and its neighbours; returns the line of i. */
static const float *choose(const panel *a, int64_t i, float *keep) {
    const bq_gptq *p = a->p;
    float *line = keep + (p->sparse == BQ_SPARSE_TWO ? i % 4 * PANEL : 0), d[4];
    if (p->sparse == BQ_SPARSE_KEPT) {
        for (int64_t l = 0; l < PANEL; l++)
            line[l] = l < a->rows && *(const float *)bq_mat_at(p->w, a->first + l, column(a, i)) != 0;
    } else if (i % 4 == 0) {
        for (int64_t k = 0; k < 4; k++) d[k] = *(const float *)bq_mat_at(p->ut, i + k, i + k);
        bq_vec()->gptq_choose(a->w + i * PANEL, d, keep);
    }
    return line;
}

/* Quantize column i, from which all errors before it have been subtracted. */
static void one_column(const panel *a, int64_t i, float *keep, float *error) {
    const bq_vec_table *vec = bq_vec();
    const bq_gptq *p = a->p;
    float *w = a->w + i * PANEL, d = *(const float *)bq_mat_at(p->ut, i, i), before[PANEL];
    int64_t g = column(a, i) / a->group;
    const float *stays = p->sparse ? choose(a, i, keep) : NULL;
    if (stays) memcpy(before, w, sizeof before);
    vec->gptq_quantize(w, a->scale + g * PANEL, a->zero + g * PANEL, a->s, d, error);
    if (stays) vec->gptq_drop(before, stays, d, w, error);
}

/* Columns [begin, end): one column block.  done[j]: how many errors of the block have been
 * subtracted from column j.  Columns whose values are looked at together are brought up to date together. */
static void block(bq_dev *dev, panel *a, int64_t begin, int64_t end, float *error) {
    const bq_vec_table *vec = bq_vec();
    int64_t done[BLOCK] = {0}, n = end - begin;
    float keep[4 * PANEL];
    for (int64_t i = 0; i < n; i++) {
        bool starts = a->p->dynamic && (begin + i) % a->group == 0;
        int64_t together = starts ? a->group : a->p->sparse == BQ_SPARSE_TWO && i % 4 == 0 ? 4 : 1;
        int64_t last = i + together < n ? i + together : n;
        for (int64_t j = i; j < last; j++) {
            vec->gptq_update(a->w + (begin + j) * PANEL, error + done[j] * PANEL,
                             bq_mat_at(a->p->ut, begin + j, begin + done[j]), i - done[j]);
            done[j] = i;
        }
        if (starts) fit_group(dev, a, begin + i);
        one_column(a, begin + i, keep, error + i * PANEL);
    }
}

static void columns(bq_dev *dev, panel *a) {
    float error[BLOCK * PANEL];
    for (int64_t begin = 0, end; begin < a->k; begin = end) {
        end = block_end(a, begin);
        block(dev, a, begin, end, error);
        if (end < a->k)
            bq_vec()->gptq_update_all(a->w + end * PANEL, a->k - end, error, bq_mat_at(a->p->ut, end, begin),
                                      a->p->ut.ld, end - begin);
    }
}

static void check(const bq_gptq *p, bq_scheme s, bq_mat fold) {
    int64_t rows = p->w.rows, k = p->w.cols, group = s.group > 0 ? s.group : k;
    BQ_CHECK(k > 0 && k <= INT_MAX && k % group == 0 && p->ut.rows == k && p->ut.cols == k &&
                 p->order.rows == k && p->order.type == BQ_I32 && p->diag.rows == k &&
                 p->diag.type == BQ_F32 && fold.rows == rows && fold.cols == k,
             "gptq: %ld x %ld in groups of %ld, factor %ld x %ld, order of %ld, diagonal of %ld", (long)rows,
             (long)k, (long)group, (long)p->ut.rows, (long)p->ut.cols, (long)p->order.rows,
             (long)p->diag.rows);
    BQ_CHECK(p->sparse != BQ_SPARSE_TWO || (k % 4 == 0 && group % 4 == 0),
             "gptq: %ld columns in groups of %ld, 2:4", (long)k, (long)group);
    BQ_CHECK(bq_scheme_valid(s, p->zero.data) && p->scale.rows == rows * (k / group) &&
                 (s.symmetric || p->zero.rows == p->scale.rows),
             "gptq: %ld scales of %s for %ld rows of %ld groups", (long)p->scale.rows,
             bq_element_name(s.element), (long)rows, (long)(k / group));
}

void bq_cpu_sparse24(bq_dev *dev, bq_mat w, bq_mat statistic, bool root) {
    BQ_WANT(dev, w.rows, w.cols, w);
    if (statistic.data) BQ_WANT(dev, 1, w.cols, statistic);
    BQ_CHECK(w.cols % 4 == 0, "sparse24: %ld columns", (long)w.cols);
#pragma omp parallel for schedule(static) if (w.rows * w.cols > PARALLEL)
    for (int64_t r = 0; r < w.rows; r++)
        bq_vec()->sparse24(bq_mat_at(w, r, 0), statistic.data, root && statistic.data, w.cols);
}

void bq_cpu_gptq(bq_dev *dev, const bq_gptq *p, bq_scheme s, bq_mat fold) {
    check(p, s, fold);
    int64_t k = p->w.cols, group = s.group > 0 ? s.group : k, groups = k / group;
    int64_t panels = (p->w.rows + PANEL - 1) / PANEL, each = lines(k, group);
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat room = bq_arena_push(&dev->mem, panels * each, PANEL, BQ_F32);
#pragma omp parallel for schedule(dynamic) if (panels > 1)
    for (int64_t n = 0; n < panels; n++) {
        float *at = bq_mat_at(room, n * each, 0);
        int64_t rest = p->w.rows - n * PANEL;
        panel a = {.p = p,
                   .s = s,
                   .first = n * PANEL,
                   .rows = rest < PANEL ? rest : PANEL,
                   .k = k,
                   .group = group,
                   .groups = groups,
                   .w = at,
                   .scale = at + k * PANEL,
                   .zero = at + (k + groups) * PANEL,
                   .gather = at + (k + 2 * groups) * PANEL};
        load(&a);
        columns(dev, &a);
        store(&a, fold);
    }
    bq_arena_reset(&dev->mem, mark);
}
