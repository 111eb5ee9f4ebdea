/* SPDX-License-Identifier: Apache-2.0 */
/* A complete AdaScale run of AIMET, number by number, through the code of `blockq run`: loader, streams,
 * phase loop, checkpoints. */
#include "golden/replay.h"

#include "base/die.h"
#include "block/passes/train.h"
#include "driver/run/phase.h"
#include "driver/run/session.h"
#include "driver/streams/reference.h"
#include "driver/streams/sweep.h"
#include "io/state/checkpoint.h"
#include "io/files.h"

#include <math.h>
#include <string.h>

#define LOSS_TOLERANCE  1e-4 /* relative */
#define PARAM_TOLERANCE 5e-5 /* absolute */
#define OUTSIDE         1e-3 /* share of values that may be beyond it, of codes that may differ */

typedef struct {
    golden *g;
    golden_report *r;
    const bq_arch *arch;
} watch;

static void compare(const watch *w, const char *what, const char *name, bq_mat have) {
    golden_compare(golden_row_of(w->r, what, PARAM_TOLERANCE, OUTSIDE), GOLDEN_ABSOLUTE, have,
                   golden_read(w->g, BQ_F32, have.rows, have.cols, "%s", name), name);
}

static void trained(void *ctx, int block, int linear, const bq_trained *v) {
    static const char *const part[][2] = {{"beta", "beta"}, {"gamma", "gamma"}, {"s3", "s3"},
                                          {"s2", "s2"},     {"max", "hi"},      {"min", "lo"}};
    const watch *w = ctx;
    for (int k = 0; k < 6; k++) {
        char name[200];
        snprintf(name, sizeof name, "param/model.layers.%d.%s.%s", block, w->arch->linear[linear].module,
                 part[k][0]);
        compare(w, "trained", name, bq_trained_value(v, part[k][1]));
    }
}

/* The file's config has the model's numbers alone. */
static json_t *missing_keys(const golden *g) {
    return json_pack("{s[s] ss ss sb si}", "architectures", "LlamaForCausalLM", "model_type", "llama",
                     "hidden_act", "silu", "tie_word_embeddings", !golden_has(g, "init/lm_head.weight"),
                     "max_position_embeddings", 1 << 20);
}

static void write_inputs(golden *g, bq_mat ids, char *recipe, size_t n) {
    char path[400], text[500];
    json_t *config = golden_json(g, "config");
    bq_tokens t = {.count = ids.rows * ids.cols,
                   .vocab = json_integer_value(json_object_get(config, "vocab_size")),
                   .bos = -1,
                   .tokenizer = "golden",
                   .text = "golden",
                   .joiner = "raw",
                   .ids = ids.data};
    json_decref(config);
    double qt = golden_number(g, "qt_probability"), iterations = golden_number(g, "iterations");
    if ((qt != 0 && qt != 1) || iterations != floor(iterations))
        bq_refuse_job(BQ_DATA, "%s: qt_probability %g must be 0 or 1, iterations %g a whole number", g->path,
                      qt, iterations);
    snprintf(path, sizeof path, "%s/tokens.h5", g->dir);
    golden_require(bq_tokens_write(path, &t));
    /* The second phase is not run: checkpoints have the folded weights for it. */
    snprintf(
        text, sizeof text,
        "{\"model\": \".\", \"calibration\": {\"tokens\": \"tokens.h5\", \"samples\": %lld, \"length\": "
        "%lld},"
        "\"phases\": [{\"inputs\": \"%s\", \"passes\": [{\"pass\": \"adascale\", \"iterations\": %.0f}]}, "
        "{\"passes\": [{\"pass\": \"rtn\"}]}]}",
        (long long)ids.rows, (long long)ids.cols, qt == 1 ? "qt" : "fp", iterations);
    snprintf(recipe, n, "%s/recipe.json", g->dir);
    BQ_CHECK(bq_file_write_atomic(recipe, text, strlen(text)) == 0, "%s cannot be written", recipe);
}

/* Linear i of a checkpoint: its folded weights and scales, and its codes beside those that the file's
 * weights and scales give. */
