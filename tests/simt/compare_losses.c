/* SPDX-License-Identifier: Apache-2.0 */
/* compare_losses LIMIT A B: the losses of two checkpoints, step by step, are within LIMIT of each other,
 * relative.
 */
#include "base/die.h"
#include "io/state/h5.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static double *read_losses(const char *path, int64_t *steps) {
    bq_h5 h = {0};
    uint64_t tag;
    int64_t offset;
    BQ_CHECK(bq_h5_open(&h, path, &tag) && bq_h5_get_data(&h, "loss", BQ_F64, 1, steps, &offset), "%s: %s",
             path, h.why);
    double *loss = malloc((size_t)*steps * sizeof *loss);
    BQ_CHECK(loss && bq_h5_read(&h, offset, bq_mat_host(loss, 1, *steps, BQ_F64)), "%s: %s", path, h.why);
    bq_h5_close(&h);
    return loss;
}

int main(int argc, char **argv) {
    int64_t steps, others;
    double worst = 0;
    BQ_CHECK(argc == 4, "three arguments are needed: limit, checkpoint, checkpoint");
    double *a = read_losses(argv[2], &steps), *b = read_losses(argv[3], &others);
    for (int64_t i = 0; i < steps && steps == others; i++) worst = fmax(worst, fabs(a[i] / b[i] - 1));
    printf("%ld and %ld losses, at most %.3g apart\n", (long)steps, (long)others, worst);
    free(a), free(b);
    return steps != others || !(worst <= atof(argv[1]));
}
