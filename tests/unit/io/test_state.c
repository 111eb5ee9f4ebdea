/* SPDX-License-Identifier: Apache-2.0 */
#include "base/die.h"
#include "io/state/checkpoint.h"
#include "io/json.h"
#include "io/state/state.h"
#include "unit/io/temp.h"

#include <fcntl.h>

static const uint64_t print = 0x0123456789abcdefu;
static const char *const names[] = {"model", "tokens", "recipe.phases"};
static const uint64_t hashes[] = {1, 0xffffffffffffffffu, 3};

enum { SWEEPS = 2, PHASES = 3, BLOCKS = 5 };

static char run_dir[300], json[360];

/* An empty run folder of that name. */
static void start(const char *name) {
    char ckpt[330];
    snprintf(run_dir, sizeof run_dir, "%s/%s", temp_dir, name);
    snprintf(ckpt, sizeof ckpt, "%s/ckpt", run_dir);
    snprintf(json, sizeof json, "%s/state.json", ckpt);
    assert_int_equal(mkdir(run_dir, 0777), 0);
    assert_int_equal(mkdir(ckpt, 0777), 0);
}

static void finish_as(int sweep, int phase, int block, uint64_t fingerprint, const bq_ckpt *from) {
    char path[400];
    float w[6] = {1, 2, 3, 4, 5, 6};
    bq_ckpt c = from ? *from : (bq_ckpt){.sweep = sweep, .phase = phase, .block = block};
    c.fingerprint = fingerprint, c.linears = 1;
    c.linear[0] = (bq_ckpt_linear){.name = "q",
                                   .scheme = {4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0},
                                   .fold = {w, 2, 3, 3, BQ_F32, BQ_HOST}};
    bq_ckpt_path(path, sizeof path, run_dir, sweep, phase, block);
    bq_ckpt_write(path, &c);
}

static void finish(int sweep, int phase, int block) { finish_as(sweep, phase, block, print, NULL); }

static bq_state *load(void) { return bq_state_load(run_dir, print, SWEEPS, PHASES, BLOCKS); }

static void save(bq_state *s, double seconds) { bq_state_save(s, names, hashes, 3, seconds, "2x4"); }

/* This text as state.json, sealed where it is an object. */
static void write_json(const char *text) {
    json_t *root = json_loads(text, 0, NULL);
    if (json_is_object(root))
        assert_int_equal(bq_json_write_sealed(json, root), 0);
    else
        file_save(json, text, strlen(text));
    json_decref(root);
}

/* Of the runs before: what a save without a second of its own writes. */
static double seconds(bq_state *s) {
    size_t n;
    save(s, 0);
    char *text = file_load(json, &n);
    text[n] = 0;
    const char *at = strstr(text, "\"seconds\": ");
    assert_non_null(at);
    double value = strtod(at + 11, NULL);
    free(text);
    return value;
}

/* Is it done, and what is said about it? */
static bool done(bq_state *s, int sweep, int phase, int block, const char *needle) {
    char err[1024];
    int fd = captured_fd(0);
    bool answer = bq_state_done(s, sweep, phase, block);
    captured_text(fd, err, sizeof err);
    if (needle)
        assert_one_line(err, needle);
    else
        assert_string_equal(err, "");
    return answer;
}

static void fresh(void **state) {
    (void)state;
    char changed[64] = "x";
    snprintf(run_dir, sizeof run_dir, "%s/none", temp_dir);
    bq_state *s = load();
    assert_false(done(s, 0, 0, 0, NULL));
    assert_int_equal(bq_state_count(s), 0);
    assert_int_equal(bq_state_compare(run_dir, names, hashes, 3, changed, sizeof changed), -1);
    bq_state_close(s);
    bq_state_close(NULL);
}

static void marks_and_files(void **state) {
    (void)state;
    start("marks");
    bq_state *s = load();
    finish(0, 0, 0);
    bq_state_mark(s, 0, 0, 0);
    finish(1, 2, 4); /* by another rank, after this one loaded */
    assert_true(done(s, 0, 0, 0, NULL) && done(s, 1, 2, 4, NULL));
    assert_false(done(s, 1, 2, 3, NULL));
    assert_int_equal(bq_state_count(s), 2);
    save(s, 12.5);
    bq_state_close(s);
    s = load();
    assert_int_equal(bq_state_listed(run_dir, 2, 4), 1);
    assert_int_equal(bq_state_listed(run_dir, 2, 3), -1);
    assert_true(done(s, 0, 0, 0, NULL) && done(s, 1, 2, 4, NULL));
    assert_false(done(s, 0, 0, 4, NULL) || done(s, 0, 2, 4, NULL));
    assert_true(seconds(s) == 12.5);
    save(s, 1);
    save(s, 2.25); /* of this run so far: not added twice */
    bq_state_close(s);
    s = load();
    assert_true(seconds(s) == 14.75);
    bq_state_close(s);
    s = bq_state_load(run_dir, print + 1, SWEEPS, PHASES, BLOCKS); /* another run's seconds are not ours */
    assert_true(seconds(s) == 0);
    assert_int_equal(bq_state_count(s), 0);
    bq_state_close(s);
}

