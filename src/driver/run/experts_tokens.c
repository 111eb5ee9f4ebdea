/* SPDX-License-Identifier: Apache-2.0 */
/* Which tokens calibrate an expert, and how they come to the replica that quantizes it. */
#include "driver/run/experts.h"

#include "base/die.h"
#include "base/log.h"
#include "comm/treesum.h"
#include "driver/recipe/keys.h"
#include "driver/recipe/traits.h"

#include <stdlib.h>

/* `taken` of `of` things, spread evenly: number j is thing j * of / taken. */
typedef struct {
    int64_t taken, of;
} choice;

/* How many of the chosen are before thing `at`. */
static int64_t before(choice c, int64_t at) { return c.of ? (at * c.taken + c.of - 1) / c.of : 0; }

/* The tokens of an expert: of its own, in order; then of the layer. */
enum { OWN, LAYER, PARTS };
typedef struct {
    choice part[PARTS];
    bool starved;
} selection;

static selection tokens_of(const bq_walk *w, int expert) {
    const bq_recipe *r = &w->s->recipe;
    int64_t all = r->calibration.samples * r->calibration.length, most = bq_recipe_expert_tokens(r);
    int64_t own = w->experts.tokens[expert], least = r->experts.least < most ? r->experts.least : most;
    selection t = {{{own < most ? own : most, own}, {0, all}}, own < least};
    if (!t.starved) return t;
    if (r->experts.starved == BQ_STARVED_BLEND) t.part[LAYER].taken = least - own;
    if (r->experts.starved == BQ_STARVED_ALL) t.part[LAYER].taken = most;
    if (r->experts.starved != BQ_STARVED_BLEND) t.part[OWN].taken = 0;
    return t;
}

/* The things of a part that a replica has: [first, end). */
static void range_of(const bq_walk *w, int part, int expert, int replica, int64_t *first, int64_t *end) {
    const bq_run *s = w->s;
    bq_shard share = bq_shard_of(s->recipe.calibration.samples, replica, s->comm->nreplica);
    const int64_t *count = w->experts.before + (int64_t)replica * s->src.core.experts + expert;
    *first = part == OWN ? *count : share.first * s->recipe.calibration.length;
    *end = part == OWN ? count[s->src.core.experts] : *first + share.count * s->recipe.calibration.length;
}

/* ---- counting ---- */

static const bq_routed *routing(const bq_walk *w) {
    return w->recipe->inputs == BQ_INPUTS_FP ? &w->experts.fp : &w->experts.qt;
}

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void bq_experts_count(bq_walk *w) {
    const bq_comm *c = w->s->comm;
    bq_walk_experts *x = &w->experts;
    int experts = w->s->src.core.experts, starved = 0;
    int64_t n = (int64_t)c->nreplica * experts;
    double *count = calloc((size_t)n, sizeof *count);
    BQ_CHECK(count, "no memory to count the tokens of %d experts", experts);
    for (int e = 0; e < experts; e++)
        count[(int64_t)c->replica * experts + e] = (double)bq_routed_count(routing(w), e);
    bq_comm_fill(c, count, n);
    for (int e = 0; e < experts; e++) x->before[e] = 0;
    for (int64_t i = 0; i < n; i++) x->before[i + experts] = x->before[i] + (int64_t)count[i];
    for (int e = 0; e < experts; e++) x->tokens[e] = x->before[n + e];
    for (int e = 0; e < experts; e++) starved += tokens_of(w, e).starved;
    free(count);
    int64_t *sorted = x->before + n; /* equal to x->tokens */
    qsort(sorted, (size_t)experts, sizeof *sorted, ascending);
    x->coverage = (bq_coverage){sorted[0], sorted[experts / 2], sorted[experts - 1], starved};
    for (int e = 0; e < experts; e++) sorted[e] = x->tokens[e];
    if (c->replica == 0)
        bq_log_all(
            BQ_INFO,
            "block %d/%d: an expert gets %ld to %ld tokens, the median %ld; %d of %d have too few (%s)",
            w->block + 1, w->s->src.arch.model.blocks, (long)x->coverage.least, (long)x->coverage.most,
            (long)x->coverage.median, starved, experts, bq_starved_name(w->s->recipe.experts.starved));
}

/* ---- collecting ---- */

/* Rows of one stream on their way to a replica, gathered in a buffer. */
typedef struct {
    bq_walk *w;
    int owner;
    bq_routed *from;
    bq_stream *to; /* of the owner */
    int64_t at;    /* rows that are there */
    int64_t filled;
    bq_mat buffer; /* host (T, H) */
} transport;

static void store(transport *t, int64_t n) {
    bq_dev *dev = &t->w->s->dev;
    if (t->to->home.place == BQ_DEVICE) {
        dev->op->put(dev, bq_mat_rows(t->buffer, 0, n),
                     bq_mat_rows(bq_stream_get(t->to, 0, (bq_mat){0}), t->at, n));
        dev->op->wait(dev);
    } else {
        for (int64_t k = 0; k < n; k++) {
            int32_t row = (int32_t)(t->at + k);
            bq_stream_put_rows(t->to, 0, &row, bq_mat_rows(t->buffer, k, 1));
        }
    }
    t->at += n;
}

