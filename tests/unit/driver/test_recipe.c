/* SPDX-License-Identifier: Apache-2.0 */
/* Recipes: defaults, overrides, every refusal with its message, writing, fingerprints, the page, configs. */
#include "unit/driver/captured.h"

#include "base/die.h"
#include "block/passes/train.h"
#include "driver/recipe/recipe.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define ROOT BQ_VECTORS "/../.."
#define SMALL                                                                                                \
    "{\"model\": \"m\", \"calibration\": {\"tokens\": \"t.h5\"},"                                            \
    " \"phases\": [{\"passes\": [{\"pass\": \"adascale\"}]}]}"

static bq_recipe r, again;
static captured got;

static int parse(const char *text, int nset, char **set, bq_recipe *to) {
    return bq_recipe_parse(text, strlen(text), "x.json", "/home/me", nset, set, to);
}

/* Refused with one line that holds the words. */
static void refused(const char *text, char *set, const char *words) {
    capture_begin(&got, stderr);
    int rc = parse(text, set != NULL, &set, &r);
    const char *line = capture_end(&got);
    if (rc != BQ_USAGE || !strstr(line, words)) fail_msg("code %d, '%s' lacks '%s'", rc, line, words);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

/* SMALL with one override. */
static void small(char *set, bq_recipe *to) { assert_int_equal(parse(SMALL, set != NULL, &set, to), BQ_OK); }

static char *text_of(const bq_recipe *recipe) {
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);
    bq_recipe_write(recipe, to);
    fclose(to);
    return text;
}

static void defaults(void **state) {
    (void)state;
    small(NULL, &r);
    assert_string_equal(r.model, "/home/me/m");
    assert_string_equal(r.calibration.tokens, "/home/me/t.h5");
    assert_int_equal(r.calibration.samples, 128);
    assert_int_equal(r.calibration.length, 2048);
    assert_true(r.segments == 1 && r.sweeps == 1 && r.nphase == 1 && r.noutput == 0);
    assert_true(r.eval.ctx == 2048 && r.eval.tokens[0] == 0);
    assert_true(r.phase[0].inputs == BQ_INPUTS_MIX && r.phase[0].mix == 0.5);
    assert_string_equal(r.phase[0].name, "adascale");
    const bq_train_options *o = (const void *)r.phase[0].pass[0].options;
    assert_int_equal(r.phase[0].pass[0].kind, bq_pass_kind_find("adascale"));
    assert_true(o->iterations == 1500 && o->batch == 1 && o->lr_clip == 1e-3 && o->lr_weight == 5e-4);
    assert_true(o->loss == BQ_LOSS_SUM_SEQ && !o->early_stop && o->check_interval == 200 && o->anneal == 0);
    assert_true(o->window == 500 && o->threshold == 1e-2);
    bq_scheme v = bq_recipe_scheme(&r, "self_attn.v_proj");
    assert_true(v.element == 4 && v.group == -1 && v.symmetric && v.scale == BQ_F32);
}

static void linears_inherit(void **state) {
    (void)state;
    char *set[] = {"bits.linears.v_proj.bits=8", "phases.0.passes=[{\"pass\": \"rtn\"}]",
                   "bits.decoder={\"group\": 64, \"scale\": \"bf16\", \"grid\": \"absmax\"}",
                   "bits.linears.o_proj={\"scale\": \"f16\", \"group\": -1}"};
    assert_int_equal(parse(SMALL, 4, set, &r), BQ_OK);
    bq_scheme v = bq_recipe_scheme(&r, "v_proj"), o = bq_recipe_scheme(&r, "o_proj");
    bq_scheme up = bq_recipe_scheme(&r, "mlp.up_proj");
    assert_true(v.element == 8 && v.group == 64 && v.scale == BQ_BF16 && v.grid == BQ_GRID_ABSMAX);
    assert_true(o.element == 4 && o.group == -1 && o.scale == BQ_F16 && up.element == 4 && up.group == 64);
    const char *phi[] = {"self_attn.o_proj", "qkv_proj"};
    assert_int_equal(bq_recipe_fits(&r, 2, (const char *[]){"self_attn.v_proj", "self_attn.o_proj"}), BQ_OK);
    capture_begin(&got, stderr);
    assert_int_equal(bq_recipe_fits(&r, 2, phi), BQ_USAGE);
    assert_non_null(strstr(capture_end(&got),
                           "bits.linears.v_proj: the model has no such linear; it has o_proj, "
                           "qkv_proj"));
}

