/* SPDX-License-Identifier: Apache-2.0 */
/* config_blocks.h - what config.json says of single blocks and of latent attention.  Only config.c calls it,
 * when all keys of the tables are read. */
#ifndef BQ_CONFIG_BLOCKS_H
#define BQ_CONFIG_BLOCKS_H

#include "base/family.h"
#include "io/in/config.h"
#include "io/json.h"

/* Which blocks have experts, and what follows from the keys of experts. */
void bq_config_experts(bq_json *j, const bq_family *f, bq_model *m);
/* Which blocks have a window. */
void bq_config_windows(bq_json *j, const bq_family *f, bq_model *m);
/* Sizes that follow from the keys of latent attention, before sizes are checked; and what its scores are
 * divided by, when the rope is there. */
void bq_config_latent(bq_json *j, bq_model *m);
void bq_config_latent_scores(bq_model *m);
/* transformers' M(m) of yarn: what it multiplies cos and sin by, or scores. */
double bq_config_yarn_scale(double factor, double m);

#endif
