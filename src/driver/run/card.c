/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/card.h"

#include "base/die.h"
#include "driver/recipe/keys.h"
#include "driver/recipe/traits.h"
#include "io/out/publish.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- texts from files ---- */

/* In Markdown a backslash takes the meaning from any punctuation; control characters become '?'. */
static void put_text(FILE *to, const char *text) {
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c < 128 && ispunct(*c) && !strchr("-+./,", *c)) fputc('\\', to);
        fputc(iscntrl(*c) ? '?' : *c, to);
    }
}

/* As a string of YAML in quotes, which JSON's is, too, but for the character DEL. */
static void put_yaml(FILE *to, const char *key, const char *text) {
    json_t *value = json_string(text);
    char *quoted = json_dumps(value, JSON_ENCODE_ANY), *del;
    BQ_CHECK(quoted, "no memory for a model card");
    while ((del = strchr(quoted, 127))) *del = '?';
    fprintf(to, "%s: %s\n", key, quoted);
    free(quoted);
    json_decref(value);
}

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static int64_t integer_of(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}

/* A whole number with commas: 134,515,008. */
static void put_count(FILE *to, int64_t n) {
    if (n >= 1000) put_count(to, n / 1000);
    fprintf(to, n >= 1000 ? ",%03" PRId64 : "%" PRId64, n % 1000);
}

/* ---- its parts ---- */

static void put_front(FILE *to, const bq_recipe *r, const bq_output *output, const json_t *summary) {
    const char *license = text_of(summary, "license"), *format = bq_format_choice(output->format).name;
    fputs("---\n", to);
    put_yaml(to, "base_model", text_of(summary, "base_model"));
    fputs("base_model_relation: quantized\n", to);
    if (*license) put_yaml(to, "license", license);
    if (strcmp(license, "other") == 0) fputs("license_name: license\nlicense_link: LICENSE\n", to);
    fprintf(to,
            "library_name: %s\npipeline_tag: text-generation\nquantized_by: blockq\ntags:\n- quantized\n"
            "- %d-bit\n- %s\n---\n\n" BQ_CARD_MARK "\n\n",
            bq_format_library(output->format), bq_code_bits(r->bits.decoder), format);
}

static void put_head(FILE *to, const bq_recipe *r, const bq_output *output, const json_t *summary) {
    fputs("# ", to);
    put_text(to, text_of(summary, "base_model"));
    fprintf(to, ", %d bits, %s\n\n", bq_code_bits(r->bits.decoder), bq_format_choice(output->format).name);
    fprintf(to, "Made by blockq %s from ", text_of(summary, "version"));
    put_text(to, text_of(summary, "base_model"));
    fputs(".\n\n| | |\n|---|---|\n| parameters | ", to);
    put_count(to, integer_of(summary, "parameters"));
    fputs(", of which ", to);
    put_count(to, integer_of(summary, "parameters_quantized"));
    fprintf(
        to,
        " are quantized |\n| bits per weight | %.4g of what is quantized, with scales; %.4g of all, by the "
        "size of the files |\n",
        json_real_value(json_object_get(summary, "bits_per_weight")),
        json_real_value(json_object_get(summary, "bits_per_weight_files")));
}

static void put_scheme(FILE *to, bq_scheme s) {
    fprintf(to, "%s, a scale (%s) for each ", bq_element_name(s.element), bq_type_name(s.scale));
    if (s.rows < 0)
        fputs("matrix", to);
    else if (bq_scheme_tiled(s))
        fprintf(to, "tile of %" PRId64 " rows and %" PRId64 " columns", s.rows, s.group);
    else if (s.group > 0)
        fprintf(to, "%" PRId64 " columns of a row", s.group);
    else
        fputs("row", to);
    fputs(s.symmetric           ? ", symmetric\n"
          : bq_scheme_offset(s) ? ", with zero points that are floats\n"
                                : ", with zero points\n",
          to);
}

static void put_calibration(FILE *to, const json_t *summary) {
    const json_t *of = json_object_get(summary, "calibration");
    if (!of) return;
    fprintf(to, "\nCalibration: %" PRId64 " samples of %" PRId64 " tokens, from token %" PRId64 " on, of ",
            integer_of(of, "samples"), integer_of(of, "length"), integer_of(of, "offset"));
    put_text(to, text_of(of, "tokens"));
    static const char *const hashes[] = {"text", "tokenizer"};
    for (int i = 0; i < 2; i++)
        if (*text_of(of, hashes[i]))
            fprintf(to, "\n- hash of the %s: ", hashes[i]), put_text(to, text_of(of, hashes[i]));
    fputc('\n', to);
}

/* Of inputs of linears, keys and values. */
static void put_rounding(FILE *to, const bq_recipe *r) {
    const bq_rounding in = bq_recipe_inputs(r);
    const bool measured = bq_recipe_inputs_measured(r);
    if (in.element)
        fprintf(to, "- inputs of these linears: %s%s, a scale for each %s%s\n", bq_rounding_name(in),
                in.even ? "" : " with zero points",
                in.whole       ? "linear"
                : in.group > 0 ? "token and group of columns"
                               : "token",
                !measured  ? ""
                : in.whole ? ", measured on the calibration samples"
                           : ", its factor measured on the calibration samples");
    if (r->bits.kv.element == 16) return;
    fprintf(to, "- cached keys and values: %s, a scale for each %s\n", bq_element_name(r->bits.kv.element),
            !bq_recipe_cache_measured(r)    ? "token and head"
            : r->bits.kv.per == BQ_PER_HEAD ? "head of each block"
                                            : "of them and each block");
}

