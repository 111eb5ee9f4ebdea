/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/recipe/named.h"

#include "base/die.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int bq_named_read(const bq_args *args, bq_recipe *recipe) {
    char name[64], all[64] = "", here[BQ_PATH_MAX];
    if (!args->preset) return bq_recipe_read(args->file[0], args->nset, (char *const *)args->set, recipe);
    if (!getcwd(here, sizeof here)) return bq_refuse(BQ_USAGE, "the current directory: %s", strerror(errno));
    for (int i = 0; i < BQ_NAMED; i++) {
        const bq_named *one = &bq_named_recipes[i];
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? ", " : "", one->name);
        snprintf(name, sizeof name, "preset %s", one->name);
        if (strcmp(one->name, args->preset) == 0)
            return bq_recipe_parse(one->text, strlen(one->text), name, here, args->nset, args->set, recipe);
    }
    return bq_refuse(BQ_USAGE, "--preset %.100s: there are %s", args->preset, all);
}
