/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of codes and scales, as compressed-tensors, GPTQ and AWQ store them: their values by hand, any
 * piece of them, what is refused.  driver_test_peer_ct has those that other programs made. */
#include "refuse.h"

#include "base/num.h"
#include "io/files.h"
#include "io/in/weights.h"

#define CT(weights)                                                                                          \
    "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\","       \
    "\"config_groups\":{\"group_0\":{\"input_activations\":null,\"weights\":{" weights "}}}}}"
#define FORMATS(version, groups)                                                                             \
    "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\"," version                             \
    "\"config_groups\":{" groups "}}}"
#define GROUP(name, format, weights) "\"" name "\":{\"format\":\"" format "\",\"weights\":{" weights "}}"
#define AWQ                                                                                                  \
    "{\"quantization_config\":{\"quant_method\":\"awq\",\"version\":\"GEMM\","                               \
    "\"bits\":4}}"
#define GPTQ(more) "{\"quantization_config\":{\"quant_method\":\"gptq\"" more "}}"
#define E(name, dtype, shape, range)                                                                         \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" range "}"

/* The model has "a.weight" with these values, and as many tensors; any piece of it is the same. */
static void holds(const char *dir, int tensors, int64_t rows, int64_t cols, const float *want) {
    bq_weights *w;
    float have[128];
    char piece[128 * sizeof(float) + 1];
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

/* Version 1 stores a zero point of 0 as all ones; a module may have other bits than the model. */
static void gptq_bits(void **state) {
    (void)state;
    struct {
        uint32_t code[3][2], zero[1];
        uint16_t scale[2];
        int32_t group[32];
    } data = {
        .code = {{0x88FAC688, 0}, {0xC688FAC6, 0}, {0xFAC688FA, 0}}, .zero = {7}, .scale = {0x3c00, 0x4000}};
    float want[64];
    for (int c = 0; c < 32; c++) want[c] = (float)(c % 8), want[32 + c] = -2; /* of rows with z = 0 and 1 */
#define THREE_WORDS                                                                                          \
    E("a.qweight", "I32", "[3,2]", "[0,24]")                                                                 \
    "," E("a.qzeros", "I32", "[1,1]", "[24,28]") "," E("a.scales", "F16", "[1,2]", "[28,32]")
    holds(model_folder(GPTQ(",\"bits\":3"), "{" THREE_WORDS "}", &data, 32), 1, 2, 32, want);
    holds(model_folder(GPTQ(",\"bits\":8,\"format\":\"gptq\",\"dynamic\":{\"+:a\":{\"bits\":3}}"),
                       "{" THREE_WORDS "," E("a.g_idx", "I32", "[32]", "[32,160]") "}", &data, 160),
          1, 2, 32, want);
    data.group[7] = 1;
    assert_refused(
        tried(model_folder(GPTQ(",\"bits\":3"),
                           "{" THREE_WORDS "," E("a.g_idx", "I32", "[32]", "[32,160]") "}", &data, 160)),
        "g_idx has a group without scales");
}

/* Eight rows of two columns, in one group: the order of rows in a word is 0, 2, 4, 6, 1, 3, 5, 7. */
static void awq(void **state) {
    (void)state;
    struct {
        uint32_t code[2], zero[1];
        uint16_t scale[8];
    } data = {.code = {0x75316420, 0xfdb9eca8}, .zero = {0x75316420}};
    float want[16];
    for (int r = 0; r < 8; r++) {
        data.scale[r] = (uint16_t)(0x3c00 + 0x400 * (r % 3));
        want[2 * r] = 0, want[2 * r + 1] = (float)(8 << r % 3);
    }
#define EIGHT                                                                                                \
    E("a.qweight", "I32", "[2,1]", "[0,8]")                                                                  \
    "," E("a.qzeros", "I32", "[1,1]", "[8,12]") "," E("a.scales", "F16", "[1,8]", "[12,28]")
    holds(model_folder(AWQ, "{" EIGHT "}", &data, 28), 1, 8, 2, want);
}

/* Put field i of a row, as one stream of bits or `fill` fields a word. */
static void put_field(uint32_t *word, int bits, int fill, int i, uint32_t field) {
    for (int b = 0; b < bits; b++) {
        int at = fill ? i / fill * 32 + i % fill * bits + b : i * bits + b;
        word[at / 32] |= (field >> b & 1) << at % 32;
    }
}

/* Widths that leave gaps in words, or do not; the columns in another order than their groups. */
static void widths(void **state) {
    (void)state;
    for (int bits = 3; bits < 8; bits++)
        for (int gaps = 0; gaps < 2; gaps++) {
            enum { ROWS = 2, COLS = 64 };
            int fill = gaps ? 32 / bits : 0;
            int words = gaps ? (COLS + fill - 1) / fill : (COLS * bits + 31) / 32;
            struct {
                int64_t shape[2];
                float scale[ROWS][2];
                uint32_t zero[2], group[COLS], code[ROWS * 16];
            } data = {.shape = {ROWS, COLS}, .scale = {{1, 0.5f}, {-2, 3}}};
            float want[ROWS * COLS];
            char config[300], header[600];
            for (int i = 0; i < ROWS * COLS; i++) {
                int r = i / COLS, c = i % COLS, q = (i * 11 + r) % (1 << bits), g = c % 2,
                    z = (r + 3 * g) % 7;
                put_field(data.code + r * words, bits, fill, c, (uint32_t)q);
                if (c < 2)
                    for (int b = 0; b < bits; b++) data.zero[g] |= (uint32_t)(z >> b & 1) << (r * bits + b);
                data.group[c] = (uint32_t)g;
                want[i] = (float)(q - z) * data.scale[r][g];
            }
            snprintf(config, sizeof config, FORMATS("", GROUP("a", "pack-quantized", "\"num_bits\":%d")),
                     bits);
#define ORDERED                                                                                              \
    E("a.weight_shape", "I64", "[2]", "[0,16]")                                                              \
    "," E("a.weight_scale", "F32", "[2,2]", "[16,32]") "," E(                                                \
        "a.weight_zero_point", "I32", "[1,2]", "[32,40]") "," E("a.weight_g_idx", "I32", "[64]", "[40,296]")
            snprintf(header, sizeof header,
                     "{" ORDERED "," E("a.weight_packed", "I32", "[2,%d]", "[296,%d]") "}", words,
                     296 + 8 * words);
            holds(model_folder(config, header, &data, (size_t)(296 + 8 * words)), 1, ROWS, COLS, want);
        }
}

/* Ten fields of 3 bits a word and a stream of them have 20 columns in two words: the version decides. */
static void versions(void **state) {
    (void)state;
    struct {
        int64_t shape[2];
        uint32_t code[2];
        float scale;
    } data = {.shape = {1, 20}, .scale = 1};
    float want[2][20];
    data.code[0] = 0x3fffffff | 1u << 31, data.code[1] = 5;
    for (int c = 0; c < 20; c++) want[0][c] = want[1][c] = c < 10 ? 3 : -4;
    want[0][10] = 6 - 4, want[0][11] = 2 - 4, want[1][10] = 5 - 4;
#define TWENTY                                                                                               \
    "{" E("a.weight_packed", "I32", "[1,2]", "[16,24]") "," E(                                               \
        "a.weight_shape", "I64", "[2]", "[0,16]") "," E("a.weight_scale", "F32", "[1,1]", "[24,28]") "}"
#define THREE(version) FORMATS(version, GROUP("a", "pack-quantized", "\"num_bits\":3"))
    holds(model_folder(THREE("\"version\":\"0.18.0\","), TWENTY, &data, 28), 1, 1, 20, want[0]);
    holds(model_folder(THREE("\"version\":\"0.9.4\","), TWENTY, &data, 28), 1, 1, 20, want[1]);
    assert_refused(tried(model_folder(THREE(""), TWENTY, &data, 28)), "fit more than one of the forms");
}

/* A format for each of three linears, and one that is not quantized. */
static void formats(void **state) {
    (void)state;
    struct {
        float scale[2], unit;
        uint16_t half;
        int8_t code[2][3], zero[2];
        uint8_t e4m3[2], two[16], block[2];
        uint16_t other;
    } data = {.scale = {0.5f, -2},
              .unit = 4,
              .half = 0x3f80,
              .code = {{-128, 0, 127}, {1, 2, 3}},
              .zero = {1, -3},
              .e4m3 = {0x38, 0xc0},
              .other = 0x3c00};
    const float want[6] = {-64.5f, -0.5f, 63, -8, -10, -12};
    float have[32];
    bq_weights *w;
    for (int i = 0; i < 16; i++) data.two[i] = (uint8_t)(i << 4 | (15 - i));
    data.block[0] = 0x38, data.block[1] = 0x40; /* 1 and 2 */
#define MIXED                                                                                                \
    FORMATS("\"format\":\"mixed-precision\",",                                                               \
            GROUP("a", "int-quantized", "\"num_bits\":8") "," GROUP(                                         \
                "b", "float-quantized", "\"num_bits\":8") "," GROUP("c", "nvfp4-pack-quantized",             \
                                                                    "\"num_bits\":4"))
    static const char *const part[] = {
        E("a.weight_scale", "F32", "[2]", "[0,8]"),       E("c.weight_global_scale", "F32", "[1]", "[8,12]"),
        E("b.weight_scale", "BF16", "[]", "[12,14]"),     E("a.weight", "I8", "[2,3]", "[14,20]"),
        E("a.weight_zero_point", "I8", "[2]", "[20,22]"), E("b.weight", "F8_E4M3", "[1,2]", "[22,24]"),
        E("c.weight_packed", "U8", "[1,16]", "[24,40]"),  E("c.weight_scale", "F8_E4M3", "[1,2]", "[40,42]"),
        E("d.weight", "F16", "[1,1]", "[42,44]"),         E("c.input_global_scale", "U8", "[0]", "[44,44]"),
    };
    char header[1000] = "{";
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) strcat(strcat(header, i ? "," : ""), part[i]);
    strcat(header, "}");
    const char *dir = model_folder(MIXED, header, &data, 44);
    holds(dir, 4, 2, 3, want);
    assert_int_equal(bq_weights_open(&w, dir), BQ_OK);
    bq_weights_read(w, bq_weights_find(w, "b.weight"), 0, 1, bq_mat_host(have, 1, 2, BQ_F32));
    assert_true(have[0] == 1 && have[1] == -2);
    bq_weights_read(w, bq_weights_find(w, "c.weight"), 0, 1, bq_mat_host(have, 1, 32, BQ_F32));
    assert_true(have[0] == -6.0f / 4 && have[1] == 0 && have[2] == -4.0f / 4 && have[3] == 0.5f / 4);
    assert_true(have[30] == 0 && have[31] == -6.0f / 2 && have[17] == -0.0f && have[19] == -0.5f / 2);
    bq_weights_read(w, bq_weights_find(w, "d.weight"), 0, 1, bq_mat_host(have, 1, 1, BQ_F32));
    assert_true(have[0] == 1);
    assert_int_equal(bq_weights_held(w, bq_weights_find(w, "a.weight")), 6 + 8 + 2);
    assert_int_equal(bq_weights_held(w, bq_weights_find(w, "c.weight")), 16 + 2 + 4);
    assert_int_equal(bq_weights_held(w, bq_weights_find(w, "d.weight")), 2);
    bq_weights_close(w);
    data.unit = 0;
    assert_refused(tried(model_folder(MIXED, header, &data, 44)), "weight_global_scale is not above 0");
}

