/* SPDX-License-Identifier: Apache-2.0 */
/* llm-compressor's quantize_weight on small layers, code by code: the ops that the gptq pass runs on, put
 * together as it does. */
#include "golden/replay.h"

#include "base/die.h"
#include "kernels/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name; /* "asym3_ch_act" */
    bq_scheme scheme;
    bq_order order;
} gptq_case;

typedef struct {
    golden *g;
    golden_report *r;
    bq_dev dev;
    double damp;
    const char *name;
    int64_t n, k;
    bq_mat w, h, u, diag, order, fold;
    double *damped; /* 2 x^T x as the peer damps it */
} layer;

static bq_mat push(layer *l, int64_t rows, int64_t cols, bq_type type) {
    return bq_arena_push(&l->dev.mem, rows, cols, type);
}

static bool dead(const layer *l, int64_t column) { return bq_f32(l->diag)[column] == 0; }

static void damp(layer *l) {
    double *a = l->damped = golden_keep(l->g, (size_t)(l->k * l->k) * sizeof *a), mean = 0;
    for (int64_t i = 0; i < l->k * l->k; i++) a[i] = 2.0 * (double)bq_f32(l->h)[i];
    for (int64_t i = 0; i < l->k; i++) {
        if (a[i * l->k + i] == 0) a[i * l->k + i] = 1;
        mean += a[i * l->k + i] / (double)l->k;
    }
    for (int64_t i = 0; i < l->k; i++) a[i * l->k + i] += l->damp * mean;
}

static void open_layer(layer *l) {
    bq_mat w = golden_read(l->g, BQ_F32, -1, -1, "%s/W", l->name);
    bq_mat x = golden_read(l->g, BQ_F32, -1, w.cols, "%s/X", l->name);
    l->n = w.rows, l->k = w.cols;
    size_t square = (size_t)(l->k * l->k) * sizeof(float), flat = (size_t)(l->n * l->k) * sizeof(float);
    golden_require(bq_dev_open(&l->dev, "cpu", 1, ((size_t)8 << 20) + 8 * (square + flat)));
    l->w = push(l, l->n, l->k, BQ_F32), l->h = push(l, l->k, l->k, BQ_F32),
    l->u = push(l, l->k, l->k, BQ_F32);
    l->diag = push(l, l->k, 1, BQ_F32), l->order = push(l, l->k, 1, BQ_I32),
    l->fold = push(l, l->n, l->k, BQ_F32);
    memcpy(l->w.data, w.data, bq_mat_bytes(l->w));
    l->dev.op->gram(&l->dev, x, l->h);
    for (int64_t c = 0; c < l->k; c++) bq_f32(l->diag)[c] = *(float *)bq_mat_at(l->h, c, c);
    damp(l);
    if (!golden_has(l->g, "%s/H", l->name)) return;
    bq_mat twice = bq_mat_host(golden_keep(l->g, square), l->k, l->k, BQ_F32);
    for (int64_t i = 0; i < l->k * l->k; i++) bq_f32(twice)[i] = 2 * bq_f32(l->h)[i];
    golden_compare(golden_row_of(l->r, "H", 1e-5, 0), GOLDEN_LARGEST, twice,
                   golden_read(l->g, BQ_F32, l->k, l->k, "%s/H", l->name), l->name);
}

/* Half of sum e^2 of a row: e = (w - q) R with R R^T the damped matrix, so the trace form. */
static double row_loss(const layer *l, const float *w, const float *what) {
    double sum = 0;
    for (int64_t i = 0; i < l->k; i++) {
        double half = 0, wi = dead(l, i) ? 0 : (double)w[i];
        for (int64_t j = 0; j < l->k; j++)
            half += l->damped[i * l->k + j] * ((dead(l, j) ? 0 : (double)w[j]) - (double)what[j]);
        sum += (wi - (double)what[i]) * half;
    }
    return sum / 2;
}

/* Scales, zero points, codes and dequantized weights, as the pass makes them. */
static void quantize(layer *l, const gptq_case *t, int64_t group, bq_mat sc, bq_mat zero, bq_mat code,
                     bq_mat what) {
    const bq_ops *op = l->dev.op;
    op->range(&l->dev, bq_mat_reshape(l->w, group), t->scheme, sc, zero);
    op->order(&l->dev, l->diag, t->order, 0, l->order);
    if (!op->factor(&l->dev, l->h, l->order, 2, l->damp, l->u))
        bq_refuse_job(BQ_DATA, "%s: %s/X: its damped Gram matrix is not positive definite", l->g->path,
                      l->name);
    bq_gptq p = {.w = l->w, .ut = l->u, .order = l->order, .diag = l->diag, .scale = sc, .zero = zero};
    op->gptq(&l->dev, &p, t->scheme, l->fold);
    op->quantize(&l->dev, bq_mat_reshape(l->fold, group), sc, zero, t->scheme, bq_mat_reshape(code, group));
    op->dequantize(&l->dev, bq_mat_reshape(code, group), sc, zero, t->scheme, bq_mat_reshape(what, group));
}

