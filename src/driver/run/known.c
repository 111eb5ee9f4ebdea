/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/known.h"

#include "base/die.h"
#include "base/hash.h"
#include "base/log.h"
#include "driver/recipe/keys.h"
#include "io/files.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1 << 24 /* bytes of the file */ };

static void path_of(const bq_run *s, char path[BQ_PATH_MAX + 96]) {
    snprintf(path, BQ_PATH_MAX + 96, "%s/evals.json", s->heads);
}

/* Everything that the numbers depend on and the folder's name does not have. */
static void key_of(const bq_run *s, int i, bq_known what, char key[32]) {
    const bq_eval *e = &s->evals.eval[i];
    json_t *recipe = bq_keys_json(&s->recipe, false), *list = json_object_get(recipe, "evals");
    const bool object = i < s->evals.object;
    json_t *eval = json_incref(object ? json_object_get(recipe, "eval")
                                      : json_array_get(list, (size_t)(i - s->evals.object)));
    static const char *const others[] = {"eval", "evals", "outputs", "distill"};
    for (size_t k = 0; k < sizeof others / sizeof *others; k++) json_object_del(recipe, others[k]);
    static const char *const result[] = {"phases", "segments", "sweeps"};
    for (size_t k = 0; k < sizeof result / sizeof *result && what == BQ_KNOWN_RTN; k++)
        json_object_del(recipe, result[k]);
    if (what == BQ_KNOWN_MODEL) json_object_clear(recipe);
    json_t *all = json_pack("[OO]", eval, recipe);
    size_t bytes;
    char *text = bq_json_text_of(all, &bytes);
    const uint64_t of[] = {bq_hash_bytes(text, bytes), e->tokens.hash,
                           what == BQ_KNOWN_MODEL ? 0 : s->schemes_hash,
                           what == BQ_KNOWN_RESULT ? bq_run_tag(s) : (uint64_t)what};
    snprintf(key, 32, "%016" PRIx64, bq_hash_bytes(of, sizeof of));
    free(text);
    json_decref(all);
    json_decref(eval);
    json_decref(recipe);
}

static bool read_values(const bq_run *s, const char *key, int count, double *value) {
    char path[BQ_PATH_MAX + 96];
    path_of(s, path);
    json_t *kept = bq_json_read_sealed(path, MOST), *list = json_object_get(kept, key);
    bool good = (int)json_array_size(list) == count;
    for (int k = 0; k < count && good; k++) {
        json_t *number = json_array_get(list, (size_t)k);
        good = json_is_number(number) && isfinite(value[k] = json_number_value(number));
    }
    json_decref(kept);
    return good;
}

bool bq_known_get(const bq_run *s, int i, bq_known what, double *value) {
    const int count = bq_eval_values(&s->evals.eval[i]);
    char key[32];
    if (!s->args->reference) return false;
    key_of(s, i, what, key);
    const bool missing = s->comm->rank == 0 && !read_values(s, key, count, value);
    if (bq_comm_agree(s->comm, missing)) return false;
    bq_comm_bcast(s->comm, value, (size_t)count * sizeof *value);
    return true;
}

void bq_known_put(const bq_run *s, int i, bq_known what, const double *value) {
    const int count = bq_eval_values(&s->evals.eval[i]);
    char path[BQ_PATH_MAX + 96], key[32];
    if (!s->args->reference || s->comm->rank) return;
    for (int k = 0; k < count; k++)
        if (!isfinite(value[k])) return;
    key_of(s, i, what, key);
    path_of(s, path);
    json_t *kept = bq_json_read_sealed(path, MOST), *list = json_array();
    if (!kept) kept = json_object();
    for (int k = 0; k < count; k++) json_array_append_new(list, json_real(value[k]));
    json_object_set_new(kept, key, list);
    int error = bq_json_write_sealed(path, kept);
    if (error)
        bq_log(BQ_WARN, "'%s' cannot be written: %s; the next run evaluates again", path, bq_file_why(error));
    json_decref(kept);
}
