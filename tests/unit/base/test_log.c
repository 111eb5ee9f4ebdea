/* SPDX-License-Identifier: Apache-2.0 */
#include "child.h"

#include "base/die.h"
#include "base/log.h"

static const char *said; /* what a file gave us */

static int say_it(void) { return bq_refuse(BQ_DATA, "config.json: model_type '%s'", said); }

static void assert_said(const char *text, const char *want) {
    said = text;
    child_end end = in_child(say_it);
    assert_int_equal(end.code, BQ_DATA);
    if (strcmp(end.text, want)) fail_msg("'%s', not '%s'", end.text, want);
}

static void names_cannot_draw_or_forge_lines(void **state) {
    (void)state;
    assert_said("a\x1b[2Jb", "bq: error: config.json: model_type 'a?[2Jb'\n");
    assert_said("a\nbq: all is well", "bq: error: config.json: model_type 'a bq: all is well'\n");
    assert_said("\x01\x1f\x7f\r\t", "bq: error: config.json: model_type '\?\?\?\?\?'\n");
    assert_said("\xc2\x9b"
                "2J\xc2",
                "bq: error: config.json: model_type '\?\?2J\xc2'\n");
    assert_said("m\xc3\xb6\xe2\x82\xac \xc2\xb5 \xc5\x9b", "bq: error: config.json: model_type "
                                                           "'m\xc3\xb6\xe2\x82\xac \xc2\xb5 \xc5\x9b'\n");
}

static void dumps_keep_their_lines(void **state) {
    (void)state;
    char text[] = "{\n  \"a\": \x1b[31m\r\n}";
    bq_log_clean(text, 1);
    assert_string_equal(text, "{\n  \"a\": ?[31m?\n}");
}

/* The log file gets one line, too. */
static int say_to_a_file(void) {
    char path[] = "/tmp/bq_test_log_XXXXXX", line[256] = "";
    int fd = mkstemp(path);
    if (fd < 0 || bq_log_open(path)) return 90;
    close(fd);
    bq_log(BQ_INFO, "tensor '%s'", "a\n2026-01-01 00:00:00 forged\x1b");
    bq_log_close();
    FILE *f = fopen(path, "r");
    if (!f || !fgets(line, sizeof line, f)) return 91;
    int more = fgetc(f);
    fclose(f), unlink(path);
    return more == EOF && strstr(line, "tensor 'a 2026-01-01 00:00:00 forged?'\n") ? 0 : 92;
}

/* A rank that does not log there adds its errors alone. */
static int errors_to_a_file(void) {
    char path[] = "/tmp/bq_test_log_XXXXXX", line[256] = "";
    int fd = mkstemp(path);
    if (fd < 0) return 90;
    close(fd);
    bq_log_identity(3, 4);
    bq_log_errors_to(path);
    bq_log_all(BQ_INFO, "no error");
    bq_log_all(BQ_ERROR, "an error");
    bq_log_close();
    bq_log_all(BQ_ERROR, "after the close");
    FILE *f = fopen(path, "r");
    if (!f || !fgets(line, sizeof line, f)) return 91;
    int more = fgetc(f);
    fclose(f), unlink(path);
    return more == EOF && strstr(line, " r3 error: an error\n") ? 0 : 92;
}

static void other_ranks_add_errors(void **state) {
    (void)state;
    assert_int_equal(in_child(errors_to_a_file).code, 0);
}

static void the_log_file_has_one_line(void **state) {
    (void)state;
    assert_int_equal(in_child(say_to_a_file).code, 0);
}

/* The clock that bq_progress looks at (the linker's --wrap). */
static double now = 1000;
double __wrap_bq_seconds(void);
double __wrap_bq_seconds(void) { return now; }

/* Units first to last of 200, so many seconds each. */
static void units(int64_t first, int64_t last, double seconds) {
    for (int64_t i = first; i <= last; i++) {
        now += seconds;
        bq_progress(i, 200, "unit");
    }
}

/* The second loop starts where the first one did, at unit 1, after a long time; and lines are logged. */
static int two_loops(void) {
    units(1, 200, 1);
    bq_progress_end();
    now += 5000;
    units(1, 30, 1);
    bq_log(BQ_INFO, "a line");
    units(31, 92, 0.5);
    return 0;
}

static void a_loop_has_its_own_clock(void **state) {
    (void)state;
    child_end end = in_child(two_loops);
    assert_string_equal(end.text, "bq: 30.5%, ETA 02:19, unit\nbq: 60.5%, ETA 01:19, unit\n"
                                  "bq: 90.5%, ETA 00:19, unit\nbq: a line\nbq: 46.0%, ETA 01:11, unit\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_cannot_draw_or_forge_lines), cmocka_unit_test(dumps_keep_their_lines),
        cmocka_unit_test(the_log_file_has_one_line),        cmocka_unit_test(other_ranks_add_errors),
        cmocka_unit_test(a_loop_has_its_own_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
