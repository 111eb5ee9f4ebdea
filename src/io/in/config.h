/* SPDX-License-Identifier: Apache-2.0 */
/* config.h - config.json of a Hugging Face model directory, read into a bq_model.
 *
 * Both schemas are read: that of transformers 4 (rope_theta, rope_scaling) and of 5 (rope_parameters).
 * base/family.h has the families.  BQ_DATA after one message: another family, a quantized checkpoint that is
 * not as fp8.h says, an activation other than silu, an unknown type of rope, interleaved rope where a family
 * has none, values out of range, sizes that do not divide.  All calls are local. */
#ifndef BQ_CONFIG_H
#define BQ_CONFIG_H

#include "base/hash.h"
#include "base/model.h"
#include "io/in/weights.h"

#define BQ_CONFIG_MAX ((size_t)16 << 20) /* bytes of a config.json */

/* Most that is accepted.  The product of two sizes and the number of blocks fits int64_t. */
#define BQ_SIZE_MAX ((int64_t)1 << 24) /* hidden, inter, vocab, head_dim, heads x head_dim */

/* On BQ_OK every field of *model is set.  rope.attention is computed where the file does not give it
 * (Phi-3.5: 1.19023807).  The short and long factors have rope.dim / 2 values, then zeros. */
int bq_config_of(const bq_weights *w, bq_model *model);
/* The same from a text; path names it in messages. */
int bq_config_parse(const char *path, const char *text, size_t bytes, bq_model *model);

/* The family that a config.json names (bq_family_at), -1 where there is none. */
int bq_config_family(const json_t *config);

/* Add everything of it that changes results, by the tables of keys. */
void bq_config_hash(const bq_model *model, bq_hash *h);

#endif
