/* SPDX-License-Identifier: Apache-2.0 */
/* The files that say what a model's folder holds: written once, whole, checked by sha256sum, and never over
 * somebody's own text. */
#include "refuse.h"

#include "io/out/publish.h"

#define CARD "# A model\n" BQ_CARD_MARK "\n"

static const bq_publication texts = {CARD, "{\"model\": \"m\"}\n", "{\"bits\": 4}\n"};
static char dir[300];

static const char *in_dir(const char *name) {
    static char path[4][600];
    static int next;
    char *to = path[next++ % 4];
    snprintf(to, sizeof path[0], "%s/%s", dir, name);
    return to;
}

static void start(const char *name) {
    snprintf(dir, sizeof dir, "%s/%s", temp_dir, name);
    assert_int_equal(bq_dir_make(dir), 0);
    text_save(in_dir("config.json"), "{}");
    text_save(in_dir("tokenizer\\one\ntwo.json"), "[]");
    text_save(in_dir("model.safetensors"), "weights");
}

static int publish(const bq_publication *of) {
    static const char *const files[] = {"config.json", "tokenizer\\one\ntwo.json", "model.safetensors"};
    bq_manifest list;
    bq_manifest_new(&list, "");
    for (int i = 0; i < 3; i++) assert_true(bq_manifest_add(&list, dir, files[i], NULL));
    int code = bq_publish(dir, &list, of);
    bq_manifest_close(&list);
    return code;
}

static void holds(const char *name, const char *text) {
    size_t n;
    char *have = file_load(in_dir(name), &n);
    have[n] = 0;
    assert_string_equal(have, text);
    free(have);
}

static void sums_hold(int files) {
    char command[700];
    size_t n;
    char *text = file_load(in_dir("SHA256SUMS"), &n);
    int lines = 0;
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    free(text);
    assert_int_equal(lines, files);
    snprintf(command, sizeof command, "cd '%s' && sha256sum --strict --quiet -c SHA256SUMS", dir);
    assert_int_equal(system(command), 0);
}

static void all(void **state) {
    (void)state;
    start("all");
    assert_int_equal(publish(&texts), BQ_OK);
    holds("README.md", CARD);
    holds("recipe.json", texts.recipe);
    holds("quantization.json", texts.summary);
    sums_hold(6);
    struct stat before, after;
    assert_int_equal(stat(in_dir("README.md"), &before), 0);
    assert_int_equal(publish(&texts), BQ_OK);
    assert_int_equal(stat(in_dir("README.md"), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino); /* not written again */
    text_save(in_dir("README.md"), CARD "and what was here before");
    text_save(in_dir("SHA256SUMS"), "damaged");
    assert_int_equal(publish(&texts), BQ_OK);
    holds("README.md", CARD);
    sums_hold(6);
    bq_publish_remove(dir);
    for (int i = 0; i < 4; i++)
        assert_false(file_there(
            in_dir((const char *[]){"README.md", "recipe.json", "quantization.json", "SHA256SUMS"}[i])));
    assert_true(file_there(in_dir("config.json")));
}

static void own_text(void **state) {
    (void)state;
    char said[1000];
    start("own");
    text_save(in_dir("README.md"), "My own words.\n");
    int fd = captured_fd(0);
    assert_int_equal(publish(&texts), BQ_OK);
    captured_text(fd, said, sizeof said);
    assert_non_null(strstr(said, "README.md is not blockq's and stays as it is"));
    holds("README.md", "My own words.\n");
    holds("recipe.json", texts.recipe);
    sums_hold(6);
    bq_publish_remove(dir);
    holds("README.md", "My own words.\n");
    assert_false(file_there(in_dir("recipe.json")));
    text_save(in_dir("README.md"), CARD); /* what the mark is for */
    bq_publish_remove(dir);
    assert_false(file_there(in_dir("README.md")));
}

/* Nothing is written where one name is not a file's. */
static void no_files(void **state) {
    (void)state;
    static const char *const names[] = {"README.md", "recipe.json", "quantization.json", "SHA256SUMS"};
    start("links");
    text_save(temp_path("victim"), "before");
    for (int i = 0; i < 4; i++)
        for (int kind = 0; kind < 3; kind++) {
            const char *path = in_dir(names[i]);
            char said[1000];
            assert_int_equal(kind == 0   ? symlink(temp_path("victim"), path)
                             : kind == 1 ? mkfifo(path, 0600)
                                         : mkdir(path, 0700),
                             0);
            int fd = captured_fd(0);
            assert_int_equal(publish(&texts), BQ_USAGE);
            captured_text(fd, said, sizeof said);
            assert_one_line(said, names[i]);
            assert_int_equal(remove(path), 0);
            for (int k = 0; k < 4; k++) assert_false(file_there(in_dir(names[k])));
        }
    size_t n;
    char *text = file_load(temp_path("victim"), &n);
    assert_memory_equal(text, "before", 6);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all), cmocka_unit_test(own_text),
                                       cmocka_unit_test(no_files)};
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
