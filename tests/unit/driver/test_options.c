/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: what each command takes, refuses and explains. */
#include "unit/driver/captured.h"
#include "unit/driver/commands.h"

#include "base/die.h"
#include "base/log.h"
#include "io/out/export.h"
#include "driver/commands/options.h"
#include "driver/recipe/recipe.h"
#include "io/out/gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bq_args args;
static captured out, err;
static char line[2048], *words[256];

/* Parse one line of words parted by single blanks; argv ends with NULL as main's does. */
static int parse(const char *text) {
    int n = 0;
    snprintf(line, sizeof line, "%s", text);
    for (char *word = strtok(line, " "); word; word = strtok(NULL, " ")) words[n++] = word;
    words[n] = NULL;
    return bq_options_parse(n, words, &args);
}

static void refused(const char *text, const char *why) {
    capture_begin(&err, stderr);
    int rc = parse(text);
    const char *said = capture_end(&err);
    if (rc != BQ_USAGE || !strstr(said, why)) fail_msg("%s: code %d, '%s' lacks '%s'", text, rc, said, why);
    assert_non_null(strstr(said, "\nbq: try 'blockq"));
    assert_ptr_equal(strchr(strchr(said, '\n') + 1, '\n'), said + strlen(said) - 1);
}

static void run_takes_all(void **state) {
    (void)state;
    assert_int_equal(parse("blockq run --set a=1 x/y/demo.json --set=b.0=c --threads 3 --device cpu "
                           "--memory 12G --scratch /s --no-eval --stop-after-blocks 2 --save-every .25 -v"),
                     BQ_OK);
    assert_int_equal(args.command, BQ_COMMAND_RUN);
    assert_int_equal(args.nfile, 1);
    assert_string_equal(args.file[0], "x/y/demo.json");
    assert_string_equal(args.out, "demo.run");
    assert_int_equal(args.nset, 2);
    assert_string_equal(args.set[0], "a=1");
    assert_string_equal(args.set[1], "b.0=c");
    assert_true(args.threads == 3 && args.memory == (size_t)12 << 30 && args.no_eval && args.verbose);
    assert_true(args.stop_after == 2 && args.save_every == 0.25);
    assert_string_equal(args.device, "cpu");
    assert_string_equal(args.scratch, "/s");
}

static void defaults(void **state) {
    (void)state;
    assert_int_equal(parse("blockq run r.json"), BQ_OK);
    assert_true(!args.nset && !args.threads && !args.memory && !args.scratch);
    assert_true(!args.no_eval && !args.verbose && !args.stop_after && args.save_every == 300);
    assert_string_equal(args.device, "auto");
    assert_int_equal(parse("blockq run -o d r.json"), BQ_OK);
    assert_string_equal(args.out, "d");
    assert_int_equal(parse("blockq run ./json"), BQ_OK);
    assert_string_equal(args.out, "json.run");
    assert_int_equal(parse("blockq eval --run d --tokens t"), BQ_OK);
    assert_true(args.ctx == 2048 && !args.windows && !args.offset && !args.rtn && !args.model);
    assert_int_equal(parse("blockq eval --model d --tokens t --ctx 512 --windows 40 --offset 7 --rtn 4"), 0);
    assert_true(args.ctx == 512 && args.windows == 40 && args.offset == 7 && args.rtn == 4 && !args.run);
    assert_int_equal(parse("blockq export --run d --out o"), BQ_OK);
    assert_string_equal(args.format, "compressed-tensors");
    assert_int_equal(parse("blockq export --run d --out o --format safetensors"), BQ_OK);
    assert_string_equal(args.format, "safetensors");
    assert_true(args.shard == 5000000000);
    assert_int_equal(parse("blockq export --run d --out o --shard 200K"), BQ_OK);
    assert_true(args.shard == 200 << 10);
    assert_int_equal(parse("blockq tokens a --bytes b -o t.h5 -- -c"), BQ_OK);
    assert_int_equal(args.nfile, 3);
    assert_string_equal(args.file[2], "-c");
    assert_int_equal(parse("blockq compare --json a b --tokens t --ctx 512"), BQ_OK);
    assert_true(args.nfile == 2 && args.json && args.ctx == 512 && !args.windows);
    assert_int_equal(parse("blockq generate m --prompt-tokens 1,2 --prompt-tokens 3"), BQ_OK);
    assert_true(args.nprompt == 2 && args.count == 32 && args.ctx == 32 && args.windows == 1);
    assert_true(!args.temperature && !args.top_k && !args.seed && !args.tokens && !args.result_only);
    assert_string_equal(args.prompt[0], "1,2");
    assert_int_equal(parse("blockq generate m --tokens t -n 5 --temperature .5 --top-k 40 --seed 9"), BQ_OK);
    assert_true(args.count == 5 && args.temperature == 0.5 && args.top_k == 40 && args.seed == 9);
    assert_int_equal(parse("blockq inspect p"), BQ_OK);
    assert_int_equal(parse("blockq plan p --memory 1536K"), BQ_OK);
    assert_true(args.memory == 1536 << 10);
    assert_int_equal(parse("blockq plan p --memory 3GiB"), BQ_OK);
    assert_true(args.memory == (size_t)3 << 30);
}

