/* SPDX-License-Identifier: Apache-2.0 */
/* peer_rig.h - the tiny Llama of the smoothing peers, one block at a time, as their passes see it. */
#ifndef BQ_GOLDEN_PEER_RIG_H
#define BQ_GOLDEN_PEER_RIG_H

#include "golden/report.h"

#include "block/passes/autosmooth.h"
#include "block/passes/awq.h"
#include "block/passes/smooth.h"

typedef struct {
    golden *g;
    golden_report *r;
    const char *name; /* of the case: the prefix of its tensors */
    bool mha;         /* the case has a key head for each query head */
    bq_dev dev;
    bq_arch arch;
    bq_block blk;
    bq_work work;
    bq_quantized q;
    bq_pass_context c;
    int block;
    float *stream; /* (samples, tokens, hidden): the FP stream */
} peer_rig;

/* A case with so many key heads (0: those of the model), at block 0.  The quantized block has `scheme`. */
void peer_open(peer_rig *p, golden *g, golden_report *r, const char *name, int64_t kv_heads,
               bq_scheme scheme);
void peer_close(peer_rig *p);

/* On to the next block, through the original weights; false behind the last one. */
bool peer_next(peer_rig *p);

/* A copy of matrix m as it is now. */
bq_mat peer_matrix(const peer_rig *p, int m);

/* Folded weights and norms of the block against <case>/final/, where the file has them. */
void peer_final(const peer_rig *p, double limit);

#endif
