/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/midblock.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "comm/heartbeat.h"
#include "driver/load/device.h"

#include <string.h>

_Static_assert(BQ_TRAIN_PARTS_MAX <= BQ_INSIDE_PARTS, "parts of a file");

static bool due(void *ctx) {
    bq_midblock_keep *k = ctx;
    double every = k->s->args->save_every;
    return every > 0 && bq_seconds() - k->since >= every && k->found <= k->head.pass;
}

static void save(void *ctx, bq_train_state *state, bool stop) {
    bq_midblock_keep *k = ctx;
    char path[BQ_PATH_MAX + 64];
    double start = bq_seconds();
    bq_inside_file *f = NULL;
    if (k->found > k->head.pass) return; /* the file of the later pass stays */
    k->head.steps = state->step, k->head.previous = state->previous, k->head.loss = state->losses;
    k->slot = (k->slot + 1) % BQ_INSIDE_SLOTS;
    bq_inside_path(path, sizeof path, k->s->dir, k->head.block, k->slot);
    if (k->s->comm->replica == 0) f = bq_inside_create(path, &k->head);
    for (int p = 0; p < k->head.parts; p++) {
        bq_mat part = bq_train_gather(state, p);
        if (f) {
            bq_device_fetch(state->dev, &part);
            bq_inside_write(f, p, part);
            bq_device_drop(state->dev, &part);
        }
        bq_heartbeat();
    }
    if (f) bq_inside_commit(f);
    k->since = bq_seconds();
    if (f)
        bq_log_all(stop ? BQ_INFO : BQ_DEBUG, "block %d/%d: state after step %ld kept in %.1f s",
                   k->head.block + 1, k->s->src.arch.model.blocks, (long)state->step, k->since - start);
}

static bool restore(void *ctx, bq_train_state *state) {
    bq_midblock_keep *k = ctx;
    char path[BQ_PATH_MAX + 64], why[BQ_WHY];
    if (k->found != k->head.pass) return false;
    bq_inside_path(path, sizeof path, k->s->dir, k->head.block, k->slot);
    if (!k->file) k->file = bq_inside_open(path, &k->head, why);
    BQ_CHECK(k->file && k->head.pass == k->found, "'%s' was whole a moment ago: %s", path,
             k->file ? "it has changed" : why);
    state->step = k->head.steps, state->previous = k->head.previous;
    bq_inside_read_loss(k->file, state->losses);
    for (int p = 0; p < k->head.parts; p++) {
        int64_t first;
        bq_mat rows = bq_train_room(state, p, &first);
        if (rows.rows) {
            bq_mat room = bq_device_room(state->dev, rows);
            bq_inside_read(k->file, p, first, room);
            bq_device_fill(state->dev, room, rows);
        }
        bq_train_take(state, p);
        bq_heartbeat();
    }
    bq_inside_close(k->file);
    k->file = NULL, k->found = -1;
    if (k->s->comm->replica == 0)
        bq_log_all(BQ_INFO, "block %d/%d: going on inside it, after step %ld", k->head.block + 1,
                   k->s->src.arch.model.blocks, (long)state->step);
    return true;
}

/* The parts of the pass that `in` names: none if it does not train. */
static void parts_of(void *ctx, bq_inside *in) {
    const bq_midblock_keep *k = ctx;
    const bq_phase *phase = &k->s->recipe.phase[in->phase];
    const bq_pass *p = in->pass < phase->npass ? &phase->pass[in->pass] : NULL;
    const bq_pass_kind *of = p ? bq_pass_kind_at(p->kind) : NULL;
    const bq_train_kind *kind = of && of->trains ? of->trains(p->options) : NULL;
    in->parts = kind ? bq_train_parts(kind, k->q) : 0;
    for (int i = 0; i < in->parts; i++) {
        bq_mat shape = bq_train_part(kind, k->q, i, in->part[i].name);
        in->part[i].rows = shape.rows, in->part[i].cols = shape.cols;
    }
}

/* Replica 0: find the newest whole file, if the recipe can continue from it. */
static void look(bq_midblock_keep *k, int64_t most) {
    k->slot = bq_inside_find(&k->file, k->s->dir, &k->head);
    if (!k->file) return;
    if (k->head.steps <= most) {
        k->found = k->head.pass;
        return;
    }
    bq_inside_close(k->file);
    k->file = NULL;
}

void bq_midblock_begin(bq_midblock_keep *k, const bq_run *s, const bq_quantized *q, int sweep, int phase,
                       int block, int64_t most) {
    *k = (bq_midblock_keep){.s = s, .q = q, .found = -1, .slot = BQ_INSIDE_NONE};
    k->keeper = (bq_keeper){k, due, save, restore};
    k->head = (bq_inside){.sweep = sweep,
                          .phase = phase,
                          .block = block,
                          .fingerprint = s->fingerprint,
                          .parts_of = parts_of,
                          .ctx = k};
    if (s->comm->replica == 0) look(k, most);
    int word[] = {k->found, k->slot};
    bq_comm_stage_bcast(s->comm, word, sizeof word);
    k->found = word[0], k->slot = word[1];
}

const bq_keeper *bq_midblock_pass(bq_midblock_keep *k, int pass) {
    k->head.pass = pass;
    parts_of(k, &k->head);
    k->since = bq_seconds();
    return &k->keeper;
}