static void refusals(void **state) {
    (void)state;
    refused("blockq", "no command; there are run, plan");
    refused("blockq frob", "frob: no such command");
    refused("blockq --frob", "--frob: no such command");
    refused("blockq help frob", "help frob: no such topic");
    refused("blockq help recipe frob", "help recipe frob: no part of a recipe has that name");
    refused("blockq run", "RECIPE.json is missing, or --preset");
    refused("blockq plan", "RECIPE.json is missing, or --preset");
    refused("blockq run --preset best r.json", "give a recipe or --preset, not both");
    refused("blockq plan --preset best r.json", "give a recipe or --preset, not both");
    refused("blockq run a b", "one argument too many: b");
    refused("blockq run a --frob", "--frob: no such option");
    refused("blockq run a --out", "--out: needs a value");
    refused("blockq run a --no-eval=1", "--no-eval=1: takes no value");
    refused("blockq run a -z", "-z: no such option");
    refused("blockq run a --tokens t", "--tokens: no such option");
    refused("blockq run a --acts both", "--acts both: must be shared, root or parallel");
    refused("blockq run a --acts root", "--acts root needs --scratch");
    refused("blockq run a --acts root --scratch s --split-reference", "exclude each other");
    refused("blockq run a --device gpu", "--device gpu: must be cpu, cuda, cuda:N or auto");
    refused("blockq run a --device cuda:", "--device cuda:: must be cpu, cuda, cuda:N or auto");
    refused("blockq run a --device cuda:1x", "--device cuda:1x: must be cpu, cuda, cuda:N or auto");
    refused("blockq run a --threads 0", "--threads 0: must be a whole number from 1 to 4096");
    refused("blockq run a --threads 2x", "--threads 2x: must be");
    refused("blockq run a --threads 99999999999999999999", "must be a whole number");
    refused("blockq run a --memory 12X", "--memory 12X: must be bytes");
    refused("blockq run a --memory -1", "--memory -1: must be bytes");
    refused("blockq run a --memory 0", "--memory 0: must be bytes");
    refused("blockq run a --memory 17000000T", "must be bytes");
    refused("blockq run a --memory 4GiBB", "must be bytes");
    refused("blockq run a --memory K", "must be bytes");
    for (const char *const *bad = (const char *const[]){"-1", "nan", "inf", "1e10", "1s", "0x", NULL}; *bad;
         bad++) {
        char text[64];
        snprintf(text, sizeof text, "blockq run a --save-every %s", *bad);
        refused(text, "must be a number of seconds from 0 to 1000000000");
    }
    refused("blockq run a --out=", "--out : must be a path");
    refused("blockq eval --model m", "--tokens is missing");
    assert_int_equal(parse("blockq eval --model m --eval a:b --eval=c:d,e=1"), BQ_OK);
    assert_true(!args.tokens && args.neval == 2);
    assert_string_equal(args.eval[1], "c:d,e=1");
    refused("blockq eval --run r --eval a:b --eval a:b --eval a:b --eval a:b --eval a:b",
            "more than 4 --eval");
    refused("blockq eval --run r --eval=", "--eval : must be a path of 1 to 1023 bytes");
    refused("blockq eval --tokens t", "give one of --model and --run");
    refused("blockq eval --tokens t --model m --run r", "give one of --model and --run");
    refused("blockq eval --tokens t --model m x", "one argument too many: x");
    refused("blockq eval --tokens t --model m --rtn 9", "must be a whole number from 2 to 8");
    refused("blockq eval --tokens t --model m --ctx 1", "--ctx 1: must be");
    refused("blockq generate m", "give one of --prompt-tokens and --tokens");
    refused("blockq generate m --tokens t --prompt-tokens 1", "give one of --prompt-tokens and --tokens");
    refused("blockq generate --prompt-tokens 1", "MODEL|RUN is missing");
    refused("blockq generate m --prompt-tokens=", "must be token ids with commas between them");
    refused("blockq generate m --prompt-tokens 1 -n 0", "--count 0: must be a whole number from 1 to");
    refused("blockq generate m --prompt-tokens 1 --temperature -1", "must be a number from 0 to 1000000");
    refused("blockq generate m --prompt-tokens 1 --temperature nan", "must be a number from 0 to 1000000");
    refused("blockq generate m --prompt-tokens 1 --top-k 3", "--top-k needs a --temperature above 0");
    char prompts[1024] = "blockq generate m";
    for (int i = 0; i <= BQ_PROMPTS; i++) strcat(prompts, " --prompt-tokens 1");
    refused(prompts, "more than 16 --prompt-tokens");
    refused("blockq sweep a", "--out is missing");
    refused("blockq sweep -o d", "RECIPE.json... is missing");
    refused("blockq sweep a -o d --vary a=1 --vary a=1 --vary a=1 --vary a=1 --vary a=1",
            "more than 4 --vary");
    refused("blockq sweep a -o d --groups 0", "--groups 0: must be a whole number from 1 to");
    refused("blockq sweep a -o d --acts root", "--acts root needs --scratch");
    refused("blockq export --run r", "--out is missing");
    refused("blockq export --out r", "--run is missing");
    refused("blockq export --out r --run r --format onnx",
            "must be \"safetensors\", \"compressed-tensors\", \"gptq\", \"awq\", \"modelopt\", \"gguf\" or "
            "\"aimet\"");
    refused("blockq export --out r --run r --shard 99999", "--shard 99999: must be at least 100000 bytes");
    refused("blockq export --out r --run r --shard 5e9", "--shard 5e9: must be bytes");
    refused("blockq import a.gguf", "MODEL.gguf DIR is missing");
    refused("blockq import a.gguf b c", "one argument too many: c");
    refused("blockq import a.gguf b --type q8", "--type q8: must be f32, bf16 or f16");
    refused("blockq tokens a -o t", "give one of --tokenizer and --bytes");
    refused("blockq tokens a --bytes", "--out is missing");
    refused("blockq tokens --bytes -o t", "TEXT... is missing");
    char many[1024] = "blockq run a";
    for (int i = 0; i <= BQ_SETS; i++) strcat(many, " --set a=1");
    refused(many, "more than 64 --set");
}

