/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"
#include "io/files.h"
#include "io/json.h"
#include "io/manifest.h"
#include "unit/io/temp.h"

#include <fcntl.h>

static char dir[300], list[300];

static const char *in_dir(const char *name) {
    static char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

/* Write a file until its time says that it came after the list. */
static void save_later(const char *name, const char *text) {
    struct stat of, old;
    assert_int_equal(stat(list, &old), 0);
    do {
        usleep(1000);
        file_save(in_dir(name), text, strlen(text));
        assert_int_equal(stat(in_dir(name), &of), 0);
    } while (of.st_ctim.tv_sec == old.st_ctim.tv_sec && of.st_ctim.tv_nsec == old.st_ctim.tv_nsec);
}

static void start(const char *name) {
    const bq_file_hash hash = {bq_hash_text("weights"), {1, 2, 3, 4, 5, 6, 7, 0xfedcba98}};
    bq_manifest m;
    snprintf(dir, sizeof dir, "%s/%s", temp_dir, name);
    snprintf(list, sizeof list, "%s/%s.done", temp_dir, name);
    assert_int_equal(mkdir(dir, 0777), 0);
    file_save(in_dir("config.json"), "{}", 2);
    file_save(in_dir("w"), "weights", 7);
    bq_manifest_new(&m, "a run");
    assert_true(bq_manifest_add(&m, dir, "config.json", NULL) && bq_manifest_add(&m, dir, "w", &hash));
    assert_false(bq_manifest_add(&m, dir, "none", NULL));
    assert_int_equal(m.count, 2);
    bq_manifest_write(&m, list);
    bq_manifest_close(&m);
}

/* What the list says of the file w now. */
static int look(void) {
    bq_manifest m;
    assert_true(bq_manifest_read(&m, list));
    assert_string_equal(m.of, "a run");
    assert_int_equal(m.count, 2);
    assert_string_equal(m.file[1].name, "w");
    assert_int_equal(bq_manifest_look(&m, 0, dir), BQ_MANIFEST_SAME);
    int found = bq_manifest_look(&m, 1, dir);
    bq_manifest_close(&m);
    return found;
}

static void changes(void **state) {
    (void)state;
    start("changes");
    assert_int_equal(look(), BQ_MANIFEST_SAME);
    save_later("w", "weights");
    assert_int_equal(look(), BQ_MANIFEST_EQUAL);
    save_later("w", "weighty");
    assert_int_equal(look(), BQ_MANIFEST_OTHER);
    struct timespec old[2] = {{1, 0}, {1, 0}}; /* the time that anybody can set does not count */
    assert_int_equal(utimensat(AT_FDCWD, in_dir("w"), old, 0), 0);
    assert_int_equal(look(), BQ_MANIFEST_OTHER);
    save_later("w", "weight");
    assert_int_equal(look(), BQ_MANIFEST_OTHER);
    assert_int_equal(unlink(in_dir("w")), 0);
    assert_int_equal(look(), BQ_MANIFEST_OTHER);
    assert_int_equal(mkdir(in_dir("w"), 0777), 0);
    assert_int_equal(look(), BQ_MANIFEST_OTHER);
}

#define WORD  "0123456789abcdef"
#define EIGHT WORD WORD WORD WORD
#define ONE(name, size, hash, sha256)                                                                        \
    "{\"of\": \"a run\", \"files\": [{\"name\": \"" name "\", \"size\": " size ", \"hash\": \"" hash         \
    "\", \"sha256\": \"" sha256 "\"}]}"

/* A damaged list is none, and no list reaches beyond its directory. */
static void damaged(void **state) {
    (void)state;
    static const char *const bad[] = {"{}",
                                      "{\"of\": \"a run\"}",
                                      "{\"of\": \"a run\", \"files\": {}}",
                                      "{\"of\": \"a run\", \"files\": [3]}",
                                      ONE("w", "-1", "0123456789abcdef", EIGHT),
                                      ONE("w", "1", "0123", EIGHT),
                                      ONE("../w", "1", "0123456789abcdef", EIGHT),
                                      ONE("w", "1", "0123456789abcdef", "0123"),
                                      ONE("w", "1", "0123456789abcdef", WORD WORD WORD "0123456789abcdeX")};
    size_t n;
    bq_manifest m;
    start("damaged");
    char *data = file_load(list, &n);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        data[bit / 8] ^= (char)(1 << bit % 8);
        file_save(list, data, n);
        if (bq_manifest_read(&m, list))
            assert_true(m.count == 2 && m.file[1].hash.xxh3 == bq_hash_text("weights") &&
                        m.file[1].hash.sha256[0] == 1 && m.file[1].hash.sha256[7] == 0xfedcba98);
        bq_manifest_close(&m);
        data[bit / 8] ^= (char)(1 << bit % 8);
    }
    free(data);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *root = json_loads(bad[i], 0, NULL);
        assert_int_equal(bq_json_write_sealed(list, root), 0);
        json_decref(root);
        assert_false(bq_manifest_read(&m, list));
        bq_manifest_close(&m);
    }
    assert_false(bq_manifest_read(&m, in_dir("none")));
    bq_manifest_close(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(changes), cmocka_unit_test(damaged)};
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
