/* Inputs of a linear rounded a token at a time, against compressed-tensors itself: every bit. */
#include "golden.h"

#include "kernels/ops.h"

static void as_compressed_tensors_does(void **state) {
    (void)state;
    golden g = {0};
    bq_dev dev;
    assert_int_equal(bq_weights_open_file(&g.file, BQ_VECTORS "/peer_inputs.safetensors"), 0);
    assert_int_equal(bq_dev_open(&dev, "cpu", 1, (size_t)1 << 20), 0);
    const bq_tensor *t = bq_weights_find(g.file, "x");
    int64_t rows = t->shape[0], cols = t->shape[1], n;
    float *x = golden_read(&g, "x", &n), *got = malloc((size_t)n * sizeof *got);
    assert_true(got && rows == 9 && n == rows * cols);
    for (int bits = 4; bits <= 8; bits += 4) {
        float *want = golden_read(&g, bits == 4 ? "y4" : "y8", &n);
        dev.op->fake_quantize_rows(&dev, bq_mat_host(x, rows, cols, BQ_F32), bits,
                                   bq_mat_host(got, rows, cols, BQ_F32));
        dev.op->wait(&dev);
        for (int64_t i = 0; i < n; i++)
            if (got[i] != want[i]) /* 0 and -0 are equal */
                fail_msg("%d bits, row %ld, column %ld: %.9g, not %.9g", bits, (long)(i / cols),
                         (long)(i % cols), (double)got[i], (double)want[i]);
        free(want);
    }
    free(x);
    free(got);
    bq_dev_close(&dev);
    bq_weights_close(g.file);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_compressed_tensors_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