/* Help goes to standard output, ends well, and names every option of the command. */
static const char *printed(const char *text) {
    capture_begin(&out, stdout);
    int rc = parse(text);
    const char *said = capture_end(&out);
    assert_int_equal(rc, BQ_OK);
    assert_int_equal(args.command, BQ_COMMAND_NONE);
    return said;
}

static void help(void **state) {
    (void)state;
    char text[256], list[256], row[64];
    for (int c = 1; c < BQ_COMMANDS; c++) {
        const char *name = names[c];
        int rows = 0, want = 1; /* --help */
        snprintf(text, sizeof text, "blockq %s --help", name);
        const char *said = printed(text);
        snprintf(list, sizeof list, "%s", options[c]);
        for (char *o = strtok(list, " "); o; o = strtok(NULL, " "), want++) {
            snprintf(row, sizeof row, "  %s", o); /* its own line, not the usage */
            if (!strstr(said, row) && !strstr(said, row + 1)) fail_msg("%s lacks %s", text, o);
        }
        for (const char *at = said; (at = strchr(at, '\n')); at++) {
            rows += !strncmp(at, "\n  -", 4) || !strncmp(at, "\n      --", 9);
        }
        assert_int_equal(rows, want);
        assert_non_null(strstr(said, "Example:\n  blockq "));
        snprintf(text, sizeof text, "blockq help %s", name);
        char *kept = strdup(said);
        assert_string_equal(printed(text), kept);
        free(kept);
        snprintf(text, sizeof text, "\n  %s ", name);
        assert_non_null(strstr(printed("blockq --help"), text));
    }
    assert_non_null(strstr(printed("blockq help"), "\n  75  stopped on request"));
    assert_non_null(strstr(printed("blockq help recipe"), "| `calibration` |"));
    assert_non_null(strstr(printed("blockq help schemes"), "| `W4A16` |"));
    const char *part = printed("blockq help recipe kv");
    assert_ptr_equal(strstr(part, "## bits.kv\n"), part);
    assert_null(strstr(part, "## transforms"));
    assert_non_null(strstr(printed("blockq help recipe gptq"), "## outputs.N, format: gptq"));
    assert_null(strstr(printed("blockq help recipe gptq"), "pass: smoothquant"));
}

