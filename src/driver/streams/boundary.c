/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/streams/boundary.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/meter.h"
#include "base/shard.h"
#include "comm/treesum.h"
#include "driver/streams/stream_file.h"

#include <stdio.h>
#include <time.h>

enum { UNKNOWN, WHOLE, DAMAGED };

/* What is known of the boundary's file.  WHOLE is the same on all replicas of the stage. */
static unsigned char *known(const bq_run *s, bq_boundary at) {
    int phases = s->recipe.nphase + 1, blocks = s->src.arch.model.blocks;
    return &s->boundary[((size_t)at.sweep * (size_t)phases + (size_t)(at.phase + 1)) * (size_t)blocks +
                        (size_t)at.block];
}

uint64_t bq_boundary_file(const bq_run *s, bq_boundary at, char *path, size_t n) {
    const uint64_t of[] = {s->fingerprint, (uint64_t)at.sweep, (uint64_t)at.block, (uint64_t)(at.phase + 1)};
    if (at.phase < 0)
        snprintf(path, n, "%s/qt_%03d.s%d.h5", s->acts, at.block, at.sweep);
    else
        snprintf(path, n, "%s/qt_%03d.p%d.s%d.h5", s->acts, at.block, at.phase, at.sweep);
    return bq_hash_bytes(of, sizeof of);
}

bq_acts *bq_boundary_open(const bq_run *s, bq_boundary at) {
    char path[BQ_PATH_MAX + 96];
    uint64_t hash = bq_boundary_file(s, at, path, sizeof path);
    return bq_stream_file_open(s, path, hash);
}

bool bq_boundary_kept(const bq_run *s, bq_boundary at) {
    char path[BQ_PATH_MAX + 96];
    bq_shard share = bq_run_share(s);
    unsigned char *state = known(s, at);
    if (*state == WHOLE) return true;
    uint64_t hash = bq_boundary_file(s, at, path, sizeof path);
    bq_acts *acts = bq_stream_file_look(s, path, hash);
    bool listed = acts && bq_acts_has_all(acts, share.first, share.count),
         mine = listed && bq_acts_whole(acts, share.first, share.count);
    bq_acts_close(acts);
    if (listed && !mine && *state != DAMAGED) {
        bq_log_all(BQ_WARN, "%s: a sample is damaged: the boundary is made again", path);
        *state = DAMAGED;
    }
    bool all = bq_run_all(s, mine);
    if (all) *state = WHOLE;
    return all;
}

void bq_boundary_read(bq_acts *acts, bq_boundary at, int64_t sample, bq_mat to) {
    BQ_CHECK(bq_acts_read(acts, sample, to.data),
             "sample %ld of the boundary before block %d was damaged since the run began; the same command "
             "makes it again",
             (long)sample, at.block + 1);
}

void bq_boundary_keep(const bq_run *s, bq_boundary at, const bq_stream *qt, bq_mat buffer) {
    char path[BQ_PATH_MAX + 96];
    if (bq_boundary_kept(s, at)) return;
    bq_shard share = bq_run_share(s);
    uint64_t hash = bq_boundary_file(s, at, path, sizeof path);
    bq_acts *acts = bq_stream_file_make(s, path, hash);
    for (int64_t i = 0; i < share.count; i++)
        bq_acts_write(acts, share.first + i, bq_stream_host(qt, i, buffer).data);
    bq_acts_sync(acts);
    bq_acts_close(acts);
    bq_comm_stage_barrier(s->comm);
    *known(s, at) = WHOLE;
}

void bq_boundary_load(const bq_run *s, bq_boundary at, bq_stream *qt, bq_mat buffer) {
    bq_shard share = bq_run_share(s);
    bq_acts *acts = bq_boundary_open(s, at);
    BQ_CHECK(acts, "the boundary before block %d is gone", at.block);
    for (int64_t i = 0; i < share.count; i++) {
        bq_boundary_read(acts, at, share.first + i, buffer);
        bq_stream_put(qt, i, buffer);
    }
    bq_acts_close(acts);
}

bool bq_boundary_await(const bq_run *s, bq_boundary at) {
    bool there, stop;
    do {
        there = bq_boundary_kept(s, at);
        stop = bq_comm_stage_any(s->comm, bq_run_stopped());
        if (there || stop) continue;
        double start = bq_seconds();
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        bq_spent.peers += bq_seconds() - start;
    } while (!there && !stop);
    return !stop;
}
