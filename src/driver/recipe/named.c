/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/recipe/named.h"

#include "base/die.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A recipe that is given by its bare name: a file of the current directory, or of the configs that came with
 * this program: beside it as installed (bin, share/blockq), or in the source tree (build/src). */
static void find(const char *given, char path[BQ_PATH_MAX]) {
    static const char *const places[] = {"/../share/blockq/configs", "/../../configs"};
    char self[BQ_PATH_MAX];
    struct stat st;
    snprintf(path, BQ_PATH_MAX, "%s", given);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if ((stat(given, &st) == 0 && !S_ISDIR(st.st_mode)) || strchr(given, '/') || n < 0) return;
    self[n] = 0;
    *strrchr(self, '/') = 0;
    for (int i = 0; i < 4; i++) {
        char there[2 * BQ_PATH_MAX];
        snprintf(there, sizeof there, "%s%s/%s%s", self, places[i / 2], given, i % 2 ? ".json" : "");
        if (strlen(there) < BQ_PATH_MAX && stat(there, &st) == 0) {
            strcpy(path, there);
            return;
        }
    }
}

int bq_named_read(const bq_args *args, bq_recipe *recipe) {
    char name[64], all[64] = "", here[BQ_PATH_MAX];
    if (!args->preset) {
        find(args->file[0], here);
        return bq_recipe_read(here, args->nset, (char *const *)args->set, recipe);
    }
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
