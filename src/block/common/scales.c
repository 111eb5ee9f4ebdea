/* SPDX-License-Identifier: Apache-2.0 */
#include "block/common/scales.h"

#include "comm/heartbeat.h"
#include "comm/treesum.h"

#include <math.h>
#include <string.h>

enum { HELD_TOKENS = 4096, HELD_SAMPLES = 8 };

/* What is held of some samples at a time, each (samples * T, columns): the inputs of the matrices; the
 * outputs that decide, of matrices and of the block; the inputs of the block and of its norm 2. */
enum { INPUT, WANT = BQ_SITES, WANT_BLOCK = WANT + BQ_SITES, BLOCK_INPUT, MLP_INPUT, HELD };

typedef struct {
    bq_pass_context *c;
    const bq_scales_options *o;
    bq_mat act[BQ_SITES], weight[BQ_SITES]; /* statistics, (1, cols) */
    bq_mat scale, have;                     /* room for one scale, for one output */
    bq_mat rounded;                         /* room for one input; no data where none is rounded */
    bq_mat held[HELD];                      /* no columns where it is not needed */
    int64_t room, count;                    /* samples that can be held; samples that are held */
    int64_t sample[HELD_SAMPLES];           /* their numbers */
    int kept;                               /* all samples of that many rounds are held before round 0 */
    bq_stride of;                           /* the samples of the round */
    bq_treesum sum;                         /* (losses_of, 1), of the round */
    int64_t leaf;                           /* of the next sample: its number among those of the round */
    int64_t seen;                           /* samples of all replicas in the rounds so far */
    double loss[BQ_SITES][BQ_CANDIDATES];   /* summed over these samples */
    bool alive[BQ_SITES][BQ_CANDIDATES];    /* candidates that the next round tries */
} search;

/* Losses of a sample: of each candidate for each site. */
static int64_t losses_of(const bq_arch *arch) { return (int64_t)arch->sites * BQ_CANDIDATES; }
enum { LOSSES_MAX = BQ_SITES * BQ_CANDIDATES };

static bq_inspect how_of(const bq_arch *arch, const bq_scales_options *o, int m) {
    return o->inspect[arch->site[m].role];
}

static bool searched(const bq_arch *arch, const bq_scales_options *o, int m) {
    bq_fusion f = bq_fusion_of(arch, m);
    bool grouped = f.repeat > 1;
    return how_of(arch, o, m) != BQ_INSPECT_OFF && bq_fusion_there(f) && !(grouped && o->gqa == BQ_GQA_SKIP);
}

static bool in_attention(const bq_arch *arch, int m) { return bq_role_attends(arch->site[m].role); }

/* The site whose output decides about site m; not for BQ_INSPECT_BLOCK. */
static int judge(const bq_arch *arch, int m, bq_inspect how) {
    while (how != BQ_INSPECT_SELF && !bq_role_writes(arch->site[m].role)) m++;
    return m;
}

/* Columns of the output that decides. */
static int64_t width(const bq_arch *arch, const bq_scales_options *o, int m) {
    bq_inspect how = how_of(arch, o, m);
    return how == BQ_INSPECT_BLOCK ? arch->model.hidden : arch->site[judge(arch, m, how)].rows;
}

static int want_of(const bq_arch *arch, const bq_scales_options *o, int m) {
    bq_inspect how = how_of(arch, o, m);
    return how == BQ_INSPECT_BLOCK ? WANT_BLOCK : WANT + judge(arch, m, how);
}

/* The columns of what is held; 0 where it is not needed. */
static void held_columns(const bq_arch *arch, const bq_scales_options *o, int64_t cols[HELD]) {
    memset(cols, 0, HELD * sizeof *cols);
    for (int m = 0; m < arch->sites; m++) {
        if (!searched(arch, o, m)) continue;
        cols[INPUT + m] = arch->site[m].cols;
        cols[want_of(arch, o, m)] = width(arch, o, m);
        if (how_of(arch, o, m) == BQ_INSPECT_BLOCK)
            cols[in_attention(arch, m) ? BLOCK_INPUT : MLP_INPUT] = arch->model.hidden;
    }
}

