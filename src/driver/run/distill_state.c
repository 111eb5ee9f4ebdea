/* SPDX-License-Identifier: Apache-2.0 */
/* The state of distillation in files: those of blocks in training (io/state/midblock.h), written by all
 * blocks after the same step. */
#include "driver/run/distill_parts.h"

#include "base/die.h"
#include "base/log.h"
#include "io/state/midblock.h"

#include <stdlib.h>

static bq_inside head_of(const bq_distilling *d, int64_t b) {
    const bq_numbers *v = &d->numbers[b];
    bq_inside in = {.phase = d->s->recipe.nphase,
                    .block = (int)(d->blocks.first + b),
                    .fingerprint = d->s->distill_tag,
                    .steps = d->step,
                    .loss = d->losses,
                    .parts = 3};
    for (int p = 0; p < in.parts; p++) {
        static const char *const names[] = {"u", "m", "v"};
        snprintf(in.part[p].name, sizeof in.part[p].name, "%s", names[p]);
        in.part[p].rows = v->count, in.part[p].cols = 1;
    }
    return in;
}

static bq_mat part_of(const bq_numbers *v, int p) {
    float *const parts[] = {v->u, v->m, v->v};
    return bq_mat_host(parts[p], v->count, 1, BQ_F32);
}

void bq_distill_save(bq_distilling *d) {
    char path[BQ_PATH_MAX + 64];
    for (int64_t b = 0; b < d->units && d->s->comm->replica == 0; b++) {
        bq_inside in = head_of(d, b);
        bq_inside_path(path, sizeof path, d->s->dir, in.block, (int)(d->saved % BQ_INSIDE_SLOTS));
        bq_inside_file *f = bq_inside_create(path, &in);
        for (int p = 0; p < in.parts; p++) bq_inside_write(f, p, part_of(&d->numbers[b], p));
        bq_inside_commit(f);
        bq_run_stopped(); /* for its heartbeat */
    }
    d->saved++;
    bq_comm_barrier(d->s->comm);
}

/* Open the block's file after so many steps, or with steps 0 the later one.  NULL: there is none. */
static bq_inside_file *open_file(const bq_distilling *d, int64_t b, int64_t steps, bq_inside *in, int *slot) {
    bq_inside_file *best = NULL;
    for (int k = 0; k < BQ_INSIDE_SLOTS; k++) {
        char path[BQ_PATH_MAX + 64], why[BQ_WHY];
        bq_inside one = head_of(d, b);
        bq_inside_path(path, sizeof path, d->s->dir, one.block, k);
        bq_inside_file *f = bq_inside_open(path, &one, why);
        bool wanted = f && (steps ? one.steps == steps : !best || one.steps > in->steps);
        if (wanted && one.steps <= d->s->recipe.distill.steps) {
            bq_inside_close(best);
            best = f, *in = one, *slot = k;
        } else {
            bq_inside_close(f);
        }
    }
    return best;
}

void bq_distill_restore(bq_distilling *d) {
    const int none = INT32_MAX;
    int least = none, slot = 0;
    bq_inside in;
    for (int64_t b = 0; b < d->units && d->s->comm->replica == 0; b++) {
        bq_inside_file *f = open_file(d, b, 0, &in, &slot);
        least = !f ? 0 : in.steps < least ? (int)in.steps : least;
        bq_inside_close(f);
    }
    least = none - bq_comm_agree(d->s->comm, none - least); /* the least of all ranks */
    bool all = least > 0;
    for (int64_t b = 0; b < d->units && d->s->comm->replica == 0 && all; b++) {
        bq_inside_file *f = open_file(d, b, least, &in, &slot);
        all = f != NULL;
        bq_inside_close(f);
    }
    if (bq_comm_agree(d->s->comm, !all)) return;
    for (int64_t b = 0; b < d->units; b++) {
        bq_inside_file *f = d->s->comm->replica ? NULL : open_file(d, b, least, &in, &slot);
        for (int p = 0; p < 3 && f; p++) bq_inside_read(f, p, 0, part_of(&d->numbers[b], p));
        if (f) bq_inside_read_loss(f, d->losses);
        bq_inside_close(f);
        for (int p = 0; p < 3; p++)
            bq_comm_stage_bcast(d->s->comm, part_of(&d->numbers[b], p).data,
                                (int)((size_t)d->numbers[b].count * sizeof(float)));
    }
    d->step = least;
    d->saved = slot + 1;
    bq_log(BQ_INFO, "distillation: going on after step %d", least);
}
