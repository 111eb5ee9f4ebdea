/* SPDX-License-Identifier: Apache-2.0 */
/* The tree sum against its definition: which partial sums meet, how many buffers, what it refuses. */
#include "../base/child.h"

#include "comm/treesum.h"

#include <sys/mman.h>

enum { ROWS = 3, COLS = 5, MOST = 40 };

static bq_dev dev;
static const bq_comm alone = {.size = 1, .locals = 1, .nstage = 1, .nreplica = 1};

static bq_mat end(bq_treesum *sum, int64_t n) {
    return bq_treesum_end(sum, &alone, &(bq_shard){0, n, n}, (bq_shard){0, ROWS, ROWS});
}

/* Element e of part i; not exact: the sum's bits depend on the order. */
static float inexact(int64_t i, int64_t e) {
    return 1.0f / (float)(3 + i * 7 % 11) + (float)(e * (i + 1)) * 1e-4f;
}
/* Exact in any order. */
static float exact(int64_t i, int64_t e) { return (float)((i * 31 + e * 17) % 101 - 50); }

/* The perfect tree over n = 2^k parts from first on. */
static float tree(float (*part)(int64_t, int64_t), int64_t first, int64_t n, int64_t e) {
    if (n == 1) return part(first, e);
    return tree(part, first, n / 2, e) + tree(part, first + n / 2, n / 2, e);
}

/* Perfect trees from the largest to the smallest; the end adds them from the last to the first. */
static float oracle(float (*part)(int64_t, int64_t), int64_t first, int64_t n, int64_t e) {
    int64_t large = 1;
    while (large * 2 <= n) large *= 2;
    float left = tree(part, first, large, e);
    return large == n ? left : left + oracle(part, first + large, n - large, e);
}

static void add_parts(bq_treesum *sum, float (*part)(int64_t, int64_t), int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        bq_mat to = bq_treesum_next(sum);
        for (int64_t e = 0; e < ROWS * COLS; e++) *(float *)bq_mat_at(to, e / COLS, e % COLS) = part(i, e);
        bq_treesum_add(sum, i);
    }
}

static void expect(bq_mat have, float (*part)(int64_t, int64_t), int64_t n) {
    for (int64_t e = 0; e < ROWS * COLS; e++) {
        float want = oracle(part, 0, n, e), got = *(float *)bq_mat_at(have, e / COLS, e % COLS);
        if (memcmp(&want, &got, sizeof got) != 0)
            fail_msg("%ld parts, element %ld: %a, not %a", (long)n, (long)e, (double)got, (double)want);
    }
}

static void order(void **state) {
    (void)state;
    for (int64_t n = 1; n <= MOST; n++) {
        size_t mark = bq_arena_mark(&dev.mem);
        bq_treesum sum;
        bq_treesum_open(&sum, &dev, bq_treesum_buffers(0, n), bq_arena_push(&dev.mem, ROWS, COLS, BQ_F32));
        add_parts(&sum, inexact, n);
        expect(end(&sum, n), inexact, n);
        bq_arena_reset(&dev.mem, mark);
    }
}

/* One opening serves several sums, also shorter ones. */
static void again(void **state) {
    (void)state;
    size_t mark = bq_arena_mark(&dev.mem);
    bq_treesum sum;
    bq_treesum_open(&sum, &dev, bq_treesum_buffers(0, MOST), bq_arena_push(&dev.mem, ROWS, COLS, BQ_F32));
    for (int64_t n = MOST; n >= 1; n -= 3) {
        add_parts(&sum, n % 2 ? exact : inexact, n);
        expect(end(&sum, n), n % 2 ? exact : inexact, n);
    }
    bq_arena_reset(&dev.mem, mark);
}

