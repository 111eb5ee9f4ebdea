/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/account.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "io/files.h"

#include <stdio.h>
#include <string.h>

static const char head[] =
    "sweep,phase,block,stage,steps,loss_first,loss_last,load_s,target_s,passes_s,advance_s,save_s,peak_bytes,"
    "arena_bytes,part,rank,stages,replicas,wall_s,compute_s,peers_s,files_s,sent_bytes,received_bytes,"
    "read_bytes,written_bytes,planned_bytes,tokens_least,tokens_median,tokens_most,starved,"
    "ckpt_s,ckpt_bytes\n";

static void append(const bq_run *s, const char *text, bool begin) {
    char path[BQ_PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/run.csv", s->dir);
    if (begin && bq_file_size(path) > 0) return;
    int error = bq_file_append(path, text, strlen(text));
    BQ_CHECK(error == 0, "write of '%s' failed: %s", path, bq_file_why(error));
}

void bq_account_open(const bq_run *s) { append(s, head, true); }

/* x as text; empty where it is negative. */
static const char *number(int x, char text[16]) {
    text[0] = 0;
    if (x >= 0) snprintf(text, 16, "%d", x);
    return text;
}

void bq_account_part(bq_run *s, const char *part, int sweep, int phase) {
    const bq_comm *c = s->comm;
    const bq_meter *now = &bq_spent, *then = &s->account.spent;
    char row[512], sweep_text[16], phase_text[16];
    double at = bq_seconds(), wall = at - s->account.at, peers = now->peers - then->peers,
           files = now->files - then->files;
    snprintf(row, sizeof row,
             "%s,%s,,%d,,,,,,,,,%zu,%zu,%s,%d,%d,%d,%.4f,%.4f,%.4f,%.4f,%ld,%ld,%ld,%ld,%zu,,,,,,\n",
             number(sweep, sweep_text), number(phase, phase_text), c->istage, bq_peak_rss(), s->dev.mem.peak,
             part, c->rank, c->nstage, c->nreplica, wall, wall - peers - files, peers, files,
             (long)(now->sent - then->sent), (long)(now->received - then->received),
             (long)(now->read - then->read), (long)(now->written - then->written), s->plan.total);
    append(s, row, false);
    s->account.at = at, s->account.spent = bq_spent;
}

static double mean(const double *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    return n ? sum / (double)n : 0;
}

/* "12,300,4000,2": how many tokens experts get; empty without experts. */
static void name_tokens(const bq_walk *w, char text[96]) {
    const bq_coverage *c = &w->experts.coverage;
    snprintf(text, 96, ",,,");
    if (w->calibrated && bq_source_core(&w->s->src, w->block)->experts)
        snprintf(text, 96, "%ld,%ld,%ld,%d", (long)c->least, (long)c->median, (long)c->most, c->starved);
}

/* The first and the last loss are means over as many steps as there are samples, at most half of all. */
void bq_account_block(bq_walk *w, double seconds) {
    const bq_run *s = w->s;
    bq_walk_pending *p = &w->pending;
    char tokens[96];
    const double *part = w->seconds;
    int64_t n =
        w->steps / 2 < s->recipe.calibration.samples ? (w->steps + 1) / 2 : s->recipe.calibration.samples;
    double first = mean(w->loss, n), last = mean(w->loss + w->steps - n, n);
    if (s->comm->replica) return;
    name_tokens(w, tokens);
    snprintf(p->row, sizeof p->row,
             "%d,%d,%d,%d,%ld,%.9g,%.9g,%.4f,%.4f,%.4f,%.4f,%.4f,%zu,%zu,block,%d,%d,%d,%.4f,,,,,,,,%zu,%s",
             w->sweep, w->phase, w->block, s->comm->istage, (long)w->steps, first, last, part[0], part[1],
             part[2], part[3], part[4], bq_peak_rss(), s->dev.mem.peak, s->comm->rank, s->comm->nstage,
             s->comm->nreplica, seconds, s->plan.total, tokens);
    int at = snprintf(p->line, sizeof p->line, "block %d/%d: ", w->block + 1, s->src.arch.model.blocks);
    if (w->steps)
        at += snprintf(p->line + at, sizeof p->line - (size_t)at, "loss %.5g -> %.5g in %ld steps, ", first,
                       last, (long)w->steps);
    snprintf(p->line + at, sizeof p->line - (size_t)at, "%.1f s", seconds);
}

void bq_account_settled(bq_walk *w) {
    bq_walk_pending *p = &w->pending;
    char row[sizeof p->row + 64];
    snprintf(row, sizeof row, "%s,%.4f,%ld\n", p->row, p->seconds, (long)p->bytes);
    append(w->s, row, false);
    bq_log_all(BQ_INFO, "%s", p->line);
    p->row[0] = 0, p->seconds = 0, p->bytes = 0;
}
