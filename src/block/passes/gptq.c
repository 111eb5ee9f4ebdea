/* SPDX-License-Identifier: Apache-2.0 */
#include "block/passes/gptq.h"

#include "base/log.h"
#include "block/common/gram.h"
#include "comm/heartbeat.h"
#include "comm/treesum.h"

#define DAMP_STEP 0.01 /* added while a matrix is not positive definite, */
#define DAMP_END  1.0  /* up to here */

/* The factor of Gram matrices, 2 / samples, as in the GPTQ authors' code.  It decides how much the 1 counts
 * that the op factor puts on the diagonal of a column without inputs. */
static double unit_of(const bq_pass_context *c) { return 2.0 / (double)c->samples; }

/* Linears of one site that take its columns in the same order, and so share a factor of its Gram matrix. */
typedef struct {
    int site, first; /* first: the linear whose groups decide the order */
    int linears;
    int linear[BQ_SITE_LINEARS];
    bq_mat order, ut; /* (K, 1) i32, (K, K): see bq_gptq */
    double damp;      /* the damping that was enough; 0: none was */
} unit;

typedef struct {
    bq_pass_context *c;
    const bq_gptq_options *o;
    bq_gram_set set;
    bq_gram gram;
    bq_mat diag[BQ_SITES]; /* (K, 1): the diagonal of gram.h */
    int units;
    unit unit[BQ_ARCH_LINEARS];
} work;

static int64_t group_of(const bq_arch *arch, const bq_scheme *scheme, int i) {
    return arch->linear[i].cols / bq_linear_groups(arch, scheme, i);
}

/* The units of the sites in a set, and their number.  Only the order of gar depends on the groups. */
static int units_of(const bq_arch *arch, const bq_scheme *scheme, bq_order order, bq_gram_set set,
                    unit out[BQ_ARCH_LINEARS]) {
    int n = 0;
    for (int i = 0; i < arch->linears; i++) {
        int m = arch->linear[i].site, k = 0;
        if (!bq_gram_has(set, m)) continue;
        while (k < n && (out[k].site != m || (order == BQ_ORDER_GAR && group_of(arch, scheme, out[k].first) !=
                                                                           group_of(arch, scheme, i))))
            k++;
        if (k == n) out[n++] = (unit){.site = m, .first = i};
        out[k].linear[out[k].linears++] = i;
    }
    return n;
}

static bq_gram_set set_of(const bq_gptq_options *o, int first, int sites) {
    return (bq_gram_set){first, sites, o->qep > 0, o->gram};
}

/* Can the factor of unit k overwrite its Gram matrix?  Not in f64, and not where the matrix is read again, by
 * another unit, by QEP, or by refine. */
static bool in_place(const bq_arch *arch, const bq_gptq_options *o, const unit *units, int n, int k,
                     bq_gram_set set) {
    bool alone = o->refine == 0 && set.type == BQ_F32 && !bq_gram_crosses(arch, set, units[k].site);
    for (int i = 0; i < n; i++) alone = alone && (i == k || units[i].site != units[k].site);
    return alone;
}

/* Factor h.  Returns the damping that was enough; 0: none was. */
static double factor(bq_pass_context *c, bq_mat h, bq_mat order, double damp, bq_mat ut) {
    double used = damp;
    while (!c->dev->op->factor(c->dev, h, order, unit_of(c), used, ut)) {
        used += DAMP_STEP;
        if (used >= DAMP_END) return 0;
    }
    return used;
}

/* Give all replicas the matrix of one of them. */
static void share(bq_pass_context *c, int owner, bq_mat m) {
    int64_t first[BQ_REPLICAS + 1];
    for (int r = 0; r <= c->comm->nreplica; r++) first[r] = r > owner ? m.rows : 0;
    bq_comm_gather_slices(c->comm, c->dev, m, first);
}

static bool mine(const bq_pass_context *c, int k) { return k % c->comm->nreplica == c->comm->replica; }

