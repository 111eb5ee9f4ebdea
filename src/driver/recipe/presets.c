/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/recipe/presets.h"

#include "base/die.h"
#include "driver/recipe/keys.h"

#include <stdlib.h>
#include <string.h>

#define AO "decoder.grid=torchao "
#define FLOAT4                                                                                               \
    "decoder.bits=4 decoder.symmetric=false decoder.zero=float decoder.scale=bf16 decoder.eps=1e-6 "
#define UINT   AO "decoder.symmetric=false decoder.group=64 "
#define TOKEN8 "int8, a scale a token"
#define TOKENF "e4m3, a scale a token"
#define STATIC "e4m3, a scale for all inputs of a linear"
#define BLOCKS "as weights"
#define CT     "compressed-tensors"
#define PER_BLOCK(bits, group, scale)                                                                        \
    " activations.bits=" bits " activations.group=" group " activations.scale=" scale
#define RULE " activations.rule=torchao"
#define TORCHAO_MX(bits)                                                                                     \
    AO "decoder.bits=" bits                                                                                  \
       " decoder.group=32 decoder.scale=e8m0 decoder.mx_scale=rceil" PER_BLOCK(bits, "32", "e8m0") RULE      \
        " activations.mx_scale=rceil"
#define F16 "; with `scale` `f16` also "

static const bq_preset presets[] = {
    {"W4A16", "", "decoder.bits=4 decoder.group=128 decoder.grid=absmax", NULL, CT F16 "gptq, gguf"},
    {"W4A16_ASYM", "", "decoder.bits=4 decoder.group=128 decoder.symmetric=false", NULL,
     CT F16 "gptq (version 2), awq, gguf"},
    {"W8A16", "", "decoder.bits=8 decoder.grid=absmax", NULL, CT F16 "gptq, gguf"},
    {"W8A8", "INT8", "decoder.bits=8 decoder.grid=absmax activations.bits=8", TOKEN8, CT},
    {"W4A8", "", "decoder.bits=4 decoder.group=128 decoder.grid=absmax activations.bits=8", TOKEN8, CT},
    {"FP8", "",
     "decoder.bits=e4m3 decoder.rows=-1 activations.bits=e4m3 activations.per=tensor "
     "activations.dynamic=false",
     STATIC, CT ", modelopt"},
    {"FP8_DYNAMIC", "", "decoder.bits=e4m3 activations.bits=e4m3", TOKENF, CT ", modelopt"},
    {"FP8_BLOCK", "", "decoder.bits=e4m3 decoder.group=128 decoder.rows=128 activations.bits=e4m3",
     "e4m3, a scale for 128 columns of a token", CT},
    {"NVFP4", "",
     "decoder.bits=e2m1 decoder.group=16 decoder.scale=e4m3" PER_BLOCK("e2m1", "16",
                                                                       "e4m3") " activations.dynamic=false",
     BLOCKS ", their factor measured", CT ", modelopt"},
    {"MXFP4", "", "decoder.bits=e2m1 decoder.group=32 decoder.scale=e8m0" PER_BLOCK("e2m1", "32", "e8m0"),
     BLOCKS, CT},
    {"MXFP6", "", "decoder.bits=e2m3 decoder.group=32 decoder.scale=e8m0" PER_BLOCK("e2m3", "32", "e8m0"),
     BLOCKS, CT},
    {"MXFP8", "", "decoder.bits=e4m3 decoder.group=32 decoder.scale=e8m0" PER_BLOCK("e4m3", "32", "e8m0"),
     BLOCKS, CT},
    {"NVFP4A16", "", "decoder.bits=e2m1 decoder.group=16 decoder.scale=e4m3", NULL, CT ", modelopt"},
    {"MXFP4A16", "", "decoder.bits=e2m1 decoder.group=32 decoder.scale=e8m0", NULL, CT ", gguf"},
    {"MXFP6A16", "", "decoder.bits=e2m3 decoder.group=32 decoder.scale=e8m0", NULL, CT},
    {"MXFP8A16", "", "decoder.bits=e4m3 decoder.group=32 decoder.scale=e8m0", NULL, CT},
    {"w8", "int8_weight_only, Int8WeightOnlyConfig", AO "decoder.bits=8", NULL, CT F16 "gptq, gguf"},
    {"w8a8", "int8_dynamic_activation_int8_weight, int8dq, Int8DynamicActivationInt8WeightConfig",
     AO "decoder.bits=8 activations.bits=8" RULE, TOKEN8, CT},
    {"w4g32", "", FLOAT4 "decoder.group=32", NULL, "with `scale` `f16` gguf"},
    {"w4g64", "", FLOAT4 "decoder.group=64", NULL, "with `scale` `f16` gguf"},
    {"w4g128", "int4_weight_only, Int4WeightOnlyConfig", FLOAT4 "decoder.group=128", NULL,
     "with `scale` `f16` gguf"},
    {"w4g256", "", FLOAT4 "decoder.group=256", NULL, "with `scale` `f16` gguf"},
    {"w4a8g32", "8da4w, int8_dynamic_activation_int4_weight",
     AO "decoder.bits=4 decoder.group=32 decoder.eps=1.1754944e-38 activations.bits=8 "
        "activations.symmetric=false" RULE,
     TOKEN8 ", with zero points", CT},
    {"w1g64", "uint1", UINT "decoder.bits=1", NULL, "with `scale` `f16` gguf"},
    {"w2g64", "uint2", UINT "decoder.bits=2", NULL, CT F16 "gptq (version 2), gguf"},
    {"w3g64", "uint3", UINT "decoder.bits=3", NULL, CT F16 "gptq (version 2), gguf"},
    {"w4g64_int", "uint4", UINT "decoder.bits=4", NULL, CT F16 "gptq (version 2), awq, gguf"},
    {"w5g64", "uint5", UINT "decoder.bits=5", NULL, CT F16 "gguf"},
    {"w6g64", "uint6", UINT "decoder.bits=6", NULL, CT},
    {"w7g64", "uint7", UINT "decoder.bits=7", NULL, CT},
    {"fp6", "fpx_weight_only", "decoder.bits=e3m2 decoder.scale=f16", NULL, ""},
    {"fp8", "float8_weight_only, Float8WeightOnlyConfig", AO "decoder.bits=e4m3", NULL, CT},
    {"fp8a8", "float8_dynamic_activation_float8_weight", AO "decoder.bits=e4m3 activations.bits=e4m3", TOKENF,
     CT ", modelopt"},
    {"mxfp4", "", TORCHAO_MX("e2m1"), BLOCKS, CT},
    {"mxfp6", "", TORCHAO_MX("e2m3"), BLOCKS, CT},
    {"mxfp8", "", TORCHAO_MX("e4m3"), BLOCKS, CT},
    {"nvfp4", "",
     AO "decoder.bits=e2m1 decoder.group=16 decoder.scale=e4m3" PER_BLOCK("e2m1", "16", "e4m3") RULE, BLOCKS,
     ""},
};

