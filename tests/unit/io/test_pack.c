/* SPDX-License-Identifier: Apache-2.0 */
#include "refuse.h"

#include "unpack.h"
#include "io/in/weights.h"

/* n codes fill these words, and no more. */
typedef struct {
    int bits, n;
    int8_t code[32];
    uint32_t word[3];
} packed;

static void check_packed(const packed *p) {
    int64_t words = bq_pack_words(p->n, p->bits);
    uint32_t word[3] = {0xdeadbeef, 0xdeadbeef, 0xdeadbeef};
    int8_t code[32], back[32] = {0};
    memcpy(code, p->code, sizeof code);
    assert_in_range(words, 1, 3);
    bq_pack_rows(bq_mat_host(code, 1, p->n, BQ_I8), p->bits, bq_mat_host(word, 1, words, BQ_I32));
    for (int i = 0; i < words; i++) assert_int_equal(word[i], p->word[i]);
    int used = p->n * p->bits % 32;
    if (used) word[words - 1] |= 0xffffffffu << used;
    unpack_rows(bq_mat_host(word, 1, words, BQ_I32), p->bits, bq_mat_host(back, 1, p->n, BQ_I8));
    assert_memory_equal(back, code, (size_t)p->n);
}

#define TIMES8(...)                                                                                          \
    __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__
#define TIMES4(...) __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__

