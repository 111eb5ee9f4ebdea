/* SPDX-License-Identifier: Apache-2.0 */
#include "base/die.h"
#include "io/state/stream.h"
#include "unit/io/temp.h"

#include <dirent.h>

enum { SAMPLES = 5, TOKENS = 3, HIDDEN = 7 };

static float value(int64_t sample, int64_t token, int64_t channel) {
    return (float)(sample * 1000 + token * 10 + channel) + 0.25f;
}

static void fill(bq_stream *s) {
    float wide[TOKENS][HIDDEN + 2], packed[TOKENS][HIDDEN];
    for (int64_t i = SAMPLES - 1; i >= 0; i--) { /* any order, any ld */
        bq_mat m = i % 2 ? (bq_mat){wide, TOKENS, HIDDEN, HIDDEN + 2, BQ_F32, BQ_HOST}
                         : bq_mat_host(packed, TOKENS, HIDDEN, BQ_F32);
        for (int64_t t = 0; t < TOKENS; t++)
            for (int64_t c = 0; c < HIDDEN; c++) *(float *)bq_mat_at(m, t, c) = value(i, t, c);
        bq_stream_put(s, i, m);
    }
}

static void check(const bq_stream *s) {
    float wide[TOKENS][HIDDEN + 1], packed[TOKENS][HIDDEN];
    for (int64_t i = 0; i < SAMPLES; i++) {
        bq_mat buffer = i % 2 ? bq_mat_host(packed, TOKENS, HIDDEN, BQ_F32)
                              : (bq_mat){wide, TOKENS, HIDDEN, HIDDEN + 1, BQ_F32, BQ_HOST};
        bq_mat m = bq_stream_get(s, i, buffer);
        assert_true(s->data ? m.data == bq_stream_map(s, i) : m.data == buffer.data);
        for (int64_t t = 0; t < TOKENS; t++)
            for (int64_t c = 0; c < HIDDEN; c++) assert_true(*(float *)bq_mat_at(m, t, c) == value(i, t, c));
    }
}

static int entries(const char *folder) {
    int n = -2; /* . and .. */
    DIR *d = opendir(folder);
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void both_kinds(void **state) {
    (void)state;
    const char *folder = temp_path("scratch");
    mkdir(folder, 0777);
    for (int scratch = 0; scratch < 2; scratch++) {
        bq_stream s;
        bq_stream_open(&s, SAMPLES, TOKENS, HIDDEN, (bq_home){.scratch = scratch ? folder : NULL});
        fill(&s);
        check(&s);
        fill(&s);
        check(&s);
        assert_int_equal(entries(folder), 0); /* the file has no name */
        bq_stream_close(&s);
        bq_stream_close(&s);
    }
}

static void swap_and_own_view(void **state) {
    (void)state;
    bq_stream a, b;
    bq_stream_open(&a, SAMPLES, TOKENS, HIDDEN, (bq_home){0});
    bq_stream_open(&b, SAMPLES, TOKENS, HIDDEN, (bq_home){.scratch = temp_dir});
    fill(&a);
    bq_mat own = bq_stream_get(&a, 2, (bq_mat){0});
    bq_stream_put(&a, 2, own);
    check(&a);
    bq_stream_swap(&a, &b);
    check(&b);
    assert_null(a.data);
    fill(&a);
    check(&a);
    bq_stream_close(&a);
    bq_stream_close(&b);
}

static void sizes(void **state) {
    (void)state;
    assert_int_equal(bq_stream_bytes(128, 2048, 4096), (size_t)128 * 2048 * 4096 * 4);
    assert_int_equal(bq_stream_bytes(0, 2048, 4096), 0);
    bq_stream s = {0};
    bq_stream_close(&s);
    bq_stream_open(&s, 0, 4, 4, (bq_home){0});
    bq_stream_close(&s);
    bq_stream_open(&s, 0, 4, 4, (bq_home){.scratch = temp_dir});
    bq_stream_close(&s);
}

static void deaths(void **state) {
    (void)state;
    char err[1024];
    assert_int_equal(child_run("map", temp_dir, NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "has no address");
    assert_int_equal(child_run("range", temp_dir, NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "sample 5 of a stream of 5");
    assert_int_equal(child_run("shape", temp_dir, NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "2 x 7 view");
    assert_int_equal(child_run("large", temp_dir, NULL, err, sizeof err), BQ_DIED);
    assert_int_equal(child_run("map", temp_path("none"), NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "No such file");
    const char *disk = temp_path("disk");
    if (!small_disk(disk, "size=64k")) skip();
    int rc = child_run("disk", disk, NULL, err, sizeof err);
    int left = entries(disk);
    umount(disk);
    assert_int_equal(rc, BQ_DIED);
    assert_one_line(err, "No space left on device");
    assert_int_equal(left, 0);
}

static int child(const char *what, const char *path) {
    bq_stream s;
    if (strcmp(what, "large") == 0) bq_stream_bytes((int64_t)1 << 40, 1 << 20, 1 << 20);
    bq_stream_open(&s, strcmp(what, "disk") ? SAMPLES : 5000, TOKENS, HIDDEN, (bq_home){.scratch = path});
    if (strcmp(what, "map") == 0) bq_stream_map(&s, 0);
    if (strcmp(what, "range") == 0) bq_stream_get(&s, SAMPLES, (bq_mat){0});
    if (strcmp(what, "shape") == 0) bq_stream_put(&s, 0, bq_mat_host(&s, 2, HIDDEN, BQ_F32));
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3) return child(argv[1], argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_kinds),
        cmocka_unit_test(swap_and_own_view),
        cmocka_unit_test(sizes),
        cmocka_unit_test(deaths),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
