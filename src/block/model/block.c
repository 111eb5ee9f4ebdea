#include "block/model/block.h"

#include <stddef.h>
#include <string.h>

void bq_block_push(bq_block *blk, const bq_arch *arch, bq_arena *mem) {
    *blk = (bq_block){.arch = arch};
    bq_block_turn(blk, 0);
    for (int m = 0; m < arch->sites; m++) {
        blk->w[m] = bq_arena_push(mem, arch->site[m].rows, arch->site[m].cols, BQ_F32);
        if (arch->site[m].bias) blk->bias[m] = bq_arena_push(mem, 1, arch->site[m].rows, BQ_F32);
    }
    for (int i = 0; i < BQ_NORMS; i++)
        if (arch->gains[i]) blk->norm[i] = bq_arena_push(mem, 1, arch->gains[i], BQ_F32);
}

void bq_block_turn(bq_block *blk, int index) {
    const bq_model *m = &blk->arch->model;
    blk->index = index;
    blk->attention = blk->arch->attention;
    if (m->full[index]) blk->attention.window = 0;
    blk->rope = m->full[index] && m->full_rope.dim;
    blk->folded = false;
    blk->pre = NULL;
}

size_t bq_block_need(const bq_arch *arch) {
    size_t sum = 0;
    for (int i = 0; i < BQ_NORMS; i++) sum += arch->gains[i] ? bq_arena_need(1, arch->gains[i], BQ_F32) : 0;
    for (int m = 0; m < arch->sites; m++) {
        sum += bq_arena_need(arch->site[m].rows, arch->site[m].cols, BQ_F32);
        if (arch->site[m].bias) sum += bq_arena_need(1, arch->site[m].rows, BQ_F32);
    }
    return sum;
}

/* The buffers of a workspace in one table, so that bq_work_push and bq_work_need agree. */
enum { BUFFERS = 23 };

typedef struct {
    size_t at; /* of the view in bq_work */
    int64_t rows, cols;
    bool wanted;
} buffer;

static void buffers(const bq_arch *arch, int64_t t, bool train, buffer out[BUFFERS]) {
    const bq_model *m = &arch->model;
    int64_t h = m->hidden, q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim,
            angles = m->rope.dim / 2, more = m->full_rope.dim / 2;
    bool o = arch->norm[BQ_NORM_O], down = arch->norm[BQ_NORM_DOWN], qk = arch->norm[BQ_NORM_Q];
#define AT(field) offsetof(bq_work, field)
    const buffer all[BUFFERS] = {
        {AT(cos[0]), t, angles, true},
        {AT(sin[0]), t, angles, true},
        {AT(cos[1]), t, more, more > 0},
        {AT(sin[1]), t, more, more > 0},
        {AT(x), t, h, true},
        {AT(y), t, h, true},
        {AT(a), t, h, true},
        {AT(m), t, h, true},
        {AT(n), t, h, true},
        {AT(qkv), t, q + 2 * kv, true},
        {AT(o), t, q, true},
        {AT(lse), m->heads, t, true},
        {AT(gu), t, 2 * m->inter, true},
        {AT(z), t, m->inter, true},
        {AT(dz), t, m->inter, train},
        {AT(dm), t, h, train},
        {AT(dn), t, h, train},
        {AT(dout), t, q, train},
        {AT(dqkv), t, q + 2 * kv, train},
        {AT(t), t, h, o || down},
        {AT(raw_o), t, h, train && o},
        {AT(raw_down), t, h, train && down},
        {AT(raw_qk), t, q + kv, train && qk},
    };
#undef AT
    memcpy(out, all, sizeof all);
}

void bq_work_push(bq_work *work, const bq_arch *arch, int64_t tokens, bool train, bq_arena *mem) {
    buffer b[BUFFERS];
    *work = (bq_work){0};
    buffers(arch, tokens, train, b);
    for (int i = 0; i < BUFFERS; i++)
        if (b[i].wanted)
            *(bq_mat *)((char *)work + b[i].at) = bq_arena_push(mem, b[i].rows, b[i].cols, BQ_F32);
}

