#include "driver/boundary.h"

#include "base/die.h"
#include "base/hash.h"
#include "base/shard.h"
#include "comm/treesum.h"
#include "driver/reference.h"

#include <stdio.h>
#include <time.h>

static uint64_t hash_of(const bq_session *s, bq_boundary at) {
    const uint64_t of[] = {s->fingerprint, (uint64_t)at.sweep, (uint64_t)at.block, (uint64_t)(at.phase + 1)};
    return bq_hash_bytes(of, sizeof of);
}

static void path_of(const bq_session *s, bq_boundary at, char *path, size_t n) {
    if (at.phase < 0)
        snprintf(path, n, "%s/acts/qt_%03d.s%d.h5", s->dir, at.block, at.sweep);
    else
        snprintf(path, n, "%s/acts/qt_%03d.p%d.s%d.h5", s->dir, at.block, at.phase, at.sweep);
}

bq_acts *bq_boundary_open(const bq_session *s, bq_boundary at) {
    char path[BQ_PATH_MAX + 64];
    path_of(s, at, path, sizeof path);
    bq_acts *acts = bq_reference_open(s, path, hash_of(s, at));
    if (acts && bq_acts_count(acts) == s->recipe.calibration.samples) return acts;
    bq_acts_close(acts);
    return NULL;
}

bool bq_boundary_kept(const bq_session *s, bq_boundary at) {
    bq_acts *acts = bq_boundary_open(s, at);
    bq_acts_close(acts);
    return acts != NULL;
}

void bq_boundary_read(bq_acts *acts, bq_boundary at, int64_t sample, bq_mat to) {
    BQ_CHECK(bq_acts_read(acts, sample, to.data),
             "sample %ld of the boundary before block %d is damaged: remove acts/qt_%03d.*", (long)sample,
             at.block, at.block);
}

void bq_boundary_keep(const bq_session *s, bq_boundary at, const bq_stream *qt, bq_mat buffer) {
    char path[BQ_PATH_MAX + 64];
    bool there = bq_boundary_kept(s, at);
    bq_comm_stage_bcast(s->comm, &there, sizeof there);
    if (there) return;
    path_of(s, at, path, sizeof path);
    bq_shard share = bq_shard_of(s->recipe.calibration.samples, s->comm->replica, s->comm->nreplica);
    bq_acts *acts = bq_reference_make(s, path, hash_of(s, at));
    for (int64_t i = 0; i < share.count; i++)
        bq_acts_write(acts, share.first + i, bq_stream_get(qt, i, buffer).data);
    bq_acts_sync(acts);
    bq_acts_close(acts);
    bq_comm_stage_barrier(s->comm);
}

void bq_boundary_load(const bq_session *s, bq_boundary at, bq_stream *qt, bq_mat buffer) {
    bq_shard share = bq_shard_of(s->recipe.calibration.samples, s->comm->replica, s->comm->nreplica);
    bq_acts *acts = bq_boundary_open(s, at);
    BQ_CHECK(acts, "the boundary before block %d is gone", at.block);
    for (int64_t i = 0; i < share.count; i++) {
        bq_boundary_read(acts, at, share.first + i, buffer);
        bq_stream_put(qt, i, buffer);
    }
    bq_acts_close(acts);
}

bool bq_boundary_await(const bq_session *s, bq_boundary at) {
    double word[2] = {0}; /* it is there, somebody has to stop */
    while (word[0] == 0 && word[1] == 0) {
        word[0] = s->comm->replica == 0 && bq_boundary_kept(s, at);
        word[1] = bq_session_stopped(s);
        bq_comm_fill(s->comm, word, 2);
        if (word[0] == 0 && word[1] == 0) nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    return word[1] == 0;
}
