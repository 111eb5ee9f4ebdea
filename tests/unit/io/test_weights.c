/* SPDX-License-Identifier: Apache-2.0 */
#include "refuse.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/num.h"
#include "io/files.h"
#include "io/in/weights.h"

#include <fcntl.h>

#define E(name, dtype, shape, range)                                                                         \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" range "}"

/* Header and data as a file in a fresh folder; the header is not padded, so that the data lie at odd
 * addresses. */
static void shard(const char *dir, const char *name, const char *header, const void *data, size_t bytes) {
    char path[600];
    size_t n = strlen(header);
    uint64_t length = n;
    char *all = malloc(8 + n + bytes);
    assert_non_null(all);
    memcpy(all, &length, 8);
    memcpy(all + 8, header, n);
    if (bytes) memcpy(all + 8 + n, data, bytes);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    file_save(path, all, 8 + n + bytes);
    free(all);
}

static const char *folder(const char *name) {
    static char dir[512]; /* one at a time */
    snprintf(dir, sizeof dir, "%s", temp_path(name));
    assert_int_equal(bq_dir_make(dir), 0);
    return dir;
}

static void text_in(const char *dir, const char *name, const char *text) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    text_save(path, text);
}

static int open_close(const char *dir) {
    bq_weights *w;
    int rc = bq_weights_open(&w, dir);
    if (rc) assert_null(w);
    bq_weights_close(w);
    return rc;
}

/* ---- values ---- */

enum { ROWS = 5, COLS = 7 };

static float value(int64_t i) { return (float)(i * 37 % 101 - 50) / 16; } /* exact in bf16 and f16 */

/* f (5,7) F32, h (5,7) F16, b (5,7) BF16, n (7) BF16, i (1) I64, at addresses that fit no type. */
static void make_values(const char *dir) {
    char data[512];
    size_t at = 0;
    for (int i = 0; i < ROWS * COLS; i++, at += 4) memcpy(data + at, (float[]){value(i)}, 4);
    for (int i = 0; i < ROWS * COLS; i++, at += 2) memcpy(data + at, (uint16_t[]){bq_to_f16(value(i))}, 2);
    for (int i = 0; i < ROWS * COLS; i++, at += 2) memcpy(data + at, (uint16_t[]){bq_to_bf16(value(i))}, 2);
    for (int i = 0; i < COLS; i++, at += 2) memcpy(data + at, (uint16_t[]){bq_to_bf16(value(i))}, 2);
    memcpy(data + at, (int64_t[]){-9}, 8);
    shard(dir, "model.safetensors",
          "{\"__metadata__\":{\"format\":\"pt\"}," E("f", "F32", "[5,7]", "[0,140]") "," E(
              "h", "F16", "[5,7]", "[140,210]") "," E("b", "BF16", "[5,7]",
                                                      "[210,280]") "," E("n", "BF16", "[7]",
                                                                         "[280,294]") "," E("i", "I64", "[1]",
                                                                                            "[294,302]") "}",
          data, at + 8);
}

static void rows_are_read(void **state) {
    (void)state;
    const char *dir = folder("values"), *names[] = {"f", "h", "b"};
    bq_weights *w;
    make_values(dir);
    assert_int_equal(bq_weights_open(&w, dir), BQ_OK);
    assert_int_equal(bq_weights_count(w), 5);
    assert_null(bq_weights_find(w, "none"));
    assert_string_equal(bq_weights_metadata(w, "format"), "pt");
    float out[ROWS * 9];
    for (int k = 0; k < 3; k++) {
        const bq_tensor *t = bq_weights_find(w, names[k]);
        for (int ld = COLS; ld <= 9; ld += 2) { /* contiguous, and with a gap that must stay */
            for (int first = 0; first <= ROWS; first++) {
                for (int rows = 0; rows <= ROWS - first; rows++) {
                    for (int i = 0; i < ROWS * 9; i++) out[i] = -99;
                    bq_weights_read(w, t, first, rows, (bq_mat){out, rows, COLS, ld, BQ_F32, BQ_HOST});
                    for (int i = 0; i < ROWS * ld; i++) {
                        bool in = i / ld < rows && i % ld < COLS;
                        float want = in ? value((first + i / ld) * COLS + i % ld) : -99;
                        assert_true(out[i] == want);
                    }
                }
            }
        }
    }
    bq_weights_read(w, bq_weights_find(w, "n"), 0, 1, bq_mat_host(out, 1, COLS, BQ_F32));
    for (int i = 0; i < COLS; i++) assert_true(out[i] == value(i));
    int64_t raw;
    bq_weights_read_raw(w, bq_weights_find(w, "i"), 0, &raw, 8);
    assert_true(raw == -9);
    bq_weights_close(w);
}

