#include "io/in/procedural.h"

#include "base/die.h"
#include "base/hash.h"
#include "base/num.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

/* The sum of four bytes: mean and standard deviation. */
#define MEAN      510
#define DEVIATION 147.8005413f

/* Apart from every other use of the generator. */
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
