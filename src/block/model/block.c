#include "block/model/block.h"

#include "base/die.h"

void bq_block_push(bq_block *blk, const bq_arch *arch, bq_arena *mem) {
    *blk = (bq_block){.arch = arch};
    for (int m = 0; m < BQ_MATS; m++) {
        blk->w[m] = bq_arena_push(mem, arch->rows[m], arch->cols[m], BQ_F32);
        if (arch->bias[m]) blk->bias[m] = bq_arena_push(mem, 1, arch->rows[m], BQ_F32);
    }
    for (int i = 0; i < 2; i++) blk->norm[i] = bq_arena_push(mem, 1, arch->model.hidden, BQ_F32);
}

size_t bq_block_need(const bq_arch *arch) {
    size_t sum = 2 * bq_arena_need(1, arch->model.hidden, BQ_F32);
    for (int m = 0; m < BQ_MATS; m++) {
        sum += bq_arena_need(arch->rows[m], arch->cols[m], BQ_F32);
        if (arch->bias[m]) sum += bq_arena_need(1, arch->rows[m], BQ_F32);
    }
    return sum;
}

/* The buffers of a workspace in one table of shapes, so that bq_work_push and bq_work_need agree. */
enum { WORK_BUFFERS = 17, FORWARD_BUFFERS = 12 };

typedef struct {
    int64_t rows, cols;
} shape;

static void work_shapes(const bq_arch *arch, int64_t t, shape out[WORK_BUFFERS]) {
    const bq_model *m = &arch->model;
    int64_t h = m->hidden, q = m->heads * m->head_dim, qkv = arch->rows[BQ_QKV];
    const shape s[WORK_BUFFERS] = {
        {t, m->rope.dim / 2},
        {t, m->rope.dim / 2},
        {t, h},
        {t, h},
        {t, h},
        {t, h},
        {t, h},
        {t, qkv},
        {t, q},
        {m->heads, t},
        {t, 2 * m->inter},
        {t, m->inter},
        {t, m->inter},
        {t, h},
        {t, h},
        {t, q},
        {t, qkv},
    };
    for (int i = 0; i < WORK_BUFFERS; i++) out[i] = s[i];
}

static int work_count(bool train) { return train ? WORK_BUFFERS : FORWARD_BUFFERS; }

void bq_work_push(bq_work *work, const bq_arch *arch, int64_t tokens, bool train, bq_arena *mem) {
    *work = (bq_work){0};
    bq_mat *const view[WORK_BUFFERS] = {&work->cos, &work->sin, &work->x,  &work->y,    &work->a,   &work->m,
                                        &work->n,   &work->qkv, &work->o,  &work->lse,  &work->gu,  &work->z,
                                        &work->dz,  &work->dm,  &work->dn, &work->dout, &work->dqkv};
    shape s[WORK_BUFFERS];
    work_shapes(arch, tokens, s);
    for (int i = 0; i < work_count(train); i++) *view[i] = bq_arena_push(mem, s[i].rows, s[i].cols, BQ_F32);
}

size_t bq_work_need(const bq_arch *arch, int64_t tokens, bool train) {
    shape s[WORK_BUFFERS];
    size_t sum = 0;
    work_shapes(arch, tokens, s);
    for (int i = 0; i < work_count(train); i++) sum += bq_arena_need(s[i].rows, s[i].cols, BQ_F32);
    return sum;
}

typedef struct {
    bq_mat q, k, v;
} heads;

static heads split(const bq_model *m, bq_mat qkv) {
    int64_t q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    return (heads){bq_mat_cols(qkv, 0, q), bq_mat_cols(qkv, q, kv), bq_mat_cols(qkv, q + kv, kv)};
}

void bq_block_linear(bq_dev *dev, const bq_block *blk, int mat, const bq_mat w[BQ_MATS], bq_mat x, bool keep,
                     bq_mat out) {
    dev->op->gemm(dev, false, true, 1, x, w[mat], keep ? 1 : 0, out);
    if (blk->bias[mat].data) dev->op->bias(dev, blk->bias[mat], out);
}

/* bq_block_linear where each linear of the matrix has its own factors of x. */
static void prescaled(bq_dev *dev, const bq_block *blk, const bq_work *k, int mat, const bq_mat w[BQ_MATS],
                      bq_mat x, bool keep, bq_mat out) {
    const bq_arch *arch = blk->arch;
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat y = bq_arena_push(&dev->mem, x.rows, x.cols, BQ_F32);
    for (int i = 0; i < arch->linears; i++) {
        const bq_linear *l = &arch->linear[i];
        if (l->mat != mat) continue;
        dev->op->times_columns(dev, x, blk->pre[i], y);
        if (k->activations) dev->op->fake_quantize_rows(dev, y, k->activations, y);
        dev->op->gemm(dev, false, true, 1, y, bq_mat_rows(w[mat], l->row, l->rows), keep ? 1 : 0,
                      bq_mat_cols(out, l->row, l->rows));
    }
    if (blk->bias[mat].data) dev->op->bias(dev, blk->bias[mat], out);
    bq_arena_reset(&dev->mem, mark);
}

size_t bq_block_pre_scratch(const bq_arch *arch, int64_t tokens) {
    size_t most = 0;
    for (int m = 0; m < BQ_MATS; m++) {
        size_t one = bq_arena_need(tokens, arch->cols[m], BQ_F32);
        most = one > most ? one : most;
    }
    return most;
}

/* bq_block_linear with blk->pre and the rounding of inputs.  x is read only here, so it is rounded in
 * place. */
