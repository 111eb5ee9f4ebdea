/* SPDX-License-Identifier: Apache-2.0 */
/* Counts of work against formulas written out for one small model, and the seconds they take. */
#include "driver/plan/plan.h"
#include "driver/recipe/traits.h"

#include "base/die.h"
#include "rig.h"

#include <stdio.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { H = 64, I = 96, HEADS = 4, KV = 2, HD = 16, L = 6, T = 32, N = 8, QKV = (HEADS + 2 * KV) * HD };
static bq_arch arch;
static bq_recipe recipe;
static bq_effort effort[BQ_WORKS];
/* Weights of a block; flop of a sample through it. */
static const double P = QKV * H + H * H + 3 * I * H;
static const double forward = 2.0 * T * (QKV * H + H * H + 3 * I * H) + 2.0 * T * T * HEADS * HD;

#define ADASCALE(batch) "{\"pass\": \"adascale\", \"iterations\": 10, \"batch\": " #batch "}"
#define RTN             "{\"pass\": \"rtn\"}"

/* The recipe's only phase: its passes, and further keys, each with a comma behind. */
static void phase(const char *keys, const char *passes) {
    char text[1024];
    snprintf(text, sizeof text,
             "{\"model\": \"m\", \"calibration\": {\"tokens\": \"t\", \"samples\": %d, \"length\": %d}, "
             "\"segments\": 3, "
             "\"phases\": [{%s \"passes\": [%s]}]}",
             N, T, keys, passes);
    assert_int_equal(bq_recipe_parse(text, strlen(text), "r.json", "/", 0, NULL, &recipe), BQ_OK);
}

static int setup(void **state) {
    (void)state;
    arch = rig_arch((rig_model){bq_family_find("llama"), H, I, .heads = HEADS, .kv_heads = KV, .vocab = 100,
                                .blocks = L});
    phase("", ADASCALE(4));
    return 0;
}

static int64_t keeps;

static void count(int stages, int replicas, bool split) {
    bq_comm grid = {.size = stages * replicas, .nstage = stages, .nreplica = replicas};
    bq_layouts layouts = {.count = 1, .at = {{.arch = &arch}}};
    bq_effort_count(effort, &recipe, &layouts, &grid, 2, split, &(bq_evals){0}, keeps);
}

static void near(double x, double want) {
    if (fabs(x - want) > 1e-9 * fabs(want)) fail_msg("%.10g, not %.10g", x, want);
}

static void one_rank(void **state) {
    (void)state;
    count(1, 1, false);
    near(bq_effort_flop(&effort[BQ_WORK_TARGETS]), L * N * forward);
    near(bq_effort_flop(&effort[BQ_WORK_ADVANCE]), L * N * forward);
    double backward = 2.0 * T * (2 * P - QKV * H) + 5.0 * T * T * HEADS * HD;
    near(bq_effort_flop(&effort[BQ_WORK_TRAINING]), L * 10 * 4 * (forward + backward));
    for (int k = 0; k < BQ_WORKS; k++) assert_true(effort[k].sent == 0 && effort[k].messages == 0);
    assert_true(bq_effort_flop(&effort[BQ_WORK_REFERENCE]) == 0 &&
                bq_effort_flop(&effort[BQ_WORK_EVAL]) == 0);
}

/* The bytes are those that tests/e2e/test_bytes.sh finds on 2 x 2. */
static void a_grid(void **state) {
    (void)state;
    count(3, 2, false);
    near(bq_effort_flop(&effort[BQ_WORK_REFERENCE]), 2 * 4 * forward);
    near(effort[BQ_WORK_REFERENCE].passed, 4.0 * T * H * 4);
    near(effort[BQ_WORK_REFERENCE].idle, 1 * 2 * 2 * forward);
    near(effort[BQ_WORK_REFERENCE].files, 2 * 2 * 2 * P); /* two micro-batches, two blocks */
    near(effort[BQ_WORK_TRAINING].sent,
         2 * 10 * 2 * (4 * P) / 2 * 1.5); /* a node each way is half; and new weights */
    near(bq_effort_flop(&effort[BQ_WORK_TARGETS]), 2 * 4 * forward);
    count(3, 2, true);
    near(bq_effort_flop(&effort[BQ_WORK_REFERENCE]),
         4 * 2 * forward); /* 2 of the 8 samples through 4 blocks */
    assert_true(effort[BQ_WORK_REFERENCE].passed == 0);
}