const bq_preset *bq_preset_at(int i) {
    return i < (int)(sizeof presets / sizeof *presets) ? &presets[i] : NULL;
}

/* Is a word among those of a list with commas? */
static bool listed(const char *list, const char *word) {
    const size_t n = strlen(word);
    for (const char *at = list; n && (at = strstr(at, word)); at += n)
        if ((at == list || at[-1] == ' ') && (at[n] == 0 || at[n] == ',')) return true;
    return false;
}

static const bq_preset *find(const char *name) {
    const bq_preset *p;
    for (int i = 0; (p = bq_preset_at(i)); i++)
        if (strcmp(p->name, name) == 0 || listed(p->also, name)) return p;
    return NULL;
}

/* Set a key of `bits` unless it is there: "decoder.bits=4", of n characters. */
static void set(json_t *bits, const char *key, size_t n) {
    char text[96], *name = text;
    BQ_CHECK(n < sizeof text, "a preset has a key of %zu characters", n);
    snprintf(text, sizeof text, "%.*s", (int)n, key);
    char *value = strchr(text, '='), *dot = strchr(text, '.');
    *value++ = 0;
    if (dot && dot < value) {
        *dot = 0;
        if (!json_object_get(bits, name)) json_object_set_new(bits, name, json_object());
        bits = json_object_get(bits, name), name = dot + 1;
    }
    if (json_is_object(bits) && !json_object_get(bits, name))
        json_object_set_new(bits, name, bq_keys_loose(value));
}