static void folded(const watch *w, bq_ckpt_file *f, const bq_ckpt *head, int block, int i) {
    const bq_ckpt_linear *l = &head->linear[i];
    int64_t rows = l->fold.rows, cols = l->fold.cols;
    char name[200];
    bq_mat fold = bq_mat_host(golden_keep(w->g, (size_t)(rows * cols) * sizeof(float)), rows, cols, BQ_F32),
           code = bq_mat_host(golden_keep(w->g, (size_t)(rows * cols)), rows, cols, BQ_I8),
           scale = bq_mat_host(golden_keep(w->g, (size_t)rows * sizeof(float)), rows, 1, BQ_F32);
    bq_ckpt_read(f, i, BQ_CKPT_FOLD, fold);
    bq_ckpt_read(f, i, BQ_CKPT_CODE, code);
    bq_ckpt_read(f, i, BQ_CKPT_SCALE, scale);
    snprintf(name, sizeof name, "folded/model.layers.%d.%s.weight", block, l->name);
    compare(w, "folded", name, fold);
    const float *theirs = golden_read(w->g, BQ_F32, rows, cols, "%s", name).data;
    snprintf(name, sizeof name, "scale/model.layers.%d.%s", block, l->name);
    compare(w, "scales", name, scale);
    const float *step = golden_read(w->g, BQ_F32, rows, 1, "%s", name).data;
    golden_row *codes = golden_codes_of(w->r, "codes that differ", 0, OUTSIDE);
    float most = -bq_qmin(l->scheme);
    for (int64_t e = 0; e < rows * cols; e++) {
        float q = rintf(theirs[e] / step[e / cols]);
        q = q < -most ? -most : q > most - 1 ? most - 1 : q;
        golden_note(codes, fabs((double)((const int8_t *)code.data)[e] - (double)q), "block %d %s", block,
                    l->name);
    }
}

static void checkpoints(const watch *w, const bq_run *s, bq_mat loss) {
    golden_row *losses = golden_row_of(w->r, "losses", LOSS_TOLERANCE, 0);
    for (int b = 0; b < s->src.arch.model.blocks; b++) {
        char path[BQ_PATH_MAX + 64], at[32];
        bq_ckpt_file *f;
        bq_ckpt head;
        bq_ckpt_path(path, sizeof path, s->dir, 0, 0, b);
        BQ_CHECK(bq_ckpt_open(&f, path, s->fingerprint, &head, NULL) == BQ_CKPT_OK, "%s is not there", path);
        BQ_CHECK(head.steps == loss.cols, "%s: %lld steps", path, (long long)head.steps);
        double *have = golden_keep(w->g, (size_t)head.steps * sizeof *have);
        bq_ckpt_read_loss(f, have);
        snprintf(at, sizeof at, "block %d", b);
        golden_compare(losses, GOLDEN_RELATIVE, bq_mat_host(have, 1, head.steps, BQ_F64),
                       bq_mat_rows(loss, b, 1), at);
        for (int i = 0; i < head.linears; i++) folded(w, f, &head, b, i);
        bq_ckpt_close(f);
    }
}

void golden_aimet(golden *g, bq_comm *comm, golden_report *r) {
    static bq_run s;
    char recipe[400], *file[] = {recipe};
    json_t *missing = missing_keys(g);
    golden_model(g, missing);
    json_decref(missing);
    bq_mat ids = golden_tokens(g);
    write_inputs(g, ids, recipe, sizeof recipe);
    bq_args args = {.command = BQ_COMMAND_RUN, .nfile = 1, .file = file, .device = "cpu"};
    snprintf(args.out, sizeof args.out, "%s/run", g->dir);
    golden_require(bq_session_open(&s, &args, comm));
    bq_mat loss =
        golden_read(g, BQ_F64, s.src.arch.model.blocks, (int64_t)golden_number(g, "iterations"), "loss");
    golden_require(bq_session_enter(&s));
    watch w = {g, r, &s.src.arch};
    bq_phase_hooks hooks = {&w, trained};
    bq_reference_run(&s, s.plan.micro);
    golden_require(bq_phase_run(&s, 0, 0, &hooks));
    checkpoints(&w, &s, loss);
    bq_session_close(&s);
}
