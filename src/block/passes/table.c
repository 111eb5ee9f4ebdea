/* SPDX-License-Identifier: Apache-2.0 */
/* The table of all kinds of passes, in the order of the documents.  A new kind is a file and a row here. */
#include "block/passes/pass.h"

#include <string.h>

#define PASSES(ROW)                                                                                          \
    ROW(rtn)                                                                                                 \
    ROW(adascale)                                                                                            \
    ROW(autoround)                                                                                           \
    ROW(omniquant)                                                                                           \
    ROW(qat)                                                                                                 \
    ROW(gptq) ROW(seqmse) ROW(lpbq) ROW(hqq) ROW(smoothquant) ROW(autosmoothquant) ROW(awq) ROW(sparse24)

#define DECLARE(name) extern const bq_pass_kind bq_pass_kind_##name;
#define ADDRESS(name) &bq_pass_kind_##name,
PASSES(DECLARE)
static const bq_pass_kind *const kinds[] = {PASSES(ADDRESS) NULL};

const bq_pass_kind *bq_pass_kind_at(int i) { return kinds[i]; }

int bq_pass_kind_find(const char *name) {
    int i = 0;
    while (kinds[i] && strcmp(kinds[i]->name, name)) i++;
    return kinds[i] ? i : -1;
}

bq_choice bq_pass_kind_choice(int i) {
    return (bq_choice){.name = kinds[i] ? kinds[i]->name : NULL, .value = i};
}

const bq_scope *bq_pass_kind_scope(int i) { return &kinds[i]->scope; }