/* Bring what is in the buffer to the owner. */
static void flush(transport *t) {
    const bq_comm *c = t->w->s->comm;
    MPI_Request request;
    if (t->filled && t->owner == c->replica) {
        store(t, t->filled);
    } else if (t->filled) {
        bq_comm_send(c, bq_comm_rank_of(c, t->owner), t->buffer.data, t->filled * t->buffer.cols, &request);
        bq_comm_wait(&request, 1);
    }
    t->filled = 0;
}

/* Some tokens of my sample i. */
static void emit(transport *t, int64_t i, const int32_t *row, int64_t n) {
    while (n > 0) {
        int64_t room = t->buffer.rows - t->filled, k = n < room ? n : room;
        bq_routed_copy(t->from, i, row, bq_mat_rows(t->buffer, t->filled, k), t->w->experts.work.x);
        t->filled += k, row += k, n -= k;
        if (t->filled == t->buffer.rows) flush(t);
    }
}

/* The rows of my samples for a part: of things [first, end) the chosen ones. */
static void emit_part(transport *t, int part, choice c, int expert) {
    const bq_routed *routed = routing(t->w);
    int64_t first, end, tokens = routed->n.tokens, at, n = tokens;
    int32_t *row = malloc((size_t)tokens * sizeof *row);
    BQ_CHECK(row, "no memory for a list of %ld tokens", (long)tokens);
    range_of(t->w, part, expert, t->w->s->comm->replica, &first, &end);
    at = first;
    int64_t j = before(c, first), last = before(c, end);
    for (int64_t i = 0; i < routed->n.samples && j < last; i++) {
        const int32_t *own = part == OWN ? bq_routed_rows(routed, i, expert, &n) : NULL;
        int64_t k = 0;
        for (int64_t thing; j < last && (thing = j * c.of / c.taken) < at + n; j++)
            row[k++] = own ? own[thing - at] : (int32_t)(thing - at);
        emit(t, i, row, k);
        at += n;
    }
    flush(t);
    free(row);
}

static void receive_part(transport *t, int part, choice c, int expert, int replica) {
    const bq_comm *comm = t->w->s->comm;
    int64_t first, end;
    range_of(t->w, part, expert, replica, &first, &end);
    for (int64_t left = before(c, end) - before(c, first), n; left > 0; left -= n) {
        MPI_Request request;
        n = left < t->buffer.rows ? left : t->buffer.rows;
        bq_comm_receive(comm, bq_comm_rank_of(comm, replica), t->buffer.data, n * t->buffer.cols, &request);
        bq_comm_wait(&request, 1);
        store(t, n);
    }
}

/* The tokens of an expert, of one stream, to its owner. */
static void carry(bq_walk *w, int owner, int expert, bq_stream_id stream) {
    const bq_comm *c = w->s->comm;
    selection of = tokens_of(w, expert);
    transport t = {.w = w,
                   .owner = owner,
                   .from = stream == BQ_STREAM_FP ? &w->experts.fp : &w->experts.qt,
                   .to = &w->experts.rows[stream],
                   .buffer = w->buffer[stream]};
    for (int part = 0; part < PARTS; part++)
        for (int r = 0; r < c->nreplica && of.part[part].taken; r++) {
            if (r == c->replica)
                emit_part(&t, part, of.part[part], expert);
            else if (owner == c->replica)
                receive_part(&t, part, of.part[part], expert, r);
        }
}

/* Cut the tokens of my expert into samples of equally many; a few last ones are left out. */
static void cut(bq_walk *w, int expert) {
    bq_walk_experts *x = &w->experts;
    selection of = tokens_of(w, expert);
    int64_t n = of.part[OWN].taken + of.part[LAYER].taken, t = w->s->recipe.calibration.length;
    x->starved = of.starved;
    x->samples = (n + t - 1) / t;
    x->length = x->samples ? n / x->samples : 0;
    for (int k = 0; k < BQ_STREAMS; k++) {
        x->view[k] = x->rows[k];
        if (x->rows[k].open) bq_stream_shape(&x->view[k], x->samples, x->length);
    }
}

void bq_experts_collect(bq_walk *w, int base, const double *wants) {
    bq_run *s = w->s;
    size_t mark = bq_arena_mark(&s->dev.mem);
    bq_work_push(&w->experts.work, &w->experts.arch, s->recipe.calibration.length, false, &s->dev.mem);
    for (int r = 0; r < s->comm->nreplica; r++) {
        if (wants[r] == 0) continue;
        for (int k = BQ_STREAM_FP; k <= BQ_STREAM_QT; k++)
            if (w->experts.rows[k].open) carry(w, r, base + r, (bq_stream_id)k);
        if (r == s->comm->replica) cut(w, base + r);
    }
    bq_arena_reset(&s->dev.mem, mark);
}