int64_t bq_scales_room(int64_t tokens, int64_t samples) {
    int64_t room = HELD_TOKENS / tokens < HELD_SAMPLES ? HELD_TOKENS / tokens : HELD_SAMPLES;
    room = room < samples ? room : samples;
    return room > 1 ? room : 1;
}

/* Of how many rounds, from round 0, all samples of this replica can be held during the walk for
 * statistics. */
static int kept_rounds(const search *t) {
    const bq_pass_context *c = t->c;
    int64_t all = 0;
    for (int r = 0; r < bq_search_rounds(t->o->search); r++) {
        bq_stride of = bq_search_samples(t->o->search, r);
        all += bq_stride_of(of, c->samples, c->comm->replica, c->comm->nreplica).count;
        if (all > t->room) return r;
    }
    return bq_search_rounds(t->o->search);
}

static bq_mat held(const search *t, int what, int64_t i) {
    return bq_mat_rows(t->held[what], i * t->c->tokens, t->c->tokens);
}

static bool judged_by_block(const search *t) { return t->held[WANT_BLOCK].cols > 0; }

static bq_mat scale_of(search *t, int m, int candidate) {
    bq_mat s = bq_mat_cols(t->scale, 0, t->act[m].cols);
    s.ld = s.cols;
    t->c->dev->op->smooth_scale(t->c->dev, t->o->form[candidate], t->act[m], t->weight[m], s);
    return s;
}

static bool rounds(const bq_scales_options *o) { return o->activations > 0 && o->activations < 16; }

/* The input of matrix m in held sample i: x, or where inputs are rounded Q(x / s) s. */
static bq_mat input_of(search *t, int m, bq_mat s, int64_t i) {
    bq_dev *dev = t->c->dev;
    bq_mat x = held(t, INPUT + m, i), y = t->rounded;
    if (!rounds(t->o)) return x;
    y.cols = y.ld = x.cols;
    dev->op->over_columns(dev, x, s, y);
    dev->op->round_rows(dev, y, bq_rounding_of_tokens(t->o->activations), (bq_mat){0}, y);
    dev->op->times_columns(dev, y, s, y);
    return y;
}

/* out = the output that decides about site m, with the matrices w, for held sample i with input x of m. */
static void inspect(search *t, int m, const bq_mat *w, bq_mat x, int64_t i, bq_mat out) {
    bq_dev *dev = t->c->dev;
    const bq_block *blk = t->c->blk;
    const bq_arch *arch = blk->arch;
    bq_inspect how = how_of(arch, t->o, m);
    bq_role role = arch->site[m].role;
    bq_work k = *t->c->work;
    bq_mat *const input[BQ_ROLES] = {[BQ_QKV] = &k.a, [BQ_O] = &k.o, [BQ_GATE_UP] = &k.n, [BQ_DOWN] = &k.z};
    *input[role] = x;
    if (role == BQ_QKV && how != BQ_INSPECT_SELF) bq_block_heads(dev, blk, w, &k);
    if (role == BQ_GATE_UP && how != BQ_INSPECT_SELF) bq_block_gated(dev, blk, w, &k);
    if (how != BQ_INSPECT_BLOCK) {
        int by = judge(arch, m, how);
        bq_block_linear(dev, blk, by, w, bq_block_input(arch, &k, by), false, out);
    } else if (bq_role_attends(role)) {
        bq_block_rest(dev, blk, w, &k, held(t, BLOCK_INPUT, i), out);
    } else {
        k.m = held(t, MLP_INPUT, i);
        bq_block_parts(dev, blk, w, &k, arch->sites, arch->sites, k.m, out);
    }
}

/* q->w_hat of site m = Q(W s) / s. */
static void quantized(search *t, int m, bq_mat s) {
    bq_quantized *q = t->c->q;
    const bq_site *site = &q->arch->site[m];
    for (int i = site->first; i < site->first + site->linears; i++)
        t->c->dev->op->smooth_weights(t->c->dev, bq_linear_view(q->arch, i, t->c->blk->w), s, q->scheme[i],
                                      bq_linear_view(q->arch, i, q->w_hat));
}

static bool signalled(const bq_pass_context *c) { return c->stop && *c->stop; }

