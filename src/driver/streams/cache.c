/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/streams/cache.h"

#include "base/die.h"
#include "base/log.h"
#include "driver/streams/boundary.h"
#include "driver/streams/reference.h"
#include "driver/streams/stream_file.h"
#include "io/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char path[BQ_PATH_MAX + 96];
    uint64_t hash;
} file;

static bool used(const bq_run *s) {
    return s->args->acts == BQ_ACTS_BY_ROOT && s->comm->size > 1 && s->reference;
}

/* Names of all files that are made there. */
static const char *const made[] = {"fp_*.h5", "qt_*.h5", "*.h5.valid", "*.h5.*.tmp", NULL};
static const char name[] = "blockq-acts";

void bq_cache_open(bq_run *s) {
    snprintf(s->acts, sizeof s->acts, "%s/acts", s->dir);
    if (!s->heads[0]) memcpy(s->heads, s->acts, sizeof s->heads);
    if (!used(s) || s->comm->rank == 0) return;
    bq_folder_remove_left(s->args->scratch, name, made);
    int error = bq_folder_make(&s->own, s->args->scratch, name);
    BQ_CHECK(error == 0, "a folder in --scratch %s cannot be made: %s", s->args->scratch, strerror(error));
    bq_path_join(s->acts, sizeof s->acts, "", s->own.path);
    memcpy(s->heads, s->acts, sizeof s->heads);
}

void bq_cache_close(bq_run *s) { bq_folder_remove(&s->own, made); }

static int stage_of(const bq_run *s, int block) {
    int stage = 0;
    for (bq_shard b; b = bq_grid_blocks(&s->grid, stage), b.first + b.count <= block;) stage++;
    return stage;
}

static file head_of(const bq_run *s, int stage) {
    file f;
    f.hash = bq_reference_file(s, (int)bq_grid_blocks(&s->grid, stage).first, f.path, sizeof f.path);
    return f;
}

/* Is the share to be sent?  The receiver sends whether it lacks the share, the sender whether it has it; both
 * must be true. */
static bool moves(const bq_run *s, int peer, bool word) {
    float mine = word, theirs = 0;
    MPI_Request request[2];
    bq_comm_receive(s->comm, peer, &theirs, 1, &request[0]);
    bq_comm_send(s->comm, peer, &mine, 1, &request[1]);
    bq_comm_wait(request, 2);
    return word && theirs > 0;
}

static void send_share(const bq_run *s, int peer, bq_acts *acts, bq_shard share, float *buffer) {
    int64_t size = s->recipe.calibration.length * s->src.arch.model.hidden;
    MPI_Request sent[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
    for (int64_t i = 0; i < share.count; i++) {
        float *at = buffer + (i & 1) * size;
        bq_comm_wait(&sent[i & 1], 1);
        BQ_CHECK(bq_acts_read(acts, share.first + i, at), "sample %ld of an activation file is damaged",
                 (long)(share.first + i));
        bq_comm_send(s->comm, peer, at, size, &sent[i & 1]);
    }
    bq_comm_wait(sent, 2);
}

static void receive_share(const bq_run *s, int peer, const file *f, bq_shard share, float *buffer) {
    bq_acts *acts = bq_stream_file_new(s, f->path, f->hash);
    for (int64_t i = 0; i < share.count; i++) {
        MPI_Request request;
        bq_comm_receive(s->comm, peer, buffer, s->recipe.calibration.length * s->src.arch.model.hidden,
                        &request);
        bq_comm_wait(&request, 1);
        bq_acts_write(acts, share.first + i, buffer);
    }
    bq_acts_sync(acts);
    bq_acts_close(acts);
}

/* Copy one file between rank 0 and the replicas of a stage, each its share.  up: to rank 0. */
static void exchange(const bq_run *s, file f, int stage, bool up) {
    const bq_comm *comm = s->comm;
    if (comm->rank && comm->istage != stage) return;
    float *buffer = bq_run_room(s, 2).data;
    for (int r = 0; r < comm->nreplica; r++) {
        int rank = stage * comm->nreplica + r, peer = comm->rank ? 0 : rank;
        if (rank == 0 || (comm->rank && comm->rank != rank)) continue;
        bq_shard share = bq_shard_of(s->recipe.calibration.samples, r, comm->nreplica);
        bq_acts *acts = bq_stream_file_look(s, f.path, f.hash);
        bool sends = (comm->rank == 0) != up;
        /* only rank 0 has files of earlier runs, which may be damaged */
        bool there = acts && bq_acts_has_all(acts, share.first, share.count) &&
                     (comm->rank || bq_acts_whole(acts, share.first, share.count));
        if (moves(s, peer, sends ? there : !there)) {
            if (sends)
                send_share(s, peer, acts, share, buffer);
            else
                receive_share(s, peer, &f, share, buffer);
        }
        bq_acts_close(acts);
    }
    free(buffer);
}

static void boundaries(const bq_run *s, int sweep, bool fetch, bool give) {
    for (int u = 1; u < bq_grid_units(&s->grid); u++) {
        bq_boundary at = {sweep, -1, bq_grid_start(&s->grid, u)};
        int writer = stage_of(s, at.block - 1), reader = stage_of(s, at.block);
        file f;
        f.hash = bq_boundary_file(s, at, f.path, sizeof f.path);
        if (give) exchange(s, f, writer, true);
        if (fetch) exchange(s, f, writer, false);
        if ((fetch || give) && reader != writer) exchange(s, f, reader, false);
    }
}

void bq_cache_fetch(const bq_run *s) {
    if (!used(s)) return;
    for (int stage = 0; stage < s->comm->nstage; stage++) exchange(s, head_of(s, stage), stage, false);
    for (int sweep = 0; sweep + 1 < s->recipe.sweeps; sweep++) boundaries(s, sweep, true, false);
}

void bq_cache_give_heads(const bq_run *s) {
    for (int stage = 0; stage < s->comm->nstage && used(s); stage++)
        exchange(s, head_of(s, stage), stage, true);
}

void bq_cache_give_boundaries(const bq_run *s, int sweep) {
    if (used(s) && s->recipe.sweeps > 1) boundaries(s, sweep, false, true);
}
