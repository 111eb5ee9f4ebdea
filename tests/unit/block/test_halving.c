/* SPDX-License-Identifier: Apache-2.0 */
/* Successive halving against a plain one, from the losses of single samples. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "smooth_rig.h"

enum { MOST = 16, CANDIDATES = 10 };
typedef struct {
    double of[RIG_SITES][CANDIDATES];
} losses;

static void the_better_half_stays(void **state) {
    (void)state;
    static const struct {
        double loss[5];
        bool before[5], after[5];
    } cases[] = {{{5, 1, 4, 2, 3}, {1, 1, 1, 1, 1}, {0, 1, 0, 1, 1}},
                 {{5, 1, 4, 2, 3}, {1, 0, 1, 1, 1}, {0, 0, 0, 1, 1}},
                 {{5, 1, 4, 2, 3}, {0, 0, 1, 0, 0}, {0, 0, 1, 0, 0}},
                 {{5, 1, 4, 2, 3}, {0}, {0}},
                 {{2, 2, 2, 2, 1}, {1, 1, 1, 1, 1}, {1, 1, 0, 0, 1}},
                 {{NAN, 3, 2, NAN, 9}, {1, 1, 1, 1, 1}, {0, 1, 1, 0, 1}},
                 {{9, -INFINITY, NAN, INFINITY, NAN}, {1, 1, 1, 1, 0}, {1, 1, 0, 0, 0}},
                 {{NAN, NAN, NAN, NAN, NAN}, {1, 1, 1, 1, 1}, {1, 1, 1, 0, 0}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool alive[5];
        memcpy(alive, cases[i].before, sizeof alive);
        bq_search_halve(cases[i].loss, 5, alive);
        assert_memory_equal(alive, cases[i].after, sizeof alive);
    }
}

/* The round that a sample belongs to: the zeros at the end of its number, three at most. */
static int round_of(int sample) {
    int zeros = 0;
    while (zeros < 3 && sample % (2 << zeros) == 0) zeros++;
    return 3 - zeros;
}

static void rounds_part_the_samples(void **state) {
    (void)state;
    assert_int_equal(bq_search_rounds(BQ_SEARCH_ALL), 1);
    assert_int_equal(bq_search_rounds(BQ_SEARCH_HALVING), 4);
    for (int sample = 0; sample < 40; sample++)
        for (int r = 0; r < 4; r++) {
            bq_stride of = bq_search_samples(BQ_SEARCH_HALVING, r);
            assert_true(((sample - of.first) % of.step == 0) == (r == round_of(sample)));
            assert_true(bq_stride_has(of, sample) == (r == round_of(sample)));
            assert_int_equal(bq_search_round_of(BQ_SEARCH_HALVING, sample), round_of(sample));
            assert_int_equal(bq_search_round_of(BQ_SEARCH_ALL, sample), 0);
        }
}

/* ---- a search, with all that it is fed ---- */

static float stream[MOST][TOKENS * H];
static bq_ops mine;
static const bq_ops *real;
static struct {
    int samples, only;  /* only that sample's losses, unless it is below 0 */
    int bad, bad_round; /* a candidate that is NaN in that round's samples; below 0: none */
    bool equal;         /* all losses are 1 */
    int64_t calls, sample;
    int round; /* of those that have a sample, by what was read of losses */
    int candidate, tried[CANDIDATES];
} feed;

/* The statistics' pass comes first, and sees all samples. */
static bq_mat fetch(void *ctx, bq_stream_id id, int64_t sample) {
    rig *r = ctx;
    assert_int_equal(id, BQ_STREAM_FP);
    feed.sample = feed.calls++ < r->c.samples || feed.only < 0 ? sample % feed.samples : feed.only;
    return bq_mat_host(stream[feed.sample], TOKENS, H, BQ_F32);
}

static void smooth_scale(bq_dev *dev, bq_smooth_form form, bq_mat act, bq_mat weight, bq_mat s) {
    real->smooth_scale(dev, form, act, weight, s);
    feed.candidate = (int)lround(form.ratio * 10);
}

static void distance(bq_dev *dev, bq_mat a, bq_mat b, bq_distance kind, double *loss) {
    real->distance(dev, a, b, kind, loss);
    feed.tried[feed.candidate]++;
    if (feed.candidate == feed.bad && (feed.only < 0 ? feed.round : round_of(feed.only)) == feed.bad_round)
        *loss = NAN;
    if (feed.equal) *loss = 1;
}

static void get(bq_dev *dev, bq_mat from, bq_mat host) {
    real->get(dev, from, host);
    feed.round += from.rows == RIG_SITES * BQ_CANDIDATES;
}

static bq_scales_result run(bq_search how, int64_t samples) {
    rig *r = smooth_open(bq_family_find("llama"), 1, w4g8);
    bq_scales_result result;
    smooth_passes o = smooth_variant(3);
    o.autosmooth.search = how;
    real = r->dev.op, mine = *real;
    mine.smooth_scale = smooth_scale, mine.distance = distance, mine.get = get;
    r->dev.op = &mine;
    r->c.fetch = fetch, r->c.samples = samples;
    feed.calls = feed.round = 0;
    memset(feed.tried, 0, sizeof feed.tried);
    assert_int_equal(bq_pass_autosmooth(&r->c, &o.autosmooth, &result), 0);
    rig_close(r);
    return result;
}

/* Each sample's losses with the scales of all: MOST times the same sample, whose sum rounds nowhere. */
static void single(int samples, losses *table) {
    feed.samples = samples;
    for (int i = 0; i < samples; i++) {
        feed.only = i;
        bq_scales_result result = run(BQ_SEARCH_ALL, MOST);
        for (int m = 0; m < RIG_SITES; m++) memcpy(table[i].of[m], result.loss[m], sizeof table[i].of[m]);
    }
    feed.only = -1;
}