/* Is held sample i one of the round? */
static bool in_round(const search *t, int64_t i) { return bq_stride_has(t->of, t->sample[i]); }

/* Try the candidates for matrix m on the held samples of the round.  loss: [candidate] of the first held
 * sample; those of the next sample are losses_of further. */
static void try_matrix(search *t, int m, double *loss) {
    bq_pass_context *c = t->c;
    bq_dev *dev = c->dev;
    const bq_arch *arch = c->q->arch;
    bq_mat w[BQ_SITES], have = t->have;
    memcpy(w, c->blk->w, sizeof w);
    w[m] = c->q->w_hat[m];
    have.cols = have.ld = width(arch, t->o, m);
    for (int k = 0; k < t->o->candidates && !signalled(c); k++) {
        if (!t->alive[m][k]) continue;
        bq_mat s = scale_of(t, m, k);
        if (t->o->gqa == BQ_GQA_GROUP) bq_fold_group(dev, arch, m, s);
        quantized(t, m, s);
        for (int64_t i = 0; i < t->count; i++) {
            if (!in_round(t, i)) continue;
            inspect(t, m, w, input_of(t, m, s, i), i, have);
            dev->op->distance(dev, have, held(t, want_of(arch, t->o, m), i), t->o->loss,
                              &loss[i * losses_of(arch) + k]);
        }
        dev->op->wait(dev);
        bq_heartbeat();
    }
}

/* Try all candidates on the held samples of the round, and add their losses to the sum. */
static void try_held(search *t) {
    bq_pass_context *c = t->c;
    int64_t losses = losses_of(c->q->arch);
    double loss[HELD_SAMPLES * LOSSES_MAX] = {0};
    float leaf[LOSSES_MAX];
    for (int m = 0; m < c->q->arch->sites; m++)
        if (searched(c->q->arch, t->o, m)) try_matrix(t, m, loss + m * BQ_CANDIDATES);
    for (int64_t i = 0; i < t->count; i++) {
        if (!in_round(t, i)) continue;
        for (int64_t k = 0; k < losses; k++) leaf[k] = (float)loss[i * losses + k];
        c->dev->op->put(c->dev, bq_mat_host(leaf, losses, 1, BQ_F32), bq_treesum_next(&t->sum));
        c->dev->op->wait(c->dev);
        bq_treesum_add(&t->sum, t->leaf++);
    }
}

/* Hold the values that a forward of a sample has left in the workspace. */
static void hold(search *t, int64_t sample, bq_mat x, bq_mat y) {
    bq_dev *dev = t->c->dev;
    const bq_work *k = t->c->work;
    const bq_arch *arch = t->c->q->arch;
    int64_t i = t->count++;
    t->sample[i] = sample;
    for (int m = 0; m < arch->sites; m++) {
        if (t->held[INPUT + m].cols) dev->op->copy(dev, bq_block_input(arch, k, m), held(t, INPUT + m, i));
        if (t->held[WANT + m].cols)
            bq_block_linear(dev, t->c->blk, m, t->c->blk->w, bq_block_input(arch, k, m), false,
                            held(t, WANT + m, i));
    }
    const bq_mat rest[] = {y, x, k->m};
    for (int n = 0; n < 3; n++)
        if (t->held[WANT_BLOCK + n].cols) dev->op->copy(dev, rest[n], held(t, WANT_BLOCK + n, i));
}

/* Called for each sample of the walk for statistics. */
static void keep(void *ctx, int64_t sample, bq_mat x, bq_mat y) {
    search *t = ctx;
    if (bq_search_round_of(t->o->search, sample) < t->kept) hold(t, sample, x, y);
}

/* Called for each sample of a round that was not held before. */
static void visit(void *ctx, int64_t sample, bq_mat x, bq_mat y) {
    search *t = ctx;
    if (signalled(t->c)) return; /* do_round tells the other replicas */
    hold(t, sample, x, y);
    if (t->count == t->room) try_held(t), t->count = 0; /* that overwrites the workspace */
}

