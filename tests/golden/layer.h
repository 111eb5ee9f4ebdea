/* SPDX-License-Identifier: Apache-2.0 */
/* layer.h - a quantized linear `lin` as a checkpoint of its own, which blockq's reader decodes. */
#ifndef BQ_GOLDEN_LAYER_H
#define BQ_GOLDEN_LAYER_H

#include "golden/golden.h"

#include "io/in/weights_reader.h"

#include <stdio.h>

typedef struct {
    char *text, *data; /* of the header; of the tensors */
    size_t text_bytes, data_bytes;
    FILE *header, *tensors;
} golden_layer;

void golden_layer_open(golden_layer *l);
/* Add lin.<name>. */
void golden_layer_add(golden_layer *l, const char *name, const char *dtype, int dims, const int64_t *shape,
                      const void *data, size_t bytes);
/* All tensors of the file that start with `prefix` and a name.  types: an object of other types than the file
 * has, by the tensors' names; NULL: none. */
void golden_layer_add_all(golden_layer *l, golden *g, const char *prefix, const json_t *types);
/* The weight with this config.json, (rows, cols) f32 in memory of g.  The layer is gone then. */
bq_mat golden_layer_read(golden_layer *l, golden *g, const char *config);

#endif
