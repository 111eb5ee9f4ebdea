/* SPDX-License-Identifier: Apache-2.0 */
/* Does the run directory belong to this run?  If not, say what differs. */
#include "driver/run/session.h"

#include "base/die.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *part, *what;
} outside[] = {{"model", "other weights, or another config.json"},
               {"tokens", "other calibration tokens"},
               {"numerics", "another processor, BLAS, C library, compiler or release"}};

/* Does `text`, a list of keys, have one that is or begins with `part`? */
static bool named(const char *text, const char *part) {
    for (const char *at = text; (at = strstr(at, part)); at++) {
        char next = at[strlen(part)];
        if ((at == text || at[-1] == ' ') && (next == '.' || next == ' ')) return true;
    }
    return false;
}

/* Refuse.  The message has the keys that differ from the run's recipe.json, with both values, and the names
 * of other parts that differ. */
static int refuse(const bq_run *s, char *parts) {
    char path[BQ_PATH_MAX + 16], text[1024];
    snprintf(path, sizeof path, "%s/recipe.json", s->dir);
    bq_recipe_differences(path, &s->recipe, text, sizeof text / 2);
    for (char *part = strtok(parts, ", "); part; part = strtok(NULL, ", ")) {
        size_t at = strlen(text), i = 0;
        if (named(text, part)) continue;
        while (i < sizeof outside / sizeof *outside && strcmp(outside[i].part, part)) i++;
        bool out = i < sizeof outside / sizeof *outside;
        snprintf(text + at, sizeof text - at, "%s%s%s%s%s", at ? ", " : "", part, out ? " (" : "",
                 out ? outside[i].what : "", out ? ")" : "");
    }
    if (!*text)
        snprintf(text, sizeof text,
                 "model, tokens or numerics (ckpt/state.json, which would tell, is gone or damaged)");
    return bq_refuse(
        BQ_USAGE,
        "%s holds a run that differs in: %s; give another --out, give these as they were, or remove "
        "that directory",
        s->dir, text);
}

int bq_session_resume(bq_run *s) {
    const char *names[BQ_PARTS];
    uint64_t hashes[BQ_PARTS];
    char changed[256];
    for (int i = 0; i < s->parts; i++) names[i] = s->part[i].name, hashes[i] = s->part[i].hash;
    int found = bq_state_compare(s->dir, names, hashes, s->parts, changed, sizeof changed);
    if (found > 0) return refuse(s, changed);
    s->state =
        bq_state_load(s->dir, s->fingerprint, s->recipe.sweeps, s->recipe.nphase, s->src.arch.model.blocks);
    if (s->src.arch.experts) bq_state_experts(s->state, s->src.arch.experts, s->src.arch.model.dense);
    bool others = found < 0 && bq_state_count(s->state) == 0 && bq_state_foreign(s->state) > 0;
    return others ? refuse(s, changed) : BQ_OK;
}