static void overrides(void **state) {
    (void)state;
    char cwd[BQ_PATH_MAX], want[BQ_PATH_MAX + 16];
    assert_non_null(realpath(".", cwd));
    char *set[] = {"phases.0.passes.0.iterations=64",
                   "calibration.samples=9",
                   "calibration.samples=30",
                   "model=../q",
                   "eval.ctx=512",
                   "seed=9223372036854775807",
                   "phases.0.inputs=qt",
                   "eval.tokens=./a//b.h5",
                   "calibration.tokens=\"/abs/t\"",
                   "phases.0.passes.0.early_stop=true",
                   "outputs=[{\"format\": \"safetensors\"}]",
                   "outputs.0.dir=fq",
                   "phases.0.mix=1"};
    assert_int_equal(parse(SMALL, sizeof set / sizeof *set, set, &r), BQ_OK);
    const bq_train_options *o = (const void *)r.phase[0].pass[0].options;
    assert_int_equal(o->iterations, 64);
    assert_int_equal(r.calibration.samples, 30);
    assert_true(r.seed == 9223372036854775807u);
    *strrchr(cwd, '/') = 0;
    snprintf(want, sizeof want, "%s/q", cwd);
    assert_string_equal(r.model, want);
    assert_string_equal(r.calibration.tokens, "/abs/t");
    assert_string_equal(r.eval.tokens + strlen(r.eval.tokens) - 8, "/a//b.h5");
    assert_true(r.phase[0].inputs == BQ_INPUTS_QT && r.phase[0].mix == 1 && o->early_stop);
    assert_true(strcmp(r.output[0].dir, "fq") == 0 && r.output[0].shard_bytes == 5000000000);
}

static void paths_start_at_the_folder(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {"m", "/home/me/m"},     {"../m", "/home/m"},    {"../../../m", "/../m"},
        {"./.././m", "/home/m"}, {".", "/home/me"},      {"../..", "/"},
        {"..m", "/home/me/..m"}, {"/m/../k", "/m/../k"}, {".m/", "/home/me/.m/"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"model\": \"%s\", \"phases\": [{\"passes\": [{\"pass\": \"rtn\"}]}]}",
                 pairs[i][0]);
        assert_int_equal(parse(text, 0, NULL, &r), BQ_OK);
        assert_string_equal(r.model, pairs[i][1]);
    }
    assert_string_equal(r.phase[0].name, "rtn");
}

static void wrong_keys(void **state) {
    (void)state;
    refused(SMALL, "phases.0.passes.0.iteratons=3",
            "phases.0.passes.0.iteratons: unknown key; did you mean 'iterations'?");
    refused(SMALL, "calibration.sample=3", "did you mean 'samples'?");
    refused(SMALL, "bits.linears.qproj.bits=3", "did you mean 'q_proj'?");
    refused(SMALL, "colour=3", "colour: unknown key; known here: model, calibration, experts, seed");
    refused("{\"modle\": \"m\"}", NULL, "x.json: modle: unknown key; did you mean 'model'?");
    refused("{\"phases\": [{\"passes\": [{\"pass\": \"rtn\", \"iterations\": 3}]}], \"model\": \"m\"}", NULL,
            "x.json: phases.0.passes.0.iterations: unknown key; known here: pass");
    refused("{}", NULL, "x.json: model: is missing");
    refused("{\"model\": \"m\"}", NULL, "x.json: phases: is missing (a list of 1 to 8 objects)");
    refused("{\"model\": \"m\", \"phases\": [{}]}", NULL, "phases.0.passes: is missing");
    refused("{\"model\": \"m\", \"phases\": [{\"passes\": [{}]}]}", NULL,
            "phases.0.passes.0.pass: is missing");
    refused(SMALL, "outputs=[{}]", "--set outputs=[{}]: outputs.0.format: is missing");
}