/* The version is written in two places. */
static void version(void **state) {
    (void)state;
    char text[256];
    FILE *f = fopen(BQ_VECTORS "/../../CMakeLists.txt", "r");
    bool same = false;
    while (f && fgets(text, sizeof text, f)) same |= strstr(text, "VERSION " BQ_VERSION " ") != NULL;
    assert_true(same && fclose(f) == 0);
    const char *said = printed("blockq --version");
    assert_true(strstr(said, "blockq " BQ_VERSION) == said && strstr(said, "MPI") &&
                strstr(said, "\nHDF5 1.") && strstr(said, "\ncpu "));
    assert_true(strstr(printed("blockq help man"), "\n\\fB\\-\\-split\\-reference\\fR\n") != NULL &&
                strstr(printed("blockq help completion"), " --split-reference") != NULL);
}

static void other_ranks_are_quiet(void **state) {
    (void)state;
    bq_log_identity(1, 2);
    capture_begin(&err, stderr);
    int rc = parse("blockq run a --frob");
    assert_string_equal(capture_end(&err), "");
    assert_int_equal(rc, BQ_USAGE);
    assert_string_equal(printed("blockq --help"), "");
    assert_string_equal(printed("blockq run --help"), "");
    bq_log_identity(0, 1);
}

/* libgomp would take all cores, or die. */
static void threads_of_the_environment(void **state) {
    static const char *const bad[] = {"0",  "-3", "abc", "", "2x", "2,", ",2", "4097", "99999999999999999999",
                                      "4,0"},
                             *const good[] = {"1", " 3 ", "4096", "4,2", "4 , 99999"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char want[64];
        setenv("OMP_NUM_THREADS", bad[i], 1);
        snprintf(want, sizeof want, "OMP_NUM_THREADS=%s: must be a whole number from 1 to 4096", bad[i]);
        refused("blockq run r.json", want);
        refused("blockq export --run a --out b", want);
        assert_int_equal(parse("blockq run r.json --threads 2"), BQ_OK);
        assert_int_equal(parse("blockq status a"), BQ_OK);
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        setenv("OMP_NUM_THREADS", good[i], 1);
        assert_int_equal(parse("blockq run r.json"), BQ_OK);
    }
    unsetenv("OMP_NUM_THREADS");
}

/* ---- keys of an output format ---- */

static bq_recipe recipe, again;

static int recipe_with(const char *outputs, bq_recipe *to) {
    char text[1024];
    snprintf(text, sizeof text,
             "{\"model\": \"/m\", \"phases\": [{\"passes\": [{\"pass\": \"rtn\"}]}], \"outputs\": [%s]}",
             outputs);
    return bq_recipe_parse(text, strlen(text), "x.json", "/", 0, NULL, to);
}

static void outputs_refused(const char *outputs, const char *why) {
    capture_begin(&err, stderr);
    int rc = recipe_with(outputs, &recipe);
    const char *said = capture_end(&err);
    if (rc != BQ_USAGE || !strstr(said, why)) fail_msg("code %d, '%s' lacks '%s'", rc, said, why);
}

