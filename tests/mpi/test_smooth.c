/* The smoothing passes on as many replicas as mpirun gives leave the bytes that one rank leaves, also where a
 * replica has no sample. */
#include "../smooth_rig.h"

#include <stdio.h>

static bq_comm comm;

typedef struct {
    uint64_t block;
    bq_scales_result result;
} outcome;

static outcome pass(const bq_comm *on, int variant, int64_t samples) {
    rig *r = rig_open(BQ_LLAMA, 1, (bq_scheme){4, 8, variant % 2 == 0, BQ_F32, BQ_GRID_AIMET});
    outcome out = {0};
    r->c.comm = on, r->c.samples = samples;
    size_t before = r->dev.mem.used;
    r->dev.mem.peak = before;
    rig_pass(r, variant, &out.result);
    if (r->dev.mem.peak - before > rig_need(r, variant) + bq_op_scratch(TOKENS, r->arch.attention, 1))
        out.block = 1;
    else
        out.block = rig_hash(r);
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
    rig *r = rig_open(BQ_LLAMA, 1, w4);
    uint64_t before = rig_hash(r);
    bq_scales_result result;
    left = at, fetches = 0;
    r->c.comm = &comm, r->c.stop = &stop, r->c.fetch = fetch;
    stop = 0;
    bool good = rig_pass(r, variant, &result) == BQ_PASS_STOPPED && rig_hash(r) == before;
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
    int code = bq_comm_open(&comm, &argc, &argv), failed = 0, total;
    static const bq_comm alone = {.size = 1, .locals = 1, .nstage = 1, .nreplica = 1};
    if (code) return code;
    for (int v = 0; v < SMOOTH_ALL; v++)
        for (int64_t samples = SAMPLES; samples > 0; samples -= 8) {
            outcome want = pass(&alone, v, samples), have = pass(&comm, v, samples);
            bool same = want.block == have.block && want.block > 1 &&
                        memcmp(&want.result, &have.result, sizeof want.result) == 0;
            if (same) continue;
            failed++;
            fprintf(stderr, "rank %d of %d: variant %d, %ld samples: another result\n", comm.rank, comm.size,
                    v, (long)samples);
        }
    for (int v = SMOOTH_SEARCH; v < SMOOTH_VARIANTS; v++) {
        if (is_stopped(v)) continue;
        failed++;
        fprintf(stderr, "rank %d of %d: variant %d was not stopped\n", comm.rank, comm.size, v);
    }
    MPI_Allreduce(&failed, &total, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    bq_comm_close(&comm);
    return total > 0;
}
