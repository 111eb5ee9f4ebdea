/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 (FIPS 180-4): in C, and by the instructions that the processor may have for it. */
#include "base/hash.h"

#include <cpuid.h>
#include <immintrin.h>
#include <stdio.h>
#include <string.h>

static const uint32_t k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* One round; `a` becomes what the next round calls h, and so on: so no value moves. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                                                     \
    do {                                                                                                     \
        h += (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + (g ^ (e & (f ^ g))) + k[i] + w[i];                   \
        d += h;                                                                                              \
        h += (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) | (c & (a | b)));                           \
    } while (0)

static void mix_plain(uint32_t state[8], const unsigned char *block, size_t blocks) {
    for (; blocks; blocks--, block += 64) {
        uint32_t w[64], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5],
                        g = state[6], h = state[7];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
                   (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
        for (int i = 16; i < 64; i++)
            w[i] = w[i - 16] + (turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
                   (turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10);
        for (int i = 0; i < 64; i += 8) {
            ROUND(a, b, c, d, e, f, g, h, i);
            ROUND(h, a, b, c, d, e, f, g, i + 1);
            ROUND(g, h, a, b, c, d, e, f, i + 2);
            ROUND(f, g, h, a, b, c, d, e, i + 3);
            ROUND(e, f, g, h, a, b, c, d, i + 4);
            ROUND(d, e, f, g, h, a, b, c, i + 5);
            ROUND(c, d, e, f, g, h, a, b, i + 6);
            ROUND(b, c, d, e, f, g, h, a, i + 7);
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

/* The instructions keep the state as the words (a, b, e, f) and (c, d, g, h), the last in the lowest lane;
 * four words of the message are a vector.  One step is four rounds. */
__attribute__((target("sha,sse4.1"))) static void mix_x86(uint32_t state[8], const unsigned char *block,
                                                          size_t blocks) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i x = _mm_loadu_si128((const __m128i *)(const void *)state),
            y = _mm_loadu_si128((const __m128i *)(const void *)(state + 4)),
            abef = _mm_unpackhi_epi64(_mm_shuffle_epi32(y, 0x1b), _mm_shuffle_epi32(x, 0x1b)),
            cdgh = _mm_unpacklo_epi64(_mm_shuffle_epi32(y, 0x1b), _mm_shuffle_epi32(x, 0x1b));
    for (; blocks; blocks--, block += 64) {
        __m128i w[4], first = abef, second = cdgh;
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(block + 16 * i)), swap);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            __m128i now = w[i % 4],
                    sum = _mm_add_epi32(now, _mm_loadu_si128((const __m128i *)(const void *)(k + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
            const __m128i last = w[(i + 3) % 4], middle = _mm_alignr_epi8(last, w[(i + 2) % 4], 4);
            w[i % 4] =
                _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(now, w[(i + 1) % 4]), middle), last);
        }
        abef = _mm_add_epi32(abef, first), cdgh = _mm_add_epi32(cdgh, second);
    }
    x = _mm_shuffle_epi32(_mm_unpackhi_epi64(cdgh, abef), 0x1b);
    y = _mm_shuffle_epi32(_mm_unpacklo_epi64(cdgh, abef), 0x1b);
    _mm_storeu_si128((__m128i *)(void *)state, x);
    _mm_storeu_si128((__m128i *)(void *)(state + 4), y);
}

static bool has_x86(void) {
    unsigned a, b = 0, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1 && __builtin_cpu_supports("sse4.1");
}

void bq_sha256_begin(bq_sha256_state *s, bool plain) {
    *s = (bq_sha256_state){.mix = !plain && has_x86() ? mix_x86 : mix_plain,
                           .h = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
                                 0x1f83d9ab, 0x5be0cd19}};
}

void bq_sha256_add(bq_sha256_state *s, const void *data, size_t bytes) {
    const unsigned char *at = data;
    size_t held = s->bytes % 64, fill = 64 - held;
    s->bytes += bytes;
    if (held && bytes >= fill) {
        memcpy(s->part + held, at, fill);
        s->mix(s->h, s->part, 1);
        at += fill, bytes -= fill, held = 0;
    }
    if (held == 0) s->mix(s->h, at, bytes / 64), at += bytes / 64 * 64, bytes %= 64;
    if (bytes) memcpy(s->part + held, at, bytes);
}

void bq_sha256_end(bq_sha256_state *s, uint32_t value[8]) {
    static const unsigned char end[64] = {0x80};
    unsigned char size[8];
    for (int i = 0; i < 8; i++) size[i] = (unsigned char)(s->bytes * 8 >> (56 - 8 * i));
    bq_sha256_add(s, end, 1 + (119 - s->bytes % 64) % 64);
    bq_sha256_add(s, size, sizeof size);
    memcpy(value, s->h, sizeof s->h);
}

void bq_sha256_hex(const uint32_t value[8], char hex[65]) {
    for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", (unsigned)value[i]);
}

void bq_sha256(const void *data, size_t bytes, char hex[65]) {
    bq_sha256_state s;
    uint32_t value[8];
    bq_sha256_begin(&s, false);
    bq_sha256_add(&s, data, bytes);
    bq_sha256_end(&s, value);
    bq_sha256_hex(value, hex);
}
