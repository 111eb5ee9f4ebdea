/* SPDX-License-Identifier: Apache-2.0 */
/* Grids as arithmetic: pieces cover a stage's blocks once, in an order in which nobody waits for himself. */
#include "driver/plan/grid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bq_recipe recipe_of(int segments, bq_inputs inputs) {
    bq_recipe r = {.segments = segments, .nphase = 1};
    r.phase[0].inputs = inputs;
    r.calibration.samples = 8;
    return r;
}

/* One grid: every block in one piece; whole units but for the ends; what one gives the next one takes. */
static void check(const bq_grid *g) {
    int blocks = g->blocks, nstage = g->nstage;
    int next = 0, largest = 0, smallest = blocks;
    bool given = false;
    for (int s = 0; s < nstage; s++) {
        bq_piece piece[BQ_PIECES];
        bq_shard own = bq_grid_blocks(g, s);
        int n = bq_grid_pieces(g, s, piece), covered = 0;
        assert_true(n >= 1 && own.first == next && own.count > 0);
        next += (int)own.count;
        largest = own.count > largest ? (int)own.count : largest;
        smallest = own.count < smallest ? (int)own.count : smallest;
        bool gives = false, takes = false;
        for (int i = 0; i < n; i++) {
            assert_true(piece[i].first >= own.first && piece[i].first < piece[i].end && piece[i].end <= next);
            covered += piece[i].end - piece[i].first;
            assert_true(!(piece[i].gives && piece[i].takes));
            assert_true(!piece[i].gives || (i == 0 && piece[i].end == next && next < blocks));
            assert_true(!piece[i].takes || (i == n - 1 && piece[i].first == own.first));
            assert_true(piece[i].takes == !bq_grid_is_start(g, piece[i].first));
            assert_true(piece[i].end == blocks || piece[i].gives == !bq_grid_is_start(g, piece[i].end));
            gives |= piece[i].gives, takes |= piece[i].takes;
            for (int k = 0; k < i; k++)
                assert_true(piece[k].end <= piece[i].first || piece[i].end <= piece[k].first);
        }
        assert_int_equal(covered, own.count);
        assert_true(takes == given);
        given = gives;
    }
    assert_true(next == blocks && !given);
    int units = bq_grid_units(g);
    if (g->cut && units % nstage && blocks >= 4 * units) assert_true(largest - smallest <= 1);
}

static void all_grids(void **state) {
    (void)state;
    for (int blocks = 1; blocks <= 40; blocks++) {
        for (int segments = 1; segments <= blocks; segments++) {
            bq_recipe r = recipe_of(segments, BQ_INPUTS_MIX);
            for (int nstage = 1; nstage <= segments; nstage++) {
                check(&(bq_grid){&r, blocks, nstage, true});
                check(&(bq_grid){&r, blocks, nstage, false});
            }
        }
        bq_recipe fp = recipe_of(1, BQ_INPUTS_FP);
        for (int nstage = 1; nstage <= blocks; nstage++) check(&(bq_grid){&fp, blocks, nstage, true});
    }
}

static void five_segments_on_two_stages(void **state) {
    (void)state;
    bq_recipe r = recipe_of(5, BQ_INPUTS_QT);
    bq_grid g = {&r, 30, 2, true};
    bq_piece p[BQ_PIECES];
    assert_int_equal(bq_grid_pieces(&g, 0, p), 2);
    assert_true(p[0].first == 12 && p[0].end == 15 && p[0].gives);
    assert_true(p[1].first == 0 && p[1].end == 12 && !p[1].gives && !p[1].takes);
    assert_int_equal(bq_grid_pieces(&g, 1, p), 2);
    assert_true(p[0].first == 18 && p[0].end == 30 && !p[0].gives);
    assert_true(p[1].first == 15 && p[1].end == 18 && p[1].takes);
    assert_int_equal(bq_grid_unit_start(&g, 17), 12);
    g.cut = false;
    assert_true(bq_grid_pieces(&g, 0, p) == 1 && p[0].end == 18 && !p[0].gives);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_grids),
                                       cmocka_unit_test(five_segments_on_two_stages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
