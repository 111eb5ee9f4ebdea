/* config_blocks.h - what config.json says of single blocks.  Only config.c calls it, when all keys of the
 * tables are read. */
#ifndef BQ_CONFIG_BLOCKS_H
#define BQ_CONFIG_BLOCKS_H

#include "base/family.h"
#include "io/in/config.h"
#include "io/json.h"

/* Which blocks have experts, and what follows from the keys of experts. */
void bq_config_experts(bq_json *j, const bq_family *f, bq_model *m);
/* Which blocks have a window. */
void bq_config_windows(bq_json *j, const bq_family *f, bq_model *m);

#endif
