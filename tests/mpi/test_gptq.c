/* SPDX-License-Identifier: Apache-2.0 */
/* GPTQ on any number of replicas leaves the bytes of a single one, and takes the memory that was planned. */
#include "../gptq_rig.h"
#include "expect.h"

int main(int argc, char **argv) {
    int code = bq_comm_open(&comm, &argc, &argv);
    if (code) return code;
    rig *r = gptq_open(rig_mixed, 5, 1);
    for (int n = 0; n < 24; n++) {
        bq_gptq_options o = {.damp = 0.01,
                             .order = (bq_order)(n % 3),
                             .clip = (bq_clip)(n / 3 % 3),
                             .ends = {50, 10 + n, BQ_NORM_24},
                             .sequential = n % 2,
                             .gram = n / 4 % 2 ? BQ_F64 : BQ_F32,
                             .refine = n % 3,
                             .refit = n % 2 == 0,
                             .qep = n % 4 == 1 ? 0.5 : 0};
        r->c.samples = n < 12 ? SAMPLES : 1 + n % 3;
        r->c.comm = &rig_alone, r->c.keeps = n % 5;
        uint64_t want = gptq_run(r, &o);
        EXPECT(rig_taken(r) <= gptq_need(r, &o), "case %d, one rank: %zu bytes of %zu", n, rig_taken(r),
               gptq_need(r, &o));
        for (int m = 0; m < RIG_SITES; m++) r->dev.op->zero(&r->dev, r->q.fold[m]);
        r->c.comm = &comm, r->c.keeps = (n + comm.rank) % 4;
        EXPECT(gptq_run(r, &o) == want, "case %d: another result", n);
        EXPECT(rig_taken(r) <= gptq_need(r, &o), "case %d: %zu bytes of %zu", n, rig_taken(r),
               gptq_need(r, &o));
    }
    rig_close(r);
    return expect_end();
}