/* Of 3 blocks with 4 experts, 2 chosen, stages 2 x replicas 2: a rank quantizes 2 x 4 / 2 experts, and the
 * reference reads all 8 of the stage for each micro-batch. */
static void experts(void **state) {
    (void)state;
    bq_arch one, core, dense;
    bq_model m = arch.model;
    m.family = bq_family_find("qwen3_moe"), m.blocks = 3, m.experts = 4, m.chosen = 2, m.expert_inter = I;
    bq_arch_of_core(&m, &core), bq_arch_of_expert(&m, 0, &one);
    assert_false(bq_arch_of_dense(&m, &dense));
    bq_layouts layouts = {.count = 2, .at = {{.arch = &core}, {.arch = &one}}};
    bq_comm grid = {.size = 4, .nstage = 2, .nreplica = 2};
    const double C = QKV * H + H * H, E = 3 * I * H, samples = N / 2;
    phase("\"inputs\": \"qt\",", "{\"pass\": \"gptq\"}");
    bq_effort_count(effort, &recipe, &layouts, &grid, 2, false, &(bq_evals){0}, 0);
    double attention = forward - 2.0 * T * P;
    near(bq_effort_flop(&effort[BQ_WORK_REFERENCE]), 2 * samples * (2 * T * (C + 2 * E) + attention));
    near(effort[BQ_WORK_REFERENCE].files, 2 * 2 * 2 * (C + 4 * E)); /* two micro-batches, two blocks */
    near(bq_effort_flop(&effort[BQ_WORK_ADVANCE]), bq_effort_flop(&effort[BQ_WORK_REFERENCE]));
    near(effort[BQ_WORK_ADVANCE].sent, 4 * E * 8);
    near(effort[BQ_WORK_TARGETS].sent, 4 * E * 8);
    near(effort[BQ_WORK_TARGETS].files, 2 * (2 * C + 4 * E));
    near(effort[BQ_WORK_PASSES].flop[BQ_RATE_FACTOR],
         2.0 / 3 * (2 * 2.0 * H * H * H / 2 + 4 * (1.0 * H * H * H + I * I * I)));
    setup(NULL);
}

/* More replicas than samples of a batch: a step takes no less. */
static void a_batch_of_one(void **state) {
    (void)state;
    phase("", ADASCALE(1));
    count(1, 1, false);
    double alone = bq_effort_flop(&effort[BQ_WORK_TRAINING]);
    count(1, 4, false);
    near(bq_effort_flop(&effort[BQ_WORK_TRAINING]), alone);
    setup(NULL);
}

static void gptq_factors_are_shared(void **state) {
    (void)state;
    phase("", "{\"pass\": \"gptq\"}");
    double all = 2.0 / 3 * (3.0 * H * H * H + (double)I * I * I), down = 2.0 / 3 * I * I * I;
    count(1, 1, false);
    near(effort[BQ_WORK_PASSES].flop[BQ_RATE_FACTOR], L * all);
    count(1, 4, false);
    near(effort[BQ_WORK_PASSES].flop[BQ_RATE_FACTOR], L * fmax(down, all / 4));
    setup(NULL);
}

/* What is kept goes through the block once, and its outputs are there, too; the rest starts again. */
static void one_walk(void **state) {
    (void)state;
    double o = 2.0 * T * (H * H), gate_up = 2.0 * T * (2 * I * H), down = 2.0 * T * (I * H),
           qkv = forward - o - gate_up - down, gram = T * (3.0 * H * H + I * I), rows = 0;
    const double shape[4][2] = {{QKV, H}, {H, H}, {2 * I, H}, {H, I}};
    for (int m = 0; m < 4; m++) rows += shape[m][0] * shape[m][1] * shape[m][1];
    phase("", "{\"pass\": \"gptq\", \"sequential\": true}");
    for (keeps = 0; keeps <= N; keeps += 3) {
        double again = (double)(N - keeps);
        count(1, 1, false);
        effort[BQ_WORK_PASSES].flop[BQ_RATE_FACTOR] = 0;
        near(bq_effort_flop(&effort[BQ_WORK_PASSES]),
             L * (N * (forward - down + gram) + again * (2 * qkv + o) + rows));
        near(bq_effort_flop(&effort[BQ_WORK_ADVANCE]), L * (N * down + again * (forward - down)));
    }
    keeps = 0;
    recipe.phase[0].inputs = BQ_INPUTS_QT;
    recipe.segments = 1;
    count(1, 1, false);
    assert_true(bq_effort_flop(&effort[BQ_WORK_TARGETS]) == 0);
    setup(NULL);
}

