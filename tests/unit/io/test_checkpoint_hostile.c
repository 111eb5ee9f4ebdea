/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints whole by their seal that no program of ours wrote. */
#include "unit/io/ckpt.h"
#include "unit/io/flip.h"

typedef enum {
    LATER,
    OTHER,
    NO_STEPS,
    NEGATIVE,
    MANY,
    LOSSES,
    NO_FOLD,
    FLAT,
    TYPE,
    CODE,
    SCALE,
    ALONE,
    BITS,
    GROUP,
    NAME,
    STYPE,
    UNGROUPED,
    NO_ZERO,
    ZERO,
    ZERO_TYPE,
    SYMMETRIC,
    UNCODED,
    BIAS,
    PRE,
    ONE_NORM,
    NORMS,
    TALL_NORM,
    FINAL_NORM,
    BIAS_ALONE,
    TWICE,
    WIDE,
    NO_COLS,
    COLS,
    FEW_BITS,
    PACKED, /* the first of those that count: of this version, */
    UNFOLDED,
    GOOD /* and of version 1 */
} wrong;

static bool packed(wrong w) { return w >= TWICE && w < GOOD; }

static void put_weight(bq_h5 *h, wrong w) {
    bq_h5_put_group(h, w == UNGROUPED ? "weight" : "linear_00");
    bq_h5_put_text(h, "name", w == NAME ? "" : "q");
    bq_h5_put_int(h, "bits", BQ_I32, w == BITS ? 9 : w == FEW_BITS ? 1 : 4);
    bq_h5_put_int(h, "group", BQ_I64, w == GROUP ? 0 : 4);
    bq_h5_put_int(h, "symmetric", BQ_I32, w == SYMMETRIC);
    bq_h5_put_text(h, "scale_type", w == STYPE ? "I8" : "F32");
    if (packed(w)) {
        if (w != NO_COLS) bq_h5_put_int(h, "cols", BQ_I64, w == COLS ? INT64_MAX : 9 + (w != WIDE));
        bq_h5_put_data(h, "packed", BQ_U8, 2, (int64_t[]){3, w == WIDE ? 4 : 5});
    }
    if (w != NO_FOLD && w != UNFOLDED)
        bq_h5_put_data(h, "fold", w == TYPE ? BQ_F64 : BQ_F32, w == FLAT ? 1 : 2, (int64_t[]){3, 10});
    if (w != ALONE && w != UNCODED && w != NO_FOLD && (!packed(w) || w == TWICE))
        bq_h5_put_data(h, "code", BQ_I8, 2, (int64_t[]){3, w == CODE ? 11 : 10});
    if (w != UNCODED) bq_h5_put_data(h, "scale", BQ_F32, 2, (int64_t[]){3, w == SCALE ? 2 : 3});
    if (w != NO_ZERO)
        bq_h5_put_data(h, "zero", w == ZERO_TYPE ? BQ_I8 : BQ_F32, 2, (int64_t[]){3, w == ZERO ? 1 : 3});
    bq_h5_put_data(h, "bias", BQ_F32, 2, (int64_t[]){1, w == BIAS ? 10 : 3});
    bq_h5_put_data(h, "pre", BQ_F32, 2, (int64_t[]){1, w == PRE ? 3 : 10});
}

static void make_wrong(const char *path, wrong w) {
    bq_h5 h;
    bq_h5_create(&h, path);
    bq_h5_put_head(&h, w == OTHER ? "blockq tokens" : "blockq block", w == LATER ? 3 : 1 + packed(w), print);
    bq_h5_put_int(&h, "sweep", BQ_I32, w == NEGATIVE ? -1 : 0);
    bq_h5_put_int(&h, "phase", BQ_I32, 0);
    bq_h5_put_int(&h, "block", BQ_I32, 0);
    bq_h5_put_int(&h, "linears", BQ_I32, w == MANY ? BQ_MAX_LINEAR + 1 : 1);
    if (w != NO_STEPS) bq_h5_put_int(&h, "steps", BQ_I64, 4);
    bq_h5_put_data(&h, "loss", BQ_F64, 1, (int64_t[]){w == LOSSES ? 5 : 4});
    int64_t tall = w == TALL_NORM ? 2 : 1;
    if (w != BIAS_ALONE) bq_h5_put_data(&h, "norm_0", BQ_F32, 2, (int64_t[]){tall, 10});
    if (w != BIAS_ALONE && w != ONE_NORM)
        bq_h5_put_data(&h, "norm_1", BQ_F32, 2, (int64_t[]){tall, w == NORMS ? 9 : 10});
    if (w == FINAL_NORM) bq_h5_put_data(&h, "final_norm", BQ_F32, 2, (int64_t[]){1, 11});
    put_weight(&h, w);
    bq_h5_fix(&h);
    bq_h5_commit(&h);
    reseal(path);
}

