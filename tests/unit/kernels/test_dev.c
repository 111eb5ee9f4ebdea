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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(backends_have_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
