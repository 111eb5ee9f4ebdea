/* SPDX-License-Identifier: Apache-2.0 */
/* A recipe of any bytes is refused, or read, and then what is written back reads as the same.
 * Run with -close_fd_mask=2: every refusal is a line. */
#include "base/die.h"
#include "driver/recipe/recipe.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char *text_of(const bq_recipe *recipe, size_t *bytes) {
    char *text = NULL;
    FILE *to = open_memstream(&text, bytes);
    if (!to) abort();
    bq_recipe_write(recipe, to);
    fclose(to);
    return text;
}

/* The first line that starts with '#' ends the recipe; what follows it is one override. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static bq_recipe first, again;
    const char *mark = memmem(data, bytes, "\n#", 2);
    size_t size = mark ? (size_t)(mark - (const char *)data) : bytes;
    char *set = mark ? strndup(mark + 2, bytes - size - 2) : NULL;
    if (bq_recipe_parse((const char *)data, size, "fuzz.json", "/a/b", set != NULL, &set, &first) == BQ_OK) {
        size_t n, m;
        char *text = text_of(&first, &n);
        if (bq_recipe_parse(text, n, "written.json", "/c", 0, NULL, &again)) abort();
        char *same = text_of(&again, &m);
        bq_part a[BQ_PARTS], b[BQ_PARTS];
        int parts = bq_recipe_parts(&first, a);
        if (n != m || memcmp(text, same, n) || parts != bq_recipe_parts(&again, b)) abort();
        for (int i = 0; i < parts; i++) {
            if (a[i].hash != b[i].hash) abort();
        }
        free(text);
        free(same);
    }
    free(set);
    return 0;
}
