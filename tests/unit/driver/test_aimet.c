/* Two complete AdaScale runs of AIMET, number by number, through the code of `blockq run`: loader, streams,
 * phase loop, checkpoints.  Tolerances: tests/vectors/README.md. */
#include "golden.h"

#include "driver/streams/reference.h"
#include "driver/run/phase.h"
#include "driver/run/session.h"
#include "driver/streams/sweep.h"
#include "io/checkpoint.h"

#define LOSS_TOLERANCE  1e-4 /* relative */
#define PARAM_TOLERANCE 5e-5 /* absolute */
#define OUTSIDE         1e-3 /* share of elements that may be beyond it */

typedef struct {
    golden g;
    int64_t compared, outside;
    double worst;
} watch;

static void count(watch *w, const char *name, const float *have, int64_t n) {
    int64_t m;
    float *want = golden_read(&w->g, name, &m);
    assert_int_equal(n, m);
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)have[i] - (double)want[i]);
        w->compared++;
        w->outside += !(d <= PARAM_TOLERANCE);
        if (!(d <= w->worst)) w->worst = d;
    }
    free(want);
}

static const bq_arch *arch_now;
static bq_comm comm;

static void trained(void *ctx, int block, int linear, const bq_adascale *p) {
    watch *w = ctx;
    char name[160];
    const struct {
        const char *what;
        bq_mat value;
    } part[] = {{"beta", p->beta}, {"gamma", p->gamma}, {"s3", p->s3},
                {"s2", p->s2},     {"max", p->hi},      {"min", p->lo}};
    for (int k = 0; k < 6; k++) {
        snprintf(name, sizeof name, "param/model.layers.%d.%s.%s", block, arch_now->linear[linear].module,
                 part[k].what);
        count(w, name, part[k].value.data, part[k].value.rows * part[k].value.cols);
    }
}

static void write_inputs(const golden *g, const char *inputs, char *recipe, size_t n) {
    char path[400], text[2000];
    int64_t total;
    int32_t *ids = golden_read(g, "tokens", &total);
    bq_tokens t = {.count = total,
                   .vocab = 97,
                   .bos = -1,
                   .tokenizer = "golden",
                   .text = "golden",
                   .joiner = "raw",
                   .ids = ids};
    snprintf(path, sizeof path, "%s/tokens.h5", g->dir);
    assert_int_equal(bq_tokens_write(path, &t), 0);
    free(ids);
    snprintf(
        text, sizeof text,
        "{\"model\": \".\", \"calibration\": {\"tokens\": \"tokens.h5\", \"samples\": 5, \"length\": 40},"
        "\"phases\": [{\"inputs\": \"%s\", \"passes\": [{\"pass\": \"adascale\", \"iterations\": 24}]}]}",
        inputs);
    snprintf(recipe, n, "%s/recipe.json", g->dir);
    assert_int_equal(bq_file_write_atomic(recipe, text, strlen(text)), 0);
}

static void check_losses(const golden *g, const double *have, int block, double *worst) {
    double *want = golden_read(g, "loss", NULL);
    for (int i = 0; i < 24; i++) {
        double error = fabs(have[i] - want[24 * block + i]) / fabs(want[24 * block + i]);
        if (!(error <= *worst)) *worst = error;
    }
    free(want);
}

static void check_folded(watch *w, bq_ckpt_file *f, const bq_ckpt *head, int block, int64_t *codes,
                         int64_t *differ) {
    for (int i = 0; i < head->linears; i++) {
        const bq_ckpt_linear *l = &head->linear[i];
        int64_t n = l->fold.rows * l->fold.cols;
        char name[160];
        float *fold = malloc((size_t)n * sizeof *fold),
              *scale = malloc((size_t)l->scale.rows * sizeof *scale);
        int8_t *code = malloc((size_t)n);
        bq_ckpt_read(f, i, BQ_CKPT_FOLD, bq_mat_host(fold, l->fold.rows, l->fold.cols, BQ_F32));
        bq_ckpt_read(f, i, BQ_CKPT_CODE, bq_mat_host(code, l->fold.rows, l->fold.cols, BQ_I8));
        bq_ckpt_read(f, i, BQ_CKPT_SCALE, bq_mat_host(scale, l->scale.rows, 1, BQ_F32));
        snprintf(name, sizeof name, "folded/model.layers.%d.%s.weight", block, l->name);
        count(w, name, fold, n);
        float *theirs = golden_read(&w->g, name, NULL);
        snprintf(name, sizeof name, "scale/model.layers.%d.%s", block, l->name);
        count(w, name, scale, l->scale.rows);
        float *step = golden_read(&w->g, name, NULL);
        for (int64_t e = 0; e < n; e++) {
            float q = rintf(theirs[e] / step[e / l->fold.cols]);
            q = q < -8 ? -8 : q > 7 ? 7 : q;
            (*codes)++, *differ += (float)code[e] != q;
        }
        free(fold), free(scale), free(code), free(theirs), free(step);
    }
}

static void check(void **state) {
    bool qt = strcmp(*state, "qt") == 0;
    watch w = {0};
    char recipe[400], *file[] = {recipe};
    golden_open(
        &w.g, qt ? "aimet_tiny_qt1" : "aimet_tiny_qt0",
        "\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_act\": \"silu\","
        "\"tie_word_embeddings\": true, \"max_position_embeddings\": 512, ");
    write_inputs(&w.g, *state, recipe, sizeof recipe);
    bq_args args = {.command = BQ_COMMAND_RUN, .nfile = 1, .file = file, .device = "cpu"};
    snprintf(args.out, sizeof args.out, "%s/run", w.g.dir);
    bq_run s;
    assert_int_equal(bq_session_open(&s, &args, &comm), 0);
    assert_int_equal(bq_session_enter(&s), 0);
    arch_now = &s.src.arch;
    bq_reference_run(&s, s.micro);
    bq_phase_hooks hooks = {&w, trained};
    assert_int_equal(bq_phase_run(&s, 0, 0, &hooks), 0);
    bq_sweep_results(&s);

    double worst_loss = 0;
    int64_t codes = 0, differ = 0;
    for (int b = 0; b < 2; b++) {
        char path[BQ_PATH_MAX + 64];
        bq_ckpt_file *f;
        bq_ckpt head;
        double loss[24];
        bq_run_checkpoint(&s, b, path, sizeof path);
        assert_int_equal(bq_ckpt_open(&f, path, s.fingerprint, &head, NULL), BQ_CKPT_OK);
        assert_int_equal(head.steps, 24);
        bq_ckpt_read_loss(f, loss);
        check_losses(&w.g, loss, b, &worst_loss);
        check_folded(&w, f, &head, b, &codes, &differ);
        bq_ckpt_close(f);
    }
    print_message("inputs %s: worst loss deviation %.2e; %ld of %ld values beyond %.0e (worst %.2e); %ld of "
                  "%ld codes differ\n",
                  (const char *)*state, worst_loss, (long)w.outside, (long)w.compared, PARAM_TOLERANCE,
                  w.worst, (long)differ, (long)codes);
    assert_true(worst_loss <= LOSS_TOLERANCE);
    assert_true((double)w.outside <= OUTSIDE * (double)w.compared);
    assert_true((double)differ <= OUTSIDE * (double)codes);
    assert_true(w.compared > 90000 && codes > 40000);
    bq_session_close(&s);
    golden_close(&w.g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(check, "fp"),
                                       cmocka_unit_test_prestate(check, "qt")};
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
    if (bq_comm_open(&comm, NULL, NULL)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_comm_close(&comm);
    return failed;
}
