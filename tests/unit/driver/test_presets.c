/* SPDX-License-Identifier: Apache-2.0 */
/* Schemes by name: what a name stands for, and what is given beside it. */
#include "captured.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "driver/recipe/presets.h"
#include "driver/recipe/recipe.h"

#include <stdlib.h>
#include <string.h>

static bq_recipe r, other;

static int parse(bq_recipe *to, const char *bits, int nset, char *const *set) {
    char text[512];
    int n = snprintf(text, sizeof text,
                     "{\"model\": \"m\", \"phases\": [{\"passes\": [{\"pass\": \"rtn\"}]}], \"bits\": {%s}}",
                     bits);
    return bq_recipe_parse(text, (size_t)n, "test", "/", nset, set, to);
}

static char *written(const bq_recipe *of) {
    char *text;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);
    bq_recipe_write(of, to);
    fclose(to);
    return text;
}

/* Every row is a recipe, by its name and by the others; what is written reads back without the name. */
static void rows(void **state) {
    (void)state;
    const bq_preset *p;
    for (int i = 0; (p = bq_preset_at(i)); i++) {
        char bits[96], also[128], *more = NULL;
        snprintf(bits, sizeof bits, "\"preset\": \"%s\"", p->name);
        assert_int_equal(parse(&r, bits, 0, NULL), 0);
        char *first = written(&r);
        assert_null(strstr(first, "preset"));
        assert_int_equal(bq_recipe_parse(first, strlen(first), "again", "/", 0, NULL, &other), 0);
        char *second = written(&other);
        assert_string_equal(first, second);
        free(second);
        snprintf(also, sizeof also, "%s", p->also);
        for (char *name = strtok_r(also, ", ", &more); name; name = strtok_r(NULL, ", ", &more)) {
            snprintf(bits, sizeof bits, "\"preset\": \"%s\"", name);
            assert_int_equal(parse(&other, bits, 0, NULL), 0);
            second = written(&other);
            assert_string_equal(first, second);
            free(second);
        }
        free(first);
    }
}

static void values(void **state) {
    (void)state;
    assert_int_equal(parse(&r, "\"preset\": \"W4A16\"", 0, NULL), 0);
    assert_true(r.bits.decoder.element == 4 && r.bits.decoder.group == 128 && r.bits.decoder.symmetric &&
                r.bits.decoder.grid == BQ_GRID_ABSMAX && r.bits.linear[0].group == 128);
    assert_int_equal(parse(&r, "\"preset\": \"w4g64\"", 0, NULL), 0);
    assert_true(bq_scheme_offset(r.bits.decoder) && r.bits.decoder.scale == BQ_BF16);
    assert_int_equal(parse(&r, "\"preset\": \"fp8\"", 0, NULL), 0);
    assert_true(r.bits.decoder.element == BQ_E4M3 && r.bits.decoder.grid == BQ_GRID_TORCHAO);
}

static void what_is_given_stays(void **state) {
    (void)state;
    char *set[] = {"bits.decoder.symmetric=false"}, *named[] = {"bits.preset=W8A16"};
    assert_int_equal(parse(&r, "\"preset\": \"W4A16\", \"decoder\": {\"group\": 64}", 1, set), 0);
    assert_true(r.bits.decoder.element == 4 && r.bits.decoder.group == 64 && !r.bits.decoder.symmetric);
    assert_int_equal(parse(&r, "\"linears\": {\"v_proj\": {\"bits\": 4}}", 1, named), 0);
    assert_true(r.bits.decoder.element == 8 && r.bits.linear[2].element == 4);
}

static void unknown(void **state) {
    (void)state;
    captured out;
    const char *const bad[] = {"\"W5A16\"", "4", "\"INT\"", "\"\""};
    for (int i = 0; i < 4; i++) {
        char bits[96];
        snprintf(bits, sizeof bits, "\"preset\": %s", bad[i]);
        capture_begin(&out, stderr);
        int code = parse(&r, bits, 0, NULL);
        const char *said = capture_end(&out);
        assert_int_equal(code, 2);
        assert_non_null(strstr(said, "blockq help schemes"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows), cmocka_unit_test(values),
                                       cmocka_unit_test(what_is_given_stays), cmocka_unit_test(unknown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
