/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/streams/stream_file.h"

#include "base/die.h"

bq_acts *bq_stream_file_look(const bq_run *s, const char *path, uint64_t hash) {
    const bq_recipe *r = &s->recipe;
    bq_acts *acts;
    int found = bq_acts_open(&acts, path, r->calibration.samples, r->calibration.length,
                             s->src.arch.model.hidden, hash, NULL);
    return found == BQ_ACTS_OK ? acts : NULL;
}

bq_acts *bq_stream_file_new(const bq_run *s, const char *path, uint64_t hash) {
    const bq_recipe *r = &s->recipe;
    bq_acts *acts = bq_stream_file_look(s, path, hash);
    if (!acts)
        bq_acts_create(&acts, path, r->calibration.samples, r->calibration.length, s->src.arch.model.hidden,
                       hash);
    return acts;
}

bq_acts *bq_stream_file_join(const bq_run *s, bq_acts *acts) {
    if (s->args->acts != BQ_ACTS_BY_MPI) return acts;
    bool all = bq_run_all(s, acts != NULL);
    if (all) bq_acts_join(acts, s->comm);
    if (all) return acts;
    bq_acts_close(acts);
    return NULL;
}

bq_acts *bq_stream_file_open(const bq_run *s, const char *path, uint64_t hash) {
    return bq_stream_file_join(s, bq_stream_file_look(s, path, hash));
}

bq_acts *bq_stream_file_make(const bq_run *s, const char *path, uint64_t hash) {
    if (s->comm->replica == 0 || s->args->acts == BQ_ACTS_BY_ROOT)
        bq_acts_close(bq_stream_file_new(s, path, hash));
    bq_comm_stage_barrier(s->comm);
    bq_acts *acts = bq_stream_file_open(s, path, hash);
    BQ_CHECK(acts,
             "%s was made by another rank and cannot be opened: is the run directory shared by all nodes?",
             path);
    return acts;
}
