/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/procedural.h"

#include "base/die.h"
#include "base/hash.h"
#include "base/num.h"
#include "base/rng.h"
#include "io/in/weights_reader.h"
#include "io/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of the sum of four random bytes. */
#define MEAN      510
#define DEVIATION 147.8005413f

/* Keeps these numbers apart from all other uses of the generator. */
enum { PURPOSE = 0x77656967 };

static float bell(uint32_t word) {
    return (float)((int)(word & 255) + (int)(word >> 8 & 255) + (int)(word >> 16 & 255) + (int)(word >> 24) -
                   MEAN);
}

void bq_procedural_make(int64_t seed, const bq_tensor *t, size_t from, void *to, size_t bytes) {
    BQ_CHECK(from % 2 == 0 && bytes % 2 == 0, "%s: %zu bytes from %zu of BF16", t->name, bytes, from);
    uint16_t *out = to;
    int64_t first = (int64_t)from / 2, end = first + (int64_t)bytes / 2;
    if (t->dims == 1) {
        size_t length = strlen(t->name);
        bool bias = length >= 5 && strcmp(t->name + length - 5, ".bias") == 0;
        for (int64_t i = first; i < end; i++) *out++ = bq_to_bf16(bias ? 0 : 1);
        return;
    }
    float scale = 1 / (DEVIATION * sqrtf((float)t->shape[1]));
    bq_rng_key at = {.seed = (uint64_t)seed, .iteration = PURPOSE, .sample = (uint32_t)bq_hash_text(t->name)};
    for (int64_t quad = first / 4; 4 * quad < end; quad++) {
        uint32_t word[4];
        bq_philox(at, (uint32_t)quad, word);
        for (int k = 0; k < 4; k++)
            if (4 * quad + k >= first && 4 * quad + k < end) *out++ = bq_to_bf16(bell(word[k]) * scale);
    }
}

/* ---- the reader ---- */

static bool knows(const char *path, const json_t *config) {
    (void)path;
    return json_object_get(config, BQ_PROCEDURAL_KEY);
}

/* The key leaves config: what becomes of the model later has its weights in files. */
static int open_seed(bq_weights *w, const char *path) {
    (void)path;
    bq_json j = bq_json_of(w->config, w->config_path);
    int64_t *seed = w->own = calloc(1, sizeof *seed);
    BQ_CHECK(seed, "no memory for a seed");
    bq_json_int(&j, BQ_PROCEDURAL_KEY, 0, INT64_MAX, seed);
    json_object_del(w->config, BQ_PROCEDURAL_KEY);
    return j.status;
}

static void add(bq_weights *w, const bq_tensor *wanted) {
    bq_tensor t = *wanted;
    t.dtype = bq_dtype_name("BF16");
    t.bytes = 2 * (size_t)bq_tensor_count(&t);
    bq_weights_add(w, &t);
}

/* t may be a view of the tensor with another shape. */
static void make(const bq_weights *w, const bq_tensor *t, size_t from, void *to, size_t bytes) {
    bq_procedural_make(*(const int64_t *)w->own, bq_weights_find(w, t->name), from, to, bytes);
}

static void hash(const bq_weights *w, bq_hash *h) {
    const int64_t first[] = {BQ_PROCEDURAL_VERSION, *(const int64_t *)w->own};
    bq_hash_add(h, first, sizeof first);
    for (int i = 0; i < w->count; i++) {
        const bq_tensor *t = &w->at[i];
        bq_hash_add(h, t->name, strlen(t->name) + 1);
        bq_hash_add(h, t->shape, (size_t)t->dims * sizeof *t->shape);
    }
}

const bq_weights_reader bq_weights_procedural = {
    .wanted = "config.json with " BQ_PROCEDURAL_KEY,
    .knows = knows,
    .open = open_seed,
    .close = free,
    .read = make,
    .hash = hash,
    .add = add,
};
