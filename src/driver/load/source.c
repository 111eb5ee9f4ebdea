/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/load/source.h"

#include "base/die.h"
#include "io/in/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An expected tensor: its shape, and where its rows go, if anywhere. */
typedef struct {
    char name[160];
    int64_t rows, cols; /* rows 0: one-dimensional of cols */
    bq_mat to;
} expected;

static void expect_one(expected *e, const bq_arch *arch, int b, const char *module, const char *what,
                       int64_t rows, int64_t cols) {
    *e = (expected){.rows = rows, .cols = cols};
    bq_arch_tensor(arch, e->name, sizeof e->name, b, module, what);
}

static int expect_block(const bq_arch *arch, int b, const bq_block *blk, expected *out) {
    expected *e = out;
    for (int i = 0; i < arch->linears; i++) {
        const bq_linear *l = &arch->linear[i];
        expect_one(e++, arch, b, l->module, "weight", l->rows, l->cols);
        if (blk) e[-1].to = bq_linear_view(arch, i, blk->w);
        if (!l->bias) continue;
        expect_one(e++, arch, b, l->module, "bias", 0, l->rows);
        if (blk) e[-1].to = bq_mat_cols(blk->bias[l->site], l->row, l->rows);
    }
    for (int i = 0; i < BQ_NORMS; i++) {
        if (!arch->norm[i]) continue;
        expect_one(e++, arch, b, arch->norm[i], "weight", 0, arch->gains[i]);
        if (blk) e[-1].to = blk->norm[i];
    }
    for (int i = 0; i < BQ_EXTRAS; i++) {
        if (!arch->extra[i]) continue;
        *e = (expected){.rows = arch->extra_shape[i][0], .cols = arch->extra_shape[i][1]};
        snprintf(e->name, sizeof e->name, "%s.layers.%d.%s", arch->model.prefix, b, arch->extra[i]);
        if (blk) e->to = blk->extra[i];
        e++;
    }
    return (int)(e - out);
}

const bq_arch *bq_source_arch(const bq_source *src, int b) {
    return src->arch.model.dense[b] ? &src->dense : &src->arch;
}

const bq_arch *bq_source_first(const bq_source *src) { return src->arch.experts ? &src->core : &src->arch; }

const bq_arch *bq_source_core(const bq_source *src, int b) {
    return src->arch.model.dense[b] ? &src->dense : bq_source_first(src);
}

void bq_source_layouts(const bq_source *src, bq_layouts *layouts) {
    *layouts = (bq_layouts){.count = 1, .at = {{.arch = bq_source_first(src)}}};
    if (src->dense.linears) layouts->at[layouts->count++].arch = &src->dense;
    if (src->arch.experts) layouts->at[layouts->count++].arch = &src->expert;
}

/* Tell the source which tensors the model has. */
static int expect(const bq_source *src) {
    const bq_model *m = &src->arch.model;
    int n = 0, most = 3 + m->blocks * (2 * src->arch.linears + BQ_NORMS + BQ_EXTRAS);
    expected *e = calloc((size_t)most, sizeof *e);
    bq_tensor *t = calloc((size_t)most, sizeof *t);
    BQ_CHECK(e && t, "no memory to list %d tensors", most);
    const char *const whole[3] = {src->arch.embed, src->arch.final_norm, bq_tensor_head};
    for (; n < (m->tied ? 2 : 3); n++) {
        e[n] = (expected){.rows = n == 1 ? 0 : m->vocab, .cols = m->hidden};
        snprintf(e[n].name, sizeof e[n].name, "%s", whole[n]);
    }
    for (int b = 0; b < m->blocks; b++) n += expect_block(bq_source_arch(src, b), b, NULL, e + n);
    for (int i = 0; i < n; i++) {
        t[i] = (bq_tensor){.name = e[i].name, .dims = e[i].rows ? 2 : 1, .shape = {e[i].rows, e[i].cols}};
        if (!e[i].rows) t[i].shape[0] = e[i].cols;
    }
    int code = bq_weights_expect(src->weights, t, n);
    free(e);
    free(t);
    return code;
}