static void linear(bq_dev *dev, const bq_block *blk, const bq_work *k, int mat, const bq_mat w[BQ_MATS],
                   bq_mat x, bool keep, bq_mat out) {
    if (blk->pre) {
        prescaled(dev, blk, k, mat, w, x, keep, out);
        return;
    }
    if (k->activations) dev->op->fake_quantize_rows(dev, x, k->activations, x);
    bq_block_linear(dev, blk, mat, w, x, keep, out);
}

void bq_block_heads(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k) {
    const bq_ops *op = dev->op;
    const bq_model *m = &blk->arch->model;
    heads h = split(m, k->qkv);
    linear(dev, blk, k, BQ_QKV, w, k->a, false, k->qkv);
    op->rope(dev, h.q, m->heads, m->head_dim, k->cos, k->sin, false);
    op->rope(dev, h.k, m->kv_heads, m->head_dim, k->cos, k->sin, false);
    op->attention(dev, blk->arch->attention, h.q, h.k, h.v, k->o, k->lse);
}

void bq_block_gated(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k) {
    int64_t inter = blk->arch->model.inter;
    linear(dev, blk, k, BQ_GATE_UP, w, k->n, false, k->gu);
    dev->op->glu(dev, BQ_SILU, bq_mat_cols(k->gu, 0, inter), bq_mat_cols(k->gu, inter, inter), k->z);
}

void bq_block_norm(bq_dev *dev, const bq_block *blk, bq_work *k) {
    dev->op->rmsnorm(dev, k->m, blk->norm[1], (float)blk->arch->model.eps, k->n);
}

static void part(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k, int m, bq_mat x,
                 bq_mat y) {
    const bq_ops *op = dev->op;
    switch (m) {
    case BQ_QKV: op->rmsnorm(dev, x, blk->norm[0], (float)blk->arch->model.eps, k->a); break;
    case BQ_O: bq_block_heads(dev, blk, w, k); break;
    case BQ_GATE_UP:
        op->copy(dev, x, k->m);
        linear(dev, blk, k, BQ_O, w, k->o, true, k->m);
        bq_block_norm(dev, blk, k);
        break;
    case BQ_DOWN: bq_block_gated(dev, blk, w, k); break;
    default: op->copy(dev, k->m, y); linear(dev, blk, k, BQ_DOWN, w, k->z, true, y);
    }
}

void bq_block_parts(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k, int first,
                    int last, bq_mat x, bq_mat y) {
    for (int m = first; m <= last; m++) part(dev, blk, w, k, m, x, y);
}

void bq_block_rest(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k, bq_mat x,
                   bq_mat y) {
    bq_block_parts(dev, blk, w, k, BQ_GATE_UP, y.data ? BQ_MATS : BQ_DOWN, x, y);
}

void bq_block_forward(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k, bq_mat x,
                      bq_mat y) {
    bq_block_parts(dev, blk, w, k, BQ_QKV, y.data ? BQ_MATS : BQ_DOWN, x, y);
}

void bq_block_sample(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k, bq_mat from,
                     bq_mat to) {
    dev->op->put(dev, from, k->x);
    bq_block_forward(dev, blk, w, k, k->x, k->y);
    (to.place == BQ_DEVICE ? dev->op->copy : dev->op->get)(dev, k->y, to);
    dev->op->wait(dev);
}

void bq_block_backward(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k, bq_mat x,
                       bq_mat dy, const bq_mat dw[BQ_MATS], bq_mat dx) {
    const bq_ops *op = dev->op;
    const bq_model *m = &blk->arch->model;
    heads h = split(m, k->qkv), dh = split(m, k->dqkv);
    bq_mat g = bq_mat_cols(k->gu, 0, m->inter), u = bq_mat_cols(k->gu, m->inter, m->inter);
    BQ_CHECK(k->dz.data && !k->activations && !blk->pre, "backward with what is for the forward only");

    op->gemm(dev, true, false, 1, dy, k->z, 0, dw[BQ_DOWN]);
    op->gemm(dev, false, false, 1, dy, w[BQ_DOWN], 0, k->dz);
    op->glu_bwd(dev, BQ_SILU, g, u, k->dz, g, u);
    op->gemm(dev, true, false, 1, k->gu, k->n, 0, dw[BQ_GATE_UP]);
    op->gemm(dev, false, false, 1, k->gu, w[BQ_GATE_UP], 0, k->dn);
    op->copy(dev, dy, k->dm);
    op->rmsnorm_bwd(dev, k->m, blk->norm[1], (float)m->eps, k->dn, k->dm);
    op->gemm(dev, true, false, 1, k->dm, k->o, 0, dw[BQ_O]);
    op->gemm(dev, false, false, 1, k->dm, w[BQ_O], 0, k->dout);
    op->attention_bwd(dev, blk->arch->attention, h.q, h.k, h.v, k->o, k->lse, k->dout, dh.q, dh.k, dh.v);
    op->rope(dev, dh.q, m->heads, m->head_dim, k->cos, k->sin, true);
    op->rope(dev, dh.k, m->kv_heads, m->head_dim, k->cos, k->sin, true);
    op->gemm(dev, true, false, 1, k->dqkv, k->a, 0, dw[BQ_QKV]);
    if (!dx.data) return;
    op->gemm(dev, false, false, 1, k->dqkv, w[BQ_QKV], 0, k->dn);
    op->copy(dev, k->dm, dx);
    op->rmsnorm_bwd(dev, x, blk->norm[0], (float)m->eps, k->dn, dx);
}