static void say(const work *a, const unit *t) {
    const bq_arch *arch = a->c->q->arch;
    if (t->damp == 0)
        bq_log(BQ_WARN,
               "block %d: the inputs of %s have no positive definite Gram matrix, even with damping %.2f: "
               "rounded to nearest",
               a->c->blk->index, arch->linear[t->first].name, DAMP_END - DAMP_STEP);
    else if (t->damp > a->o->damp)
        bq_log(BQ_WARN, "block %d: the Gram matrix of the inputs of %s took damping %.2f", a->c->blk->index,
               arch->linear[t->first].name, t->damp);
}

/* Orders are computed on all replicas, each factor on one of them, which sends it to all. */
static void factor_units(work *a) {
    bq_pass_context *c = a->c;
    bq_dev *dev = c->dev;
    double damp[BQ_ARCH_LINEARS] = {0};
    for (int k = 0; k < a->units; k++) {
        unit *t = &a->unit[k];
        int64_t cols = c->q->arch->site[t->site].cols;
        t->order = bq_arena_push(&dev->mem, cols, 1, BQ_I32);
        bool over = in_place(c->q->arch, a->o, a->unit, a->units, k, a->set);
        t->ut = over ? a->gram.h[t->site] : bq_arena_push(&dev->mem, cols, cols, BQ_F32);
        dev->op->order(dev, a->diag[t->site], a->o->order, group_of(c->q->arch, c->q->scheme, t->first),
                       t->order);
        if (mine(c, k)) damp[k] = factor(c, a->gram.h[t->site], t->order, a->o->damp, t->ut);
        bq_heartbeat();
    }
    bq_comm_fill(c->comm, damp, a->units);
    for (int k = 0; k < a->units; k++) {
        a->unit[k].damp = damp[k];
        say(a, &a->unit[k]);
        if (damp[k] > 0) share(c, k % c->comm->nreplica, a->unit[k].ut);
    }
}

/* ---- rows ---- */

/* The rows of a linear that a replica quantizes: whole panels. */
static bq_shard panel_rows(int64_t rows, int replica, int nreplica) {
    bq_shard p = bq_shard_of((rows + BQ_GPTQ_ROWS - 1) / BQ_GPTQ_ROWS, replica, nreplica);
    int64_t first = p.first * BQ_GPTQ_ROWS, end = (p.first + p.count) * BQ_GPTQ_ROWS;
    first = first < rows ? first : rows, end = end < rows ? end : rows;
    return (bq_shard){first, end - first, rows};
}

/* Give all replicas the panels of all.  m has `each` rows for one row of the linear. */
static void gather(bq_pass_context *c, bq_mat m, int64_t rows, int64_t each) {
    int64_t first[BQ_REPLICAS + 1];
    for (int r = 0; r < c->comm->nreplica; r++)
        first[r] = panel_rows(rows, r, c->comm->nreplica).first * each;
    first[c->comm->nreplica] = rows * each;
    bq_comm_gather_slices(c->comm, c->dev, m, first);
}

/* Fit the grids of rows w of linear i to their present values. */
static void fit(work *a, int i, bq_mat w, bq_mat scale, bq_mat zero) {
    bq_pass_context *c = a->c;
    bq_dev *dev = c->dev;
    int64_t groups = bq_linear_groups(c->q->arch, c->q->scheme, i);
    bq_mat rows = bq_mat_reshape(w, w.cols / groups);
    bq_mat weight = bq_mat_reshape(a->diag[c->q->arch->linear[i].site], rows.cols);
    if (a->o->clip == BQ_CLIP_MINMAX)
        dev->op->range(dev, rows, c->q->scheme[i], scale, zero);
    else if (a->o->clip == BQ_CLIP_MSE)
        dev->op->range_mse(dev, rows, c->q->scheme[i], a->o->ends, scale, zero);
    else
        dev->op->fit(dev, rows, weight, c->q->scheme[i], scale, zero);
}

/* Are the grids of linear i there before its columns are quantized?  Those of tiles need rows of other
 * replicas, too. */
