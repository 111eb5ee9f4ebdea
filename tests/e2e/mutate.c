/* SPDX-License-Identifier: Apache-2.0 */
/* mutate SEED FILE: one to six random edits of the file, the same ones for the same seed: a bit, a byte, a
 * run of bytes from elsewhere, a cut, an insertion, an extreme number, a piece of JSON.  Half of the edits
 * fall on the first 4096 bytes, where headers are.  Prints nothing; exit code 1 when the file cannot be read
 * or written. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER = 4096, ROOM = 1 << 16 };

static uint64_t state;

/* splitmix64 */
static uint64_t next(void) {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t below(size_t n) { return n ? (size_t)(next() % n) : 0; }

/* Make room for `in` bytes in the place of `out` bytes. */
static void *splice(char *data, size_t *bytes, size_t at, size_t out, size_t in) {
    memmove(data + at + in, data + at + out, *bytes - at - out);
    *bytes += in - out;
    return data + at;
}

static void edit(char *data, size_t *bytes) {
    static const char *const piece[] = {"{",    "}",    "[",   "]",          "\"",    ",",
                                        ":",    "null", "-1",  "0",          "1e9",   "\\",
                                        "\xff", "true", "{}",  "[[[[[[[[",   "1e999", "9223372036854775807",
                                        "../x", "0.5",  "nan", "\"\\u0000\""};
    static const int64_t extreme[] = {0, 1, -1, INT32_MAX, INT64_MAX, INT64_MIN, 1ll << 32, 0x7fff, 255};
    const size_t at = below(next() & 1 && *bytes > HEADER ? HEADER : *bytes);
    size_t left = *bytes - at, n = 1 + below(left < 64 ? left : 64);
    if (!left) return;
    switch (below(9)) {
    case 0: data[at] ^= (char)(1 << below(8)); break;
    case 1: data[at] = (char)next(); break;
    case 2: memmove(data + at, data + below(*bytes - n), n < left ? n : left); break;
    case 3: splice(data, bytes, at, n < left ? n : left, 0); break;
    case 4: memset(splice(data, bytes, at, 0, n), (int)next(), n); break;
    case 5: *bytes = at; break;
    case 6: {
        size_t width = (size_t)1 << below(4);
        memcpy(data + at, &extreme[below(sizeof extreme / sizeof *extreme)], width < left ? width : left);
        break;
    }
    default: {
        const char *text = piece[below(sizeof piece / sizeof *piece)];
        size_t out = below(left < 8 ? left : 8);
        memcpy(splice(data, bytes, at, out, strlen(text)), text, strlen(text));
    }
    }
}

int main(int argc, char **argv) {
    FILE *f = argc == 3 ? fopen(argv[2], "r+b") : NULL;
    if (!f || fseek(f, 0, SEEK_END)) return 1;
    size_t bytes = (size_t)ftell(f);
    char *data = calloc(bytes + ROOM, 1);
    rewind(f);
    if (!data || fread(data, 1, bytes, f) != bytes) return 1;
    state = strtoull(argv[1], NULL, 10);
    for (size_t k = 1 + below(6); k > 0; k--) edit(data, &bytes);
    fclose(f);
    f = fopen(argv[2], "wb");
    int failed = !f || fwrite(data, 1, bytes, f) != bytes;
    if (f) failed |= fclose(f) != 0;
    free(data);
    return failed;
}
