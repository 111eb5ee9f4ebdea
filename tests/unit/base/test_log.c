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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_cannot_draw_or_forge_lines),
        cmocka_unit_test(dumps_keep_their_lines),
        cmocka_unit_test(the_log_file_has_one_line),
        cmocka_unit_test(other_ranks_add_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
