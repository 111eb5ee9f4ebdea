#include "kernels/want.h"

#include "base/die.h"

void bq_want(const char *op, const char *names, bool device, bq_type type, int64_t rows, int64_t cols,
             size_t count, const bq_mat *m) {
    for (size_t i = 0; i < count; i++) {
        BQ_CHECK(m[i].rows == rows && m[i].cols == cols && m[i].type == type && m[i].ld >= cols,
                 "%s: matrix %zu of (%s) is %ld x %ld %s, not %ld x %ld %s", op, i + 1, names,
                 (long)m[i].rows, (long)m[i].cols, bq_type_name(m[i].type), (long)rows, (long)cols,
                 bq_type_name(type));
        BQ_CHECK((m[i].place == BQ_DEVICE) == device, "%s: matrix %zu of (%s) is not where the device is", op,
                 i + 1, names);
    }
}