int bq_preset_apply(json_t *recipe, const char *file) {
    json_t *bits = json_object_get(recipe, "bits"), *given = json_object_get(bits, "preset");
    if (!given) return BQ_OK;
    const char *name = json_string_value(given);
    const bq_preset *p = name ? find(name) : NULL;
    if (!p)
        return bq_refuse(BQ_USAGE, "%.200s: bits.preset: %s%.60s%s; 'blockq help schemes' lists them", file,
                         name ? "there is no scheme '" : "must be the name of a scheme", name ? name : "",
                         name ? "'" : "");
    for (const char *at = p->keys; *at; at += strspn(at, " ")) {
        const size_t n = strcspn(at, " ");
        set(bits, at, n), at += n;
    }
    json_object_del(bits, "preset");
    return BQ_OK;
}

/* ---- docs/schemes.md ---- */

static const char *const head =
    "# Schemes by name\n"
    "\n"
    "<!-- Made by `blockq help schemes`; do not edit. -->\n"
    "\n"
    "A scheme says how weights are stored, and to what the inputs of linears are rounded where engines\n"
    "compute with both. A recipe names one:\n"
    "\n"
    "```json\n"
    "\"bits\": {\"preset\": \"W4A16\", \"decoder\": {\"group\": 64}}\n"
    "```\n"
    "\n"
    "It stands for the keys in the last column, which [recipes.md](recipes.md) explains. Keys that the "
    "recipe\n"
    "or `--set` gives are kept: here groups have 64 columns and not 128. A run's `recipe.json` has the keys "
    "in\n"
    "the place of the name.\n"
    "\n"
    "- W4A16 means weights of 4 bits and inputs of 16, as they are. NVFP4 and MXFP are blocks of small "
    "floats\n"
    "  with a scale of one byte a block.\n"
    "- Names in capitals are those of compressed-tensors and llm-compressor: which scale a group gets is "
    "their\n"
    "  rule. Names in small letters compute as torchao does, and have its names beside them.\n"
    "- Bits are those of a weight in a matrix of 4096 x 4096, with its scales and zero points.\n"
    "- `safetensors` holds every scheme, as the weights' values. With `scale` `f16` is "
    "`bits.decoder.scale`.\n"
    "\n"
    "| name | other names | weights | inputs | bits | outputs that hold the codes | keys of `bits` |\n"
    "| --- | --- | --- | --- | --- | --- | --- |\n";

static void put_weights(FILE *out, bq_scheme s) {
    fprintf(out, "%s, a scale ", bq_element_name(s.element));
    if (s.rows < 0)
        fputs("a matrix", out);
    else if (bq_scheme_tiled(s))
        fprintf(out, "for %lld x %lld", (long long)s.rows, (long long)s.group);
    else if (s.group > 0)
        fprintf(out, "for %lld columns", (long long)s.group);
    else
        fputs("a row", out);
    fprintf(out, " (%s)", bq_type_name(s.scale));
    fputs(s.symmetric ? "" : bq_scheme_offset(s) ? ", zero points that are floats" : ", zero points", out);
}

static void put_row(FILE *out, const bq_preset *p) {
    char text[256];
    bq_recipe *r = calloc(1, sizeof *r);
    BQ_CHECK(r, "no memory for a recipe");
    int n = snprintf(text, sizeof text,
                     "{\"model\": \"m\", \"phases\": [{\"passes\": [{\"pass\": \"rtn\"}]}], "
                     "\"bits\": {\"preset\": \"%s\"}}",
                     p->name);
    int code = bq_recipe_parse(text, (size_t)n, p->name, "/", 0, NULL, r);
    BQ_CHECK(!code, "the keys of '%s' are no recipe", p->name);
    fprintf(out, "| `%s` | %s | ", p->name, p->also);
    put_weights(out, r->bits.decoder);
    fprintf(out, " | %s | %.3f | %s |", p->inputs ? p->inputs : "",
            (double)bq_scheme_bits(r->bits.decoder, 4096, 4096) / (4096.0 * 4096), p->held);
    for (const char *at = p->keys; *at; at += strspn(at, " ")) {
        const size_t k = strcspn(at, " ");
        fprintf(out, "%s`%.*s`", at == p->keys ? " " : ", ", (int)k, at), at += k;
    }
    fputs(" |\n", out);
    free(r);
}

void bq_preset_doc(FILE *out) {
    const bq_preset *p;
    fputs(head, out);
    for (int i = 0; (p = bq_preset_at(i)); i++) put_row(out, p);
}