static void content(void **state) {
    (void)state;
    size_t n;
    start("content");
    finish(0, 1, 2);
    finish(1, 0, 0);
    bq_state *s = load();
    save(s, 0.25);
    char *text = file_load(json, &n), *t = text;
    text[n] = 0;
    for (char *c = text; *c; c++) /* layout is the JSON writer's business */
        if (*c != ' ' && *c != '\n') *t++ = *c;
    *t = 0;
    char *seal = strstr(text, ",\"check\":\"");
    assert_true(seal && strlen(seal) == strlen(",\"check\":\"0123456789abcdef\"}"));
    strcpy(seal, "}");
    assert_string_equal(
        text, "{\"version\":1,\"fingerprint\":\"0123456789abcdef\",\"shape\":[2,3,5],\"parts\":{\"model\":"
              "\"0000000000000001\",\"tokens\":\"ffffffffffffffff\",\"recipe.phases\":"
              "\"0000000000000003\"},\"done\":[[0,1,2],[1,0,0]],\"seconds\":0.25,\"grid\":\"2x4\"}");
    free(text);
    bq_state_close(s);
}

/* The files are the truth, whatever state.json says. */
static void files_are_the_truth(void **state) {
    (void)state;
    char path[400];
    size_t n;
    start("truth");
    for (int b = 0; b < BLOCKS; b++) finish(0, 0, b);
    bq_state *s = load();
    save(s, 1);
    bq_state_close(s);
    bq_ckpt_path(path, sizeof path, run_dir, 0, 0, 0);
    unlink(path);
    bq_ckpt_path(path, sizeof path, run_dir, 0, 0, 1);
    char *data = file_load(path, &n);
    file_save(path, data, n - 1); /* torn */
    finish_as(0, 0, 2, print + 1, NULL);
    bq_ckpt_path(path, sizeof path, run_dir, 0, 0, 3);
    data[n / 2] ^= 1;
    file_save(path, data, n);                          /* damaged inside: only reading it all finds that */
    finish_as(1, 0, 0, print, &(bq_ckpt){.block = 4}); /* copied to another name */
    s = load();
    assert_int_equal(bq_state_foreign(s), 1);
    assert_int_equal(bq_state_count(s), 3); /* a quick look is not enough for the last two */
    assert_false(done(s, 0, 0, 0, NULL));
    assert_false(done(s, 0, 0, 1, "block 1 will be done again"));
    assert_false(done(s, 0, 0, 1, NULL)); /* said once */
    assert_false(done(s, 0, 0, 2, "its fingerprint is 0123456789abcdf0"));
    assert_false(done(s, 0, 0, 3, "seal"));
    assert_false(done(s, 1, 0, 0, "it is of block 4, phase 0, sweep 0"));
    assert_true(done(s, 0, 0, 4, NULL));
    assert_int_equal(bq_state_count(s), 1);
    finish(0, 0, 1);
    bq_state_mark(s, 0, 0, 1);
    assert_true(done(s, 0, 0, 1, NULL));
    bq_state_close(s);
    free(data);
}

/* Cut anywhere or damaged, state.json loses what only it knew, and nothing else. */
static void torn_json(void **state) {
    (void)state;
    size_t n;
    char changed[64], err[256];
    start("torn");
    finish(0, 0, 0);
    bq_state *s = load();
    save(s, 7);
    bq_state_close(s);
    char *data = file_load(json, &n);
    int fd = captured_fd(0);
    for (size_t cut = 0; cut + 2 < n; cut += 3) {
        file_save(json, data, cut);
        assert_int_equal(bq_state_compare(run_dir, names, hashes, 3, changed, sizeof changed), -1);
        s = load();
        assert_true(seconds(s) == 0 && bq_state_done(s, 0, 0, 0));
        bq_state_close(s);
    }
    static const char *const wrong[] = {"[]",
                                        "{}",
                                        "{\"version\":2,\"parts\":{}}",
                                        "{\"version\":1,\"parts\":[]}",
                                        "{\"version\":1,\"fingerprint\":3,\"seconds\":\"x\"}",
                                        "\xff"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_json(wrong[i]);
        assert_int_equal(bq_state_compare(run_dir, names, hashes, 3, changed, sizeof changed), -1);
        s = load();
        assert_true(seconds(s) == 0 && bq_state_done(s, 0, 0, 0));
        save(s, 7);
        assert_int_equal(bq_state_compare(run_dir, names, hashes, 3, changed, sizeof changed), 0);
        bq_state_close(s);
    }
    captured_text(fd, err, sizeof err);
    assert_string_equal(err, "");
    free(data);
}