static bool given(const bq_pass_context *c, int i) { return c->grid || bq_scheme_tiled(c->q->scheme[i]); }

/* m in f32: m itself, or a copy in the arena. */
static bq_mat narrow(bq_dev *dev, bq_mat m) {
    if (m.type == BQ_F32) return m;
    bq_mat to = bq_arena_push(&dev->mem, m.rows, m.cols, BQ_F32);
    dev->op->zero(dev, to);
    dev->op->add(dev, m, to);
    return to;
}

/* Coordinate descent behind gptq, with the damping that was enough.  Scales that are given stay. */
static void refine(const work *a, const unit *t, int i, const bq_gptq *g, bq_mat target) {
    bq_pass_context *c = a->c;
    size_t mark = bq_arena_mark(&c->dev->mem);
    bq_refine p = {.fold = g->w,
                   .target = target,
                   .h = narrow(c->dev, a->gram.h[t->site]),
                   .order = g->order,
                   .diag = g->diag,
                   .scale = g->scale,
                   .zero = g->zero,
                   .damp = t->damp,
                   .sweeps = a->o->refine,
                   .refit = a->o->refit && !given(c, i)};
    c->dev->op->refine(c->dev, &p, c->q->scheme[i]);
    bq_arena_reset(&c->dev->mem, mark);
}

/* Quantize my rows w of linear i.  w becomes the fold; the grids are fitted unless they are given. */
static void quantize(work *a, const unit *t, int i, bq_mat w, bq_shard mine_of) {
    bq_pass_context *c = a->c;
    bq_quantized *q = c->q;
    int64_t groups = bq_linear_groups(q->arch, q->scheme, i);
    bool dynamic = !given(c, i) && groups > 1 && a->o->order != BQ_ORDER_ACT && t->damp > 0;
    bq_mat scale = bq_mat_rows(q->scale[i], mine_of.first * groups, mine_of.count * groups), zero = {0};
    if (q->zero[i].data) zero = bq_mat_rows(q->zero[i], mine_of.first * groups, mine_of.count * groups);
    if (!given(c, i) && !dynamic) fit(a, i, w, scale, zero);
    if (t->damp == 0 && a->o->sparse == BQ_SPARSE_TWO) c->dev->op->sparse24(c->dev, w, (bq_mat){0}, false);
    if (t->damp == 0) return;
    size_t mark = bq_arena_mark(&c->dev->mem);
    bq_mat target = {0};
    if (a->o->refine > 0) {
        target = bq_arena_push(&c->dev->mem, w.rows, w.cols, BQ_F32);
        c->dev->op->copy(c->dev, w, target);
    }
    bq_gptq p = {.w = w,
                 .ut = t->ut,
                 .order = t->order,
                 .diag = a->diag[t->site],
                 .scale = scale,
                 .zero = zero,
                 .dynamic = dynamic,
                 .clip = a->o->clip,
                 .ends = a->o->ends,
                 .sparse = a->o->sparse};
    c->dev->op->gptq(c->dev, &p, q->scheme[i], w);
    if (a->o->refine > 0) refine(a, t, i, &p, target);
    bq_arena_reset(&c->dev->mem, mark);
}

/* QEP: w += qep w cross (h + damping)^-1.  One panel at a time, so that the shapes of the GEMMs do not
 * depend on the number of replicas.  ut: the factor of h with the columns as they stand. */
static void correct(const work *a, bq_mat cross, bq_mat ut, bq_mat w) {
    bq_dev *dev = a->c->dev;
    float share = (float)(a->o->qep * unit_of(a->c));
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat x = bq_arena_push(&dev->mem, BQ_GPTQ_ROWS, w.cols, BQ_F32);
    bq_mat y = bq_arena_push(&dev->mem, BQ_GPTQ_ROWS, w.cols, BQ_F32);
    for (int64_t r = 0; r < w.rows; r += BQ_GPTQ_ROWS) {
        bq_mat part = bq_mat_rows(w, r, w.rows - r < BQ_GPTQ_ROWS ? w.rows - r : BQ_GPTQ_ROWS);
        x.rows = y.rows = part.rows;
        dev->op->gemm(dev, false, false, 1, part, cross, 0, x);
        dev->op->gemm(dev, false, false, 1, x, ut, 0, y);
        dev->op->gemm(dev, false, true, share, y, ut, 1, part);
    }
    bq_arena_reset(&dev->mem, mark);
}

