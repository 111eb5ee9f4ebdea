/* SPDX-License-Identifier: Apache-2.0 */
#include "child.h"

#include "base/arena.h"
#include "base/die.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

static void pushes_are_aligned_and_apart(void **state) {
    (void)state;
    bq_arena a;
    bq_arena_open(&a, 1 << 16);
    char *end = a.base;
    for (int64_t i = 0; i < 9; i++) {
        size_t before = a.used;
        bq_mat m = bq_arena_push(&a, i, 3 * i, i % 2 ? BQ_F32 : BQ_I8);
        assert_true((uintptr_t)m.data % BQ_ARENA_ALIGN == 0);
        assert_true(m.rows == i && m.cols == 3 * i && m.ld == m.cols && m.place == BQ_HOST);
        assert_true((char *)m.data >= end && (char *)m.data + bq_mat_bytes(m) <= a.base + a.size);
        assert_int_equal(a.used - before, bq_arena_need(m.rows, m.cols, m.type));
        assert_true(bq_arena_need(m.rows, m.cols, m.type) >=
                    bq_mat_bytes(m) + BQ_ARENA_ALIGN); /* a red zone */
        if (bq_mat_bytes(m)) memset(m.data, 0x5a, bq_mat_bytes(m));
        end = (char *)m.data + bq_mat_bytes(m);
    }
    bq_arena_close(&a);
    assert_null(a.base);
    bq_arena_close(&a); /* takes a zeroed struct */
}

static void reset_gives_back_and_peak_stays(void **state) {
    (void)state;
    bq_arena a;
    size_t one = bq_arena_need(5, 7, BQ_F64);
    bq_arena_open(&a, 3 * one);
    assert_int_equal(a.peak, 0);
    size_t mark = bq_arena_mark(&a);
    bq_mat first = bq_arena_push(&a, 5, 7, BQ_F64);
    for (int i = 0; i < 2; i++) bq_arena_push(&a, 5, 7, BQ_F64); /* the plan fits to the byte */
    assert_true(a.used == 3 * one && a.peak == 3 * one);
    bq_arena_reset(&a, mark);
    assert_true(a.used == 0 && a.peak == 3 * one);
    bq_mat again = bq_arena_push(&a, 5, 7, BQ_F64);
    assert_ptr_equal(first.data, again.data);
    assert_true(a.peak == 3 * one);
    bq_arena_close(&a);
}

static void an_empty_arena_holds_nothing(void **state) {
    (void)state;
    bq_arena a;
    bq_arena_open(&a, 0);
    assert_null(a.base);
    bq_arena_reset(&a, bq_arena_mark(&a));
    bq_arena_close(&a);
}

static void adopted_memory_stays_its_owners(void **state) {
    (void)state;
    static _Alignas(256) char mine[1024];
    bq_arena a;
    bq_arena_adopt(&a, mine, sizeof mine, BQ_DEVICE);
    bq_mat m = bq_arena_push(&a, 2, 3, BQ_F32);
    assert_true(m.data == mine && m.place == BQ_DEVICE && a.size == sizeof mine);
    bq_arena_close(&a);
    memset(mine, 1, sizeof mine); /* neither freed nor poisoned */
    assert_null(a.base);
}

static int overflow(void) {
    bq_arena a;
    bq_arena_open(&a, bq_arena_need(10, 10, BQ_F32));
    bq_arena_push(&a, 10, 10, BQ_F32);
    bq_arena_push(&a, 1, 1, BQ_I8);
    return 0;
}

static int reset_forward(void) {
    bq_arena a;
    bq_arena_open(&a, 1 << 12);
    bq_arena_reset(&a, 256);
    return 0;
}

static int no_memory(void) {
    bq_arena a;
    setenv("BQ_FAULT", "arena_open:1", 1);
    bq_arena_open(&a, 1 << 12);
    return 0;
}

static void misuse_dies(void **state) {
    (void)state;
    assert_true(one_line(in_child(overflow), BQ_DIED, "cannot hold 1 x 1 I8: the plan is wrong"));
    assert_true(one_line(in_child(reset_forward), BQ_DIED, "arena reset to 256 with 0 in use"));
    assert_true(one_line(in_child(no_memory), BQ_DIED, "no memory for an arena of 4096 bytes"));
}

static void unused_space_is_poisoned(void **state) {
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    bq_arena a;
    bq_arena_open(&a, 1 << 12);
    assert_true(__asan_address_is_poisoned(a.base));
    bq_mat m = bq_arena_push(&a, 3, 5, BQ_F32);
    char *p = m.data;
    for (int i = 0; i < 60; i++) assert_false(__asan_address_is_poisoned(p + i));
    for (int i = 60; i < 256 + (int)BQ_ARENA_ALIGN; i++) assert_true(__asan_address_is_poisoned(p + i));
    bq_arena_reset(&a, 0);
    for (int i = 0; i < 60; i++) assert_true(__asan_address_is_poisoned(p + i)); /* a stale view traps */
    bq_arena_close(&a);
#else
    skip(); /* only AddressSanitizer builds poison */
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            misuse_dies), /* first: BQ_FAULT is read once a process, children inherit what was read */
        cmocka_unit_test(pushes_are_aligned_and_apart),
        cmocka_unit_test(reset_gives_back_and_peak_stays),
        cmocka_unit_test(an_empty_arena_holds_nothing),
        cmocka_unit_test(adopted_memory_stays_its_owners),
        cmocka_unit_test(unused_space_is_poisoned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