/* A model with images keeps its text model below another name.  Without the embedding: the usual one, so that
 * messages name that. */
static void find_prefix(const bq_weights *w, bq_model *m) {
    char name[64];
    for (int i = 0; bq_arch_prefix(i) && !m->prefix[0]; i++) {
        snprintf(name, sizeof name, "%s.embed_tokens.weight", bq_arch_prefix(i));
        if (bq_weights_find(w, name)) strcpy(m->prefix, bq_arch_prefix(i));
    }
}

int bq_source_open(bq_source *src, const char *path) {
    bq_model model;
    *src = (bq_source){0};
    if (strlen(path) >= sizeof src->dir)
        return bq_refuse(BQ_DATA, "model path of %zu bytes is too long", strlen(path));
    int code = bq_weights_open(&src->weights, path);
    if (!code) code = bq_config_of(src->weights, &model);
    if (!code) {
        strcpy(src->dir, bq_weights_dir(src->weights));
        find_prefix(src->weights, &model);
        bq_arch_of(&model, &src->arch);
        bq_arch_of_dense(&src->arch.model, &src->dense);
        if (src->arch.experts) bq_arch_of_core(&src->arch.model, &src->core);
        if (src->arch.experts) bq_arch_of_expert(&src->arch.model, 0, &src->expert);
        code = expect(src);
    }
    if (code) bq_source_close(src);
    return code;
}

void bq_source_close(bq_source *src) {
    bq_rotated_close(src->rotated);
    bq_weights_close(src->weights);
    *src = (bq_source){0};
}

bq_tensor_id bq_source_id(const bq_source *src, const char *tensor) {
    return bq_arch_id_in(&src->arch, &src->dense, tensor);
}

int bq_source_transform(bq_source *src, const bq_recipe *recipe) {
    int code = bq_rounded_of(&src->rounded, recipe, src->arch.model.hidden);
    if (code) return code;
    return bq_rotated_open(&src->rotated, &src->arch, &src->dense, src->weights, recipe);
}

int bq_source_fingerprint(const bq_source *src, const char *cache, uint64_t *hash) {
    uint64_t weights;
    int code = bq_weights_fingerprint(src->weights, cache, &weights);
    if (code) return code;
    bq_hash *h = bq_hash_open();
    bq_hash_add(h, &weights, sizeof weights);
    bq_config_hash(&src->arch.model, h);
    *hash = bq_hash_close(h);
    return BQ_OK;
}

void bq_source_rows(const bq_source *src, const char *name, int64_t first, bq_mat to) {
    if (bq_rotated_read(src->rotated, name, first, to)) return;
    bq_weights_read(src->weights, bq_weights_find(src->weights, name), first, to.rows, to);
    if (!src->arch.gain_of_zero) return;
    bq_tensor_kind kind = bq_arch_id(&src->arch, name).kind;
    for (int64_t i = 0; i < to.cols && (kind == BQ_TENSOR_NORM || kind == BQ_TENSOR_BLOCK_NORM); i++)
        bq_f32(to)[i] += src->arch.gain_of_zero;
}

/* Rows of a piece: some whole heads, or all rows where a rotation needs that. */
static int64_t piece_rows(const bq_arch *arch, int64_t rows, int64_t cols, bool whole) {
    int64_t head = arch->model.head_dim, step = (((int64_t)1 << 22) / cols / head + 1) * head;
    return whole || step > rows ? rows : step;
}

static int64_t most_of(const bq_arch *arch, bool rotated) {
    int64_t most = arch->model.hidden;
    for (int i = 0; i < arch->linears; i++) {
        const bq_linear *l = &arch->linear[i];
        bool whole = rotated && bq_role_writes(arch->site[l->site].role);
        int64_t values = piece_rows(arch, l->rows, l->cols, whole) * l->cols;
        if (values < l->rows) values = l->rows; /* its bias */
        if (values > most) most = values;
    }
    return most;
}

