/* SPDX-License-Identifier: Apache-2.0 */
/* What a refused resume says of two recipes. */
#include "base/die.h"
#include "driver/recipe/recipe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define SMALL                                                                                                \
    "{\"model\": \"m\", \"calibration\": {\"tokens\": \"t.h5\"},"                                            \
    " \"phases\": [{\"passes\": [{\"pass\": \"adascale\"}]}]}"

static char path[64], text[512];
static bq_recipe here, there;

static void parse(bq_recipe *to, int nset, char **set) {
    assert_int_equal(bq_recipe_parse(SMALL, strlen(SMALL), "x.json", "/home/me", nset, set, to), BQ_OK);
}

/* Keep a recipe as a run's, with something behind it. */
static void keep(const char *set, const char *more) {
    char *one = (char *)(uintptr_t)set;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    parse(&there, set != NULL, &one);
    bq_recipe_write(&there, f);
    assert_true(fputs(more, f) >= 0 && fclose(f) == 0);
}

static void differ(void **state) {
    (void)state;
    static const struct {
        const char *set, *run, *said;
    } one[] = {
        {NULL, NULL, ""},
        {"calibration.samples=64", NULL, "calibration.samples (64 here, 128 in the run)"},
        {NULL, "seed=7", "seed (0 here, 7 in the run)"},
        {"phases.0.mix=0.1", NULL, "phases.0.mix (0.1 here, 0.5 in the run)"},
        {"phases.0.passes.0.iterations=64", "phases.0.passes.0.iterations=32",
         "phases.0.passes.0.iterations (64 here, 32 in the run)"},
        {"phases.0.passes.0={\"pass\": \"rtn\"}", NULL,
         "phases.0.passes.0.pass (\"rtn\" here, \"adascale\" in the run)"},
        {"transforms=[{\"transform\": \"rotate\"}]", NULL, "transforms (1 of them here, 0 in the run)"},
        {"bits.linears.q_proj.bits=8", "bits.linears.q_proj.bits=6",
         "bits.linears.q_proj.bits (8 here, 6 in the run)"},
        {NULL, "bits.linears.q_proj.bits=6", "bits.linears.q_proj (nothing here, {\"bits\":6,"},
        /* these change no byte */
        {"model=/other", "outputs=[{\"format\": \"safetensors\"}]", ""},
        {"eval.ctx=9", "phases.0.name=again", ""},
        {"bits.activations=8", NULL, ""},
    };
    for (size_t i = 0; i < sizeof one / sizeof *one; i++) {
        char *set = (char *)(uintptr_t)one[i].set;
        keep(one[i].run, "");
        parse(&here, set != NULL, &set);
        assert_int_equal(bq_recipe_differences(path, &here, text, sizeof text), *one[i].said != 0);
        if (strncmp(text, one[i].said, strlen(one[i].said))) fail_msg("'%s', not '%s'", text, one[i].said);
        if (!*one[i].said) assert_string_equal(text, "");
    }
}

static void many(void **state) {
    (void)state;
    char *set[] = {"seed=1", "segments=2", "sweeps=2", "calibration.length=8", "calibration.offset=3"};
    keep(NULL, "");
    parse(&here, 5, set);
    assert_int_equal(bq_recipe_differences(path, &here, text, sizeof text), 5);
    assert_non_null(strstr(text, "calibration.length (8 here, 2048 in the run)"));
    assert_non_null(strstr(text, " in the run), and 2 more keys"));
    char small[24];
    assert_int_equal(bq_recipe_differences(path, &here, small, sizeof small), 5);
    assert_true(strlen(small) < sizeof small);
}

/* A file that is no recipe differs in nothing that could be said; what it has is not let onto the terminal.
 */
static void damaged(void **state) {
    (void)state;
    parse(&here, 0, NULL);
    keep(NULL, "x");
    assert_int_equal(bq_recipe_differences(path, &here, text, sizeof text), 0);
    FILE *f = fopen(path, "w");
    assert_true(fputs("{\"phases\": [3, {}], \"seed\": \"\\u001b[2J\", \"calibration\": []}", f) >= 0);
    fclose(f);
    assert_true(bq_recipe_differences(path, &here, text, sizeof text) > 3);
    assert_null(strchr(text, '\033'));
    unlink(path);
    assert_int_equal(bq_recipe_differences(path, &here, text, sizeof text), 0);
    assert_string_equal(text, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(differ), cmocka_unit_test(many),
                                       cmocka_unit_test(damaged)};
    snprintf(path, sizeof path, "/tmp/bq_differ_%ld", (long)getpid());
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
