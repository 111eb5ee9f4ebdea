/* SPDX-License-Identifier: Apache-2.0 */
#include "child.h"

#include "base/rng.h"

#include <math.h>

/* A place whose Philox counter and key are the given words. */
static void expect_words(const uint32_t counter[4], const uint32_t key[2], const uint32_t want[4]) {
    bq_rng_key at = {.seed = (uint64_t)key[1] << 32 | key[0],
                     .sample = counter[1],
                     .iteration = counter[2],
                     .block = counter[3] >> 16,
                     .phase = counter[3] >> 8 & 255u,
                     .sweep = counter[3] & 255u};
    uint32_t got[4];
    bq_philox(at, counter[0], got);
    assert_memory_equal(got, want, sizeof got);
}

/* Random123's known answers for philox4x32-10. */
static void known_answers(void **state) {
    (void)state;
    expect_words((uint32_t[]){0, 0, 0, 0}, (uint32_t[]){0, 0},
                 (uint32_t[]){0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
    expect_words((uint32_t[]){0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu},
                 (uint32_t[]){0xffffffffu, 0xffffffffu},
                 (uint32_t[]){0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
    expect_words((uint32_t[]){0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
                 (uint32_t[]){0xa4093822u, 0x299f31d0u},
                 (uint32_t[]){0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
}

static void every_part_of_the_place_matters(void **state) {
    (void)state;
    bq_rng_key at = {.seed = 1, .sweep = 2, .phase = 3, .block = 4, .iteration = 5, .sample = 6};
    bq_rng_key other[] = {at, at, at, at, at, at, at};
    other[0].seed ^= 1, other[1].seed ^= UINT64_C(1) << 32, other[2].sweep ^= 1, other[3].phase ^= 1;
    other[4].block ^= 1, other[5].iteration ^= 1, other[6].sample ^= 1;
    uint32_t base[4], word[4];
    bq_philox(at, 7, base);
    for (int i = 0; i < 8; i++) {
        bq_philox(i < 7 ? other[i] : at, i < 7 ? 7 : 8, word);
        for (int k = 0; k < 4; k++) assert_true(word[k] != base[k]);
    }
}

static void words_are_uniform(void **state) {
    (void)state;
    enum { QUADS = 1 << 16 };
    bq_rng_key at = {.seed = 99};
    double sum[4] = {0}, square[4] = {0};
    int64_t ones[32] = {0};
    for (uint32_t q = 0; q < QUADS; q++) {
        uint32_t word[4];
        bq_philox(at, q, word);
        for (int k = 0; k < 4; k++) {
            double u = word[k] * 0x1p-32;
            sum[k] += u, square[k] += u * u;
            for (int b = 0; b < 32; b++) ones[b] += word[k] >> b & 1u;
        }
    }
    for (int k = 0; k < 4; k++) { /* five deviations */
        assert_true(fabs(sum[k] / QUADS - 0.5) < 5 * sqrt(1.0 / 12 / QUADS));
        assert_true(fabs(square[k] / QUADS - 1.0 / 3) < 5 * sqrt(4.0 / 45 / QUADS));
    }
    for (int b = 0; b < 32; b++) assert_true(fabs((double)ones[b] - 2.0 * QUADS) < 5 * sqrt(1.0 * QUADS));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(every_part_of_the_place_matters),
        cmocka_unit_test(words_are_uniform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
