/* pack.h - codes in 32-bit words, as compressed-tensors stores them. */
#ifndef BQ_PACK_H
#define BQ_PACK_H

#include "base/mat.h"

/* Words of a packed row. */
int64_t bq_pack_words(int64_t cols, int bits);

/* Each code c becomes the unsigned field c + 2^(bits - 1), least significant field first; fields after a
 * row's end are 0.
 *   code  in   (rows, cols) i8, within [-2^(bits-1), 2^(bits-1) - 1]: else a bug, dies
 *   bits       4 or 8
 *   word  out  (rows, bq_pack_words) i32; no alias */
void bq_pack_rows(bq_mat code, int bits, bq_mat word);

/* Zero points, packed along a column: field i of word (w, g) is that of row w * 32 / bits + i, the value plus
 * 2^(bits - 1); fields after the last row are 0.
 *   zero  in   (rows, groups) f32, whole numbers that codes of those bits can be: else a bug, dies
 *   word  out  (bq_pack_words(rows), groups) i32; no alias */
void bq_pack_zeros(bq_mat zero, int bits, bq_mat word);

#endif
