/* SPDX-License-Identifier: Apache-2.0 */
/* quark_map.h - what the names in a Quark file for Auto-SmoothQuant mean: which matrices are scaled, and by
 * whose output each is judged.  The names of all families are known. */
#ifndef BQ_QUARK_MAP_H
#define BQ_QUARK_MAP_H

#include "block/passes/autosmooth.h"

/* Set loss and inspect of o from the file; matrices that it does not name are off.  BQ_OK, or BQ_DATA after
 * one message.  An entry must scale all readers of prev_op's output, or the block would change.  Local. */
int bq_quark_map(const char *path, bq_autosmooth_options *o);

#endif
