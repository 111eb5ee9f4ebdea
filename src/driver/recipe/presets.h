/* SPDX-License-Identifier: Apache-2.0 */
/* presets.h - schemes by name: what `"preset": "W4A16"` in a recipe's `bits` stands for.
 *
 * To add one: a row in presets.c, then `blockq help schemes > docs/schemes.md`. */
#ifndef BQ_PRESETS_H
#define BQ_PRESETS_H

#include <jansson.h>
#include <stdio.h>

typedef struct {
    const char *name;
    const char *also;   /* other names, with commas between them; "" */
    const char *keys;   /* "decoder.bits=4 activations=8": keys of `bits`, as --set has them */
    const char *inputs; /* what inputs of linears are rounded to, in words; NULL: they are not */
    const char *held;   /* the outputs that hold it, beside safetensors */
} bq_preset;

/* Row i; NULL behind the last one. */
const bq_preset *bq_preset_at(int i);

/* In the place of bits.preset put the keys that it stands for, where the recipe does not have them.  BQ_OK,
 * or BQ_USAGE after one message; file: for it. */
int bq_preset_apply(json_t *recipe, const char *file);

/* docs/schemes.md. */
void bq_preset_doc(FILE *out);

#endif
