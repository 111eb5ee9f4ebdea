/* quark_map.h - what the names in a Quark file for Auto-SmoothQuant mean: which matrices are scaled, by whose
 * output each is judged.  Names of every family are known; the fusions are the same. */
#ifndef BQ_QUARK_MAP_H
#define BQ_QUARK_MAP_H

#include "block/passes/autosmooth.h"

/* Read the file into o: loss and inspect; matrices it does not name are off.  BQ_OK, or BQ_DATA after one
 * message.  An entry must scale all readers of what prev_op makes, or the block would change.  Local. */
int bq_quark_map(const char *path, bq_autosmooth_options *o);

#endif