int64_t bq_source_piece_most(const bq_arch *arch, bool rotated) {
    bq_arch other;
    int64_t most = most_of(arch, rotated), one = 0;
    if (bq_arch_of_dense(&arch->model, &other)) one = most_of(&other, rotated);
    most = one > most ? one : most;
    if (!arch->model.experts) return most;
    bq_arch_of_expert(&arch->model, 0, &other);
    one = most_of(&other, rotated);
    return one > most ? one : most;
}

size_t bq_source_need(const bq_arch *arch, bool rotated) {
    const bq_model *m = &arch->model;
    int64_t most = bq_source_piece_most(arch, rotated), head = piece_rows(arch, m->vocab, m->hidden, false);
    return (size_t)(head * m->hidden > most ? head * m->hidden : most) * sizeof(float);
}

static bool pieces(const bq_source *src, const char *name, bq_mat to, bq_source_visit *visit, void *ctx) {
    int64_t step = piece_rows(&src->arch, to.rows, to.cols, bq_rotated_whole(src->rotated, name));
    bool on = true;
    for (int64_t r = 0; r < to.rows && on; r += step)
        on = visit(ctx, name, r, bq_mat_rows(to, r, to.rows - r < step ? to.rows - r : step));
    return on;
}

/* The tensors of a unit of block b; the caller frees them. */
static expected *tensors_of(int b, const bq_arch *arch, const bq_block *blk, int *n) {
    int most = 2 * arch->linears + BQ_NORMS + BQ_EXTRAS;
    expected *e = calloc((size_t)most, sizeof *e);
    BQ_CHECK(e, "no memory to list %d tensors", most);
    *n = expect_block(arch, b, blk, e);
    return e;
}

static void pieces_of(const bq_source *src, int b, const bq_arch *arch, const bq_block *blk, bool weights,
                      bq_source_visit *visit, void *ctx) {
    int n;
    bool on = true;
    expected *e = tensors_of(b, arch, blk, &n);
    for (int i = 0; i < n && on; i++)
        if (weights || bq_source_id(src, e[i].name).kind != BQ_TENSOR_WEIGHT)
            on = pieces(src, e[i].name, e[i].to, visit, ctx);
    free(e);
}

void bq_source_pieces(const bq_source *src, int b, const bq_block *blk, bq_source_visit *visit, void *ctx) {
    pieces_of(src, b, bq_source_core(src, b), blk, true, visit, ctx);
}

/* Pieces go to a GPU through a host buffer; buffer NULL: the device is the host. */
typedef struct {
    const bq_source *src;
    bq_dev *dev;
    float *buffer;
    bq_scheme round; /* element 0: the values are not rounded */
} loading;

static bool load_piece(void *ctx, const char *name, int64_t first, bq_mat to) {
    loading *l = ctx;
    if (!l->buffer) {
        bq_source_rows(l->src, name, first, to);
        bq_round_values(to, l->round);
        return true;
    }
    bq_mat host = bq_mat_host(l->buffer, to.rows, to.cols, BQ_F32);
    bq_source_rows(l->src, name, first, host);
    bq_round_values(host, l->round);
    l->dev->op->put(l->dev, host, to);
    l->dev->op->wait(l->dev);
    return true;
}

static float *buffer_of(const bq_dev *dev, int64_t values) {
    if (dev->mem.place != BQ_DEVICE) return NULL;
    float *buffer = malloc((size_t)values * sizeof *buffer);
    BQ_CHECK(buffer, "no memory to read %ld weights", (long)values);
    return buffer;
}

static void load(const bq_source *src, bq_dev *dev, const char *name, bq_scheme round, bq_mat to) {
    bool whole = bq_rotated_whole(src->rotated, name);
    loading l = {src, dev, buffer_of(dev, piece_rows(&src->arch, to.rows, to.cols, whole) * to.cols), round};
    pieces(src, name, to, load_piece, &l);
    free(l.buffer);
}

static void load_unit(const bq_source *src, bq_dev *dev, int b, const bq_arch *arch, bool weights,
                      bq_block *blk) {
    loading l = {src, dev, buffer_of(dev, bq_source_piece_most(&src->arch, src->rotated)), {0}};
    bq_block_turn(blk, arch, b);
    pieces_of(src, b, arch, blk, weights, load_piece, &l);
    free(l.buffer);
}