static void refused(void **state) {
    (void)state;
    static const char data[64];
#define INT8     FORMATS("", GROUP("a", "int-quantized", ""))
#define FP8(way) FORMATS("", GROUP("a", "float-quantized", "\"block_structure\":[" way "]"))
    static const struct {
        const char *config, *header, *why;
    } bad[] = {
        {CT("\"num_bits\":9"), "{" CODES OTHER REST "}", "num_bits: 2 to 8 are read"},
        {CT("\"num_bits\":\"4\""), "{" CODES OTHER REST "}", "num_bits"},
        {GPTQ(""), "{" TENSORS "}", "bits: 2, 3, 4 and 8 are read"},
        {"{\"quantization_config\":{\"quant_method\":\"compressed-tensors\"}}", "{}",
         "config_groups: there is none"},
        {CT("\"num_bits\":4"), "{" E("a.weight_packed", "I32", "[2,2]", "[0,16]") "}",
         "weight_scale is not there"},
        {CT("\"num_bits\":4"), "{" CODES E("a.weight_scale", "F32", "[2,2]", "[16,32]") "}",
         "weight_shape is not there"},
        {FORMATS("", GROUP("a", "marlin-24", "")), "{}", "format: pack-quantized, int-quantized"},
        {FORMATS("\"transform_config\":{\"config_groups\":{\"R3\":{}}},", ""), "{}", "transform_config"},
        {FORMATS("", GROUP("a", "int-quantized", "")),
         "{" CODES E("a.weight_scale", "F32", "[2,2]", "[16,32]") "}", "no format of config.json"},
        {INT8,
         "{" E("a.weight", "I8", "[3,4]", "[0,12]") "," E("a.weight_scale", "F32", "[2,1]", "[12,20]") "}",
         "scales do not fit"},
        {INT8,
         "{" E("a.weight", "I8", "[3,4]", "[0,12]") "," E("a.weight_scale", "F32", "[3,3]", "[12,48]") "}",
         "scales do not fit"},
        {INT8,
         "{" E("a.weight", "I8", "[2,2,1]", "[0,4]") "," E("a.weight_scale", "F32", "[2]", "[4,12]") "}",
         "not a matrix"},
        {INT8, "{" E("a.weight", "I8", "[0,4]", "[0,0]") "," E("a.weight_scale", "F32", "[0,1]", "[0,0]") "}",
         "out of range"},
        {INT8,
         "{" E("a.weight", "I8", "[2,2]", "[0,4]") "," E("a.weight_scale", "F32", "[2]", "[4,12]") "," E(
             "a.weight_zero_point", "I8", "[2,1]", "[12,14]") "}",
         "zero points do not fit"},
        {INT8,
         "{" E("a.weight", "I8", "[2,2]", "[0,4]") "," E("a.weight_scale", "F32", "[2]", "[4,12]") "," E(
             "a.weight_g_idx", "I32", "[1]", "[12,16]") "}",
         "g_idx does not fit"},
        {FP8("16,16]}},\"b\":{\"format\":\"float-quantized\",\"weights\":{\"block_structure\":[20,16"),
         "{" E("a.weight", "F8_E4M3", "[30,1]", "[0,30]") "," E("a.weight_scale", "BF16", "[2,1]",
                                                                "[30,34]") "}",
         "more than one of the block structures"},
        {FP8("16,16"),
         "{" E("a.weight", "F8_E4M3", "[1,2]", "[0,2]") "," E("a.weight_scale", "F16", "[1]", "[2,4]") "," E(
             "a.weight_zero_point", "I8", "[1]", "[4,5]") "}",
         "floats, which have no zero points"},
        {FORMATS("", GROUP("a", "mxfp4-pack-quantized", "")),
         "{" E("a.weight_packed", "U8", "[1,16]", "[0,16]") "," E("a.weight_scale", "U8", "[1,2]",
                                                                  "[16,18]") "}",
         "groups have another size"},
        {FORMATS("", GROUP("a", "mxfp6-pack-quantized", "")),
         "{" E("a.weight_packed", "U8", "[1,16]", "[0,16]") "," E("a.weight_scale", "U8", "[1,1]",
                                                                  "[16,17]") "}",
         "no whole codes"},
        {FORMATS("", GROUP("a", "nvfp4-pack-quantized", "")),
         "{" E("a.weight_packed", "U8", "[1,8]", "[0,8]") "," E("a.weight_scale", "F8_E4M3", "[1,1]",
                                                                "[8,9]") "}",
         "weight_global_scale is not there"},
        {"{\"quantization_config\":{\"quant_method\":\"awq\",\"version\":\"gemv\",\"bits\":4}}", "{}",
         "version: gemm"},
        {"{\"quantization_config\":{\"quant_method\":\"awq\",\"version\":\"gemm\",\"bits\":8}}", "{}",
         "bits: 4 is read"},
        {AWQ,
         "{" E("a.qweight", "I32", "[2,1]", "[0,8]") "," E("a.qzeros", "I32", "[1,1]", "[8,12]") "," E(
             "a.scales", "F16", "[1,9]", "[12,30]") "}",
         "scales do not fit"},
        {AWQ,
         "{" E("a.qweight", "I32", "[2,1]", "[0,8]") "," E("a.qzeros", "I32", "[1,2]", "[8,16]") "," E(
             "a.scales", "F16", "[1,8]", "[16,32]") "}",
         "qzeros do not fit"},
        {GPTQ(",\"bits\":4,\"checkpoint_format\":\"gptq_p\""), "{}", "gptq and gptq_v2 are read"},
        {GPTQ(",\"bits\":4,\"dynamic\":{\"+:a\":{\"bits\":5}}"), "{}", "dynamic: 2, 3, 4 and 8"},
        {GPTQ(",\"bits\":4,\"dynamic\":{\"+:a\":{\"bits\":8}}"),
         "{" E("a.qweight", "I32", "[1,3]", "[0,12]") "," E("a.qzeros", "I32", "[1,1]", "[12,16]") "," E(
             "a.scales", "F16", "[1,3]", "[16,22]") "}",
         "fit more than one of the numbers of bits"},
        {CT("\"num_bits\":8"), "{" CODES OTHER REST "}", "weight_shape is another"}, /* the data are zeros */
        {GPTQ(",\"bits\":4"), "{" E("a.qweight", "I32", "[1,3]", "[0,12]") "}", "scales are not there"},
        {GPTQ(",\"bits\":4"), "{" E("a.qweight", "F32", "[1,3]", "[0,12]") "}", "not a matrix of I32"},
        {GPTQ(",\"bits\":4"), "{" E("a.qweight", "I32", "[0,3]", "[0,0]") "}", "out of range"},
        {GPTQ(",\"bits\":4"),
         "{" E("a.qweight", "I32", "[1,3]", "[0,12]") "," E("a.qzeros", "I32", "[3,1]", "[12,24]") "," E(
             "a.scales", "F16", "[3,3]", "[24,42]") "}",
         "scales do not fit"},
        {GPTQ(",\"bits\":4"),
         "{" E("a.qweight", "I32", "[1,3]", "[0,12]") "," E("a.scales", "F16", "[2,3]", "[12,24]") "}",
         "qzeros are not there"},
        {GPTQ(",\"bits\":4"), "{" TENSORS "," E("a.g_idx", "I32", "[4]", "[32,48]") "}",
         "g_idx or its qzeros do not fit"},
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
                                       cmocka_unit_test(gptq_bits),  cmocka_unit_test(awq),
                                       cmocka_unit_test(widths),     cmocka_unit_test(versions),
                                       cmocka_unit_test(formats),    cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