/* Rows are independent: one code at a tie changes the rest of its row, so one row of a case may differ. */
static void compare_rows(layer *l, const char *at, bq_mat code, bq_mat what, bq_mat q, bq_mat back,
                         double said) {
    golden_row *codes = golden_codes_of(l->r, "codes that differ", 2, 0),
               *losses = golden_row_of(l->r, "losses of equal rows", 1e-5, 0);
    double mine = 0, theirs = 0;
    int unlike = 0;
    for (int64_t r = 0; r < l->n; r++) {
        const int8_t *ours = bq_mat_at(code, r, 0), *want = bq_mat_at(q, r, 0);
        bool equal = memcmp(ours, want, (size_t)l->k) == 0;
        for (int64_t j = 0; j < l->k; j++)
            golden_note(codes, abs(ours[j] - want[j]), "%s (%lld, %lld)", at, (long long)r, (long long)j);
        const float *w = bq_mat_at(l->w, r, 0);
        double m = row_loss(l, w, bq_mat_at(what, r, 0)), o = row_loss(l, w, bq_mat_at(back, r, 0));
        if (equal) golden_note(losses, m == o ? 0 : fabs(m - o) / o, "%s row %lld", at, (long long)r);
        unlike += !equal, mine += m, theirs += o;
    }
    golden_note(golden_row_of(l->r, "unlike rows of a case", 1, 0), unlike, "%s", at);
    golden_note(golden_row_of(l->r, "the stored loss", 1e-4, 0), fabs(theirs - said) / said, "%s", at);
    golden_note(unlike ? golden_row_of(l->r, "losses of unlike cases", 5e-3, 0)
                       : golden_row_of(l->r, "losses", 1e-5, 0),
                fabs(mine - theirs) / theirs, "%s", at);
}

static void check_case(layer *l, const gptq_case *t) {
    char at[200];
    snprintf(at, sizeof at, "%s/%s", l->name, t->name);
    size_t mark = bq_arena_mark(&l->dev.mem);
    int64_t group = t->scheme.group > 0 ? t->scheme.group : l->k, groups = l->k / group;
    if (l->k % group)
        bq_refuse_job(BQ_DATA, "%s: %s: groups of %lld in %lld columns", l->g->path, at, (long long)group,
                      (long long)l->k);
    bq_mat scale = golden_read(l->g, BQ_F32, l->n, groups, "%s/scale", at),
           zp = golden_read(l->g, BQ_I8, l->n, groups, "%s/zp", at),
           q = golden_read(l->g, BQ_I8, l->n, l->k, "%s/q", at),
           loss = golden_read(l->g, BQ_F64, -1, -1, "%s/loss", at);
    bq_mat sc = push(l, l->n * groups, 1, BQ_F32), code = push(l, l->n, l->k, BQ_I8),
           what = push(l, l->n, l->k, BQ_F32), back = push(l, l->n, l->k, BQ_F32), zero = {0};
    if (!t->scheme.symmetric) zero = push(l, l->n * groups, 1, BQ_F32);
    quantize(l, t, group, sc, zero, code, what);
    golden_compare(golden_row_of(l->r, "scales", 0, 0), GOLDEN_ABSOLUTE, bq_mat_reshape(sc, groups), scale,
                   at);
    golden_row *zeros = golden_row_of(l->r, "zero points", 0, 0);
    for (int64_t i = 0; i < l->n * groups; i++)
        golden_note(zeros, fabs((zero.data ? (double)bq_f32(zero)[i] : 0) - ((const int8_t *)zp.data)[i]),
                    "%s %lld", at, (long long)i);
    for (int64_t r = 0; r < l->n; r++)
        for (int64_t j = 0; j < l->k; j++)
            *(float *)bq_mat_at(back, r, j) =
                (float)(*(int8_t *)bq_mat_at(q, r, j) - *(int8_t *)bq_mat_at(zp, r, j / group)) *
                *(float *)bq_mat_at(scale, r, j / group);
    double said = 0;
    for (int64_t i = 0; i < loss.rows * loss.cols; i++) said += ((const double *)loss.data)[i];
    compare_rows(l, at, code, what, q, back, said);
    bq_arena_reset(&l->dev.mem, mark);
}

static bool is(const json_t *settings, const char *key, const char *value) {
    const char *text = json_string_value(json_object_get(settings, key));
    return text ? strcmp(text, value) == 0 : !*value;
}

/* The settings of a case as blockq has them; false where it has no counterpart. */
static bool case_of(const char *name, const json_t *s, gptq_case *t) {
    bool channel = is(s, "strategy", "channel"), act = is(s, "actorder", "static");
    int64_t bits = json_integer_value(json_object_get(s, "num_bits")),
            group = json_integer_value(json_object_get(s, "group_size"));
    if (bits < 2 || bits > 8 || !(channel || (is(s, "strategy", "group") && group > 0)) ||
        !(act || is(s, "actorder", "")))
        return false;
    *t = (gptq_case){name,
                     {(int)bits, channel ? -1 : group, json_is_true(json_object_get(s, "symmetric")), BQ_F32,
                      BQ_GRID_ABSMAX, 1, 0},
                     act ? BQ_ORDER_ACT : BQ_ORDER_NONE};
    return true;
}

static void check_layer(golden *g, golden_report *r, const char *name, json_t *cases) {
    layer l = {.g = g, .r = r, .name = name, .damp = golden_number(g, "percdamp")};
    const char *key;
    json_t *settings;
    gptq_case t;
    open_layer(&l);
    json_object_foreach(cases, key, settings) {
        if (case_of(key, settings, &t)) {
            check_case(&l, &t);
        } else {
            golden_pass_over(g, "%s/%s/", name, key);
            r->left++;
        }
    }
    bq_dev_close(&l.dev);
}

void golden_gptq(golden *g, bq_comm *comm, golden_report *r) {
    json_t *cases = golden_json(g, "cases");
    (void)comm;
    for (int i = 0; i < bq_weights_count(g->file); i++) {
        const char *tensor = bq_weights_at(g->file, i)->name, *slash = strchr(tensor, '/');
        if (!slash || strcmp(slash, "/W") != 0) continue;
        char *name = golden_keep(g, strlen(tensor));
        memcpy(name, tensor, (size_t)(slash - tensor));
        check_layer(g, r, name, cases);
    }
    json_decref(cases);
}
