/* SPDX-License-Identifier: Apache-2.0 */
/* pack.h - codes and zero points in 32-bit words, as compressed-tensors (from 0.18 on) and GPTQ store them.
 *
 * A row is one stream of bits, from the lowest bit of its first word on: code c becomes the unsigned field
 * c + 2^(bits - 1), in the bits from c * bits up to (c + 1) * bits.  32 codes fill `bits` words; with 3, 5, 6
 * or 7 bits a code may begin in one word and end in the next.  Fields behind the last code are 0.  A code or
 * zero point that does not fit its bits is a bug and ends the job.  Local. */
#ifndef BQ_PACK_H
#define BQ_PACK_H

#include "base/mat.h"

/* Words of a packed row of cols codes. */
int64_t bq_pack_words(int64_t cols, int bits);

/* Word `at` of a packed row of cols codes, bits from 2 to 8. */
uint32_t bq_pack_word(const int8_t *code, int64_t cols, int bits, int64_t at);

/* Pack codes along rows.
 *   code  in   (rows, cols) i8, in [-2^(bits-1), 2^(bits-1) - 1]
 *   bits       2 to 8
 *   word  out  (rows, bq_pack_words(cols)) i32 */
void bq_pack_rows(bq_mat code, int bits, bq_mat word);

/* Pack zero points along columns: each column is a stream like a row of codes.
 *   zero  in   (rows, groups) f32, whole numbers in the range of codes
 *   bits       2 to 8
 *   word  out  (bq_pack_words(rows), groups) i32 */
void bq_pack_zeros(bq_mat zero, int bits, bq_mat word);

#endif
