/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/die.h"
#include "kernels/ops.h"

#include <string.h>

static void backends_have_names(void **state) {
    (void)state;
    bq_dev dev;
    bool gpu = bq_cuda_devices() > 0;
    static const char *const refused[] = {"gpu", "", "cpux", "cudax:1"};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(bq_dev_open(&dev, refused[i], 1, 0), BQ_USAGE);
        bq_dev_close(&dev);
    }
    assert_int_equal(bq_dev_open(&dev, "cpu", 1, 0), BQ_OK);
    assert_string_equal(dev.op->name, "cpu");
    bq_dev_close(&dev);
    assert_int_equal(bq_dev_open(&dev, "auto:3", 1, 0), BQ_OK);
    assert_string_equal(dev.op->name, gpu ? "cuda" : "cpu");
    bq_dev_close(&dev);
    assert_int_equal(bq_dev_open(&dev, "cuda:5", 1, 1 << 12), gpu ? BQ_OK : BQ_USAGE);
    bq_dev_close(&dev);
}

/* A copy beside the ops comes after those called before the join, and before those called after the next. */
static void puts_ahead_are_in_order(void **state) {
    (void)state;
    enum { N = 64 };
    bq_dev dev;
    float got[2][N];
    assert_int_equal(bq_dev_open(&dev, "auto", 1, 1 << 16), BQ_OK);
    if (dev.mem.place != BQ_DEVICE) {
        bq_dev_close(&dev);
        skip();
    }
    bq_mat m = bq_arena_push(&dev.mem, 1, N, BQ_F32), old = bq_arena_push(&dev.mem, 1, N, BQ_F32);
    bq_mat host = bq_mat_host(dev.op->pin(&dev, N * sizeof(float)), 1, N, BQ_F32);
    assert_non_null(host.data);
    host.place = BQ_PINNED;
    assert_true(dev.op->arrived(&dev)); /* nothing is on its way */
    for (int i = 0; i < N; i++) bq_f32(host)[i] = (float)i;
    dev.op->set(&dev, m, -1);
    dev.op->wait(&dev);
    dev.op->copy(&dev, m, old);
    dev.op->join(&dev);
    dev.op->put_ahead(&dev, host, m);
    while (!dev.op->arrived(&dev)) {}
    for (int i = 0; i < N; i++) bq_f32(host)[i] = (float)(10 * i); /* its source is free again */
    dev.op->put_ahead(&dev, host, m);
    dev.op->join(&dev);
    dev.op->get(&dev, old, bq_mat_host(got[0], 1, N, BQ_F32));
    dev.op->get(&dev, m, bq_mat_host(got[1], 1, N, BQ_F32));
    dev.op->wait(&dev);
    for (int i = 0; i < N; i++) assert_true(got[0][i] == -1 && got[1][i] == (float)(10 * i));
    dev.op->unpin(&dev, host.data);
    bq_dev_close(&dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(backends_have_names),
                                       cmocka_unit_test(puts_ahead_are_in_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