/* Sum the losses of the round over the replicas, and add them to those of the rounds before. */
static void total(search *t, bq_scales_result *result) {
    bq_pass_context *c = t->c;
    int64_t losses = losses_of(c->q->arch);
    bq_shard leaves[BQ_REPLICAS], own = bq_shard_of(losses, c->comm->replica, c->comm->nreplica);
    float host[LOSSES_MAX];
    for (int r = 0; r < c->comm->nreplica; r++)
        leaves[r] = bq_stride_of(t->of, c->samples, r, c->comm->nreplica);
    bq_mat all = bq_arena_push(&c->dev->mem, losses, 1, BQ_F32);
    c->dev->op->copy(c->dev, bq_treesum_end(&t->sum, c->comm, leaves, own),
                     bq_mat_rows(all, own.first, own.count));
    bq_comm_gather_rows(c->comm, c->dev, all);
    c->dev->op->get(c->dev, all, bq_mat_host(host, losses, 1, BQ_F32));
    c->dev->op->wait(c->dev);
    t->seen += leaves[0].total;
    double rows = (double)t->seen * (double)c->tokens;
    for (int m = 0; m < c->q->arch->sites; m++) {
        double cols = (double)width(c->q->arch, t->o, m);
        for (int k = 0; k < BQ_CANDIDATES; k++) {
            if (!t->alive[m][k]) continue;
            t->loss[m][k] += (double)host[m * BQ_CANDIDATES + k];
            result->loss[m][k] = t->loss[m][k] / (rows * cols);
        }
    }
}

static int best_of(const double *loss, const bool *alive) {
    int best = -1;
    for (int k = 0; k < BQ_CANDIDATES; k++)
        if (alive[k] && isfinite(loss[k]) && (best < 0 || loss[k] < loss[best])) best = k;
    return best;
}

/* The most columns of a matrix that is searched, and of an output that decides. */
static void widest(const bq_arch *arch, const bq_scales_options *o, int64_t *cols, int64_t *out) {
    *cols = *out = 1;
    for (int m = 0; m < arch->sites; m++) {
        if (!searched(arch, o, m)) continue;
        *cols = arch->site[m].cols > *cols ? arch->site[m].cols : *cols;
        *out = width(arch, o, m) > *out ? width(arch, o, m) : *out;
    }
}

static void open_search(search *t) {
    bq_pass_context *c = t->c;
    bq_arena *mem = &c->dev->mem;
    const bq_arch *arch = c->q->arch;
    int64_t cols, out, columns[HELD];
    bq_channels_push(c->dev, arch, t->act);
    bq_channels_push(c->dev, arch, t->weight);
    widest(arch, t->o, &cols, &out);
    t->scale = bq_arena_push(mem, 1, cols, BQ_F32);
    t->have = bq_arena_push(mem, c->tokens, out, BQ_F32);
    if (rounds(t->o)) t->rounded = bq_arena_push(mem, c->tokens, cols, BQ_F32);
    t->room = bq_scales_room(c->tokens, bq_shard_of(c->samples, c->comm->replica, c->comm->nreplica).count);
    t->kept = kept_rounds(t);
    held_columns(arch, t->o, columns);
    for (int i = 0; i < HELD; i++)
        if (columns[i]) t->held[i] = bq_arena_push(mem, t->room * c->tokens, columns[i], BQ_F32);
    for (int m = 0; m < arch->sites; m++)
        for (int k = 0; k < t->o->candidates; k++) t->alive[m][k] = searched(arch, t->o, m);
}

/* Try the candidates on the samples of a round, and keep the better half.  False after a signal. */
static bool do_round(search *t, int round, bq_scales_result *result) {
    bq_pass_context *c = t->c;
    t->of = bq_search_samples(t->o->search, round);
    bq_shard mine = bq_stride_of(t->of, c->samples, c->comm->replica, c->comm->nreplica);
    size_t mark = bq_arena_mark(&c->dev->mem);
    if (mine.total == 0) return true;
    t->leaf = mine.first;
    bq_treesum_open(&t->sum, c->dev, bq_treesum_buffers(mine.first, mine.count),
                    bq_arena_push(&c->dev->mem, losses_of(c->q->arch), 1, BQ_F32));
    if (round >= t->kept) {
        t->count = 0;
        bq_capture(c, bq_prepare_stream(c->input), t->of, c->blk->w, judged_by_block(t), visit, t);
    }
    if (t->count && mine.count) try_held(t);
    bool good = !bq_comm_stage_any(c->comm, signalled(c)); /* after a signal losses are not complete */
    if (good) total(t, result);
    for (int m = 0; m < c->q->arch->sites && good; m++)
        bq_search_halve(result->loss[m], BQ_CANDIDATES, t->alive[m]);
    bq_arena_reset(&c->dev->mem, mark);
    return good;
}