/* The first buffer is the caller's and may be a part of something wider, which stays as it was. */
static void strided(void **state) {
    (void)state;
    size_t mark = bq_arena_mark(&dev.mem);
    bq_mat wide = bq_arena_push(&dev.mem, ROWS, COLS + 2, BQ_F32), first = bq_mat_cols(wide, 1, COLS);
    for (int64_t r = 0; r < ROWS; r++)
        *(float *)bq_mat_at(wide, r, 0) = *(float *)bq_mat_at(wide, r, COLS + 1) = 7;
    bq_treesum sum;
    bq_treesum_open(&sum, &dev, bq_treesum_buffers(0, 11), first);
    add_parts(&sum, inexact, 11);
    expect(end(&sum, 11), inexact, 11);
    for (int64_t r = 0; r < ROWS; r++) {
        assert_true(*(float *)bq_mat_at(wide, r, 0) == 7);
        assert_true(*(float *)bq_mat_at(wide, r, COLS + 1) == 7);
    }
    bq_arena_reset(&dev.mem, mark);
}

/* log2(n) + 1 buffers, whatever the parts. */
static void buffers(void **state) {
    (void)state;
    static const int64_t parts[] = {1, 2, 3, 4, 7, 8, 9, 1023, 1024};
    static const int levels[] = {1, 2, 2, 3, 3, 4, 4, 10, 11};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        assert_int_equal(bq_treesum_buffers(0, parts[i]), levels[i]);
        size_t mark = bq_arena_mark(&dev.mem);
        bq_treesum sum;
        bq_treesum_open(&sum, &dev, bq_treesum_buffers(0, parts[i]),
                        bq_arena_push(&dev.mem, ROWS, COLS, BQ_F32));
        size_t used = bq_arena_mark(&dev.mem) - mark;
        assert_int_equal(used, (size_t)levels[i] * bq_arena_need(ROWS, COLS, BQ_F32));
        bq_arena_reset(&dev.mem, mark);
    }
}

/* A range that starts inside the tree leaves several nodes, and needs a buffer for each. */
static void ranges(void **state) {
    (void)state;
    static const struct {
        int64_t first, count;
        int most;
    } range[] = {{1, 1, 1}, {1, 2, 2}, {1, 7, 5}, {3, 5, 4}, {8, 8, 4}, {5, 0, 1}};
    for (size_t i = 0; i < sizeof range / sizeof *range; i++)
        assert_int_equal(bq_treesum_buffers(range[i].first, range[i].count), range[i].most);
}

static void open_sum(bq_treesum *sum, int64_t parts) {
    bq_treesum_open(sum, &dev, bq_treesum_buffers(0, parts), bq_arena_push(&dev.mem, ROWS, COLS, BQ_F32));
}

/* More elements than MPI counts, which one replica does not send: 4 GB of address space, of which no byte is
 * touched. */
static void large(void **state) {
    (void)state;
    enum { SIDE = 1 << 15 };
    const size_t bytes = (size_t)SIDE * SIDE * sizeof(float);
    void *memory = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    bq_treesum sum;
    bq_treesum_open(&sum, &dev, 1, bq_mat_host(memory, SIDE, SIDE, BQ_F32));
    bq_treesum_next(&sum);
    bq_treesum_add(&sum, 0);
    bq_mat all = bq_treesum_end(&sum, &alone, &(bq_shard){0, 1, 1}, (bq_shard){0, SIDE, SIDE});
    assert_true(all.data == memory && all.rows == SIDE && all.cols == SIDE);
    munmap(memory, bytes);
}

static int none(void) {
    bq_treesum sum;
    open_sum(&sum, 3);
    end(&sum, 3);
    return 0;
}

static int too_many(void) {
    bq_treesum sum;
    open_sum(&sum, 3);
    add_parts(&sum, exact, 4);
    return 0;
}

static void refusals(void **state) {
    (void)state;
    assert_true(one_line(in_child(none), 1, "without parts"));
    assert_true(one_line(in_child(too_many), 1, "more parts"));
}

static int start(void **state) {
    (void)state;
    return bq_dev_open(&dev, "cpu", 1, (size_t)1 << 20);
}

static int stop(void **state) {
    (void)state;
    bq_dev_close(&dev);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(order),   cmocka_unit_test(again),
                                       cmocka_unit_test(strided), cmocka_unit_test(buffers),
                                       cmocka_unit_test(ranges),  cmocka_unit_test(large),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, start, stop);
}