/* Many chunks of conversion: more values than fit one buffer. */
static void long_rows_are_read(void **state) {
    (void)state;
    enum { N = 700001 };
    const char *dir = folder("long");
    uint16_t *data = malloc(2 * N);
    float *out = malloc(4 * N);
    assert_true(data && out);
    for (int i = 0; i < N; i++) data[i] = bq_to_bf16(value(i));
    shard(dir, "model.safetensors", "{" E("a", "BF16", "[700001]", "[0,1400002]") "}", data, 2 * N);
    bq_weights *w;
    assert_int_equal(bq_weights_open(&w, dir), BQ_OK);
    bq_weights_read(w, bq_weights_at(w, 0), 0, 1, bq_mat_host(out, 1, N, BQ_F32));
    for (int i = 0; i < N; i++) assert_true(out[i] == value(i));
    bq_weights_close(w);
    free(data);
    free(out);
}

static void bad_reads_die(void **state) {
    (void)state;
    char err[1000];
    const char *dir = folder("values"), *what[] = {"rows", "type", "shape", "raw", "shrunk", "read"};
    const char *needle[] = {
        "rows 3 + 3 of 5", "cannot be read as f32", "wanted as (5, 6)", "bytes 300", "shorter", "failed"};
    for (int i = 0; i < 6; i++) {
        make_values(dir);
        assert_int_equal(child_run(what[i], dir, i == 5 ? "BQ_FAULT=weights_read" : NULL, err, sizeof err),
                         BQ_DIED);
        assert_one_line(err, needle[i]);
    }
}

/* ---- directories ---- */

static const char one[4] = {0};
#define A_IN_1 "{" E("a", "F32", "[1]", "[0,4]") "}"
#define B_IN_2 "{" E("b", "F32", "[1]", "[0,4]") "}"
#define INDEX  "model.safetensors.index.json"