size_t bq_work_need(const bq_arch *arch, int64_t tokens, bool train) {
    buffer b[BUFFERS];
    size_t sum = 0;
    buffers(arch, tokens, train, b);
    for (int i = 0; i < BUFFERS; i++) sum += b[i].wanted ? bq_arena_need(b[i].rows, b[i].cols, BQ_F32) : 0;
    return sum;
}

bq_heads bq_block_split(const bq_model *m, bq_mat qkv) {
    int64_t q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    return (bq_heads){bq_mat_cols(qkv, 0, q), bq_mat_cols(qkv, q, kv), bq_mat_cols(qkv, q + kv, kv)};
}

/* y = the norm of x, or x where the block has no such norm. */
static void norm(bq_dev *dev, const bq_block *blk, bq_norm_at at, bq_mat x, bq_mat y) {
    if (blk->norm[at].data)
        dev->op->rmsnorm(dev, x, blk->norm[at], (float)blk->arch->model.eps, y);
    else if (x.data != y.data)
        dev->op->copy(dev, x, y);
}

void bq_block_linear(bq_dev *dev, const bq_block *blk, int site, const bq_mat *w, bq_mat x, bool keep,
                     bq_mat out) {
    dev->op->gemm(dev, false, true, 1, x, w[site], keep ? 1 : 0, out);
    if (blk->bias[site].data) dev->op->bias(dev, blk->bias[site], out);
}

/* bq_block_linear where each linear of the site has its own factors of x. */
static void prescaled(bq_dev *dev, const bq_block *blk, const bq_work *k, int site, const bq_mat *w, bq_mat x,
                      bool keep, bq_mat out) {
    const bq_arch *arch = blk->arch;
    const bq_site *s = &arch->site[site];
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat y = bq_arena_push(&dev->mem, x.rows, x.cols, BQ_F32);
    for (int i = s->first; i < s->first + s->linears; i++) {
        const bq_linear *l = &arch->linear[i];
        dev->op->times_columns(dev, x, blk->pre[i], y);
        if (k->activations) dev->op->fake_quantize_rows(dev, y, k->activations, y);
        dev->op->gemm(dev, false, true, 1, y, bq_mat_rows(w[site], l->row, l->rows), keep ? 1 : 0,
                      bq_mat_cols(out, l->row, l->rows));
    }
    if (blk->bias[site].data) dev->op->bias(dev, blk->bias[site], out);
    bq_arena_reset(&dev->mem, mark);
}

size_t bq_block_pre_scratch(const bq_arch *arch, int64_t tokens) {
    size_t most = 0;
    for (int m = 0; m < arch->sites; m++) {
        size_t one = bq_arena_need(tokens, arch->site[m].cols, BQ_F32);
        most = one > most ? one : most;
    }
    return most;
}

/* bq_block_linear of a role's site with blk->pre and the rounding of inputs.  x is read only here, so it is
 * rounded in place. */
static void linear(bq_dev *dev, const bq_block *blk, const bq_work *k, bq_role role, const bq_mat *w,
                   bq_mat x, bool keep, bq_mat out) {
    int site = bq_arch_site(blk->arch, role);
    if (blk->pre) {
        prescaled(dev, blk, k, site, w, x, keep, out);
        return;
    }
    if (k->activations) dev->op->fake_quantize_rows(dev, x, k->activations, x);
    bq_block_linear(dev, blk, site, w, x, keep, out);
}

