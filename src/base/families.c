/* SPDX-License-Identifier: Apache-2.0 */
/* All families.  To add one: its file in family/, and its row here. */
#include "base/family.h"

#include <string.h>

/* clang-format off */
#define FAMILIES(ROW)                                                                                        \
    ROW(llama) ROW(phi3) ROW(qwen2) ROW(qwen3) ROW(mistral) ROW(olmo2) ROW(gemma3) ROW(gemma2) ROW(mixtral)  \
    ROW(qwen2_moe) ROW(qwen3_moe) ROW(glm4_moe) ROW(gpt_oss) ROW(deepseek_v3) ROW(qwen2_5_vl) ROW(qwen3_vl)
/* clang-format on */

#define DECLARE(name) extern const bq_family bq_family_##name;
#define ADDRESS(name) &bq_family_##name,
FAMILIES(DECLARE)
static const bq_family *const families[] = {FAMILIES(ADDRESS) NULL};

const bq_family *bq_family_at(int i) { return families[i]; }

int bq_family_find(const char *type) {
    int i = 0;
    while (families[i] && strcmp(families[i]->type, type)) i++;
    return families[i] ? i : -1;
}