static void vectors(void **state) {
    (void)state;
    static const packed cases[] = {
        {4, 8, {-8, -7, -6, -5, -4, -3, -2, -1}, {0x76543210}},
        {4, 8, {0, 1, 2, 3, 4, 5, 6, 7}, {0xFEDCBA98}},
        {4, 8, {7, 6, 5, 4, 3, 2, 1, 0}, {0x89ABCDEF}},
        {8, 4, {-128, -1, 0, 127}, {0xFF807F00}},
        {8, 4, {-128, -127, -126, 127}, {0xFF020100}},
        {2, 16, {TIMES4(-2, -1, 0, 1)}, {0xE4E4E4E4}},
        {3, 32, {TIMES4(-4, -3, -2, -1, 0, 1, 2, 3)}, {0x88FAC688, 0xC688FAC6, 0xFAC688FA}},
        {4, 3, {-8, 7, 0}, {0x000008F0}}, /* padding fields are 0, not the code 0 */
        {8, 1, {-127}, {0x00000001}},
        {3, 11, {3, -4, 3, -4, 3, -4, 3, -4, 3, -4, 3}, {0xC71C71C7, 0x00000001}}, /* code 10 in both */
        {5, 7, {15, -16, 15, -16, 15, -16, 15}, {0xC1F07C1F, 0x00000007}},
        {6, 6, {31, -32, 31, -32, 31, -32}, {0x3F03F03F, 0x00000000}},
        {7, 5, {63, -64, 63, -64, 63}, {0xF01FC07F, 0x00000007}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_packed(&cases[i]);
}

/* The words of GPTQ's zero points: of the code 0 (version 2), and of -1 (version 1). */
static void fills(void **state) {
    (void)state;
    static const packed cases[] = {
        {2, 16, {0}, {0xAAAAAAAA}},
        {4, 8, {0}, {0x88888888}},
        {8, 4, {0}, {0x80808080}},
        {3, 32, {0}, {0x24924924, 0x49249249, 0x92492492}},
        {2, 16, {TIMES8(-1, -1)}, {0x55555555}},
        {4, 8, {TIMES8(-1)}, {0x77777777}},
        {8, 4, {TIMES4(-1)}, {0x7F7F7F7F}},
        {3, 32, {TIMES8(-1, -1, -1, -1)}, {0xDB6DB6DB, 0xB6DB6DB6, 0x6DB6DB6D}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_packed(&cases[i]);
}

/* Odd shapes with gaps: what lies in the gaps stays. */
static void round_trips(void **state) {
    (void)state;
    enum { LD = 140, ROWS = 3 };
    for (int bits = 2; bits <= 8; bits++) {
        for (int cols = 1; cols <= 131; cols += 5) {
            int8_t code[ROWS * LD], back[ROWS * LD];
            int32_t word[ROWS * LD];
            int64_t words = bq_pack_words(cols, bits);
            assert_int_equal(words, (cols * bits + 31) / 32);
            for (int i = 0; i < ROWS * LD; i++) {
                code[i] = (int8_t)(i * 37 % (1 << bits) - (1 << (bits - 1)));
                back[i] = 99, word[i] = -7;
            }
            bq_mat c = {code, ROWS, cols, LD, BQ_I8, BQ_HOST}, b = {back, ROWS, cols, LD, BQ_I8, BQ_HOST};
            bq_mat w = {word, ROWS, words, words + 2, BQ_I32, BQ_HOST};
            bq_pack_rows(c, bits, w);
            unpack_rows(w, bits, b);
            for (int i = 0; i < ROWS * LD; i++) assert_int_equal(back[i], i % LD < cols ? code[i] : 99);
            for (int i = 0; i < ROWS * (words + 2); i++) {
                if (i % (words + 2) >= words) assert_int_equal(word[i], -7);
            }
        }
    }
}

/* Zero points are packed like codes, each column for itself. */
static void zeros(void **state) {
    (void)state;
    enum { ROWS = 37, GROUPS = 3, LD = 5 };
    for (int bits = 2; bits <= 8; bits++) {
        for (int rows = 1; rows <= ROWS; rows++) {
            float zero[ROWS * LD];
            int32_t word[ROWS * LD], one[ROWS];
            int8_t code[ROWS];
            int64_t words = bq_pack_words(rows, bits);
            for (int i = 0; i < ROWS * LD; i++) {
                zero[i] = (float)(i * 37 % (1 << bits) - (1 << (bits - 1)));
                word[i] = -7;
            }
            bq_mat z = {zero, rows, GROUPS, LD, BQ_F32, BQ_HOST},
                   w = {word, words, GROUPS, LD, BQ_I32, BQ_HOST};
            bq_pack_zeros(z, bits, w);
            for (int g = 0; g < GROUPS; g++) {
                for (int r = 0; r < rows; r++) code[r] = (int8_t)zero[r * LD + g];
                bq_pack_rows(bq_mat_host(code, 1, rows, BQ_I8), bits, bq_mat_host(one, 1, words, BQ_I32));
                for (int k = 0; k < words; k++) assert_int_equal(word[k * LD + g], one[k]);
            }
            assert_int_equal(word[GROUPS], -7);
        }
    }
}

static char *load(const bq_weights *w, const char *name, const char *part, const bq_tensor **t) {
    char key[100];
    snprintf(key, sizeof key, "%s/%s", name, part);
    *t = bq_weights_find(w, key);
    if (!*t) fail_msg("no %s", key);
    char *data = malloc((*t)->bytes);
    assert_non_null(data);
    bq_weights_read_raw(w, *t, 0, data, (*t)->bytes);
    return data;
}

/* Every word that compressed-tensors 0.20 itself wrote. */
static void peer_words(void **state) {
    (void)state;
    static const struct {
        const char *name, *packed;
        int bits;
    } cases[] = {
        {"ct3_16x64", "packed1", 3},           {"ct3_5x40", "packed1", 3},
        {"ct4_16x64", "packed1", 4},           {"ct4_5x40", "packed1", 4},
        {"ct8_16x64", "packed1", 8},           {"ct8_5x40", "packed1", 8},
        {"ctl_4_sym_f32", "weight_packed", 4}, {"ctl_4_sym_bf16", "weight_packed", 4},
        {"ctl_8_sym_f32", "weight_packed", 8}, {"ctl_8_sym_bf16", "weight_packed", 8},
    };
    bq_weights *w;
    assert_int_equal(bq_weights_open(&w, BQ_VECTORS "/peer_pack.safetensors"), BQ_OK);
    for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
        const bq_tensor *q, *p;
        char *code = load(w, cases[i].name, "q", &q), *word = load(w, cases[i].name, cases[i].packed, &p);
        int32_t *ours = malloc(p->bytes);
        int8_t *back = malloc(q->bytes);
        assert_true(ours && back);
        bq_mat c = bq_mat_host(code, q->shape[0], q->shape[1], BQ_I8),
               m = bq_mat_host(ours, p->shape[0], p->shape[1], BQ_I32);
        bq_pack_rows(c, cases[i].bits, m);
        assert_memory_equal(ours, word, p->bytes);
        unpack_rows(bq_mat_host(word, p->shape[0], p->shape[1], BQ_I32), cases[i].bits,
                    bq_mat_host(back, q->shape[0], q->shape[1], BQ_I8));
        assert_memory_equal(back, code, q->bytes);
        free(code);
        free(word);
        free(ours);
        free(back);
    }
    bq_weights_close(w);
}

/* Zero points as compressed-tensors itself packed them. */
static void peer_zeros(void **state) {
    (void)state;
    static const struct {
        const char *name, *zero, *packed;
        int bits;
    } cases[] = {
        {"ct3_16x64", "zp", "zp_packed0", 3},
        {"ct3_5x40", "zp", "zp_packed0", 3},
        {"ct4_16x64", "zp", "zp_packed0", 4},
        {"ct8_5x40", "zp", "zp_packed0", 8},
        {"ctl_4_asym_f32", "in_zp", "weight_zero_point", 4},
        {"ctl_8_asym_f32", "in_zp", "weight_zero_point", 8},
        {"ctl_4_asym_bf16", "in_zp", "weight_zero_point", 4},
        {"ctl_8_asym_bf16", "in_zp", "weight_zero_point", 8},
    };
    bq_weights *w;
    assert_int_equal(bq_weights_open(&w, BQ_VECTORS "/peer_pack.safetensors"), BQ_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const bq_tensor *z, *p;
        char *zero = load(w, cases[i].name, cases[i].zero, &z),
             *word = load(w, cases[i].name, cases[i].packed, &p);
        float value[64];
        int32_t ours[64];
        int64_t rows = z->shape[0], groups = z->shape[1], n = rows * groups;
        assert_true(n <= 64 && p->bytes <= sizeof ours && strcmp(z->dtype, "I8") == 0);
        for (int64_t k = 0; k < n; k++) value[k] = (float)((const int8_t *)zero)[k];
        bq_pack_zeros(bq_mat_host(value, rows, groups, BQ_F32), cases[i].bits,
                      bq_mat_host(ours, p->shape[0], p->shape[1], BQ_I32));
        assert_memory_equal(ours, word, p->bytes);
        free(zero);
        free(word);
    }
    bq_weights_close(w);
}

static void wrong_codes_die(void **state) {
    (void)state;
    char err[600];
    assert_int_equal(child_run("code", "8", NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "code 8 does not fit 4 bits");
    assert_int_equal(child_run("code", "-9", NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "code -9 does not fit 4 bits");
    assert_int_equal(child_run("bits", "1", NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "packing of 1 bits");
    assert_int_equal(child_run("bits", "9", NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "packing of 9 bits");
    assert_int_equal(child_run("zero", "8", NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "zero point 8 is not a code of 4 bits");
    assert_int_equal(child_run("zero", "-9", NULL, err, sizeof err), BQ_DIED);
    assert_int_equal(child_run("zero", "0.5", NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "zero point 0.5 is not");
    assert_int_equal(child_run("zero", "nan", NULL, err, sizeof err), BQ_DIED);
}

int main(int argc, char **argv) {
    if (argc == 3) {
        int value = atoi(argv[2]), bits = argv[1][0] == 'b' ? value : 4;
        int8_t code = bits == 4 ? (int8_t)value : 0;
        int32_t word;
        float zero = strtof(argv[2], NULL);
        if (argv[1][0] == 'z')
            bq_pack_zeros(bq_mat_host(&zero, 1, 1, BQ_F32), 4, bq_mat_host(&word, 1, 1, BQ_I32));
        else
            bq_pack_rows(bq_mat_host(&code, 1, 1, BQ_I8), bits, bq_mat_host(&word, 1, 1, BQ_I32));
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),         cmocka_unit_test(fills),      cmocka_unit_test(round_trips),
        cmocka_unit_test(zeros),           cmocka_unit_test(peer_words), cmocka_unit_test(peer_zeros),
        cmocka_unit_test(wrong_codes_die),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