void bq_block_heads(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k) {
    const bq_ops *op = dev->op;
    const bq_model *m = &blk->arch->model;
    bq_heads h = bq_block_split(m, k->qkv);
    linear(dev, blk, k, BQ_QKV, w, k->a, false, k->qkv);
    if (k->raw_qk.data) op->copy(dev, bq_mat_cols(k->qkv, 0, k->raw_qk.cols), k->raw_qk);
    norm(dev, blk, BQ_NORM_Q, h.q, h.q);
    norm(dev, blk, BQ_NORM_K, h.k, h.k);
    op->rope(dev, h.q, m->heads, m->head_dim, k->cos[blk->rope], k->sin[blk->rope], false);
    op->rope(dev, h.k, m->kv_heads, m->head_dim, k->cos[blk->rope], k->sin[blk->rope], false);
    op->attention(dev, blk->attention, h.q, h.k, h.v, k->o, k->lse);
}

void bq_block_gated(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k) {
    int64_t inter = blk->arch->model.inter;
    linear(dev, blk, k, BQ_GATE_UP, w, k->n, false, k->gu);
    dev->op->glu(dev, blk->arch->act, 0, bq_mat_cols(k->gu, 0, inter), bq_mat_cols(k->gu, inter, inter),
                 k->z);
}

void bq_block_norm(bq_dev *dev, const bq_block *blk, bq_work *k) { norm(dev, blk, BQ_NORM_MLP, k->m, k->n); }

bq_mat bq_block_input(const bq_arch *arch, const bq_work *k, int site) {
    const bq_mat of[BQ_ROLES] = {[BQ_QKV] = k->a, [BQ_O] = k->o, [BQ_GATE_UP] = k->n, [BQ_DOWN] = k->z};
    return of[arch->site[site].role];
}

/* y = residual + what o or down computes from x, or the norm of that. */
static void add_output(bq_dev *dev, const bq_block *blk, const bq_work *k, bq_role role, const bq_mat *w,
                       bq_mat x, bq_mat residual, bq_mat y) {
    bool o = role == BQ_O;
    bq_mat raw = o ? k->raw_o : k->raw_down;
    dev->op->copy(dev, residual, y);
    if (!blk->norm[o ? BQ_NORM_O : BQ_NORM_DOWN].data) {
        linear(dev, blk, k, role, w, x, true, y);
        return;
    }
    if (!raw.data) raw = k->t;
    linear(dev, blk, k, role, w, x, false, raw);
    norm(dev, blk, o ? BQ_NORM_O : BQ_NORM_DOWN, raw, k->t);
    dev->op->add(dev, k->t, y);
}

static void part(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, int m, bq_mat x, bq_mat y) {
    if (m == blk->arch->sites) {
        add_output(dev, blk, k, BQ_DOWN, w, k->z, k->m, y);
        return;
    }
    switch (blk->arch->site[m].role) {
    case BQ_QKV: norm(dev, blk, BQ_NORM_ATTENTION, x, k->a); break;
    case BQ_O: bq_block_heads(dev, blk, w, k); break;
    case BQ_GATE_UP:
        add_output(dev, blk, k, BQ_O, w, k->o, x, k->m);
        bq_block_norm(dev, blk, k);
        break;
    default: bq_block_gated(dev, blk, w, k);
    }
}

void bq_block_parts(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, int first, int last,
                    bq_mat x, bq_mat y) {
    for (int m = first; m <= last; m++) part(dev, blk, w, k, m, x, y);
}

/* The number of the last part: that of the output, or where it is not wanted that of the last site. */
static int last_part(const bq_block *blk, bq_mat y) { return blk->arch->sites - !y.data; }

void bq_block_rest(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat x, bq_mat y) {
    bq_block_parts(dev, blk, w, k, bq_arch_site(blk->arch, BQ_GATE_UP), last_part(blk, y), x, y);
}

void bq_block_forward(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat x, bq_mat y) {
    bq_block_parts(dev, blk, w, k, 0, last_part(blk, y), x, y);
}

void bq_block_sample(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat from, bq_mat to) {
    dev->op->put(dev, from, k->x);
    bq_block_forward(dev, blk, w, k, k->x, k->y);
    (to.place == BQ_DEVICE ? dev->op->copy : dev->op->get)(dev, k->y, to);
    dev->op->wait(dev);
}