static void wrong_values(void **state) {
    (void)state;
    refused(SMALL, "calibration.samples=many",
            "--set calibration.samples=many: calibration.samples: is \"many\", must be an integer from 1 to");
    refused(SMALL, "calibration.samples=0", "is 0, must be an integer from 1 to 16777216");
    refused(SMALL, "calibration.samples=3.0", "is 3.0, must be an integer");
    refused(SMALL, "calibration.samples=99999999", "is 99999999, must be");
    refused(SMALL, "calibration.samples=99999999999999999999", "is \"99999999999999999999\", must be");
    refused(SMALL, "calibration=5", "is 5, must be an object");
    refused(SMALL, "calibration=null", "is null, must be an object");
    refused(SMALL, "seed=-1", "is -1, must be an integer from 0 to 2^63 - 1");
    refused(SMALL, "bits.decoder.bits=9", "is 9, must be an integer from 1 to 8");
    refused(SMALL, "bits.decoder.group=12", "is 12, must be -1, or a multiple of 8");
    refused(SMALL, "bits.decoder.group=0", "is 0, must be -1");
    refused(SMALL, "bits.decoder.scale=f64", "must be \"f32\", \"bf16\", \"f16\", \"e8m0\" or \"e4m3\"");
    refused(SMALL, "phases.0.mix=1.5", "is 1.5, must be a number from 0 to 1");
    refused(SMALL, "phases.0.mix=NaN", "is \"NaN\", must be a number");
    refused(SMALL, "phases.0.mix=-1e-300", "must be a number from 0 to 1");
    refused(SMALL, "phases.0.mix=1e999", "is \"1e999\", must be a number");
    refused(SMALL, "phases.0.inputs=1", "is 1, must be \"fp\", \"qt\" or \"mix\"");
    refused(SMALL, "phases.0.passes.0.early_stop=1", "is 1, must be true or false");
    refused(SMALL, "phases=[]", "is [], must be a list of 1 to 8 objects");
    refused(SMALL, "phases.0.passes.0.pass=nearest", "is \"nearest\", must be \"rtn\"");
    refused(SMALL, "phases.0.passes=[{\"pass\":\"rtn\",\"clip\":\"hessian\"}]", "must be \"minmax\"");
    refused(SMALL, "phases.0.passes=[{\"pass\":\"rtn\",\"norm\":\"l3\"}]", "must be \"l2\" or \"l2.4\"");
    refused(SMALL, "phases.0.name=a b", "is \"a b\", must be a name of at most 31");
    refused(SMALL, "segments=0", "segments: is 0, must be an integer from 1 to 4096");
    refused(SMALL, "sweeps=65", "sweeps: is 65, must be an integer from 1 to 64");
    refused(SMALL, "sweeps=0", "sweeps: is 0, must be an integer from 1 to 64");
    refused(SMALL, "transforms=[\"rotate\"]", "transforms.0: is not an object");
    refused(SMALL, "model=", "is \"\", must be a path");
    refused(SMALL, "phases.0.passes.0.batch=3", "is 3, must divide calibration.samples, which is 128");
    refused(SMALL, "outputs=[{\"format\": \"safetensors\", \"dir\": \"../up\"}]",
            "outputs.0.dir: is \"../up\"");
    refused(SMALL, "outputs=[{\"format\": \"safetensors\", \"dir\": \"ckpt\"}]", "'ckpt' is the run's own");
    refused(SMALL, "outputs=[{\"format\": \"safetensors\"}, {\"format\": \"safetensors\"}]",
            "outputs.1.dir: is 'safetensors', as outputs.0");
    refused(SMALL, "calibration", "must be KEY=VALUE");
    refused(SMALL, "=5", "must be KEY=VALUE");
    refused(SMALL, "phases.1.mix=0", "there is no 'phases.1' in the recipe");
    refused(SMALL, "phases.x=0", "there is no 'phases.x' in the recipe");
    refused(SMALL, "model.x.y=0", "there is no 'model.x' in the recipe");
    refused(SMALL, "calibration..x=0", "there is no 'calibration.' in the recipe");
    refused(SMALL, "model=\xff", "is not UTF-8");
    refused(SMALL, "a\x1b[31mb=1", "a?[31mb: unknown key");
    static char path[2100] = "model=/";
    memset(path + 7, 'p', sizeof path - 8);
    refused(SMALL, path, "must be a path of at most 1023 bytes");
}

static void wrong_text(void **state) {
    (void)state;
    refused("", NULL, "x.json:");
    refused("[]", NULL, "x.json: is not an object");
    refused("{\n  \"model\": }", NULL, "x.json:2:12: ");
    refused("{\"model\": \"a\", \"model\": \"b\"}", NULL, "duplicate object key");
    refused("{\"seed\": 99999999999999999999}", NULL, "too big integer");
    refused("{\"seed\": NaN}", NULL, "x.json:1:");
    refused("{\"seed\": Infinity}", NULL, "x.json:1:");
    refused("{\"seed\": 1e999}", NULL, "real number overflow");
    refused("{\"model\": \"\xff\"}", NULL, "x.json:1:");
    refused(SMALL "x", NULL, "end of file expected");
    static char deep[200001];
    memset(deep, '[', sizeof deep - 1);
    refused(deep, NULL, "depth");
    for (size_t i = 0; i + 5 < sizeof deep; i += 5) memcpy(deep + i, "{\"a\":", 5);
    refused(deep, NULL, "depth");
}