/* QEP for the linears of a unit.  Every replica computes the factor itself, since all would wait for it. */
static void correct_unit(work *a, const unit *t) {
    bq_pass_context *c = a->c;
    bq_dev *dev = c->dev;
    if (!a->gram.cross[t->site].data) return;
    size_t mark = bq_arena_mark(&dev->mem);
    int64_t cols = c->q->arch->site[t->site].cols;
    bq_mat ut = bq_arena_push(&dev->mem, cols, cols, BQ_F32);
    bq_mat cross = narrow(dev, a->gram.cross[t->site]);
    double damp = factor(c, a->gram.h[t->site], (bq_mat){0}, a->o->damp, ut);
    for (int k = 0; k < t->linears && damp > 0; k++) {
        const bq_linear *l = &c->q->arch->linear[t->linear[k]];
        bq_shard rows = panel_rows(l->rows, c->comm->replica, c->comm->nreplica);
        bq_mat all = bq_linear_view(c->q->arch, t->linear[k], c->q->fold);
        if (rows.count) correct(a, cross, ut, bq_mat_rows(all, rows.first, rows.count));
    }
    bq_arena_reset(&dev->mem, mark);
}

static void quantize_unit(work *a, const unit *t) {
    bq_pass_context *c = a->c;
    bq_quantized *q = c->q;
    correct_unit(a, t);
    for (int k = 0; k < t->linears; k++) {
        int i = t->linear[k];
        const bq_linear *l = &q->arch->linear[i];
        int64_t groups = bq_linear_groups(q->arch, q->scheme, i);
        bq_mat all = bq_linear_view(q->arch, i, q->fold);
        bq_shard rows = panel_rows(l->rows, c->comm->replica, c->comm->nreplica);
        if (!c->grid && given(c, i)) bq_linear_range(c->dev, q, i);
        if (rows.count) quantize(a, t, i, bq_mat_rows(all, rows.first, rows.count), rows);
        gather(c, all, l->rows, 1);
        if (!given(c, i)) gather(c, q->scale[i], l->rows, groups);
        if (!given(c, i) && q->zero[i].data) gather(c, q->zero[i], l->rows, groups);
        bq_heartbeat();
    }
}

/* ---- the pass ---- */

/* Quantize the sites of a set, with the inputs that a block with the matrices w gives.  way: the walk that
 * goes on to the only site of the set; NULL: one forward for all of them. */
static void quantize_set(bq_pass_context *c, const bq_gptq_options *o, bq_midway *way, const bq_mat *w,
                         bq_gram_set set) {
    bq_dev *dev = c->dev;
    const bq_arch *arch = c->q->arch;
    size_t mark = bq_arena_mark(&dev->mem);
    work a = {.c = c, .o = o, .set = set};
    bq_gram_push(&a.gram, arch, set, &dev->mem);
    if (way)
        bq_gram_collect_midway(way, w, set, &a.gram);
    else
        bq_gram_collect(c, w, set, &a.gram);
    for (int m = set.first; m < set.first + set.sites; m++) {
        bq_mat h = a.gram.h[m];
        a.diag[m] = bq_arena_push(&dev->mem, h.cols, 1, BQ_F32);
        h.cols = 1, h.ld++;
        dev->op->zero(dev, a.diag[m]);
        dev->op->add(dev, h, a.diag[m]);
    }
    a.units = units_of(arch, c->q->scheme, o->order, set, a.unit);
    factor_units(&a);
    for (int k = 0; k < a.units; k++) quantize_unit(&a, &a.unit[k]);
    for (int i = 0; i < arch->linears; i++)
        if (bq_gram_has(set, arch->linear[i].site)) bq_linear_encode(dev, c->q, i);
    bq_arena_reset(&dev->mem, mark);
}

