/* SPDX-License-Identifier: Apache-2.0 */
/* fp8.h - weights in FP8, as DeepSeek-V3's checkpoints have them: `X` is F8_E4M3 of two dimensions,
 * `X_scale_inv` F32 with a scale for each tile of 128 x 128 elements; those at the edges may be smaller.  A
 * weight is the value of its code times its scale.  All calls are local. */
#ifndef BQ_FP8_H
#define BQ_FP8_H

#include "io/in/weights.h"
#include "io/json.h"

/* config.json has a quantization_config: it is refused unless it says that form. */
void bq_fp8_config(bq_json *config);

/* Is the tensor of that form, in a model whose config.json says so? */
bool bq_fp8_tensor(const bq_weights *w, const bq_tensor *t);
/* BQ_DATA after one message where a tensor of F8_E4M3 is not; else BQ_OK. */
int bq_fp8_check(const bq_weights *w, const bq_tensor *t);
/* Is the tensor the scales of one of that form? */
bool bq_fp8_scales(const bq_weights *w, const bq_tensor *t);

/* Bytes of the scales of a tensor of that form; 0 of any other. */
size_t bq_fp8_held(const bq_weights *w, const bq_tensor *t);

/* bq_weights_read of a tensor of that form. */
void bq_fp8_read(const bq_weights *w, const bq_tensor *t, int64_t first, int64_t rows, bq_mat to);

#endif