static void files(void **state) {
    (void)state;
    char dir[] = "/tmp/bq_recipe_XXXXXX", path[64], want[80];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/r.json", dir);
    capture_begin(&got, stderr);
    assert_int_equal(bq_recipe_read(path, 0, NULL, &r), BQ_USAGE);
    assert_int_equal(bq_recipe_read(dir, 0, NULL, &r), BQ_USAGE);
    assert_non_null(
        strstr(capture_end(&got), "r.json: cannot be read as a recipe: No such file or directory"));
    FILE *f = fopen(path, "w");
    assert_true(fputs(SMALL, f) >= 0 && fclose(f) == 0);
    assert_int_equal(bq_recipe_read(path, 0, NULL, &r), BQ_OK);
    snprintf(want, sizeof want, "%s/m", dir);
    assert_string_equal(r.model, want);
    f = fopen(path, "a");
    for (int i = 0; i < 1 << 20; i++) fputc(' ', f);
    fclose(f);
    capture_begin(&got, stderr);
    assert_int_equal(bq_recipe_read(path, 0, NULL, &r), BQ_USAGE);
    assert_non_null(strstr(capture_end(&got), "File too large"));
    remove(path);
    rmdir(dir);
}

static const char *const everything[] = {"model=/other",
                                         "calibration.tokens=/other",
                                         "calibration.samples=64",
                                         "calibration.length=99",
                                         "calibration.offset=5",
                                         "seed=7",
                                         "bits.decoder.bits=3",
                                         "bits.decoder.group=8",
                                         "bits.decoder.scale=f16",
                                         "bits.linears.q_proj.bits=8",
                                         "bits.activations={\"bits\": 6, \"percentile\": 99.5}",
                                         "bits.lm_head={\"bits\": 4, \"group\": 32}",
                                         "rope=exact",
                                         "phases.0.name=n",
                                         "phases.0.inputs=fp",
                                         "phases.0.mix=0.1",
                                         "eval.ctx=9",
                                         "phases.0.passes.0.batch=2",
                                         "phases.0.passes.0.lr_clip=0.1",
                                         "phases.0.passes.0.lr_weight=0",
                                         "phases.0.passes.0.loss=mean",
                                         "phases.0.passes.0.early_stop=true",
                                         "phases.0.passes.0.window=1",
                                         "phases.0.passes.0.check_interval=1",
                                         "phases.0.passes.0.threshold=1e-7",
                                         "eval.windows=2",
                                         "phases.0.passes.0={\"pass\": \"rtn\"}",
                                         "phases=[{\"passes\": [{\"pass\": \"rtn\"}, {\"pass\": \"rtn\"}]}]",
                                         "outputs=[{\"format\": \"compressed-tensors\"}]",
                                         "experts={\"starved\": \"rtn\", \"least\": 7, \"most\": 8}",
                                         "eval.tokens=\"/a \\\" \\u00e9\"",
                                         "eval.offset=1"};
enum { EVERY = sizeof everything / sizeof *everything };

/* The key of a change decides which fingerprint changes: that one alone, or none. */
static void fingerprints(void **state) {
    (void)state;
    bq_part before[BQ_PARTS], after[BQ_PARTS];
    small(NULL, &r);
    int n = bq_recipe_parts(&r, before);
    assert_true(n == 10);
    static const char *const quiet[] = {"model",   "calibration.tokens", "phases.0.name",  "eval",
                                        "outputs", "bits.activations",   "bits.embedding", "bits.lm_head"};
    for (int i = 0; i < EVERY; i++) {
        bool silent = false;
        for (size_t k = 0, m; k < sizeof quiet / sizeof *quiet; k++)
            if (!strncmp(everything[i], quiet[k], m = strlen(quiet[k])) && strchr(".=", everything[i][m]))
                silent = true;
        small((char *)(uintptr_t)everything[i], &again);
        assert_int_equal(bq_recipe_parts(&again, after), n);
        for (int k = 0; k < n; k++) {
            size_t m = strlen(before[k].name);
            bool mine =
                !silent && !strncmp(everything[i], before[k].name, m) && strchr(".=", everything[i][m]);
            assert_string_equal(before[k].name, after[k].name);
            if (mine == (before[k].hash == after[k].hash)) fail_msg("%s: %s", everything[i], before[k].name);
        }
    }
}