/* ---- the plain one ---- */

static bool better(const double *loss, int a, int b) {
    if (isfinite(loss[a]) != isfinite(loss[b])) return isfinite(loss[a]);
    return isfinite(loss[a]) && loss[a] != loss[b] ? loss[a] < loss[b] : a < b;
}

/* Means over what each candidate of matrix m has seen, and of how many samples; who stays at last, best
 * first. Returns how many. */
static int plain(losses *table, int samples, int m, double *mean, int *seen, int *order) {
    int left = CANDIDATES, all = 0;
    double sum[CANDIDATES] = {0};
    for (int k = 0; k < CANDIDATES; k++) order[k] = k;
    for (int round = 0; round < 4; round++) {
        int before = all;
        for (int i = 0; i < samples; i++) {
            if (round_of(i) != round) continue;
            for (int k = 0; k < left; k++) sum[order[k]] += table[i].of[m][order[k]];
            all++;
        }
        if (all == before) continue;
        for (int k = 0; k < left; k++) mean[order[k]] = sum[order[k]] / all, seen[order[k]] = all;
        for (int k = 1; k < left; k++)
            for (int j = k; j > 0 && better(sum, order[j], order[j - 1]); j--) {
                int other = order[j];
                order[j] = order[j - 1], order[j - 1] = other;
            }
        left = (left + 1) / 2;
        for (int k = 1; k <= left; k++) { /* not so near that rounding decides */
            double worse = sum[order[k]];
            assert_true(!(worse - sum[order[k - 1]] < 1e-5 * worse));
        }
    }
    return left;
}

static void same_as_plain(losses *table, int samples, int best[RIG_SITES]) {
    int tried[CANDIDATES] = {0};
    bq_scales_result have = run(BQ_SEARCH_HALVING, samples);
    for (int m = 0; m < RIG_SITES; m++) {
        double mean[CANDIDATES];
        int seen[CANDIDATES], order[CANDIDATES], left = plain(table, samples, m, mean, seen, order);
        assert_true(left > 0);
        best[m] = order[0];
        assert_int_equal(have.best[m], best[m]);
        for (int k = 0; k < CANDIDATES; k++) {
            tried[k] += seen[k];
            if (isfinite(mean[k]))
                assert_true(fabs(have.loss[m][k] - mean[k]) <= 1e-6 * mean[k]);
            else
                assert_true(!isfinite(have.loss[m][k]));
        }
    }
    assert_memory_equal(tried, feed.tried, sizeof tried);
}

static const int sizes[] = {1, 2, 3, 5, 8, 13};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void all_is_the_mean_of_all(void **state) {
    (void)state;
    for (int s = 0; s < SIZES; s++) {
        losses table[MOST];
        int n = sizes[s];
        single(n, table);
        bq_scales_result have = run(BQ_SEARCH_ALL, n);
        for (int m = 0; m < RIG_SITES; m++) {
            double mean[CANDIDATES] = {0};
            int least = 0;
            for (int k = 0; k < CANDIDATES; k++) {
                for (int i = 0; i < n; i++) mean[k] += table[i].of[m][k] / n;
                assert_true(fabs(have.loss[m][k] - mean[k]) <= 1e-6 * mean[k]);
                if (mean[k] < mean[least]) least = k;
            }
            assert_int_equal(have.best[m], least);
        }
        for (int k = 0; k < CANDIDATES; k++) assert_int_equal(feed.tried[k], n * RIG_SITES);
    }
}

static void halving_is_as_the_plain_one(void **state) {
    (void)state;
    for (int s = 0; s < SIZES; s++) {
        losses table[MOST];
        int best[RIG_SITES];
        single(sizes[s], table);
        same_as_plain(table, sizes[s], best);
    }
}

/* The winner of a matrix is NaN from some round on: it goes, and another one wins. */
static void what_is_no_number_drops_out(void **state) {
    (void)state;
    enum { N = 13 };
    losses table[MOST];
    int good[RIG_SITES], best[RIG_SITES];
    single(N, table);
    same_as_plain(table, N, good);
    for (int round = 0; round < 4; round++) {
        losses with[MOST];
        memcpy(with, table, sizeof with);
        feed.bad = good[BQ_DOWN], feed.bad_round = round;
        for (int i = 0; i < N; i++)
            for (int m = 0; m < RIG_SITES && round_of(i) == round; m++) with[i].of[m][feed.bad] = NAN;
        same_as_plain(with, N, best);
        assert_true(best[BQ_DOWN] != good[BQ_DOWN]);
    }
    feed.bad = -1;
}

static void the_first_of_equals_wins(void **state) {
    (void)state;
    feed.equal = true, feed.samples = 5;
    for (int how = BQ_SEARCH_ALL; how <= BQ_SEARCH_HALVING; how++) {
        bq_scales_result have = run((bq_search)how, 5);
        for (int m = 0; m < RIG_SITES; m++) assert_int_equal(have.best[m], 0);
    }
    feed.equal = false;
}

static int setup(void **state) {
    (void)state;
    for (uint32_t s = 0; s < MOST; s++)
        for (uint32_t i = 0; i < TOKENS * H; i++)
            stream[s][i] = rig_noise(4, s, i) * (i % 5 == s % 5 ? 4.0f : 1.0f);
    feed.bad = feed.only = -1;
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_better_half_stays),       cmocka_unit_test(rounds_part_the_samples),
        cmocka_unit_test(all_is_the_mean_of_all),      cmocka_unit_test(halving_is_as_the_plain_one),
        cmocka_unit_test(what_is_no_number_drops_out), cmocka_unit_test(the_first_of_equals_wins),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
