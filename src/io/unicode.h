/* SPDX-License-Identifier: Apache-2.0 */
/* unicode.h - classes of characters, and UTF-8.  All calls are local. */
#ifndef BQ_UNICODE_H
#define BQ_UNICODE_H

#include <stddef.h>
#include <stdint.h>

/* Bits of a class: the general categories L* and N*, the property White_Space; and whether normal form C may
 * change the character or join it with the one before. */
enum { BQ_LETTER = 1, BQ_NUMBER = 2, BQ_SPACE = 4, BQ_UNSETTLED = 8 };

/* Ranges in rising order: the first character times 16, and the class. */
extern const uint32_t bq_unicode_ranges[];
extern const int bq_unicode_count;

static inline unsigned bq_unicode_class(uint32_t code) {
    int low = 0, high = bq_unicode_count;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (bq_unicode_ranges[middle] >> 4 <= code)
            low = middle;
        else
            high = middle;
    }
    return bq_unicode_ranges[low] & 15;
}

/* The character that starts at text, of which n >= 1 bytes are there, and its bytes; 0 where they are not
 * UTF-8 (shortest form, no surrogates). */
static inline int bq_utf8(const char *text, size_t n, uint32_t *code) {
    const unsigned char *c = (const unsigned char *)text;
    const int bytes = c[0] < 0x80   ? 1
                      : c[0] < 0xc2 ? 0
                      : c[0] < 0xe0 ? 2
                      : c[0] < 0xf0 ? 3
                      : c[0] < 0xf5 ? 4
                                    : 0;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (!bytes || (size_t)bytes > n) return 0;
    *code = bytes == 1 ? c[0] : c[0] & (0x7fu >> bytes);
    for (int i = 1; i < bytes; i++) {
        if ((c[i] & 0xc0) != 0x80) return 0;
        *code = *code << 6 | (c[i] & 0x3f);
    }
    if (*code < least[bytes] || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000)) return 0;
    return bytes;
}

#endif
