/* SPDX-License-Identifier: Apache-2.0 */
/* gptq_rig.h - a gptq pass over a toy block, for the tests of one rank and of many.  Rows of its matrices
 * fill more than one panel. */
#ifndef BQ_TESTS_GPTQ_RIG_H
#define BQ_TESTS_GPTQ_RIG_H

#include "rig.h"

#include "block/passes/gptq.h"
#include "block/common/midway.h"

enum { SAMPLES = 7, TOKENS = 40, H = 48 };

/* Inputs are the QT stream, which is near the FP stream; neighbouring channels depend on each other. */
static inline rig *gptq_open(const bq_scheme *scheme, int schemes, int threads) {
    rig *r = rig_open(&(rig_spec){.model = {bq_family_find("llama"), H, 144, .heads = 6, .kv_heads = 2},
                                  .scheme = scheme,
                                  .schemes = schemes,
                                  .threads = threads,
                                  .samples = SAMPLES,
                                  .tokens = TOKENS,
                                  .noise = {2, 3}});
    for (int i = 0; i < 2 * H; i++) bq_f32(r->blk.norm[i / H])[i % H] = 1 + 0.1f * (float)(i % 5);
    for (int64_t s = 0; s < SAMPLES; s++) {
        float *fp = rig_sample(r, BQ_STREAM_FP, s), *qt = rig_sample(r, BQ_STREAM_QT, s);
        for (int i = TOKENS * H - 1; i >= 0; i--) {
            fp[i] += i % H ? 0.7f * fp[i - 1] : 0;
            qt[i] = fp[i] + 0.3f * qt[i];
        }
    }
    r->c.input = BQ_INPUTS_QT, r->c.keeps = SAMPLES;
    return r;
}

/* Runs the pass.  Returns a hash of what it leaves. */
static inline uint64_t gptq_run(rig *r, const bq_gptq_options *o) {
    size_t before = rig_watch(r);
    bq_pass_gptq(&r->c, o);
    if (r->dev.mem.used != before) abort();
    return rig_quantized_hash(r);
}

/* What the plan says of it, to compare with rig_taken. */
static inline size_t gptq_need(const rig *r, const bq_gptq_options *o) {
    const bq_comm *comm = r->c.comm;
    return bq_gptq_need(&r->arch, r->q.scheme, TOKENS, r->c.samples, o, comm->replica, comm->nreplica) +
           (o->sequential ? bq_midway_need(&r->arch, TOKENS, r->c.keeps) : 0) +
           bq_op_scratch(TOKENS, r->arch.attention, r->arch.model.vocab);
}

/* One, three, six and other numbers of groups a row, of several widths, some with zero points. */
static const bq_scheme rig_mixed[] = {{4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0},
                                      {3, 16, false, BQ_BF16, BQ_GRID_AIMET, 1, 0},
                                      {4, 8, true, BQ_F16, BQ_GRID_ABSMAX, 1, 0},
                                      {2, 48, true, BQ_F32, BQ_GRID_AIMET, 1, 0},
                                      {8, -1, false, BQ_F32, BQ_GRID_AIMET, 1, 0}};

#endif