static void put_recipe(FILE *to, const bq_recipe *r, const json_t *summary) {
    char title[96];
    fputs("\n## How it was made\n\n`recipe.json` says all of it.\n\n- linears of the decoder blocks: ", to);
    put_scheme(to, r->bits.decoder);
    for (int i = 0; i < BQ_LINEARS; i++) {
        if (bq_scheme_equal(r->bits.linear[i], r->bits.decoder)) continue;
        fprintf(to, "- %s: ", bq_linear_name(i));
        put_scheme(to, r->bits.linear[i]);
    }
    static const char *const name[] = {"embedding", "lm_head"};
    const bq_scheme vocabulary[] = {r->bits.embedding, r->bits.lm_head};
    for (int i = 0; i < 2; i++)
        if (bq_code_bits(vocabulary[i])) fprintf(to, "- %s: ", name[i]), put_scheme(to, vocabulary[i]);
    put_rounding(to, r);
    if (r->ntransform) fputs("- before that: rotated\n", to);
    for (int i = 0; i < r->nphase; i++) {
        bq_phase_title(&r->phase[i], title, sizeof title);
        fprintf(to, "- passes%s: %s\n", i ? ", then" : "", title);
    }
    if (r->sweeps > 1) fprintf(to, "- sweeps: at most %d\n", r->sweeps);
    put_calibration(to, summary);
}

/* Is the key one of the numbers of an evaluation, and not of its protocol? */
static bool is_number(const char *key, const char *const *name) {
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(name[i]);
        if (strncmp(key, name[i], n) == 0 && (key[n] == 0 || key[n] == '_')) return true;
    }
    return false;
}

/* "perplexity, 12 windows of 512 tokens, offset 0, text ..." */
static void put_protocol(FILE *to, const json_t *of, const char *const *name) {
    const char *key;
    json_t *value;
    bool windows = json_object_get(of, "windows") && json_object_get(of, "ctx");
    put_text(to, text_of(of, "eval"));
    if (windows)
        fprintf(to, ", %" PRId64 " windows of %" PRId64 " tokens", integer_of(of, "windows"),
                integer_of(of, "ctx"));
    json_object_foreach((json_t *)(uintptr_t)of, key, value) {
        bool told = windows && (strcmp(key, "windows") == 0 || strcmp(key, "ctx") == 0);
        if (told || strcmp(key, "eval") == 0 || is_number(key, name)) continue;
        char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY);
        fputs(", ", to), put_text(to, key), fputc(' ', to);
        put_text(to, text ? text : json_is_string(value) ? json_string_value(value) : "");
        free(text);
    }
}

static void put_evaluations(FILE *to, const bq_recipe *r, const json_t *summary) {
    const json_t *list = json_object_get(summary, "evaluations"), *of;
    char title[96];
    bq_recipe_title(r, title, sizeof title);
    const char *const name[3] = {"fp", "rtn", title};
    int names = strcmp(title, "rtn") ? 3 : 2;
    if (!json_array_size(list)) return;
    fputs("\n## Evaluation\n\n| evaluation | original | round to nearest |", to);
    if (names == 3) fprintf(to, " this model (%s) |", title);
    fprintf(to, "\n|---|---|---|%s", names == 3 ? "---|" : "");
    for (size_t i = 0; (of = json_array_get(list, i)); i++) {
        fputs("\n| ", to);
        put_protocol(to, of, name);
        for (int k = 0; k < names; k++) {
            const json_t *value = json_object_get(of, name[k]);
            if (json_is_number(value))
                fprintf(to, " | %.4f", json_number_value(value));
            else
                fputs(value ? " | not finite" : " | ", to);
        }
        fputs(" |", to);
    }
    fputc('\n', to);
}

static void put_foot(FILE *to, const bq_output *output, const json_t *summary) {
    const char *loads = bq_format_loads(output->format);
    fprintf(to, "\n## How to load it\n\n%s%s\n%s",
            strstr(loads, "MODEL") ? "MODEL is this folder, or its name on a hub.\n" : "",
            strstr(loads, "FILE") ? "FILE is the file of weights, the first one where it is in parts.\n" : "",
            loads);
    fprintf(
        to,
        "\n## How to make it again\n\nPut the original, and the tokens if there are some, beside "
        "`recipe.json` under the\nnames that it has. Then `run/%s` becomes this folder:\n\n```sh\n"
        "blockq run recipe.json -o run\n```\n\n"
        "The same inputs give the same bytes, on any number of processes, if the numerics are the same, too:"
        "\n\n- fingerprint: %s\n- numerics: ",
        bq_format_choice(output->format).name, text_of(summary, "fingerprint"));
    put_text(to, *text_of(summary, "numerics") ? text_of(summary, "numerics") : "not known");
    fprintf(to, "\n- hash of the original's weights: %s\n\n`sha256sum -c SHA256SUMS` checks the files.\n",
            text_of(summary, "base_model_hash"));
}

char *bq_card(const bq_recipe *r, const bq_output *output, const json_t *summary) {
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);
    BQ_CHECK(to, "no memory for a model card");
    put_front(to, r, output, summary);
    put_head(to, r, output, summary);
    put_recipe(to, r, summary);
    put_evaluations(to, r, summary);
    put_foot(to, output, summary);
    fclose(to);
    return text;
}
