/* SPDX-License-Identifier: Apache-2.0 */
/* The table of output formats.  To add one: its file, and its name here (docs/add-a-format.md). */
#include "io/out/format.h"

#include <string.h>

#define FORMATS(ROW)                                                                                         \
    ROW(safetensors) ROW(compressed_tensors) ROW(gptq) ROW(awq) ROW(modelopt) ROW(gguf) ROW(aimet)

#define DECLARE(name) extern const bq_format bq_format_##name;
#define ADDRESS(name) &bq_format_##name,
FORMATS(DECLARE)
static const bq_format *const formats[] = {FORMATS(ADDRESS) NULL};

const bq_format *bq_format_at(int i) { return formats[i]; }

int bq_format_find(const char *name) {
    int i = 0;
    while (formats[i] && strcmp(formats[i]->name, name)) i++;
    return formats[i] ? i : -1;
}

bq_choice bq_format_choice(int i) { return (bq_choice){formats[i] ? formats[i]->name : NULL, i}; }
const char *bq_format_help(int i) { return formats[i]->help; }
const char *bq_format_loads(int i) { return formats[i]->loads; }
const char *bq_format_library(int i) { return formats[i]->container ? "gguf" : "transformers"; }

bool bq_format_wants_inputs(int i, const void *options) {
    return formats[i]->wants_inputs && formats[i]->wants_inputs(options);
}

const bq_scope *bq_format_scope(int i) {
    static const bq_key none[] = {{0}};
    static const bq_scope empty = {.key = none};
    return formats[i]->scope.key ? &formats[i]->scope : &empty;
}
