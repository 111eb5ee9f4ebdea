/* SPDX-License-Identifier: Apache-2.0 */
/* The smoothing passes on as many replicas as mpirun gives leave the bytes that one rank leaves, also where a
 * replica has no sample. */
#include "../smooth_rig.h"
#include "expect.h"

typedef struct {
    uint64_t block;
    bq_scales_result result;
} outcome;

static outcome pass(const bq_comm *on, int variant, int64_t samples) {
    rig *r = smooth_open(bq_family_find("llama"), 1,
                         (bq_scheme){4, 8, variant % 2 == 0, BQ_F32, BQ_GRID_AIMET, 1, 0});
    outcome out = {0};
    r->c.comm = on, r->c.samples = samples;
    rig_watch(r);
    smooth_pass(r, variant, &out.result);
    EXPECT(rig_taken(r) <= smooth_need(r, variant) + bq_op_scratch(TOKENS, r->arch.attention, 1),
           "variant %d, %ld samples: %zu bytes, planned %zu", variant, (long)samples, rig_taken(r),
           smooth_need(r, variant));
    out.block = rig_block_hash(r);
    rig_close(r);
    return out;
}

static volatile sig_atomic_t stop;
static int64_t fetches, left; /* so far; when a signal comes to the last replica, 0: never */

static bq_mat fetch(void *ctx, bq_stream_id stream, int64_t sample) {
    fetches++;
    stop = comm.replica == comm.nreplica - 1 && left && fetches >= left;
    return rig_fetch(ctx, stream, sample);
}

/* The pass with a signal to the last replica at its fetch number `at`, 0: without. */
static bool stops(int variant, int64_t at) {
    rig *r = smooth_open(bq_family_find("llama"), 1, w4);
    uint64_t before = rig_block_hash(r);
    bq_scales_result result;
    left = at, fetches = 0;
    r->c.comm = &comm, r->c.stop = &stop, r->c.fetch = fetch;
    stop = 0;
    bool good = smooth_pass(r, variant, &result) == BQ_PASS_STOPPED && rig_block_hash(r) == before;
    rig_close(r);
    return good;
}

/* A signal at one replica stops all, with the block as it was: at its first sample, or at the last one of the
 * search, which is of its last round unless all samples are held from the first walk. */
static bool is_stopped(int variant) {
    if (stops(variant, 0)) return false;
    int64_t clip = variant == SMOOTH_CLIP ? bq_shard_of(SAMPLES, comm.replica, comm.nreplica).count : 0;
    int64_t last = fetches - clip;
    return stops(variant, 1) && stops(variant, last);
}

int main(int argc, char **argv) {
    int code = bq_comm_open(&comm, &argc, &argv);
    if (code) return code;
    for (int v = 0; v < SMOOTH_ALL; v++)
        for (int64_t samples = SAMPLES; samples > 0; samples -= 8) {
            outcome want = pass(&rig_alone, v, samples), have = pass(&comm, v, samples);
            EXPECT(want.block == have.block && memcmp(&want.result, &have.result, sizeof want.result) == 0,
                   "variant %d, %ld samples: another result", v, (long)samples);
        }
    for (int v = SMOOTH_SEARCH; v < SMOOTH_VARIANTS; v++)
        EXPECT(is_stopped(v), "variant %d was not stopped", v);
    return expect_end();
}