int64_t bq_scales_search(bq_pass_context *c, const bq_scales_options *o, bq_scales_result *result) {
    size_t mark = bq_arena_mark(&c->dev->mem);
    search t = {.c = c, .o = o};
    bool good = true;
    open_search(&t);
    bq_channels(c, o->statistic, t.act, (bq_onlooker){judged_by_block(&t), keep, &t});
    for (int m = 0; m < c->q->arch->sites; m++) bq_channels_weight(c, m, true, t.weight[m]);
    *result = (bq_scales_result){0};
    for (int r = 0; r < bq_search_rounds(o->search) && good; r++) good = do_round(&t, r, result);
    for (int m = 0; m < c->q->arch->sites; m++) {
        int best = result->best[m] = good ? best_of(result->loss[m], t.alive[m]) : -1;
        if (best < 0) continue;
        bq_mat s = scale_of(&t, m, best);
        bq_fold_group(c->dev, c->q->arch, m, s);
        bq_fold_apply(c->dev, c->blk, m, s);
    }
    bq_arena_reset(&c->dev->mem, mark);
    return good ? 0 : BQ_PASS_STOPPED;
}

/* Arena bytes of the sum of losses, in the round that takes most. */
static size_t sum_need(int64_t losses, bq_search how, int64_t samples, int replica, int nreplica) {
    size_t most = 0;
    for (int i = 0; i < bq_search_rounds(how); i++) {
        bq_shard leaves[BQ_REPLICAS];
        for (int r = 0; r < nreplica; r++)
            leaves[r] = bq_stride_of(bq_search_samples(how, i), samples, r, nreplica);
        int buffers = 1 + bq_treesum_buffers(leaves[replica].first, leaves[replica].count);
        size_t sum = (size_t)buffers * bq_arena_need(losses, 1, BQ_F32) +
                     bq_treesum_exchange(replica, nreplica, leaves, losses, 1, BQ_F32);
        most = sum > most ? sum : most;
    }
    return most;
}

size_t bq_scales_need(const bq_arch *arch, const bq_scales_options *o, int64_t tokens, int64_t samples,
                      int replica, int nreplica) {
    int64_t cols, out, columns[HELD];
    widest(arch, o, &cols, &out);
    held_columns(arch, o, columns);
    int64_t held_rows = bq_scales_room(tokens, bq_shard_of(samples, replica, nreplica).count) * tokens;
    size_t sum = 2 * bq_channels_size(arch) + bq_arena_need(1, cols, BQ_F32);
    sum += bq_arena_need(tokens, out, BQ_F32) + bq_fold_need(arch);
    if (rounds(o)) sum += bq_arena_need(tokens, cols, BQ_F32);
    for (int i = 0; i < HELD; i++) sum += columns[i] ? bq_arena_need(held_rows, columns[i], BQ_F32) : 0;
    sum += sum_need(losses_of(arch), o->search, samples, replica, nreplica);
    return sum + bq_channels_need(arch, samples, replica, nreplica);
}

const bq_choice bq_gqa_choices[] = {
    {"group", BQ_GQA_GROUP}, {"late", BQ_GQA_LATE}, {"skip", BQ_GQA_SKIP}, {0}};

/* Forwards of all samples: one for the statistics, one more where not all samples can be held, and about one
 * for each candidate. */
bq_effort bq_scales_cost(const bq_cost *c, int candidates, bq_search how) {
    int64_t samples = (int64_t)c->samples;
    int again = bq_scales_room((int64_t)c->tokens, samples) < samples;
    bq_effort e = {0};
    bq_effort_add(&e, (1 + again + candidates * (how == BQ_SEARCH_HALVING ? 0.35 : 1)) * c->samples,
                  bq_effort_forward(c->arch, c->tokens));
    return e;
}