void bq_source_unit(const bq_source *src, bq_dev *dev, int b, const bq_arch *arch, bq_block *blk) {
    load_unit(src, dev, b, arch, true, blk);
}

void bq_source_vectors(const bq_source *src, bq_dev *dev, int b, const bq_arch *arch, bq_block *blk) {
    load_unit(src, dev, b, arch, false, blk);
}

void bq_source_block(const bq_source *src, bq_dev *dev, int b, bq_block *blk) {
    bq_source_unit(src, dev, b, bq_source_arch(src, b), blk);
}

void bq_source_prefetch_unit(const bq_source *src, int b, const bq_arch *arch) {
    int n;
    expected *e = tensors_of(b, arch, NULL, &n);
    for (int i = 0; i < n; i++) bq_weights_prefetch(src->weights, bq_weights_find(src->weights, e[i].name));
    free(e);
}

void bq_source_prefetch(const bq_source *src, int b) {
    if (b < src->arch.model.blocks) bq_source_prefetch_unit(src, b, bq_source_core(src, b));
}

static void scale_rows(const bq_source *src, bq_mat rows) {
    if (src->arch.embed_scale == 1) return;
    for (int64_t i = 0; i < rows.rows * rows.cols; i++) bq_f32(rows)[i] *= src->arch.embed_scale;
}

/* What is rounded is the tensor of the transformed model, as outputs have it. */
void bq_source_embed(const bq_source *src, const int32_t *ids, bool rounded, bq_mat out) {
    const bq_tensor *t = bq_weights_find(src->weights, src->arch.embed);
    rounded = rounded && bq_code_bits(src->rounded.embedding);
    for (int64_t r = 0; r < out.rows; r++)
        bq_weights_read(src->weights, t, ids[r], 1, bq_mat_rows(out, r, 1));
    if (!rounded) scale_rows(src, out);
    bq_rotated_embed(src->rotated, out);
    if (!rounded) return;
    bq_round_values(out, src->rounded.embedding);
    scale_rows(src, out);
}

const char *bq_source_head_name(const bq_source *src) {
    bool apart = !src->arch.model.tied || bq_rotated_read(src->rotated, bq_tensor_head, 0, (bq_mat){0});
    return apart ? bq_tensor_head : src->arch.embed;
}

bool bq_source_tied(const bq_source *src) {
    return strcmp(bq_source_head_name(src), src->arch.embed) == 0 &&
           bq_scheme_equal(src->rounded.head, src->rounded.embedding);
}

void bq_source_head(const bq_source *src, bq_dev *dev, bool rounded, bq_mat norm, bq_mat head) {
    const bq_scheme none = {0};
    load(src, dev, src->arch.final_norm, none, norm);
    load(src, dev, bq_source_head_name(src), rounded ? src->rounded.head : none, head);
}

static void put_rope(const bq_rope *rope, bq_angles angles, bq_dev *dev, bq_mat cos, bq_mat sin) {
    size_t n = (size_t)(cos.rows * cos.cols);
    float *table = malloc(2 * n * sizeof *table + 1);
    BQ_CHECK(table, "no memory for a rotary table of %zu values", n);
    bq_mat c = bq_mat_host(table, cos.rows, cos.cols, BQ_F32);
    bq_mat s = bq_mat_host(table + n, cos.rows, cos.cols, BQ_F32);
    bq_rope_table(rope, angles, cos.rows, c, s);
    dev->op->put(dev, c, cos);
    dev->op->put(dev, s, sin);
    dev->op->wait(dev);
    free(table);
}

void bq_source_work(const bq_source *src, const bq_arch *arch, bq_angles angles, bq_dev *dev, int64_t tokens,
                    bool train, bq_work *work) {
    const bq_model *m = &src->arch.model;
    bq_work_push(work, arch, tokens, train, &dev->mem);
    put_rope(&m->rope, angles, dev, work->cos[0], work->sin[0]);
    if (m->full_rope.dim) put_rope(&m->full_rope, angles, dev, work->cos[1], work->sin[1]);
}