static void halving_looks_at_a_third(void **state) {
    (void)state;
    static const struct {
        const char *passes;
        double looks;
    } cases[] = {{"{\"pass\": \"autosmoothquant\"}, " RTN, 11},
                 {"{\"pass\": \"autosmoothquant\", \"search\": \"halving\"}, " RTN, 4.5},
                 {"{\"pass\": \"awq\"}, " RTN, 21},
                 {"{\"pass\": \"awq\", \"search\": \"halving\"}, " RTN, 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        phase("", cases[i].passes);
        count(1, 1, false);
        near(bq_effort_flop(&effort[BQ_WORK_PASSES]), L * N * cases[i].looks * forward);
    }
    setup(NULL);
}

/* Targets that a first pass makes, that nobody reads, and all. */
static void targets_that_are_walked_for(void **state) {
    (void)state;
    static const struct {
        const char *keys, *passes;
        int sweeps;
        double walks;
    } cases[] = {{"\"inputs\": \"fp\",", "{\"pass\": \"smoothquant\"}, " RTN, 1, 0},
                 {"\"inputs\": \"mix\",", "{\"pass\": \"awq\"}, " RTN, 1, 0},
                 {"\"inputs\": \"qt\",", "{\"pass\": \"awq\"}, " RTN, 1, L - 1},
                 {"\"compute\": \"bf16\",", "{\"pass\": \"autosmoothquant\"}, " RTN, 1, L - 1},
                 {"\"inputs\": \"fp\",", "{\"pass\": \"autosmoothquant\"}, " ADASCALE(4), 3, 2 * L},
                 {"\"inputs\": \"fp\",", "{\"pass\": \"gptq\"}", 1, L - 1},
                 {"\"inputs\": \"fp\",", ADASCALE(4), 1, L}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        phase(cases[i].keys, cases[i].passes);
        recipe.sweeps = cases[i].sweeps;
        count(1, 1, false);
        near(bq_effort_flop(&effort[BQ_WORK_TARGETS]), cases[i].walks * N * forward);
    }
    phase(cases[6].keys, cases[6].passes);
    recipe.reference = BQ_COMPUTE_FP16X2;
    count(2, 1, false);
    near(effort[BQ_WORK_TARGETS].flop[BQ_RATE_PRODUCTS], 0);
    near(effort[BQ_WORK_TARGETS].flop[BQ_COMPUTE_FP16X2], L / 2 * N * 2.0 * T * P);
    near(effort[BQ_WORK_REFERENCE].flop[BQ_COMPUTE_FP16X2], L / 2 * N * 2.0 * T * P);
    phase(cases[2].keys, cases[2].passes);
    recipe.segments = 1;
    count(1, 1, false);
    near(bq_effort_flop(&effort[BQ_WORK_TARGETS]), 0);
    setup(NULL);
}

/* Samples beyond those that are held are walked again. */
static void held_samples(void **state) {
    (void)state;
    phase("", "{\"pass\": \"autosmoothquant\"}, " RTN);
    recipe.calibration.samples = 2 * N;
    count(1, 1, false);
    near(bq_effort_flop(&effort[BQ_WORK_PASSES]), L * 2 * N * 12 * forward);
    count(1, 2, false);
    near(bq_effort_flop(&effort[BQ_WORK_PASSES]), L * N * 11 * forward);
    setup(NULL);
}

static int named(bq_machine *m, const char *gpu, const char *network, const char *files, int node) {
    return bq_machine_named(m, &(bq_args){.gpu = gpu, .network = network, .files = files, .node = node});
}

/* 2 stages of 2 replicas, on nodes of 2 ranks: replicas are near each other, stages are not. */
static void seconds(void **state) {
    (void)state;
    bq_machine m = {.name = "m",
                    .flop = {[BQ_RATE_PRODUCTS] = 100, [BQ_RATE_FACTOR] = 50},
                    .memory = 10,
                    .fabric = 20,
                    .network = 5,
                    .latency = 0.5,
                    .files = 20,
                    .files_all = 40,
                    .writes = 4,
                    .node = 2};
    bq_effort e = {.flop = {[BQ_RATE_PRODUCTS] = 200, [BQ_RATE_FACTOR] = 50},
                   .memory = 40,
                   .sent = 10,
                   .passed = 30,
                   .messages = 4,
                   .idle = 300,
                   .files = 10,
                   .written = 2};
    double use[BQ_USES];
    near(bq_machine_seconds(&m, &e, 2, 2, use), 3 + 4 + 0.5 + 8 + 3 + 1.5);
    near(use[BQ_USE_FLOP], 3), near(use[BQ_USE_MEMORY], 4), near(use[BQ_USE_FABRIC], 0.5);
    near(use[BQ_USE_NETWORK], 8), near(use[BQ_USE_IDLE], 3), near(use[BQ_USE_FILES], 1 + 0.5);
    m.node = 4; /* all four in one node */
    bq_machine_seconds(&m, &e, 2, 2, use);
    near(use[BQ_USE_FABRIC], 2), near(use[BQ_USE_NETWORK], 2);
    bq_machine_seconds(&m, &e, 1, 8, use); /* 3 of 7 others are near */
    near(use[BQ_USE_FABRIC], 3.0 / 7 * 10 / 20), near(use[BQ_USE_NETWORK], 4.0 / 7 * 10 / 5 + 6 + 2);
    near(use[BQ_USE_FILES], 10 / 5.0 + 0.5); /* eight share 40 */
}

static void names(void **state) {
    (void)state;
    bq_machine m;
    assert_int_equal(named(&m, "h100", "100Gb", "80GB", 4), BQ_OK);
    near(m.network, 0.9 * 12.5e9), near(m.files_all, 80e9);
    assert_int_equal(m.node, 4);
    for (int k = 0; k < BQ_RATES; k++) assert_true(m.flop[k] > 1e12 && m.flop[k] < 989e12);
    assert_true(m.memory < 3.35e12 && m.gpu == (size_t)80e9 && m.fabric > 16 * m.network);
    assert_int_equal(named(&m, NULL, "3GB", NULL, 0), BQ_OK);
    near(m.network, 0.9 * 3e9);
    static const char *const bad[] = {"", "Gb", "-1Gb", "10", "10Tb", "1e9Gb", "nanGb"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(named(&m, NULL, bad[i], NULL, 0), BQ_USAGE);
        assert_int_equal(named(&m, NULL, NULL, bad[i], 0), BQ_USAGE);
    }
    assert_int_equal(named(&m, "h1000", NULL, NULL, 0), BQ_USAGE);
}

/* Bytes of W4 with a scale a row, the fold only before a later phase; and what is left of their seconds. */
static void checkpoints(void **state) {
    (void)state;
    const double rows = QKV + H + 2 * I + H, packed = P / 2 + 4 * rows;
    bq_layouts layouts = {.count = 1, .at = {{.arch = &arch}}};
    bq_comm grid = {.size = 2, .nstage = 2, .nreplica = 1};
    for (int i = 0; i < arch.linears; i++)
        layouts.at[0].scheme[i] = (bq_scheme){4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0};
    recipe.nphase = 2, recipe.phase[1] = recipe.phase[0];
    bq_effort_count(effort, &recipe, &layouts, &grid, 2, false, &(bq_evals){0}, 0);
    near(effort[BQ_WORK_SAVE].saves, 2 * L / 2);
    near(effort[BQ_WORK_SAVE].written, L / 2 * (packed + 4 * P + packed));
    setup(NULL);

    bq_machine m = {.flop = {[BQ_RATE_PRODUCTS] = 1},
                    .memory = 1,
                    .fabric = 1,
                    .network = 1,
                    .files = 1,
                    .files_all = 8,
                    .writes = 2,
                    .node = 1};
    bq_plan plan = {.nstage = 1, .nreplica = 1, .pending = 1};
    double seconds[BQ_WORKS + 1], use[BQ_USES];
    plan.effort[BQ_WORK_PASSES].flop[BQ_RATE_PRODUCTS] = 40;
    plan.effort[BQ_WORK_SAVE] = (bq_effort){.written = 20, .saves = 5};
    bq_plan_seconds(&plan, &m, seconds, use);
    near(seconds[BQ_WORK_SAVE], 2), near(seconds[BQ_WORKS], 42), near(use[BQ_USE_FILES], 2);
    plan.effort[BQ_WORK_SAVE].written = 100; /* 10 s each, behind 8 s of work */
    bq_plan_seconds(&plan, &m, seconds, use);
    near(seconds[BQ_WORK_SAVE], 10 + 4 * 2);
    plan.pending = 0;
    bq_plan_seconds(&plan, &m, seconds, use);
    near(seconds[BQ_WORK_SAVE], 50);
}

/* Seconds of works [first, last] of the recipe on one H200, of a block of Llama 3 8B or 3.2 1B with 64
 * samples of 2048 tokens, all kept on the way. */
static double on_h200(bool large, const char *keys, const char *passes, int first, int last) {
    bq_arch small = arch;
    bq_machine m;
    double sum = 0, use[BQ_USES];
    arch = rig_arch(large ? (rig_model){bq_family_find("llama"), 4096, 14336, .heads = 32, .kv_heads = 8,
                                        .vocab = 100, .blocks = 1}
                          : (rig_model){bq_family_find("llama"), 2048, 8192, .heads = 32, .kv_heads = 8,
                                        .vocab = 100, .blocks = 1});
    phase(keys, passes);
    recipe.segments = 1, recipe.calibration.samples = keeps = 64, recipe.calibration.length = 2048;
    count(1, 1, false);
    assert_int_equal(named(&m, "h200", NULL, NULL, 0), BQ_OK);
    for (int k = first; k <= last; k++) sum += bq_machine_seconds(&m, &effort[k], 1, 1, use);
    arch = small, keeps = 0;
    setup(NULL);
    return sum;
}

/* What docs/gpu-runs.md measured on an H200, within 25 %: seconds of 10 steps, of the passes of GPTQ, of the
 * quantized stream.  That run also copied each output of the stream to the host and waited for it. */
static void measured_runs(void **state) {
    (void)state;
    static const char gptq[] = "{\"pass\": \"gptq\"}", walk[] = "{\"pass\": \"gptq\", \"sequential\": true}",
                      steps[] = ADASCALE(1);
    const struct {
        bool large;
        const char *compute, *passes;
        int first, last;
        double took;
    } runs[] = {{true, "f32", steps, BQ_WORK_TRAINING, BQ_WORK_TRAINING, 0.681},
                {true, "tf32", steps, BQ_WORK_TRAINING, BQ_WORK_TRAINING, 0.260},
                {true, "bf16", steps, BQ_WORK_TRAINING, BQ_WORK_TRAINING, 0.238},
                {false, "f32", steps, BQ_WORK_TRAINING, BQ_WORK_TRAINING, 0.228},
                {false, "tf32", steps, BQ_WORK_TRAINING, BQ_WORK_TRAINING, 0.109},
                {false, "bf16", steps, BQ_WORK_TRAINING, BQ_WORK_TRAINING, 0.103},
                {true, "f32", gptq, BQ_WORK_PASSES, BQ_WORK_PASSES, 3.1},
                {true, "f32", walk, BQ_WORK_PASSES, BQ_WORK_ADVANCE, 4.2},
                {true, "bf16", walk, BQ_WORK_PASSES, BQ_WORK_ADVANCE, 3.1}};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        char keys[64];
        snprintf(keys, sizeof keys, "\"inputs\": \"qt\", \"compute\": \"%s\",", runs[i].compute);
        double want = runs[i].took,
               said = on_h200(runs[i].large, keys, runs[i].passes, runs[i].first, runs[i].last);
        print_message("%s of %s in %s: predicted %.3f s, took %.3f s: %+.0f %%\n", runs[i].passes,
                      runs[i].large ? "8B" : "1B", runs[i].compute, said, want, 100 * (said / want - 1));
        assert_true(fabs(said / want - 1) < 0.25);
    }
}