/* A bit that has changed never looks like another recipe: at worst the file counts for nothing. */
static void flipped_json(void **state) {
    (void)state;
    size_t n;
    char changed[64];
    start("flipped");
    bq_state *s = load();
    save(s, 7);
    bq_state_close(s);
    char *data = file_load(json, &n);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        data[bit / 8] ^= (char)(1 << bit % 8);
        file_save(json, data, n);
        assert_true(bq_state_compare(run_dir, names, hashes, 3, changed, sizeof changed) <= 0);
        data[bit / 8] ^= (char)(1 << bit % 8);
    }
    free(data);
}

static void compare(void **state) {
    (void)state;
    char changed[64], small[8];
    static const char *const more[] = {"model", "numerics", "recipe.phases"};
    static const uint64_t other[] = {2, 5, 3};
    start("compare");
    bq_state *s = load();
    save(s, 1);
    bq_state_close(s);
    assert_int_equal(bq_state_compare(run_dir, names, hashes, 3, changed, sizeof changed), 0);
    assert_string_equal(changed, "");
    assert_int_equal(bq_state_compare(run_dir, names, other, 3, changed, sizeof changed), 2);
    assert_string_equal(changed, "model, tokens");
    assert_int_equal(bq_state_compare(run_dir, more, other, 3, changed, sizeof changed), 3);
    assert_string_equal(changed, "model, numerics, tokens");
    assert_int_equal(bq_state_compare(run_dir, more, other, 3, small, sizeof small), 3);
    assert_string_equal(small, "model, ");
    assert_true(bq_state_differs(run_dir, "model", 2));
    assert_false(bq_state_differs(run_dir, "model", 1) || bq_state_differs(run_dir, "none", 1));
    static const char evil[] = "{\"version\":1,\"parts\":{\"a\\u001b[2J\":\"x\"}}";
    write_json(evil);
    assert_int_equal(bq_state_compare(run_dir, NULL, NULL, 0, changed, sizeof changed), 1);
    assert_string_equal(changed, "a?[2J");
}

static void failures(void **state) {
    (void)state;
    char err[1024];
    start("failures");
    bq_state *s = load();
    save(s, 3);
    bq_state_close(s);
    assert_int_equal(child_run("save", run_dir, "BQ_FAULT=file_write", err, sizeof err), BQ_DIED);
    assert_one_line(err, "state.json' failed: No space left on device");
    s = load();
    assert_true(seconds(s) == 3);
    bq_state_close(s);
    assert_int_equal(child_run("range", run_dir, NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "sweep 0, phase 0, block 5 of a run of 2, 3, 5");
}

/* The file says the run's shape; a look at a triple reads only its file's end. */
static void summary(void **state) {
    (void)state;
    static const char *const bad[] = {
        "{}",
        "{\"version\": 1, \"fingerprint\": \"0123\", \"shape\": [1, 1, 1], "
        "\"seconds\": 1.0, \"grid\": \"1x1\"}",
        "{\"version\": 1, \"fingerprint\": \"0123456789abcdef\", \"shape\": [60000, "
        "60000, 60000], \"seconds\": 1.0, \"grid\": \"1x1\"}",
        "{\"version\": 1, \"fingerprint\": \"0123456789abcdef\", \"shape\": [1, 1, 0], "
        "\"seconds\": 1.0, \"grid\": \"1x1\"}"};
    bq_state_summary sum;
    start("summary");
    assert_false(bq_state_read(run_dir, &sum));
    bq_state *s = load();
    save(s, 3.5);
    finish(1, 2, 4);
    assert_true(bq_state_seems_done(s, 1, 2, 4));
    assert_false(bq_state_seems_done(s, 1, 2, 3));
    bq_state_close(s);
    assert_true(bq_state_read(run_dir, &sum));
    assert_true(sum.fingerprint == print && sum.sweeps == SWEEPS && sum.phases == PHASES &&
                sum.blocks == BLOCKS);
    assert_true(sum.stages == 2 && sum.replicas == 4 && sum.seconds == 3.5);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_json(bad[i]);
        assert_false(bq_state_read(run_dir, &sum));
    }
}

static int child(const char *what, const char *path) {
    bq_state *s = bq_state_load(path, print, SWEEPS, PHASES, BLOCKS);
    if (strcmp(what, "range") == 0) bq_state_mark(s, 0, 0, BLOCKS);
    save(s, 99);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3) return child(argv[1], argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh),     cmocka_unit_test(marks_and_files), cmocka_unit_test(content),
        cmocka_unit_test(torn_json), cmocka_unit_test(compare),         cmocka_unit_test(files_are_the_truth),
        cmocka_unit_test(failures),  cmocka_unit_test(summary),         cmocka_unit_test(flipped_json),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
