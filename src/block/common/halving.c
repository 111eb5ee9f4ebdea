/* SPDX-License-Identifier: Apache-2.0 */
#include "block/common/halving.h"

#include <math.h>

static const bq_stride rounds[] = {{0, 8}, {4, 8}, {2, 4}, {1, 2}};

int bq_search_rounds(bq_search how) {
    return how == BQ_SEARCH_HALVING ? (int)(sizeof rounds / sizeof *rounds) : 1;
}

bq_stride bq_search_samples(bq_search how, int round) {
    return how == BQ_SEARCH_HALVING ? rounds[round] : bq_every;
}

int bq_search_round_of(bq_search how, int64_t sample) {
    int round = 0;
    while (!bq_stride_has(bq_search_samples(how, round), sample)) round++;
    return round;
}

void bq_search_halve(const double *loss, int n, bool *alive) {
    int drop = 0;
    for (int k = 0; k < n; k++) drop += alive[k];
    for (drop /= 2; drop > 0; drop--) {
        int worst = -1;
        for (int k = 0; k < n; k++) {
            bool first = worst < 0, wrong = !isfinite(loss[k]);
            if (alive[k] && (first || wrong || (isfinite(loss[worst]) && loss[k] >= loss[worst]))) worst = k;
        }
        alive[worst] = false;
    }
}

const bq_choice bq_search_choices[] = {{"all", BQ_SEARCH_ALL}, {"halving", BQ_SEARCH_HALVING}, {0}};
