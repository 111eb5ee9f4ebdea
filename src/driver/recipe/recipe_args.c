/* SPDX-License-Identifier: Apache-2.0 */
/* What the command line says in the place of a recipe's lists: evaluations and an output. */
#include "driver/recipe/keys.h"

#include "base/die.h"
#include "io/out/export.h"

#include <stdlib.h>
#include <string.h>

/* Add "KEY=VALUE,..." to an object; NULL: nothing.  False if it has another form. */
static bool add_pairs(char *text, json_t *object) {
    char *more = NULL;
    bool good = true;
    for (char *key = text ? strtok_r(text, ",", &more) : NULL; key && good;
         key = strtok_r(NULL, ",", &more)) {
        char *value = strchr(key, '=');
        if (value) *value++ = 0;
        good = value && json_object_set_new(object, key, bq_keys_loose(value)) == 0;
    }
    return good;
}

/* Cut a text at a character; what follows, or NULL. */
static char *cut(char *text, char at) {
    char *found = text ? strchr(text, at) : NULL;
    if (found) *found++ = 0;
    return found;
}

/* Parse "KIND:FILE,KEY=VALUE,..." into an element of the list; false if it has another form. */
static bool take_evaluation(char *text, json_t *object) {
    char *file = cut(text, ':'), *pairs = cut(file, ',');
    const bq_eval_kind *kind;
    int i = 0;
    while ((kind = bq_eval_kind_at(i)) && strcmp(kind->name, text)) i++;
    const char *data = kind ? kind->scope.key->name : "file"; /* an unknown kind is refused later */
    return file && json_object_set_new(object, "eval", json_string(text)) == 0 &&
           json_object_set_new(object, data, json_string(file)) == 0 && add_pairs(pairs, object);
}

/* Read a list that stands for one of the recipe's; `option` is for messages.  Takes over the list. */
static int take_list(bq_recipe *recipe, const char *option, const char *name, json_t *list) {
    char folder[BQ_PATH_MAX];
    bq_origin from = {option, folder, 0, NULL};
    int code = realpath(".", folder) ? BQ_OK : bq_refuse(BQ_USAGE, "the current directory has no name");
    if (!code) code = bq_keys_read_one(&from, name, list, recipe);
    json_decref(list);
    return code;
}

int bq_recipe_evaluate(bq_recipe *recipe, const bq_args *args) {
    char text[BQ_PATH_MAX];
    json_t *list = json_array();
    for (int i = 0; i < args->neval; i++) {
        json_t *element = json_object();
        snprintf(text, sizeof text, "%s", args->eval[i]);
        json_array_append_new(list, element);
        if (take_evaluation(text, element)) continue;
        json_decref(list);
        return bq_refuse(BQ_USAGE, "--eval %.200s: must be KIND:FILE or KIND:FILE,KEY=VALUE,... in UTF-8",
                         args->eval[i]);
    }
    int code = take_list(recipe, "--eval", "evals", list);
    recipe->eval = (bq_perplexity){.ctx = args->ctx, .windows = args->windows, .offset = args->offset};
    if (args->tokens) snprintf(recipe->eval.tokens, sizeof recipe->eval.tokens, "%s", args->tokens);
    return code;
}

/* What the card says of the model is as in the recipe's output of that format, or else in its first one. */
static void inherit(const bq_recipe *recipe, const char *format, json_t *output) {
    const bq_output *from = recipe->output;
    for (int i = recipe->noutput - 1; i >= 0; i--)
        if (strcmp(bq_format_choice(recipe->output[i].format).name, format) == 0) from = &recipe->output[i];
    if (from->base_model[0]) json_object_set_new(output, "base_model", json_string(from->base_model));
    if (from->license[0]) json_object_set_new(output, "license", json_string(from->license));
}

int bq_recipe_export(bq_recipe *recipe, const bq_args *args) {
    char text[BQ_PATH_MAX];
    json_t *output = json_object(), *list = json_array();
    json_array_append_new(list, output);
    snprintf(text, sizeof text, "%s", args->format);
    char *pairs = cut(text, ':');
    if (recipe->noutput) inherit(recipe, text, output);
    bool good = json_object_set_new(output, "format", json_string(text)) == 0 &&
                json_object_set_new(output, "shard_bytes", json_integer((json_int_t)args->shard)) == 0 &&
                add_pairs(pairs, output);
    if (good) return take_list(recipe, "--format", "outputs", list);
    json_decref(list);
    return bq_refuse(BQ_USAGE, "--format %.200s: must be NAME or NAME:KEY=VALUE,... in UTF-8", args->format);
}
