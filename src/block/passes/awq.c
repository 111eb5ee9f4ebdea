/* SPDX-License-Identifier: Apache-2.0 */
#include "block/passes/awq.h"

#include "block/common/capture.h"
#include "comm/treesum.h"

enum { TOKENS = 512, ROWS = 256, LIMITS = 10 };
static const float limit_step = 0.05f;

/* ---- the clip search ---- */

typedef struct {
    bq_pass_context *c;
    bq_mat x[BQ_SITES]; /* (tokens, cols): the inputs of the tokens that are used */
    int64_t tokens;     /* how many, <= TOKENS */
} clipping;

static int64_t tokens_of(int64_t samples, int64_t tokens) {
    return samples * tokens < TOKENS ? samples * tokens : TOKENS;
}

/* The number of the i-th of these tokens among all tokens. */
static int64_t place(const clipping *t, int64_t i) { return i * (t->c->samples * t->c->tokens) / t->tokens; }

/* The first of these tokens that lies in a sample or in a later one. */
static int64_t first_in(const clipping *t, int64_t sample) {
    int64_t i = 0;
    while (i < t->tokens && place(t, i) < sample * t->c->tokens) i++;
    return i;
}

static void pick(void *ctx, int64_t sample, bq_mat x, bq_mat y) {
    clipping *t = ctx;
    bq_dev *dev = t->c->dev;
    const bq_arch *arch = t->c->q->arch;
    (void)x, (void)y;
    for (int64_t i = first_in(t, sample), end = first_in(t, sample + 1); i < end; i++)
        for (int m = 0; m < arch->sites; m++)
            dev->op->copy(
                dev, bq_mat_rows(bq_block_input(arch, t->c->work, m), place(t, i) - sample * t->c->tokens, 1),
                bq_mat_rows(t->x[m], i, 1));
}

/* Give every replica the tokens of all replicas. */
static void gather_tokens(clipping *t) {
    const bq_comm *comm = t->c->comm;
    int64_t first[BQ_REPLICAS + 1];
    for (int r = 0; r < comm->nreplica; r++)
        first[r] = first_in(t, bq_shard_of(t->c->samples, r, comm->nreplica).first);
    first[comm->nreplica] = t->tokens;
    for (int m = 0; m < t->c->q->arch->sites; m++) bq_comm_gather_slices(comm, t->c->dev, t->x[m], first);
}

/* The rows of linear i that are clipped, numbered as in its site: all but those of queries and keys.  In
 * latent attention all rows but those of o are a part of these, or stand between them. */
static bq_shard rows_of(const bq_arch *arch, int i) {
    const bq_linear *l = &arch->linear[i];
    const bq_model *m = &arch->model;
    bq_role role = arch->site[l->site].role;
    int64_t first = !bq_role_attends(role) || role == BQ_O ? 0
                    : m->kv_rank                           ? l->row + l->rows
                                                           : (m->heads + m->kv_heads) * m->head_dim;
    first = first > l->row ? first - l->row : 0;
    return first < l->rows ? (bq_shard){l->row + first, l->rows - first, l->rows}
                           : (bq_shard){l->row, 0, l->rows};
}

static int64_t pieces_of(const bq_arch *arch, int i) { return (rows_of(arch, i).count + ROWS - 1) / ROWS; }

/* Clip some rows w of a site, one group of columns after the other. */
static void clip_piece(clipping *t, bq_scheme scheme, bq_mat w, bq_mat x) {
    bq_dev *dev = t->c->dev;
    int64_t group = scheme.group > 0 ? scheme.group : w.cols;
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat delta = bq_arena_push(&dev->mem, w.rows, group, BQ_F32);
    bq_mat out = bq_arena_push(&dev->mem, t->tokens, w.rows, BQ_F32);
    bq_mat error = bq_arena_push(&dev->mem, LIMITS, w.rows, BQ_F32);
    for (int64_t at = 0; at < w.cols; at += group) {
        bq_mat part = bq_mat_cols(w, at, group);
        for (int k = 0; k < LIMITS; k++) {
            dev->op->clip_error(dev, part, 1 - (float)k * limit_step, scheme, delta);
            dev->op->gemm(dev, false, true, 1, bq_mat_cols(x, at, group), delta, 0, out);
            dev->op->column_squares(dev, out, bq_mat_rows(error, k, 1));
        }
        dev->op->clip_rows(dev, error, limit_step, part);
    }
    bq_arena_reset(&dev->mem, mark);
}

