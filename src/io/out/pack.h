/* pack.h - codes and zero points in 32-bit words, as compressed-tensors stores them.  A code or zero point
 * that does not fit its bits is a bug and ends the job.  Local. */
#ifndef BQ_PACK_H
#define BQ_PACK_H

#include "base/mat.h"

/* Words of a packed row of cols codes. */
int64_t bq_pack_words(int64_t cols, int bits);

/* Pack codes along rows: code c becomes the unsigned field c + 2^(bits - 1), the first one in the lowest
 * bits.  Fields behind a row's end are 0.
 *   code  in   (rows, cols) i8, in [-2^(bits-1), 2^(bits-1) - 1]
 *   bits       4 or 8
 *   word  out  (rows, bq_pack_words(cols)) i32 */
void bq_pack_rows(bq_mat code, int bits, bq_mat word);

/* Pack zero points along columns: field i of word (w, g) is the zero point in row w * 32 / bits + i plus
 * 2^(bits - 1).  Fields behind the last row are 0.
 *   zero  in   (rows, groups) f32, whole numbers in the range of codes
 *   bits       4 or 8
 *   word  out  (bq_pack_words(rows), groups) i32 */
void bq_pack_zeros(bq_mat zero, int bits, bq_mat word);

#endif