void bq_pass_gptq(bq_pass_context *c, const bq_gptq_options *o) {
    bq_mat w[BQ_SITES];
    int sites = c->q->arch->sites;
    for (int m = 0; m < sites; m++) {
        c->dev->op->copy(c->dev, c->blk->w[m], c->q->fold[m]);
        w[m] = c->blk->w[m];
    }
    if (!c->grid) bq_quantized_outer(c->dev, c->q);
    if (!o->sequential) {
        quantize_set(c, o, NULL, w, set_of(o, 0, sites));
        return;
    }
    size_t mark = bq_arena_mark(&c->dev->mem);
    bq_midway way;
    bq_midway_open(&way, c);
    for (int m = 0; m < sites; m++) {
        quantize_set(c, o, &way, w, set_of(o, m, 1));
        w[m] = c->q->w_hat[m];
    }
    bq_midway_end(&way, w);
    bq_arena_reset(&c->dev->mem, mark);
}

/* ---- memory ---- */

static size_t larger(size_t x, size_t y) { return x > y ? x : y; }

/* What rows of a linear take while they are quantized. */
static size_t rows_need(const bq_gptq_options *o, int64_t rows, int64_t cols, int64_t group) {
    size_t columns = bq_gptq_scratch(rows, cols, group);
    if (o->refine == 0) return columns;
    size_t square = o->gram == BQ_F64 ? bq_arena_need(cols, cols, BQ_F32) : 0;
    return bq_arena_need(rows, cols, BQ_F32) + larger(columns, square + bq_refine_scratch(rows, cols, group));
}

static size_t set_need(const bq_arch *arch, const bq_scheme *scheme, int64_t tokens, int64_t samples,
                       const bq_gptq_options *o, int replica, int nreplica, bq_gram_set set) {
    unit units[BQ_ARCH_LINEARS];
    int n = units_of(arch, scheme, o->order, set, units);
    size_t sums = bq_gram_collect_need(arch, set, tokens, samples, replica, nreplica), kept = 0, scratch = 0;
    for (int m = set.first; m < set.first + set.sites; m++)
        kept += bq_arena_need(arch->site[m].cols, 1, BQ_F32);
    for (int k = 0; k < n; k++) {
        int64_t cols = arch->site[units[k].site].cols;
        size_t square = bq_arena_need(cols, cols, BQ_F32), room = bq_factor_scratch(cols);
        kept += (in_place(arch, o, units, n, k, set) ? 0 : square) + bq_arena_need(cols, 1, BQ_I32);
        if (bq_gram_crosses(arch, set, units[k].site))
            room = (set.type == BQ_F64 ? 2 : 1) * square +
                   larger(room, 2 * bq_arena_need(BQ_GPTQ_ROWS, cols, BQ_F32));
        scratch = larger(scratch, room);
        for (int i = 0; i < units[k].linears; i++) {
            int l = units[k].linear[i];
            int64_t rows = panel_rows(arch->linear[l].rows, replica, nreplica).count;
            scratch = larger(scratch, rows_need(o, rows, cols, group_of(arch, scheme, l)));
        }
    }
    return bq_gram_need(arch, set) + larger(sums, kept + scratch);
}

size_t bq_gptq_need(const bq_arch *arch, const bq_scheme *scheme, int64_t tokens, int64_t samples,
                    const bq_gptq_options *o, int replica, int nreplica) {
    size_t need = 0;
    int each = o->sequential ? 1 : arch->sites; /* sites at a time */
    for (int m = 0; m < arch->sites; m += each)
        need =
            larger(need, set_need(arch, scheme, tokens, samples, o, replica, nreplica, set_of(o, m, each)));
    return need;
}