/* The shape of a piece does not depend on the number of replicas, so its products have the same bits. */
static void clip_all(clipping *t) {
    bq_pass_context *c = t->c;
    const bq_arch *arch = c->q->arch;
    const bq_comm *comm = c->comm;
    int64_t pieces = 0, number = 0, first[BQ_SITES][BQ_REPLICAS + 1];
    for (int i = 0; i < arch->linears; i++) pieces += pieces_of(arch, i);
    for (int m = 0; m < arch->sites; m++)
        for (int r = 0; r <= comm->nreplica; r++) first[m][r] = r ? arch->site[m].rows : 0;
    bq_shard mine = bq_shard_of(pieces, comm->replica, comm->nreplica);
    for (int i = 0; i < arch->linears; i++) {
        int m = arch->linear[i].site;
        bq_shard rows = rows_of(arch, i);
        for (int64_t at = 0; at < rows.count; at += ROWS, number++) {
            int64_t count = rows.count - at < ROWS ? rows.count - at : ROWS, row = rows.first + at;
            for (int r = 1; r < comm->nreplica; r++)
                if (number >= bq_shard_of(pieces, r, comm->nreplica).first && row < first[m][r])
                    first[m][r] = row;
            if (number < mine.first || number >= mine.first + mine.count) continue;
            clip_piece(t, c->q->scheme[i], bq_mat_rows(c->blk->w[m], row, count), t->x[m]);
        }
    }
    for (int m = 0; m < arch->sites; m++) bq_comm_gather_slices(comm, c->dev, c->blk->w[m], first[m]);
}

void bq_awq_clip(bq_pass_context *c) {
    size_t mark = bq_arena_mark(&c->dev->mem);
    clipping t = {.c = c, .tokens = tokens_of(c->samples, c->tokens)};
    for (int m = 0; m < c->q->arch->sites; m++)
        t.x[m] = bq_arena_push(&c->dev->mem, t.tokens, c->q->arch->site[m].cols, BQ_F32);
    bq_capture(c, bq_prepare_stream(c->input), bq_every, c->blk->w, false, pick, &t);
    gather_tokens(&t);
    clip_all(&t);
    bq_arena_reset(&c->dev->mem, mark);
}

static size_t clip_need(const bq_arch *arch, const bq_scheme *scheme, int64_t tokens, int64_t samples) {
    int64_t n = tokens_of(samples, tokens);
    size_t sum = 0, most = 0;
    for (int m = 0; m < arch->sites; m++) sum += bq_arena_need(n, arch->site[m].cols, BQ_F32);
    for (int i = 0; i < arch->linears; i++) {
        int64_t group = scheme[i].group > 0 ? scheme[i].group : arch->linear[i].cols;
        size_t piece = bq_arena_need(ROWS, group, BQ_F32) + bq_arena_need(n, ROWS, BQ_F32) +
                       bq_arena_need(LIMITS, ROWS, BQ_F32);
        most = piece > most ? piece : most;
    }
    return sum + most;
}

/* ---- the pass ---- */

static bq_smooth_form form_of(const bq_awq_options *o, int k) {
    bq_smooth_form f = {.kind = BQ_SMOOTH_POWER, .ratio = k / (o->to_one ? 19.0 : 20.0), .floor = 1e-4};
    if (!o->duo) return f;
    if (k == 0) return (bq_smooth_form){.kind = BQ_SMOOTH_POWER, .ratio = 0, .floor = 1e-4};
    return (bq_smooth_form){.kind = BQ_SMOOTH_DUO, .ratio = (k - 1) / 18.0, .floor = 1e-4};
}

