/* The evaluations that `blockq eval` is to do, as in a recipe. */
#include "driver/recipe/keys.h"

#include "base/die.h"

#include <stdlib.h>
#include <string.h>

/* Parse "KIND:FILE,KEY=VALUE,..." into an element of the list; false if it has another form. */
static bool take_apart(char *text, json_t *object) {
    char *more = NULL, *file = strchr(text, ':');
    const bq_eval_kind *kind;
    int i = 0;
    if (!file) return false;
    *file++ = 0;
    strtok_r(file, ",", &more);
    while ((kind = bq_eval_kind_at(i)) && strcmp(kind->name, text)) i++;
    const char *data = kind ? kind->scope.key->name : "file"; /* an unknown kind is refused later */
    bool good = json_object_set_new(object, "eval", json_string(text)) == 0 &&
                json_object_set_new(object, data, json_string(file)) == 0;
    for (char *key; good && (key = strtok_r(NULL, ",", &more));) {
        char *value = strchr(key, '=');
        if (value) *value++ = 0;
        good = value && json_object_set_new(object, key, bq_keys_loose(value)) == 0;
    }
    return good;
}

int bq_recipe_evaluate(bq_recipe *recipe, const bq_args *args) {
    char folder[BQ_PATH_MAX], text[BQ_PATH_MAX];
    bq_origin from = {"--eval", folder, 0, NULL};
    json_t *list = json_array();
    int code = realpath(".", folder) ? BQ_OK : bq_refuse(BQ_USAGE, "the current directory has no name");
    for (int i = 0; i < args->neval && !code; i++) {
        json_t *element = json_object();
        snprintf(text, sizeof text, "%s", args->eval[i]);
        json_array_append_new(list, element);
        if (!take_apart(text, element))
            code = bq_refuse(BQ_USAGE, "--eval %.200s: must be KIND:FILE or KIND:FILE,KEY=VALUE,... in UTF-8",
                             args->eval[i]);
    }
    if (!code) code = bq_keys_read_one(&from, "evals", list, recipe);
    json_decref(list);
    recipe->eval = (bq_perplexity){.ctx = args->ctx, .windows = args->windows, .offset = args->offset};
    if (args->tokens) snprintf(recipe->eval.tokens, sizeof recipe->eval.tokens, "%s", args->tokens);
    return code;
}
