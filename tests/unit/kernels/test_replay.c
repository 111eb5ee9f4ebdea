/* SPDX-License-Identifier: Apache-2.0 */
/* Ops that a device replays, on every device of this build: the same numbers as when they are called, from
 * what the memory holds at the time. */
#include "ops/ops_common.h"

static const char *const backend[] = {"cpu", "cuda"};
enum { ARENA = 1 << 20, ROWS = 5, COLS = 70, TIMES = 6 };

static bq_dev dev;
static bq_mat x, y, z; /* on the device */
static double loss[2]; /* of either sequence */

static void load(bq_mat m, uint32_t stream) {
    bq_mat host = make_filled(ROWS, COLS, 0, stream, 1);
    dev.op->put(&dev, host, m);
    drop(host);
}

/* to = 2 x + to, and its distance from x; attention stands for ops with scratch. */
static void calls(bq_mat to, double *sum) {
    bq_attention a = HEADS(1, 1, COLS, 0.1f, 0);
    size_t mark = bq_arena_mark(&dev.mem);
    bq_mat lse = bq_arena_push(&dev.mem, 1, ROWS, BQ_F32), out = bq_arena_push(&dev.mem, ROWS, COLS, BQ_F32);
    dev.op->scale(&dev, x, 2, out);
    dev.op->add(&dev, out, to);
    dev.op->attention(&dev, a, x, to, to, out, lse);
    dev.op->mse(&dev, out, to, 1, (bq_mat){0}, sum);
    bq_arena_reset(&dev.mem, mark);
}

/* One sequence, called or replayed. */
static bool sequence(uint64_t key, bq_mat to, double *sum) {
    bool again = dev.op->replay(&dev, key);
    if (!again) calls(to, sum), dev.op->recorded(&dev);
    return again;
}

static uint64_t result(uint64_t bits, bq_mat m, double sum) {
    bq_mat host = make(ROWS, COLS, 0, BQ_F32);
    dev.op->get(&dev, m, host);
    dev.op->wait(&dev);
    bits = bits_of(bits_of(bits, host), bq_mat_host(&sum, 1, 1, BQ_F64));
    drop(host);
    return bits;
}

/* Both sequences by turns, each time with another x; what they leave. */
static uint64_t work(bool by_key, int cuda) {
    uint64_t bits = 1;
    load(y, 100), load(z, 101);
    for (int t = 0; t < TIMES; t++)
        for (int k = 0; k < 2; k++) {
            load(x, (uint32_t)(2 * t + k));
            if (by_key)
                assert_int_equal(sequence((uint64_t)k, k ? z : y, &loss[k]), cuda && t > 1);
            else
                calls(k ? z : y, &loss[k]);
            dev.op->wait(&dev);
            bits = result(bits, k ? z : y, loss[k]);
        }
    return bits;
}

static void same_numbers(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        if (i == 1 && bq_cuda_devices() == 0) continue;
        assert_int_equal(bq_dev_open(&dev, backend[i], 1, ARENA), BQ_OK);
        bq_mat *const all[] = {&x, &y, &z};
        for (int k = 0; k < 3; k++) *all[k] = bq_arena_push(&dev.mem, ROWS, COLS, BQ_F32);
        uint64_t want = work(false, i);
        assert_true(work(true, i) == want);
        /* with the arena filled otherwise scratch lies elsewhere: not what was recorded */
        size_t mark = bq_arena_mark(&dev.mem);
        bq_arena_push(&dev.mem, ROWS, COLS, BQ_F32);
        assert_true(work(true, i) == want);
        bq_arena_reset(&dev.mem, mark);
        /* forgotten: the keys may stand for something else */
        dev.op->forget(&dev);
        bq_mat other = y;
        y = z, z = other;
        assert_true(work(true, i) == want);
        bq_dev_close(&dev);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
