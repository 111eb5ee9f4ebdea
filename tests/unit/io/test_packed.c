/* Checkpoints of codes and scales, as compressed-tensors and GPTQ store them: their values by hand, any
 * piece of them, what is refused. */
#include "refuse.h"

#include "base/num.h"
#include "io/files.h"
#include "io/in/weights.h"

#define CT(weights)                                                                                          \
    "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\","       \
    "\"config_groups\":{\"group_0\":{\"input_activations\":null,\"weights\":{" weights "}}}}}"
#define GPTQ(more) "{\"quantization_config\":{\"quant_method\":\"gptq\"" more "}}"
#define E(name, dtype, shape, range)                                                                         \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" range "}"

/* The model has "a.weight" with these values, and as many tensors; any piece of it is the same. */
static void holds(const char *dir, int tensors, int64_t rows, int64_t cols, const float *want) {
    bq_weights *w;
    float have[64];
    char piece[64 * sizeof(float) + 1];
    const char *path;
    assert_int_equal(bq_weights_open(&w, dir), BQ_OK);
    const bq_tensor *t = bq_weights_find(w, "a.weight");
    assert_non_null(t);
    assert_int_equal(bq_weights_count(w), tensors);
    assert_true(t->dims == 2 && t->shape[0] == rows && t->shape[1] == cols);
    assert_null(json_object_get(bq_weights_config(w, &path), "quantization_config"));
    bq_weights_read(w, t, 0, rows, bq_mat_host(have, rows, cols, BQ_F32));
    for (int64_t i = 0; i < rows * cols; i++)
        if (have[i] != want[i]) fail_msg("value %d is %g, not %g", (int)i, (double)have[i], (double)want[i]);
    for (size_t from = 0; from < t->bytes; from++)
        for (size_t n = 0; from + n <= t->bytes; n += 3) {
            bq_weights_read_raw(w, t, from, piece + 1, n);
            assert_memory_equal(piece + 1, (const char *)want + from, n);
        }
    bq_weights_prefetch(w, t);
    bq_weights_close(w);
}

/* Two rows of 16 columns, 4 bits, two groups; code of row r, column c: (r + c) % 16 - 8. */
static void compressed(void **state) {
    (void)state;
    struct {
        uint32_t code[2][2], zero[2];
        int64_t shape[2];
        float scale[2][2], other;
    } data = {.shape = {2, 16}, .scale = {{0.5f, 2}, {-1, 0.25f}}, .other = 7};
    float plain[32], shifted[32];
    const int zero[2][2] = {{-3, 7}, {0, -8}};
    for (int r = 0; r < 2; r++)
        for (int c = 0; c < 16; c++) {
            int q = (r + c) % 16;
            data.code[r][c / 8] |= (uint32_t)q << 4 * (c % 8);
            plain[16 * r + c] = (float)(q - 8) * data.scale[r][c / 8];
            shifted[16 * r + c] = (float)(q - 8 - zero[r][c / 8]) * data.scale[r][c / 8];
        }
    for (int g = 0; g < 2; g++) data.zero[g] = (uint32_t)(zero[0][g] + 8) | (uint32_t)(zero[1][g] + 8) << 4;
#define CODES E("a.weight_packed", "I32", "[2,2]", "[0,16]") ","
#define ZEROS E("a.weight_zero_point", "I32", "[1,2]", "[16,24]") ","
#define OTHER E("b.weight_zero", "F32", "[2]", "[16,24]") ","
#define REST                                                                                                 \
    E("a.weight_shape", "I64", "[2]", "[24,40]")                                                             \
    "," E("a.weight_scale", "F32", "[2,2]", "[40,56]") "," E("x.weight", "F32", "[1,1]", "[56,60]")
    holds(model_folder(CT("\"num_bits\":4"), "{" CODES OTHER REST "}", &data, 60), 3, 2, 16, plain);
    holds(model_folder(CT("\"num_bits\":4"), "{" CODES ZEROS REST "}", &data, 60), 2, 2, 16, shifted);
}