static const bq_gguf_options *gguf_of(const bq_recipe *r, int i) {
    return (const bq_gguf_options *)(const void *)r->output[i].options;
}

static void formats_have_keys(void **state) {
    (void)state;
    char *text = NULL;
    size_t bytes;
    assert_int_equal(recipe_with("{\"format\": \"gguf\", \"outtype\": \"bf16\", \"token_embedding_type\": "
                                 "\"q6_K\"}, {\"format\": \"gguf\", \"dir\": \"plain\"}",
                                 &recipe),
                     BQ_OK);
    assert_true(gguf_of(&recipe, 0)->dense == 30 && gguf_of(&recipe, 0)->embedding == 14);
    assert_true(gguf_of(&recipe, 0)->output == BQ_GGUF_SOURCE &&
                gguf_of(&recipe, 1)->dense == BQ_GGUF_SOURCE);
    FILE *to = open_memstream(&text, &bytes);
    bq_recipe_write(&recipe, to);
    fclose(to);
    assert_non_null(strstr(text, "\"outtype\": \"bf16\""));
    assert_non_null(strstr(text, "\"token_embedding_type\": \"q6_K\""));
    assert_int_equal(bq_recipe_parse(text, bytes, "recipe.json", "/", 0, NULL, &again), BQ_OK);
    assert_memory_equal(recipe.output, again.output, sizeof recipe.output);
    free(text);
    outputs_refused(
        "{\"format\": \"gguf\", \"quantize\": \"bf16\"}",
        "outputs.0.quantize: unknown key; known here: format, dir, shard_bytes, base_model, license, "
        "outtype,");
    outputs_refused("{\"format\": \"gptq\", \"outtype\": \"bf16\"}", "outputs.0.outtype: unknown key");
    outputs_refused("{\"format\": \"gguf\", \"outtype\": \"q4_K\"}",
                    "outputs.0.outtype: is \"q4_K\", must be \"source\", \"f32\"");
}

static int export_with(const char *format) {
    char command[256];
    snprintf(command, sizeof command, "blockq export --run d --out o --shard 1M --format %s", format);
    assert_int_equal(parse(command), BQ_OK);
    return bq_recipe_export(&recipe, &args);
}

static void export_refused(const char *format, const char *why) {
    capture_begin(&err, stderr);
    int rc = export_with(format);
    const char *said = capture_end(&err);
    if (rc != BQ_USAGE || !strstr(said, why)) fail_msg("%s: '%s' lacks '%s'", format, said, why);
}

/* --format stands for the recipe's outputs. */
static void export_takes_keys(void **state) {
    (void)state;
    assert_int_equal(recipe_with("{\"format\": \"safetensors\"}, {\"format\": \"gptq\"}", &recipe), BQ_OK);
    assert_int_equal(export_with("gguf:outtype=f16,output_tensor_type=q8_0"), BQ_OK);
    assert_true(recipe.noutput == 1 && recipe.output[0].format == bq_format_find("gguf"));
    assert_true(recipe.output[0].shard_bytes == 1 << 20 && gguf_of(&recipe, 0)->dense == 1);
    assert_true(gguf_of(&recipe, 0)->embedding == BQ_GGUF_SOURCE && gguf_of(&recipe, 0)->output == 8);
    assert_int_equal(export_with("gguf"), BQ_OK);
    assert_true(gguf_of(&recipe, 0)->dense == BQ_GGUF_SOURCE);
    export_refused("gguf:quantize=f16", "--format: outputs.0.quantize: unknown key");
    export_refused("safetensors:outtype=f16", "--format: outputs.0.outtype: unknown key");
    export_refused("gguf:outtype", "--format gguf:outtype: must be NAME or NAME:KEY=VALUE,...");
    refused("blockq export --run r --out o --format onnx:outtype=f16", "--format onnx:outtype=f16: must be");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_takes_all),
        cmocka_unit_test(defaults),
        cmocka_unit_test(refusals),
        cmocka_unit_test(help),
        cmocka_unit_test(version),
        cmocka_unit_test(other_ranks_are_quiet),
        cmocka_unit_test(threads_of_the_environment),
        cmocka_unit_test(formats_have_keys),
        cmocka_unit_test(export_takes_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
