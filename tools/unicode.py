#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write src/io/unicode.c: the classes of characters that tokenizers ask for, from Python's unicodedata.

    python3 tools/unicode.py > src/io/unicode.c
"""
import unicodedata

# White_Space of Unicode, which unicodedata does not have
SPACES = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}


def class_of(code):
    char = chr(code)
    category = unicodedata.category(char)
    bits = 1 * (category[0] == "L") | 2 * (category[0] == "N") | 4 * (code in SPACES)
    moves = unicodedata.combining(char) or not unicodedata.is_normalized("NFC", char)
    # a starter may be the second half of a pair (Hangul vowels and finals, some Indic signs)
    if moves or code in SECOND:
        bits |= 8
    return bits


def seconds():
    found = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}
    for code in range(0x110000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(int(parts[1], 16))
    return found


SECOND = seconds()


def main():
    starts, last = [], -1
    for code in range(0x110000):
        bits = class_of(code)
        if bits != last:
            starts.append(code << 4 | bits)
            last = bits
    print("/* SPDX-License-Identifier: Apache-2.0 */")
    print(f"/* Made by tools/unicode.py from Unicode {unicodedata.unidata_version}. */")
    print('#include "io/unicode.h"\n')
    print("/* First characters of ranges, times 16, and the class of the range. */\n/* clang-format off */")
    print(f"const uint32_t bq_unicode_ranges[{len(starts)}] = {{")
    line = "   "
    for number in starts:
        piece = f" {number:#x},"
        if len(line) + len(piece) > 109:
            print(line)
            line = "   "
        line += piece
    print(f"{line}\n}};")
    print(f"const int bq_unicode_count = {len(starts)};")


main()
