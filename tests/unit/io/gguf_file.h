/* SPDX-License-Identifier: Apache-2.0 */
/* gguf_file.h - small GGUF files for tests, each written as a line of text:
 *
 *     b1 h2 w3 q4   a number of 1, 2, 4 or 8 bytes      f0.5 d0.5   an f32, an f64
 *     'text'        a text: its length as q, its bytes  !GGUF       these bytes, to the next blank
 *     +7            seven bytes of value 0              |32         zeros up to a multiple of 32 */
#ifndef GGUF_FILE_H
#define GGUF_FILE_H

#include "refuse.h"

/* Keys and tensors that many tests have.  HEAD: of version 3. */
#define HEAD(tensors, keys)                     "!GGUF w3 q" #tensors " q" #keys " "
#define ALIGN(n)                                "'general.alignment' w4 w" #n " "
#define TENSOR1(name, cols, type, offset)       "'" name "' w1 q" #cols " w" #type " q" #offset " "
#define TENSOR2(name, cols, rows, type, offset) "'" name "' w2 q" #cols " q" #rows " w" #type " q" #offset " "

enum { GGUF_ROOM = 1 << 16 };

/* Append one word of the line. */
static inline size_t gguf_word(const char *word, size_t length, uint8_t *to, size_t n) {
    unsigned long long u = strtoull(word + 1, NULL, 0);
    float f = strtof(word + 1, NULL);
    double d = strtod(word + 1, NULL);
    switch (*word) {
    case 'b': memcpy(to + n, &u, 1); return n + 1;
    case 'h': memcpy(to + n, &u, 2); return n + 2;
    case 'w': memcpy(to + n, &u, 4); return n + 4;
    case 'q': memcpy(to + n, &u, 8); return n + 8;
    case 'f': memcpy(to + n, &f, 4); return n + 4;
    case 'd': memcpy(to + n, &d, 8); return n + 8;
    case '!': memcpy(to + n, word + 1, length - 1); return n + length - 1;
    case '+': memset(to + n, 0, u); return n + u;
    case '|': memset(to + n, 0, u); return (n + u - 1) / u * u;
    default: fail_msg("what is '%s'?", word); return n;
    }
}

/* The bytes of the file; their number is returned. */
static inline size_t gguf_bytes(const char *line, uint8_t to[GGUF_ROOM]) {
    size_t n = 0;
    while (*line) {
        const char *end = *line == '\'' ? strchr(line + 1, '\'') + 1 : strchrnul(line, ' ');
        size_t length = (size_t)(end - line);
        assert_true(n + length + 8192 < GGUF_ROOM); /* | and + are of less */
        if (*line == '\'') {
            uint64_t bytes = length - 2;
            memcpy(to + n, &bytes, 8);
            memcpy(to + n + 8, line + 1, bytes);
            n += 8 + bytes;
        } else {
            n = gguf_word(line, length, to, n);
        }
        line = end + strspn(end, " ");
    }
    return n;
}

static inline const char *gguf_save(const char *name, const char *line) {
    static uint8_t bytes[GGUF_ROOM];
    const char *path = temp_path(name);
    file_save(path, bytes, gguf_bytes(line, bytes));
    return path;
}

#endif
