/* SPDX-License-Identifier: Apache-2.0 */
/* Model cards: what they say of each format, and that no name becomes markup. */
#include "driver/run/card.h"

#include "base/die.h"
#include "io/out/publish.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RECIPE                                                                                               \
    "{\"model\": \"m\", \"calibration\": {\"tokens\": \"t.h5\", \"samples\": 8}, \"bits\": {\"decoder\": "   \
    "{\"group\": 64, \"scale\": \"f16\"}, \"linears\": {\"v_proj\": {\"bits\": 8, \"symmetric\": false}}}, " \
    "\"phases\": [{\"passes\": [{\"pass\": \"gptq\"}]}], \"outputs\": [{\"format\": \"safetensors\"}, "      \
    "{\"format\": \"compressed-tensors\"}, {\"format\": \"gptq\"}, {\"format\": \"awq\"}, "                  \
    "{\"format\": \"gguf\"}]}"

static bq_recipe r;

static json_t *summary_of(const char *base, const char *license) {
    json_t *to = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:{s:s, s:i, s:i, s:i, s:s}, s:[{s:s, s:i, "
        "s:i, s:i, s:s, s:f, s:f, s:f}, {s:s, s:s, s:f, s:i, s:n, s:n}]}",
        "version", "1.2", "fingerprint", "0123456789abcdef", "numerics", "cpu a_b", "base_model", base,
        "license", license, "format", "f", "base_model_hash", "xxh3:ff", "parameters", 1234567,
        "parameters_quantized", 1000, "bits_per_weight", 4.25, "bits_per_weight_files", 6.5, "calibration",
        "tokens", "t.h5", "samples", 8, "length", 2048, "offset", 0, "text", "abc", "evaluations", "eval",
        "perplexity", "ctx", 512, "windows", 12, "offset", 7, "text", "xxh3:aa", "fp", 10.5, "rtn", 14.0,
        "gptq", 12.25, "eval", "choice", "questions", "q|1.json", "fp", 0.5, "fp_items", 5, "rtn", "gptq");
    assert_non_null(to);
    return to;
}

static char *card(int output, const char *base, const char *license) {
    json_t *summary = summary_of(base, license);
    char *text = bq_card(&r, &r.output[output], summary);
    json_decref(summary);
    return text;
}

static void says(const char *card, const char *words) {
    if (!strstr(card, words)) fail_msg("no '%s' in:\n%s", words, card);
}

static void formats(void **state) {
    (void)state;
    static const char *const loads[] = {
        "- vLLM: `vllm serve MODEL`\n- transformers: `AutoModelForCausalLM.from_pretrained(\"MODEL\")`\n\n",
        "- vLLM: `vllm serve MODEL`\n- transformers with the package compressed-tensors: `Auto",
        "- vLLM: `vllm serve MODEL`\n- transformers with GPTQModel: `Auto",
        "- vLLM: `vllm serve MODEL`\n- transformers with GPTQModel or AutoAWQ: `Auto",
        "FILE is the file of weights, the first one where it is in parts.\n\n"
        "- llama.cpp: `llama-cli -m FILE`, or `llama-server -m FILE`\n\n"};
    for (int i = 0; i < r.noutput; i++) {
        char *text = card(i, "m", "mit"), tag[256];
        snprintf(tag, sizeof tag, "tags:\n- quantized\n- 4-bit\n- %s\n---\n\n" BQ_CARD_MARK "\n",
                 bq_format_choice(r.output[i].format).name);
        says(text, loads[i]);
        says(text, tag);
        says(text, i == 4 ? "library_name: gguf\n" : "library_name: transformers\n");
        assert_true(!strstr(text, "FILE") == (i < 4) && !strstr(text, "MODEL") == (i == 4));
        free(text);
    }
}

/* Every row of the table has its own. */
static void all_load(void **state) {
    (void)state;
    for (int i = 0; bq_format_at(i); i++)
        assert_true(bq_format_loads(i) && strncmp(bq_format_loads(i), "- ", 2) == 0);
}

static void facts(void **state) {
    (void)state;
    char *text = card(2, "m", "mit");
    assert_int_equal(
        strncmp(text, "---\nbase_model: \"m\"\nbase_model_relation: quantized\nlicense: \"mit\"\n", 66), 0);
    says(text, "# m, 4 bits, gptq\n\nMade by blockq 1.2 from m.\n");
    says(text, "| parameters | 1,234,567, of which 1,000 are quantized |\n| bits per weight | 4.25 of what");
    says(text, "; 6.5 of all, by the size of the files |\n");
    says(text,
         "- linears of the decoder blocks: int4, a scale (F16) for each 64 columns of a row, symmetric\n"
         "- v_proj: int8, a scale (F16) for each 64 columns of a row, with zero points\n- passes: gptq\n");
    says(text,
         "\nCalibration: 8 samples of 2048 tokens, from token 0 on, of t.h5\n- hash of the text: abc\n");
    says(text,
         "| evaluation | original | round to nearest | this model (gptq) |\n|---|---|---|---|\n"
         "| perplexity, 12 windows of 512 tokens, offset 7, text xxh3\\:aa | 10.5000 | 14.0000 | 12.2500 |\n"
         "| choice, questions q\\|1.json | 0.5000 | not finite | not finite |\n");
    says(text,
         "- fingerprint: 0123456789abcdef\n- numerics: cpu a\\_b\n- hash of the original's weights: xxh3:ff");
    says(text, "Then `run/gptq` becomes this folder");
    free(text);
    text = card(2, "m", "");
    assert_null(strstr(text, "license"));
    free(text);
    text = card(2, "m", "other");
    says(text, "license: \"other\"\nlicense_name: license\nlicense_link: LICENSE\n");
    free(text);
}

/* A name may hold anything: it stays one string of YAML, one line, and plain text. */
static void hostile(void **state) {
    (void)state;
    char *text = card(0, "a\"\n---\n<script>[x](y) `z` | *w*\x7f\t\\", "mit");
    says(text, "\nbase_model: \"a\\\"\\n---\\n<script>[x](y) `z` | *w*?\\t\\\\\"\nbase_model_relation:");
    says(text, "\n# a\\\"?---?\\<script\\>\\[x\\]\\(y\\) \\`z\\` \\| \\*w\\*??\\\\, 4 bits, safetensors\n");
    assert_null(strstr(text, "\n<script"));
    int fences = 0;
    for (const char *at = text; (at = strstr(at, "\n---\n")); at++) fences++;
    assert_int_equal(fences, 1);
    free(text);
}

static int setup(void **state) {
    (void)state;
    return bq_recipe_parse(RECIPE, strlen(RECIPE), "x.json", "/home/me", 0, NULL, &r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(formats), cmocka_unit_test(all_load),
                                       cmocka_unit_test(facts), cmocka_unit_test(hostile)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
