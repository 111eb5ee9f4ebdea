/* SPDX-License-Identifier: Apache-2.0 */
/* docs/families.md: the table of families is what the program's tables say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/family.h"
#include "block/common/fold.h"
#include "block/model/arch.h"

static void list(FILE *to, bool *some, const char *word) {
    fprintf(to, "%s%s", *some ? ", " : "", word);
    *some = true;
}

static void put_ropes(FILE *to, const bq_family *f) {
    static const char *const name[] = {"default", "linear", "llama3", "longrope", "yarn"}; /* bq_rope_kind */
    bool some = false;
    for (int k = 0; k < 5; k++)
        if (f->ropes & 1u << k) list(to, &some, name[k]);
    if (f->traits & BQ_FAMILY_TWO_ROPES) fprintf(to, "; another for windows");
}

static void put_windows(FILE *to, const bq_family *f) {
    static const char *const rule[] = {"all blocks", "`layer_types`, `max_window_layers`",
                                       "`layer_types`, `sliding_window_pattern`"}; /* bq_window_rule */
    const bq_key *k = f->config;
    while (k->name && strcmp(k->name, "sliding_window")) k++;
    fputs(k->name ? rule[f->window] : "none", to);
}

/* Roles of sites whose scales can be folded. */
static void put_folds(FILE *to, const bq_arch *arch) {
    bool some = false;
    for (int s = 0; s < arch->sites; s++)
        if (bq_fusion_there(bq_fusion_of(arch, s))) list(to, &some, bq_role_name(arch->site[s].role));
    if (!some) fputs("none", to);
}

static void put_family(FILE *to, int i) {
    const bq_family *f = bq_family_at(i);
    bq_model m = {.family = i,
                  .hidden = 32,
                  .inter = 32,
                  .vocab = 9,
                  .blocks = 1,
                  .heads = 4,
                  .kv_heads = 2,
                  .head_dim = 8,
                  .eps = 1};
    bq_arch arch, expert;
    for (const bq_weight_row *w = f->weight; w->name; w++)
        if (bq_role_of_expert(w->role)) m.experts = 2, m.chosen = 1, m.expert_inter = m.shared_inter = 32;
    (m.experts ? bq_arch_of_core : bq_arch_of)(&m, &arch);
    fprintf(to, "| %s | %s | ", f->type, f->architecture);
    put_ropes(to, f);
    fputs(" | ", to);
    put_windows(to, f);
    fputs(" | ", to);
    put_folds(to, &arch);
    if (m.experts) {
        bq_arch_of_expert(&m, 0, &expert);
        fputs("; of experts: ", to);
        put_folds(to, &expert);
    }
    fprintf(to, " | %s ", arch.norm[BQ_NORM_ATTENTION] && !arch.norm[BQ_NORM_O] ? "R1, R2" : "R2");
    fprintf(to, "| %s |\n", f->traits & BQ_FAMILY_STACKED ? "none" : "all");
}

static void page(void **state) {
    (void)state;
    static char kept[1 << 16];
    char *made;
    size_t bytes;
    FILE *to = open_memstream(&made, &bytes), *f = fopen(BQ_VECTORS "/../../docs/families.md", "r");
    for (int i = 0; bq_family_at(i); i++) put_family(to, i);
    fclose(to);
    assert_non_null(f);
    kept[fread(kept, 1, sizeof kept - 1, f)] = 0;
    fclose(f);
    const char *at = strstr(kept, "| llama |"), *end = at ? strstr(at, "\n\n") : NULL;
    if (!end || (size_t)(end + 1 - at) != bytes || memcmp(at, made, bytes) != 0) {
        fputs(made, stdout);
        fail_msg("docs/families.md has another table than the one above");
    }
    free(made);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(page)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
