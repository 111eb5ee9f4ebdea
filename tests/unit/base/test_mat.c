/* SPDX-License-Identifier: Apache-2.0 */
#include "child.h"

#include "base/die.h"
#include "base/mat.h"
#include "base/shard.h"

static void types(void **state) {
    (void)state;
    static const struct {
        bq_type type;
        size_t size;
        const char *name;
    } want[] = {{BQ_F32, 4, "F32"}, {BQ_F64, 8, "F64"}, {BQ_F16, 2, "F16"}, {BQ_BF16, 2, "BF16"},
                {BQ_I8, 1, "I8"},   {BQ_U8, 1, "U8"},   {BQ_I32, 4, "I32"}, {BQ_I64, 8, "I64"}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        assert_int_equal(bq_type_size(want[i].type), want[i].size);
        assert_string_equal(bq_type_name(want[i].type), want[i].name);
    }
}

static void views(void **state) {
    (void)state;
    float data[7][11];
    bq_mat m = bq_mat_host(data, 7, 11, BQ_F32);
    assert_true(m.ld == 11 && m.place == BQ_HOST && bq_f32(m) == data[0]);
    for (int r = 0; r < 7; r++)
        for (int c = 0; c < 11; c++) assert_ptr_equal(bq_mat_at(m, r, c), &data[r][c]);
    bq_mat inner = bq_mat_cols(bq_mat_rows(m, 2, 3), 4, 5);
    assert_true(inner.rows == 3 && inner.cols == 5 && inner.ld == 11);
    assert_ptr_equal(inner.data, &data[2][4]);
    assert_ptr_equal(bq_mat_at(inner, 2, 4), &data[4][8]);
    assert_int_equal(bq_mat_bytes(m), sizeof data);
    assert_int_equal(bq_mat_bytes(inner), (2 * 11 + 5) * 4); /* to the last element, not to the row's end */
    assert_int_equal(bq_mat_bytes(bq_mat_rows(m, 7, 0)), 0);
    assert_int_equal(bq_mat_bytes(bq_mat_cols(m, 11, 0)), 0);
}

static void reshaping(void **state) {
    (void)state;
    int8_t data[6 * 8];
    bq_mat m = bq_mat_host(data, 6, 8, BQ_I8), groups = bq_mat_reshape(m, 4),
           back = bq_mat_reshape(groups, 8);
    assert_true(groups.rows == 12 && groups.cols == 4 && groups.ld == 4 && groups.data == data);
    assert_ptr_equal(bq_mat_at(groups, 3, 1), bq_mat_at(m, 1, 5));
    assert_true(back.rows == 6 && back.cols == 8 && back.ld == 8);
    assert_int_equal(bq_mat_reshape(m, 48).rows, 1);
}

static float some[6 * 8];
static int reshape_of_a_part(void) {
    bq_mat_reshape(bq_mat_cols(bq_mat_host(some, 6, 8, BQ_F32), 0, 4), 2);
    return 0;
}
static int reshape_that_does_not_divide(void) {
    bq_mat_reshape(bq_mat_host(some, 6, 8, BQ_F32), 7);
    return 0;
}

static void wrong_reshapes_die(void **state) {
    (void)state;
    assert_true(
        one_line(in_child(reshape_of_a_part), BQ_DIED, "reshape of a 6 x 4 view (ld 8) to rows of 2"));
    assert_true(one_line(in_child(reshape_that_does_not_divide), BQ_DIED,
                         "reshape of a 6 x 8 view (ld 8) to rows of 7"));
}

static void shares_cover_everything_once(void **state) {
    (void)state;
    for (int64_t total = 0; total < 40; total++)
        for (int parts = 1; parts < 12; parts++) {
            int64_t next = 0, least = total, most = 0;
            for (int part = 0; part < parts; part++) {
                bq_shard s = bq_shard_of(total, part, parts);
                assert_true(s.first == next && s.total == total && s.count >= 0);
                assert_true(part == 0 || s.count <= most); /* larger ones first */
                most = s.count > most ? s.count : most, least = s.count < least ? s.count : least;
                next += s.count;
            }
            assert_true(next == total && most - least <= 1);
        }
}

static void strides_are_shared_as_what_they_are_of(void **state) {
    (void)state;
    for (int64_t total = 0; total < 40; total++)
        for (int64_t step = 1; step < 10; step++)
            for (int64_t first = 0; first < step; first++)
                for (int parts = 1, part = 0; parts < 6; part = part + 1 < parts ? part + 1 : (parts++, 0)) {
                    bq_shard all = bq_shard_of(total, part, parts);
                    bq_shard s = bq_stride_of((bq_stride){first, step}, total, part, parts);
                    int64_t before = 0, in = 0, behind = 0;
                    for (int64_t i = first; i < total; i += step)
                        (i < all.first ? before++ : i < all.first + all.count ? in++ : behind++);
                    assert_true(s.first == before && s.count == in && s.total == before + in + behind);
                }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types),
        cmocka_unit_test(views),
        cmocka_unit_test(reshaping),
        cmocka_unit_test(wrong_reshapes_die),
        cmocka_unit_test(shares_cover_everything_once),
        cmocka_unit_test(strides_are_shared_as_what_they_are_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
