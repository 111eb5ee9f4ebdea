/* GPTQ on any number of replicas leaves the bytes of a single one, and takes the memory that was planned.
 *
 * Every check counts failures on its rank; the exit code is their sum over all ranks, cut to 1. */
#include <stdio.h>

#include "../unit/block/gptq_rig.h"

int main(int argc, char **argv) {
    bq_comm comm;
    int code = bq_comm_open(&comm, &argc, &argv), failed = 0, total;
    if (code) return code;
    gptq_rig *r = rig_open(rig_mixed, 5, 1);
    for (int n = 0; n < 24; n++) {
        bq_gptq_options o = {.damp = 0.01,
                             .order = (bq_order)(n % 3),
                             .clip = (bq_clip)(n / 3 % 3),
                             .ends = {50, 10 + n, BQ_NORM_24},
                             .sequential = n % 2,
                             .gram = n / 4 % 2 ? BQ_F64 : BQ_F32,
                             .qep = n % 4 == 1 ? 0.5 : 0};
        r->samples = n < 12 ? RIG_SAMPLES : 1 + n % 3;
        r->keeps = n % 5;
        uint64_t want = rig_run(r, &rig_alone, &o);
        int wrong = r->taken > rig_need(r, &rig_alone, &o);
        for (int m = 0; m < BQ_MATS; m++) r->dev.op->zero(&r->dev, r->q.fold[m]);
        r->keeps = (n + comm.rank) % 4;
        uint64_t got = rig_run(r, &comm, &o);
        wrong |= (got != want) << 1 | (r->taken > rig_need(r, &comm, &o)) << 2;
        if (wrong)
            fprintf(stderr, "rank %d of %d, case %d: wrong %d, %zu bytes of %zu\n", comm.rank, comm.size, n,
                    wrong, r->taken, rig_need(r, &comm, &o));
        failed += wrong != 0;
    }
    rig_close(r);
    MPI_Allreduce(&failed, &total, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    bq_comm_close(&comm);
    return total > 0;
}
