/* want.h - checks of the matrices that an op gets.  A wrong one is a bug of the caller: the job ends. */
#ifndef BQ_WANT_H
#define BQ_WANT_H

#include "base/mat.h"

/* End the job unless each of the matrices has that shape and type, and is on the device or not.  op and names
 * are for the message: who asks, and the matrices as the source calls them. */
void bq_want(const char *op, const char *names, bool device, bq_type type, int64_t rows, int64_t cols,
             size_t count, const bq_mat *m);

#endif