/* Three rows of 8 columns, 4 bits, two groups; scales in f16; with and without g_idx; both versions. */
static void gptq(void **state) {
    (void)state;
    struct {
        uint32_t code[3], zero[2];
        uint16_t scale[2][3];
        int32_t group[8];
    } data = {.zero = {0x321, 0x654},
              .scale = {{0x3c00, 0x3800, 0xc000}, {0x4000, 0x3400, 0x3c00}},
              .group = {0, 1, 0, 1, 1, 0, 1, 0}};
    const float scale[2][3] = {{1, 0.5f, -2}, {2, 0.25f, 1}};
    float want[3][24];
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 8; c++) {
            int q = (3 * r + 5 * c) % 16;
            data.code[r] |= (uint32_t)q << 4 * c;
            for (int how = 0; how < 3; how++) { /* version 1, version 2, version 1 with g_idx */
                int g = how == 2 ? data.group[c] : c / 4, z = (int)(data.zero[g] >> 4 * r & 15) + (how != 1);
                want[how][8 * r + c] = (float)(q - z) * scale[g][r];
            }
        }
#define TENSORS                                                                                              \
    E("a.qweight", "I32", "[1,3]", "[0,12]")                                                                 \
    "," E("a.qzeros", "I32", "[2,1]", "[12,20]") "," E("a.scales", "F16", "[2,3]", "[20,32]")
#define V2 GPTQ(",\"bits\":4,\"checkpoint_format\":\"gptq_v2\"")
    holds(model_folder(GPTQ(",\"bits\":4"), "{" TENSORS "}", &data, 32), 1, 3, 8, want[0]);
    holds(model_folder(V2, "{" TENSORS "}", &data, 32), 1, 3, 8, want[1]);
    holds(model_folder(GPTQ(",\"bits\":4"), "{" TENSORS "," E("a.g_idx", "I32", "[8]", "[32,64]") "}", &data,
                       64),
          1, 3, 8, want[2]);
}

static int tried(const char *dir) {
    bq_weights *w;
    int rc = bq_weights_open(&w, dir);
    assert_true(rc == BQ_OK || !w);
    bq_weights_close(w);
    return rc;
}

static void refused(void **state) {
    (void)state;
    static const char data[64];
    static const struct {
        const char *config, *header, *why;
    } bad[] = {
        {CT("\"num_bits\":3"), "{" CODES OTHER REST "}", "num_bits: 2, 4 and 8 are read"},
        {CT("\"num_bits\":\"4\""), "{" CODES OTHER REST "}", "num_bits"},
        {GPTQ(""), "{" TENSORS "}", "bits: 2, 4 and 8 are read"},
        {"{\"quantization_config\":{\"quant_method\":\"compressed-tensors\"}}", "{}",
         "config_groups: there is none"},
        {"{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"int-quantized\","
         "\"config_groups\":{\"a\":{}}}}",
         "{}", "format: pack-quantized is read"},
        {"{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\","
         "\"config_groups\":{\"a\":{\"input_activations\":{}}}}}",
         "{}", "input_activations"},
        {CT("\"num_bits\":4"), "{" E("a.weight_packed", "I32", "[2,2]", "[0,16]") "}",
         "weight_shape is not there"},
        {CT("\"num_bits\":8"), "{" CODES OTHER REST "}", "weight_shape is another"}, /* the data are zeros */
        {GPTQ(",\"bits\":4"), "{" E("a.qweight", "I32", "[1,3]", "[0,12]") "}", "scales are not there"},
        {GPTQ(",\"bits\":4"), "{" E("a.qweight", "F32", "[1,3]", "[0,12]") "}", "not a matrix of I32"},
        {GPTQ(",\"bits\":4"), "{" E("a.qweight", "I32", "[0,3]", "[0,0]") "}", "out of range"},
        {GPTQ(",\"bits\":4"),
         "{" E("a.qweight", "I32", "[1,3]", "[0,12]") "," E("a.scales", "F16", "[3,3]", "[12,30]") "}",
         "scales do not fit"},
        {GPTQ(",\"bits\":4"),
         "{" E("a.qweight", "I32", "[1,3]", "[0,12]") "," E("a.scales", "F16", "[2,3]", "[12,24]") "}",
         "qzeros are not there"},
        {GPTQ(",\"bits\":4"), "{" TENSORS "," E("a.g_idx", "I32", "[4]", "[32,48]") "}",
         "g_idx does not fit"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *end = strrchr(bad[i].header, ',');
        size_t bytes = end ? strtoul(end + 1, NULL, 10) : 0;
        const char *dir = model_folder(bad[i].config, bad[i].header, data, bytes);
        assert_refused(tried(dir), bad[i].why);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(compressed), cmocka_unit_test(gptq),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