static void written_reads_the_same(void **state) {
    (void)state;
    for (int i = 0; i < EVERY; i++) {
        small((char *)(uintptr_t)everything[i], &r);
        char *text = text_of(&r);
        assert_int_equal(bq_recipe_parse(text, strlen(text), "w.json", "/elsewhere", 0, NULL, &again), BQ_OK);
        char *same = text_of(&again);
        assert_string_equal(text, same);
        assert_memory_equal(&r, &again, sizeof r); /* the reader zeroes first, so padding is equal too */
        free(text);
        free(same);
    }
    char *two[] = {"bits.linears.q_proj.bits=4", "phases.0.mix=-0.0"};
    assert_int_equal(parse(SMALL, 2, two, &r), BQ_OK);
    char *text = text_of(&r);
    assert_true(strstr(text, "\"linears\": {}") && strstr(text, "\"lr_clip\": 0.001") &&
                strstr(text, "\"mix\": 0.0"));
    free(text);
}

/* Any damage to a good file is refused with one line, or gives a recipe that can be written and read. */
static void damaged(void **state) {
    (void)state;
    small("bits.linears.down_proj={\"bits\": 8, \"group\": 128}", &r);
    char *good = text_of(&r);
    size_t n = strlen(good);
    char *bad = strdup(good);
    uint64_t x = 88172645463325252u;
    int read = 0, differ = 0;
    capture_begin(&got, stderr);
    for (int round = 0; round < 20000; round++) {
        memcpy(bad, good, n + 1);
        for (int k = 0; k <= round % 3; k++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            bad[x % n] = round % 2 ? good[(x >> 20) % n] : (char)(x >> 40);
        }
        size_t size = round % 7 ? n : (size_t)(x >> 30) % n;
        if (bq_recipe_parse(bad, size, "d.json", "/", 0, NULL, &r)) continue;
        char *text = text_of(&r);
        int rc = bq_recipe_parse(text, strlen(text), "w.json", "/", 0, NULL, &again);
        free(text);
        differ += rc || memcmp(&r, &again, sizeof r);
        read++;
    }
    capture_end(&got);
    assert_int_equal(differ, 0);
    if (read <= 500) fail_msg("only %d of the damaged recipes were read", read);
    free(bad), free(good);
}

static void configs(void **state) {
    (void)state;
    int n = 0;
    DIR *dir = opendir(ROOT "/configs");
    assert_non_null(dir);
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        char path[1024], *set[] = {"model=/m", "calibration.tokens=/t", "eval.tokens=/e"};
        if (!strstr(e->d_name, ".json")) continue;
        snprintf(path, sizeof path, ROOT "/configs/%s", e->d_name);
        assert_int_equal(bq_recipe_read(path, strcmp(e->d_name, "demo.json") ? 3 : 0, set, &r), BQ_OK);
        assert_true(r.model[0] && r.eval.tokens[0] && r.noutput);
        n++;
    }
    closedir(dir);
    assert_true(n >= 7);
}

static void page(void **state) {
    (void)state;
    char *made = NULL, *kept = calloc(1, 1 << 16);
    size_t bytes;
    FILE *to = open_memstream(&made, &bytes), *f = fopen(ROOT "/docs/recipes.md", "r");
    bq_recipe_doc(to);
    fclose(to);
    assert_non_null(f);
    assert_true(fread(kept, 1, (1 << 16) - 1, f) > 0);
    fclose(f);
    if (strcmp(made, kept)) fail_msg("docs/recipes.md is old: blockq help recipe > docs/recipes.md");
    char *from = strstr(made, "```json\n") + 8, *end = strstr(from, "```");
    assert_int_equal(bq_recipe_parse(from, (size_t)(end - from), "doc", "/", 0, NULL, &r), BQ_OK);
    free(made), free(kept);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),     cmocka_unit_test(linears_inherit),
        cmocka_unit_test(overrides),    cmocka_unit_test(paths_start_at_the_folder),
        cmocka_unit_test(wrong_keys),   cmocka_unit_test(wrong_values),
        cmocka_unit_test(wrong_text),   cmocka_unit_test(files),
        cmocka_unit_test(fingerprints), cmocka_unit_test(written_reads_the_same),
        cmocka_unit_test(damaged),      cmocka_unit_test(configs),
        cmocka_unit_test(page)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
