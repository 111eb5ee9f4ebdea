/* SPDX-License-Identifier: Apache-2.0 */
/* quark.h - configuration files of AMD Quark's Auto-SmoothQuant (JSON); names of modules are only copied. */
#ifndef BQ_QUARK_H
#define BQ_QUARK_H

#include <stdbool.h>
#include <stddef.h>

#define BQ_QUARK_ENTRIES 16
#define BQ_QUARK_LAYERS  8
#define BQ_QUARK_NAME    64

typedef struct {
    char prev_op[BQ_QUARK_NAME], inp[BQ_QUARK_NAME];
    int layers;
    char layer[BQ_QUARK_LAYERS][BQ_QUARK_NAME];
    bool inspects;              /* module2inspect is given */
    char module[BQ_QUARK_NAME]; /* "": the whole block */
} bq_quark_entry;

typedef struct {
    char loss[8]; /* "MAE", "MSE" or "RMSE"; "MSE" if the file does not say */
    int entries;
    bq_quark_entry entry[BQ_QUARK_ENTRIES];
} bq_quark;

/* BQ_OK, or BQ_DATA after one message with file and key.  Keys that Auto-SmoothQuant does not have are
 * ignored with a warning.  parse: from memory; path names the text in messages.  Local. */
int bq_quark_read(const char *path, bq_quark *out);
int bq_quark_parse(const char *path, const char *text, size_t bytes, bq_quark *out);

#endif