static bq_scales_options search_of(const bq_awq_options *o) {
    bq_scales_options s = {.statistic = BQ_CHANNEL_MEAN,
                           .loss = BQ_DISTANCE_MSE,
                           .gqa = o->gqa,
                           .activations = o->activations,
                           .search = o->search,
                           .inspect = {[BQ_QKV] = BQ_INSPECT_MODULE,
                                       [BQ_O] = BQ_INSPECT_SELF,
                                       [BQ_GATE_UP] = BQ_INSPECT_MODULE,
                                       [BQ_DOWN] = BQ_INSPECT_SELF},
                           .candidates = BQ_CANDIDATES};
    for (int k = 0; k < s.candidates; k++) s.form[k] = form_of(o, k);
    return s;
}

int64_t bq_pass_awq(bq_pass_context *c, const bq_awq_options *o, bq_scales_result *result) {
    bq_scales_result own;
    bq_scales_options s = search_of(o);
    int64_t rc = bq_scales_search(c, &s, result ? result : &own);
    if (o->clip && rc == 0) bq_awq_clip(c);
    return rc;
}

size_t bq_awq_need(const bq_arch *arch, const bq_scheme *scheme, const bq_awq_options *o, int64_t tokens,
                   int64_t samples, int replica, int nreplica) {
    bq_scales_options s = search_of(o);
    size_t search = bq_scales_need(arch, &s, tokens, samples, replica, nreplica);
    size_t clip = o->clip ? clip_need(arch, scheme, tokens, samples) : 0;
    return search > clip ? search : clip;
}

/* ---- the kind ---- */

typedef struct {
    bq_awq_options o;
} options;

static const bq_key keys[] = {
    {"duo", BQ_KEY_BOOL, BQ_AT(options, o.duo), .value = "false",
     .help = "Candidates depend on the weights, too: no scale, and a^(i/18) / w^(1 - i/18), i = 0 ... 18 "
             "(llm-compressor's default). False: a^(i/20), i = 0 ... 19 (MIT, Quark)."},
    {"to_one", BQ_KEY_BOOL, BQ_AT(options, o.to_one), .value = "false",
     .help = "Without `duo`: a^(i/19), so that the last candidate is a itself (llm-compressor)."},
    {"clip", BQ_KEY_BOOL, BQ_AT(options, o.clip), .value = "true",
     .help = "After scaling, clip the weights of each row and group, but not of q and k, where this makes "
             "the outputs better (MIT, Quark). Costs one more forward."},
    {"grouped_queries", BQ_KEY_CHOICE, BQ_AT(options, o.gqa), .value = "group", .choice = bq_gqa_choices,
     .help = "As for `autosmoothquant`. MIT and llm-compressor: `skip`."},
    BQ_SCALES_KEYS(options, o),
    {0}};

static size_t need(const void *o, const bq_pass_size *of) {
    return bq_awq_need(of->arch, of->scheme, o, of->tokens, of->samples, of->replica, of->nreplica);
}

static bq_effort cost(const void *o, const bq_cost *c) {
    return bq_scales_cost(c, BQ_CANDIDATES, ((const options *)o)->o.search);
}

static int64_t run(bq_pass_context *c, const void *o) { return bq_pass_awq(c, o, NULL); }

const bq_pass_kind bq_pass_kind_awq = {
    .scope = {"phases.N.passes.N, pass: awq",
              "Scales up the weights of input channels with large mean abs a before they are rounded; the "
              "scale is searched by the squared error of outputs (AWQ). Then clips. Costs about a forward "
              "for each of 20 candidates. Prepares: a pass that quantizes must follow.",
              keys, BQ_PASS_OPTIONS_OF(options)},
    .name = "awq",
    .traits = BQ_PASS_CALIBRATED | BQ_PASS_HANDS_ON | BQ_PASS_ZEROS,
    .need = need,
    .cost = cost,
    .run = run,
};