/* What a plan advises is not what the recipe says already. */
static void remedies(void **state) {
    static const char *const cases[][2] = {
        {"{\"pass\": \"gptq\"}", "set sequential"},
        {"{\"pass\": \"gptq\", \"sequential\": true}", "start more ranks a stage"},
        {ADASCALE(4), "a smaller batch"},
        {ADASCALE(1), "start more ranks a stage"},
        {"{\"pass\": \"awq\"}, " RTN, "take shorter samples"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        phase("", cases[i][0]);
        assert_non_null(strstr(bq_pass_remedy(recipe.phase[0].pass), cases[i][1]));
    }
    setup(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_rank),
                                       cmocka_unit_test(a_grid),
                                       cmocka_unit_test(experts),
                                       cmocka_unit_test(a_batch_of_one),
                                       cmocka_unit_test(gptq_factors_are_shared),
                                       cmocka_unit_test(one_walk),
                                       cmocka_unit_test(halving_looks_at_a_third),
                                       cmocka_unit_test(targets_that_are_walked_for),
                                       cmocka_unit_test(held_samples),
                                       cmocka_unit_test(seconds),
                                       cmocka_unit_test(names),
                                       cmocka_unit_test(checkpoints),
                                       cmocka_unit_test(measured_runs),
                                       cmocka_unit_test(remedies)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
