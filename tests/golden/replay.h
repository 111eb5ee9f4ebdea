/* SPDX-License-Identifier: Apache-2.0 */
/* replay.h - golden files run again through blockq's own code: one function a kind of file.  It takes an
 * open file and fills a table of deviations with their limits (tests/vectors/README.md). */
#ifndef BQ_GOLDEN_REPLAY_H
#define BQ_GOLDEN_REPLAY_H

#include "golden/report.h"

#include "comm/comm.h"

/* comm: a world of one rank that is open; only golden_aimet uses it. */
typedef void golden_replay(golden *g, bq_comm *comm, golden_report *r);

golden_replay golden_aimet, golden_model_run, golden_gptq, golden_smoothquant, golden_autosmooth, golden_awq,
    golden_inputs, golden_sparse, golden_pack, golden_rounding, golden_ct, golden_gguf, golden_torchao,
    golden_train;

/* The keys of compressed-tensors' file. */
void golden_ct_cache(golden *g, golden_report *r);

/* By the file's name: its kind ("model"), the rest of its name ("llama_bias"), and the function; NULL
 * where blockq has no counterpart.  Unknown kinds are their name up to the first '_'. */
typedef struct {
    char kind[16], name[100];
    golden_replay *run;
    bool mpi; /* needs comm */
} golden_kind;
golden_kind golden_kind_of(const char *path);

#endif