static void shards_are_checked(void **state) {
    (void)state;
    const char *dir = folder("shards");
    assert_refused(open_close(dir), "there is no model that can be read: a GGUF file");
    assert_refused(open_close(temp_path("none")), "there is no model that can be read: a GGUF file");
    shard(dir, "m-1.safetensors", A_IN_1, one, 4);
    text_in(dir, INDEX, "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
    assert_refused(open_close(dir), "m-2.safetensors");
    shard(dir, "m-2.safetensors", B_IN_2, one, 4);
    assert_int_equal(open_close(dir), BQ_OK);
    shard(dir, "m-2.safetensors", B_IN_2, one, 3);
    assert_refused(open_close(dir), "truncated");
    shard(dir, "m-2.safetensors", "{" E("a", "F32", "[1]", "[0,4]") "," E("b", "F32", "[1]", "[4,8]") "}",
          "01234567", 8);
    assert_refused(open_close(dir), "tensor 'a' is both in");
    shard(dir, "m-2.safetensors", "{" E("c", "F32", "[1]", "[0,4]") "," E("b", "F32", "[1]", "[4,8]") "}",
          "01234567", 8);
    assert_refused(open_close(dir), "'c' of 'm-2.safetensors' is not listed");
    shard(dir, "m-2.safetensors", B_IN_2, one, 4);
    text_in(dir, INDEX, "{\"weight_map\":{\"a\":\"m-2.safetensors\",\"b\":\"m-2.safetensors\"}}");
    assert_refused(open_close(dir), "'a' is not in 'm-2.safetensors'");
    text_in(dir, INDEX, "{\"weight_map\":{\"a\":\"m-2.safetensors\",\"b\":\"m-1.safetensors\"}}");
    assert_refused(open_close(dir), "is not in");
    text_in(dir, INDEX, "{\"weight_map\":{\"a\":\"../shards/m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
    assert_refused(open_close(dir), "'a' is not in a file of this directory");
    text_in(dir, INDEX, "{\"weight_map\"");
    assert_refused(open_close(dir), INDEX);
    shard(dir, "model.safetensors", A_IN_1, one, 4); /* wins over an index, as in transformers */
    assert_int_equal(open_close(dir), BQ_OK);
}

/* ---- fingerprint ---- */

/* Heard by the others while one rank reads (the linker's --wrap). */
static int beats;
void __wrap_bq_comm_beat(void);
void __wrap_bq_comm_beat(void) { beats++; }

static int fingerprint(const char *dir, const char *cache, uint64_t *hash) {
    bq_weights *w;
    assert_int_equal(bq_weights_open(&w, dir), BQ_OK);
    int rc = bq_weights_fingerprint(w, cache, hash);
    bq_weights_close(w);
    return rc;
}

/* The contract in other words: hash of the shards' hashes. */
static uint64_t by_hand(const char *dir, int files) {
    uint64_t each[2];
    for (int i = 0; i < files; i++) {
        char path[600];
        size_t n;
        snprintf(path, sizeof path, "%s/m-%d.safetensors", dir, i + 1);
        char *data = file_load(path, &n);
        each[i] = bq_hash_bytes(data, n);
        free(data);
    }
    return bq_hash_bytes(each, 8 * (size_t)files);
}

static void fingerprints(void **state) {
    (void)state;
    enum { N = 1500000 }; /* several chunks */
    const char *dir = folder("print"), *cache = temp_path("print/cache.json");
    float *data = calloc(N, 4);
    uint64_t a, b, c;
    assert_non_null(data);
    text_in(
        dir, INDEX,
        "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\",\"c\":\"m-2.safetensors\"}}");
    shard(dir, "m-1.safetensors", A_IN_1, one, 4);
    shard(dir, "m-2.safetensors",
          "{" E("b", "F32", "[1500,1000]", "[0,6000000]") "," E("c", "I8", "[0]", "[6000000,6000000]") "}",
          data, 4 * N);
    assert_int_equal(fingerprint(dir, NULL, &a), BQ_OK);
    assert_true(a == by_hand(dir, 2));
    assert_true(beats >= 5); /* two headers, one chunk, two chunks */
    assert_int_equal(fingerprint(dir, cache, &b), BQ_OK);
    assert_true(a == b && file_there(cache));

    /* A shard that was changed where it is, or replaced, is read again, whatever its size and time say. */
    char path[600], again[600];
    struct stat st;
    uint64_t all = a;
    snprintf(path, sizeof path, "%s/m-1.safetensors", dir);
    snprintf(again, sizeof again, "%s/new", dir);
    for (int i = 1; i < 3; i++) {
        const char value[4] = {(char)i};
        assert_int_equal(stat(path, &st), 0);
        struct timespec times[2] = {st.st_atim, st.st_mtim};
        shard(dir, i > 1 ? "new" : "m-1.safetensors", A_IN_1, value, 4);
        assert_int_equal(utimensat(AT_FDCWD, i > 1 ? again : path, times, 0), 0);
        if (i > 1) assert_int_equal(rename(again, path), 0);
        bq_log_identity(1, 2); /* other ranks may see a copy: name, size and time are enough */
        assert_int_equal(fingerprint(dir, cache, &b), BQ_OK);
        assert_true(all == b);
        bq_log_identity(0, 1);
        assert_int_equal(fingerprint(dir, cache, &b), BQ_OK);
        assert_true(all != b && b == by_hand(dir, 2));
        all = b;
    }

    /* Torn, foreign or strange caches are as good as none. */
    const char *bad[] = {"",
                         "{",
                         "[]",
                         "{\"shards\":3}",
                         "{\"shards\":[1,{\"path\":2}]}",
                         "{\"shards\":[{\"path\":\"x\",\"hash\":\"zz\"}]}"};
    for (int i = 0; i < 6; i++) {
        text_save(cache, bad[i]);
        assert_int_equal(fingerprint(dir, cache, &c), BQ_OK);
        assert_true(b == c);
        assert_true(bq_file_size(cache) > 60);
    }
    /* A digit of a hash that has changed is not another model. */
    size_t n;
    char *text = file_load(cache, &n), *digit = memmem(text, n, "\"hash\": \"", 9);
    assert_non_null(digit);
    digit[9] ^= 1;
    file_save(cache, text, n);
    free(text);
    assert_int_equal(fingerprint(dir, cache, &c), BQ_OK);
    assert_true(b == c);
    free(data);
}

static void bad_values_are_found(void **state) {
    (void)state;
    static const struct {
        const char *dtype, *say;
        uint32_t bits;
    } bad[] = {
        {"F32", "NaN", 0x7fc00000},  {"F32", "NaN", 0xff800001}, {"F32", "has inf", 0x7f800000},
        {"F32", "-inf", 0xff800000}, {"F16", "NaN", 0x7e00},     {"F16", "has inf", 0x7c00},
        {"F16", "-inf", 0xfc00},     {"BF16", "NaN", 0x7fc0},    {"BF16", "NaN", 0xffc1},
        {"BF16", "has inf", 0x7f80}, {"BF16", "-inf", 0xff80},
    };
    static const uint32_t fine[] = {0x7f7fffff, 0x7bff, 0x7f7f};
    enum { N = 1200003 };
    const char *dir = folder("bad");
    char header[200], needle[200], *data = calloc(N, 4);
    uint64_t hash;
    assert_non_null(data);
    for (int i = 0; i < (int)(sizeof bad / sizeof *bad); i++) {
        size_t size = bad[i].dtype[0] == 'F' && bad[i].dtype[1] == '3' ? 4 : 2, at = i % 2 ? N - 1 : 5;
        snprintf(header, sizeof header, "{" E("some.w", "%s", "[3,400001]", "[0,%zu]") "}", bad[i].dtype,
                 size * N);
        snprintf(needle, sizeof needle, "'some.w' has %s%s at row %zu, column %zu",
                 bad[i].say[0] == 'N' ? "a " : "", strcmp(bad[i].say, "has inf") == 0 ? "inf" : bad[i].say,
                 at / 400001, at % 400001);
        memcpy(data + at * size, &fine[size == 4 ? 0 : bad[i].dtype[0] == 'F' ? 1 : 2], size);
        shard(dir, "model.safetensors", header, data, size * N);
        assert_int_equal(fingerprint(dir, NULL, &hash), BQ_OK);
        memcpy(data + at * size, &bad[i].bits, size);
        shard(dir, "model.safetensors", header, data, size * N);
        assert_refused(fingerprint(dir, temp_path("bad/cache"), &hash), needle);
        assert_false(file_there(temp_path("bad/cache"))); /* a refusal is not remembered as a pass */
        memset(data + at * size, 0, size);
    }
    free(data);
}

/* What the children of bad_reads_die do. */
static int die(const char *what, const char *dir) {
    bq_weights *w;
    float out[ROWS * COLS];
    if (bq_weights_open(&w, dir)) return 99;
    const bq_tensor *f = bq_weights_find(w, "f");
    bq_mat five = bq_mat_host(out, ROWS, COLS, BQ_F32), three = bq_mat_host(out, 3, COLS, BQ_F32);
    if (!strcmp(what, "rows")) bq_weights_read(w, f, 3, 3, three);
    if (!strcmp(what, "type"))
        bq_weights_read(w, bq_weights_find(w, "i"), 0, 1, bq_mat_host(out, 1, 1, BQ_F32));
    if (!strcmp(what, "shape")) bq_weights_read(w, f, 0, ROWS, bq_mat_host(out, ROWS, COLS - 1, BQ_F32));
    if (!strcmp(what, "raw")) bq_weights_read_raw(w, bq_weights_find(w, "n"), 300, out, 1);
    if (!strcmp(what, "shrunk")) {
        char path[600];
        snprintf(path, sizeof path, "%s/model.safetensors", dir);
        if (truncate(path, 400)) return 98;
        bq_weights_read(w, f, 0, ROWS, five);
    }
    if (!strcmp(what, "read")) bq_weights_read(w, f, 0, ROWS, five);
    bq_weights_close(w);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3) return die(argv[1], argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_read), cmocka_unit_test(long_rows_are_read),
        cmocka_unit_test(bad_reads_die), cmocka_unit_test(shards_are_checked),
        cmocka_unit_test(fingerprints),  cmocka_unit_test(bad_values_are_found),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
