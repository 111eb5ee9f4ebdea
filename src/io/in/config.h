/* config.h - config.json of a Hugging Face model directory as a bq_model.
 *
 * Both schemas are read: transformers 4 (rope_theta, rope_scaling) and 5 (rope_parameters).  base/family.h
 * has the families.  Refused as BQ_DATA, with one message: other families, quantized checkpoints, another
 * activation, unknown rope types, interleaved rope, values out of range, sizes that do not divide or whose
 * products overflow. */
#ifndef BQ_CONFIG_H
#define BQ_CONFIG_H

#include "base/model.h"

#include <stddef.h>

/* Its value, a seed from 0 on: the directory has no weights, they are procedural. */
#define BQ_PROCEDURAL_KEY "blockq_procedural"

#define BQ_CONFIG_MAX ((size_t)16 << 20) /* bytes of a config.json */

/* Limits of what is accepted; products of any two sizes, times blocks, fit int64_t by far. */
#define BQ_SIZE_MAX   ((int64_t)1 << 24) /* hidden, inter, vocab, heads x head_dim */
#define BQ_BLOCKS_MAX 4096               /* blocks; heads too */

/* Every field of *model is set on BQ_OK.  rope.attention is computed (Phi-3.5: 1.19023807); short and long
 * factors hold rope.dim / 2 values and zeros after them. */
int bq_config_read(const char *dir, bq_model *model);
/* The same from memory; path only names the text in messages. */
int bq_config_parse(const char *path, const char *text, size_t bytes, bq_model *model);

#endif
