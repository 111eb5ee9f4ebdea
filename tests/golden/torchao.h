/* SPDX-License-Identifier: Apache-2.0 */
/* torchao.h - parts of the replay of torchao's weight schemes (replay_torchao.c). */
#ifndef BQ_GOLDEN_TORCHAO_H
#define BQ_GOLDEN_TORCHAO_H

#include "golden/replay.h"

#include "kernels/ops.h"

/* A case of the file, the matrix that it quantizes (in/<input>), and the same as a scheme. */
typedef struct {
    const char *name, *input;
    bq_scheme s;
} torchao_case;

/* A matrix and what blockq makes of it: rows are groups.  In memory of g. */
typedef struct {
    int64_t rows; /* of the matrix */
    bq_mat w, scale, zero, code, w_hat;
} torchao_made;

torchao_made torchao_room(golden *g, const char *input, bq_scheme s);

/* Scales, zero points and codes of a case, and its values where they are in the file. */
void torchao_check(golden *g, golden_report *r, bq_dev *dev, const torchao_case *c);
/* The same of given results: codes against <name>/q, values against <name>/dq. */
void torchao_compare_codes(golden *g, golden_report *r, const torchao_made *m, bq_scheme s, const char *name);

/* Casts to small floats; MX and NVFP4; HQQ. */
void torchao_floats(golden *g, golden_report *r, bq_dev *dev);
void torchao_blocks(golden *g, golden_report *r, bq_dev *dev);
void torchao_loops(golden *g, golden_report *r, bq_dev *dev);

#endif
