/* SPDX-License-Identifier: Apache-2.0 */
/* Quark's files: theirs are read as they are, and everything else is refused by name. */
#include "refuse.h"

#include "base/log.h"
#include "io/quark.h"

#define ENTRY            "{\"prev_op\": \"a\", \"layers\": [\"b\"], \"inp\": \"b\"}"
#define FILE_OF(entries) "{\"scaling_layers\": [" entries "]}"

static int parse(const char *text, bq_quark *out) {
    return bq_quark_parse("q.json", text, strlen(text), out);
}

static void reads_theirs(void **state) {
    (void)state;
    bq_quark q;
    assert_int_equal(bq_quark_read(BQ_VECTORS "/../../configs/quark/llama.json", &q), BQ_OK);
    assert_string_equal(q.loss, "MAE");
    assert_int_equal(q.entries, 4);
    assert_string_equal(q.entry[0].prev_op, "input_layernorm");
    assert_int_equal(q.entry[0].layers, 3);
    assert_string_equal(q.entry[0].layer[2], "self_attn.v_proj");
    assert_string_equal(q.entry[2].inp, "mlp.gate_proj");
    assert_string_equal(q.entry[2].module, "mlp");
    assert_true(q.entry[0].inspects && !q.entry[1].inspects && q.entry[2].inspects && !q.entry[3].inspects);
    assert_int_equal(bq_quark_read(BQ_VECTORS "/../../configs/quark/phi3.json", &q), BQ_OK);
    assert_string_equal(q.entry[3].prev_op, "mlp.gate_up_proj");
}

static void defaults(void **state) {
    (void)state;
    bq_quark q;
    assert_int_equal(parse(FILE_OF(ENTRY), &q), BQ_OK);
    assert_string_equal(q.loss, "MSE");
    assert_int_equal(
        parse("{\"compute_scale_loss\": null, \"name\": null, \"scaling_layers\": [{\"prev_op\": \"a\","
              "\"layers\": [\"b\"], \"inp\": \"b\", \"module2inspect\": \"\"}]}",
              &q),
        BQ_OK);
    assert_true(q.entry[0].inspects && q.entry[0].module[0] == 0);
    assert_int_equal(parse("{\"more\": 1, \"scaling_layers\": [" ENTRY "]}", &q), BQ_OK); /* with a warning */
}

static void hostile(void **state) {
    (void)state;
    bq_quark q;
    char long_name[400], deep[400] = "{\"scaling_layers\":";
    assert_refused(parse("", &q), "q.json");
    assert_refused(parse("[]", &q), "not a JSON object");
    assert_refused(parse("{}", &q), "scaling_layers: is missing");
    assert_refused(parse("{\"name\": \"awq\"}", &q), "name: is not \"autosmoothquant\"");
    assert_refused(parse("{\"name\": 3}", &q), "name: ");
    assert_refused(parse("{\"model_decoder_layers\": \"transformer.h\"}", &q), "is not \"model.layers\"");
    assert_refused(parse("{\"compute_scale_loss\": \"L1\"}", &q), "compute_scale_loss: is not");
    assert_refused(parse("{\"scaling_layers\": 3}", &q), "is not a list of 1 to 16");
    assert_refused(parse(FILE_OF(""), &q), "is not a list of 1 to 16");
    assert_refused(parse(FILE_OF("3"), &q), "element 0 is not an object");
    assert_refused(parse(FILE_OF(ENTRY ", {}"), &q), "scaling_layers.1.prev_op: is missing");
    assert_refused(parse(FILE_OF("{\"prev_op\": \"a\", \"inp\": \"b\"}"), &q),
                   "scaling_layers.0.layers: is missing");
    assert_refused(parse(FILE_OF("{\"prev_op\": \"a\", \"layers\": \"b\", \"inp\": \"b\"}"), &q),
                   "is not a list of 1 to 8");
    assert_refused(parse(FILE_OF("{\"prev_op\": \"a\", \"layers\": [], \"inp\": \"b\"}"), &q),
                   "is not a list of 1 to 8");
    assert_refused(parse(FILE_OF("{\"prev_op\": \"a\", \"layers\": [\"b\", 4], \"inp\": \"b\"}"), &q),
                   "element 1 is no");
    assert_refused(parse(FILE_OF("{\"prev_op\": \"\", \"layers\": [\"b\"], \"inp\": \"b\"}"), &q),
                   "prev_op: is no module");
    assert_refused(parse(FILE_OF("{\"prev_op\": \"a\\u001b[2J\", \"layers\": [\"b\"], \"inp\": \"b\"}"), &q),
                   "is no module");
    assert_refused(parse(FILE_OF("{\"prev_op\": \"../a\", \"layers\": [\"b\"], \"inp\": \"b\"}"), &q),
                   "is no module");
    assert_refused(parse("{\"scaling_layers\": [" ENTRY "], \"scaling_layers\": []}", &q), "duplicate");
    assert_refused(
        parse(FILE_OF(ENTRY "," ENTRY "," ENTRY "," ENTRY "," ENTRY "," ENTRY "," ENTRY "," ENTRY "," ENTRY
                            "," ENTRY "," ENTRY "," ENTRY "," ENTRY "," ENTRY "," ENTRY "," ENTRY "," ENTRY),
              &q),
        "is not a list of 1 to 16");
    snprintf(long_name, sizeof long_name,
             "{\"scaling_layers\": [{\"prev_op\": \"%0200d\", \"layers\": [\"b\"], \"inp\": \"b\"}]}", 7);
    assert_refused(parse(long_name, &q), "is no module");
    for (int i = 0; i < 200; i++) strcat(deep, "[");
    assert_refused(parse(deep, &q), "nested deeper");
    assert_refused(bq_quark_read(temp_path("absent.json"), &q), "cannot read");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(reads_theirs), cmocka_unit_test(defaults),
                                       cmocka_unit_test(hostile)};
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
