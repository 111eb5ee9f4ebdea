/* SPDX-License-Identifier: Apache-2.0 */
/* codes.h - codes in as few bits as their element has, as a checkpoint stores them.
 *
 * A row is one stream of bits, from the lowest bit of its first byte on: code c is in the bits from c * bits
 * up to (c + 1) * bits, the low bits of its byte as they are.  Bits behind the last code are 0.  All calls
 * are local. */
#ifndef BQ_CODES_H
#define BQ_CODES_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes of n codes of 1 to 8 bits. */
int64_t bq_codes_bytes(int64_t n, int bits);

/* Pack n codes to bq_codes_bytes(n, bits) bytes, and back; n >= 0.  Unpacking `whole` codes, those of
 * integers, copies their highest bit into the bits above it; those of floats get 0 there. */
void bq_codes_pack(const int8_t *code, int64_t n, int bits, uint8_t *to);
void bq_codes_unpack(const uint8_t *from, int64_t n, int bits, bool whole, int8_t *code);

#endif