static void hostile(void **state) {
    (void)state;
    static const char *const needles[] = {[LATER] = "version is 3, not 2: a later blockq made it",
                                          [OTHER] = "its format is",
                                          [NO_STEPS] = "'steps' is missing",
                                          [NEGATIVE] = "'sweep' is -1",
                                          [MANY] = "'linears' is 65",
                                          [LOSSES] = "5 losses for 4 steps",
                                          [NO_FOLD] = "neither weights nor codes",
                                          [FLAT] = "has 1 dimensions",
                                          [TYPE] = "not of type F32",
                                          [CODE] = "codes of another shape",
                                          [SCALE] = "scales of another shape",
                                          [ALONE] = "codes of another shape",
                                          [BITS] = "number of bits",
                                          [GROUP] = "impossible group",
                                          [NAME] = "no name",
                                          [STYPE] = "scale type 'I8'",
                                          [UNGROUPED] = "'linear_00' is missing",
                                          [NO_ZERO] = "zero points of another shape",
                                          [ZERO] = "zero points of another shape",
                                          [ZERO_TYPE] = "not of type F32",
                                          [SYMMETRIC] = "zero points in a symmetric scheme",
                                          [UNCODED] = "zero points without codes",
                                          [BIAS] = "a bias of another shape",
                                          [PRE] = "factors of another shape",
                                          [ONE_NORM] = "norms of unlike shapes",
                                          [NORMS] = "norms of unlike shapes",
                                          [TALL_NORM] = "norms of unlike shapes",
                                          [FINAL_NORM] = "a final norm of another shape",
                                          [BIAS_ALONE] = "a bias without norms",
                                          [TWICE] = "cannot be packed, or are there twice",
                                          [WIDE] = "rows of 4 bytes for 9 codes of 4 bits",
                                          [NO_COLS] = "'cols' is missing",
                                          [COLS] = "'cols' is 9223372036854775807",
                                          [FEW_BITS] = "rows of 5 bytes for 10 codes of 1 bits"};
    bq_ckpt head;
    bq_ckpt_file *f;
    for (wrong w = LATER; w < PACKED; w++) {
        make_wrong(temp_path("wrong.h5"), w);
        expect(temp_path("wrong.h5"), print, w == LATER ? BQ_CKPT_FOREIGN : BQ_CKPT_TORN, needles[w]);
    }
    for (wrong w = PACKED; w <= GOOD; w++) {
        make_wrong(temp_path("wrong.h5"), w);
        assert_int_equal(bq_ckpt_open(&f, temp_path("wrong.h5"), print, &head, NULL), BQ_CKPT_OK);
        assert_true(head.linear[0].code.rows == 3 && head.linear[0].code.cols == 10);
        assert_int_equal(head.linear[0].fold.rows, w == UNFOLDED ? 0 : 3);
        bq_ckpt_close(f);
    }
    file_save(temp_path("text.h5"), "a sealed text", 13);
    reseal(temp_path("text.h5"));
    expect(temp_path("text.h5"), print, BQ_CKPT_TORN, "not an HDF5 file");
}

static size_t unsealed;

/* With a seal that agrees: a reason, or a block all of whose codes can be read. */
static const char *look(const char *path) {
    static char why[BQ_WHY];
    int8_t code[3 * 64];
    bq_ckpt head;
    bq_ckpt_file *f;
    assert_int_equal(truncate(path, (off_t)unsealed), 0);
    reseal(path);
    int status = bq_ckpt_open(&f, path, print, &head, why);
    if (status != BQ_CKPT_OK) return why;
    assert_in_range(head.linears, 0, 1);
    bq_mat m = head.linear[0].code;
    assert_in_range(m.rows * m.cols, 0, sizeof code);
    m.data = code;
    if (head.linears && m.rows) bq_ckpt_read(f, 0, BQ_CKPT_CODE, m);
    bq_ckpt_close(f);
    return NULL;
}

static void one_bit(void **state) {
    (void)state;
    const char *path = temp_path("bits.h5");
    for (wrong w = PACKED; w <= GOOD; w++) {
        make_wrong(path, w);
        free(file_load(path, &unsealed));
        unsealed -= BQ_SEAL;
        flip_bits(path, unsealed, 7, look);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(hostile), cmocka_unit_test(one_bit)};
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
