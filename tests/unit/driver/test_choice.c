/* SPDX-License-Identifier: Apache-2.0 */
/* Multiple choice: what its file may hold, how an answer is judged, and its scores on a toy model against
 * plain double-precision sums over the logits. */
#include "unit/io/refuse.h"

#include "driver/score/score.h"

#include <math.h>

typedef struct {
    char items[BQ_PATH_MAX];
    int64_t ctx, limit;
    int normalize; /* 1: by tokens, 2: characters, 3: bytes */
} choice_options;

static const bq_eval_kind *kind(void) {
    int i = 0;
    while (strcmp(bq_eval_kind_at(i)->name, "choice")) i++;
    return bq_eval_kind_at(i);
}

static choice_options options;

/* Write the file and open it. */
static int take(bq_evals *set, const char *text, int64_t ctx, int64_t limit, int normalize) {
    options = (choice_options){.ctx = ctx, .limit = limit, .normalize = normalize};
    snprintf(options.items, sizeof options.items, "%s", temp_path("q.json"));
    text_save(options.items, text);
    *set = (bq_evals){0};
    return bq_evals_add(set, kind(), &options);
}

#define HEAD "{\"vocab\": 40, \"items\": ["
#define ITEM "{\"context\": [1, 2], \"choices\": [[3], [4, 5]], \"answer\": 1}"

static void refuses(void **state) {
    (void)state;
    static const struct {
        const char *text, *needle;
    } bad[] = {
        {"", "not valid JSON"},
        {"[]", "not a JSON object"},
        {"{\"vocab\": 40", "not valid JSON"},
        {"{\"items\": [" ITEM "]}", "vocab: is missing"},
        {"{\"vocab\": 0, \"items\": [" ITEM "]}", "vocab: 0 is not within 1"},
        {"{\"vocab\": 4e9, \"items\": [" ITEM "]}", "vocab: 4000000000 is not within 1"},
        {"{\"vocab\": 40, \"tokenizer\": \"gpt2\", \"items\": [" ITEM "]}", "tokenizer: is not \"\""},
        {"{\"vocab\": 40, \"tokenizer\": 1, \"items\": [" ITEM "]}", "tokenizer: is not a text"},
        {"{\"vocab\": 40}", "items: is not a list of questions"},
        {"{\"vocab\": 40, \"items\": {}}", "items: is not a list of questions"},
        {HEAD "]}", "items: is not a list of questions"},
        {HEAD "3]}", "items.0.choices: is not a list of 2 to 26"},
        {HEAD ITEM ", {\"context\": [1], \"choices\": [[3]], \"answer\": 0}]}",
         "items.1.choices: is not a list"},
        {HEAD "{\"context\": [1], \"choices\": [[3], [4]]}]}", "items.0.answer: is missing"},
        {HEAD "{\"context\": [1], \"choices\": [[3], [4]], \"answer\": 2}]}",
         "answer: 2 is not within 0 .. 1"},
        {HEAD "{\"context\": [1], \"choices\": [[3], [4]], \"answer\": \"A\"}]}",
         "answer: is not an integer"},
        {HEAD "{\"context\": [], \"choices\": [[3], [4]], \"answer\": 0}]}",
         "items.0.context: is not a list"},
        {HEAD "{\"choices\": [[3], [4]], \"answer\": 0}]}", "items.0.context: is not a list"},
        {HEAD "{\"context\": [1], \"choices\": [[3], []], \"answer\": 0}]}",
         "choices.1: is not a list of token ids"},
        {HEAD "{\"context\": [1], \"choices\": [[3], 4], \"answer\": 0}]}",
         "choices.1: is not a list of token ids"},
        {HEAD "{\"context\": [1], \"choices\": [[3], [4, 40]], \"answer\": 0}]}",
         "items.0.choices.1.1: is 40, not a token id from 0 to 39: write the file by tools/choices.py"},
        {HEAD "{\"context\": [-1], \"choices\": [[3], [4]], \"answer\": 0}]}",
         "context.0: is -1, not a token id"},
        {HEAD "{\"context\": [1.0], \"choices\": [[3], [4]], \"answer\": 0}]}",
         "context.0: is not an integer: write"},
        {HEAD "{\"context\": [1], \"choices\": [[3], [4, 5, 6, 7]], \"answer\": 0}]}",
         "items.0.choices.1: has 5 tokens with its context, ctx is 4: give a larger ctx"},
    };
    bq_evals set;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_refused(take(&set, bad[i].text, 4, 0, 0), bad[i].needle);
        bq_evals_close(&set);
    }
    assert_refused(take(&set, HEAD ITEM "]}", 4, 2, 0),
                   "items: has 1 items, limit is 2: give at most that many");
    bq_evals_close(&set);
    options.items[strlen(options.items) - 1] = 'x';
    assert_refused(bq_evals_add(&set, kind(), &options), "q.jsox': No such file");
    bq_evals_close(&set);
}

/* More brackets than a stack could take, and more choices than letters. */
static void refuses_large(void **state) {
    (void)state;
    enum { DEEP = 100000, MANY = 27 };
    char *text = malloc(2 * DEEP);
    bq_evals set;
    assert_non_null(text);
    memset(text, '[', DEEP);
    text[DEEP] = 0;
    assert_refused(take(&set, text, 4, 0, 0), "nested deeper than");
    bq_evals_close(&set);
    strcpy(text, HEAD "{\"context\": [1], \"answer\": 0, \"choices\": [[3]");
    for (int i = 1; i < MANY; i++) strcat(text, ", [4]");
    strcat(text, "]}]}");
    assert_refused(take(&set, text, 4, 0, 0), "items.0.choices: is not a list of 2 to 26");
    bq_evals_close(&set);
    free(text);
}

#define THREE                                                                                                \
    HEAD "{\"context\": [1, 2], \"choices\": [[3], [4, 5]], \"answer\": 1},"                                 \
         "{\"context\": [6], \"choices\": [[7, 8, 9], [3], [0]], \"answer\": 0},"                            \
         "{\"context\": [9, 9, 9], \"choices\": [[1, 1, 1, 1], [2]], \"answer\": 1}]}"

static void sequences(void **state) {
    (void)state;
    bq_evals set;
    int32_t ids[8];
    int64_t from;
    assert_int_equal(take(&set, THREE, 512, 0, 0), BQ_OK);
    const bq_eval *e = set.eval;
    assert_true(e->items == 3 && e->sequences == 7 && e->ctx == 7);
    assert_true(e->tokens.vocab == 40 && e->tokens.tokenizer[0] == 0 && e->first == 0 && e->used == 19);
    assert_int_equal(kind()->sequence(e, 1, ids, &from), 4);
    assert_memory_equal(ids, ((int32_t[]){1, 2, 4, 5}), 4 * sizeof *ids);
    assert_int_equal(from, 2);
    assert_int_equal(kind()->sequence(e, 5, ids, &from), 7);
    assert_memory_equal(ids, ((int32_t[]){9, 9, 9, 1, 1, 1, 1}), 7 * sizeof *ids);
    assert_int_equal(from, 3);
    bq_evals_close(&set);
    assert_int_equal(take(&set, THREE, 512, 2, 0), BQ_OK);
    assert_true(set.eval->items == 2 && set.eval->sequences == 5 && set.eval->ctx == 4);
    bq_evals_close(&set);
}

/* The first value of an evaluation. */
static double first(const bq_eval *e, const double *score) {
    double value[1 + 3 + 2];
    kind()->number(e, score, value);
    return value[0];
}

static void judges(void **state) {
    (void)state;
    bq_evals set;
    char text[128];
    const double nll[] = {1, 2, 4};
    assert_int_equal(take(&set, THREE, 512, 0, 1), BQ_OK);
    assert_true(kind()->judge(set.eval, 2, nll, 3) == -7. / 3);
    bq_evals_close(&set);
    assert_int_equal(take(&set, THREE, 512, 0, 0), BQ_OK);
    bq_eval *e = set.eval;
    assert_true(kind()->judge(e, 2, nll, 3) == -7);
    assert_true(e->stats == 1 && e->parts == 0);
    double score[] = {-2, -1, /**/ -5, -6, -7, /**/ -3, -2.5};
    assert_true(first(e, score) == 1);
    score[1] = -2; /* a tie: the first choice is taken, which is wrong here */
    assert_true(first(e, score) == 2. / 3);
    score[4] = -5; /* and right here */
    assert_true(first(e, score) == 2. / 3);
    score[4] = -4;
    assert_true(first(e, score) == 1. / 3);
    for (int i = 0; i < 7; i++) {
        double kept = score[i];
        score[i] = i % 2 ? -(double)NAN : -(double)INFINITY;
        assert_true(isnan(first(e, score)));
        kind()->blame(e, score, text, sizeof text);
        score[i] = kept;
        static const char *const name[] = {"0 of item 0", "1 of item 0", "0 of item 1", "1 of item 1",
                                           "2 of item 1", "0 of item 2", "1 of item 2"};
        char want[128];
        snprintf(want, sizeof want, "the log-likelihood of choice %s is %s", name[i], i % 2 ? "nan" : "-inf");
        assert_string_equal(text, want);
    }
    bq_evals_close(&set);
}

/* ---- lengths, subjects, standard errors ---- */

#define LONG(subject, answer, length)                                                                        \
    "{\"context\": [1], \"choices\": [[3], [4]], \"answer\": " #answer ", \"subject\": \"" subject           \
    "\", \"characters\": [2, 4], \"bytes\": " length "}"
#define FIVE                                                                                                 \
    HEAD LONG("b", 0, "[2, 8]") "," LONG("a", 0, "[2, 8]") "," LONG("b", 1, "[2, 8]") "," LONG(              \
        "a", 1, "[2, 8]") "," LONG("b", 1, "[2, 8]") "]}"

static void lengths(void **state) {
    (void)state;
    static const struct {
        const char *text, *needle;
        int normalize;
    } bad[] = {
        {HEAD ITEM "]}", "items.0.characters: is missing: write the file by tools/choices.py", 2},
        {HEAD ITEM "]}", "items.0.bytes: is missing", 3},
        {HEAD LONG("a", 0, "[2]") "]}", "items.0.bytes: is not a list of 2 numbers", 3},
        {HEAD LONG("a", 0, "[2, 0]") "]}", "items.0.bytes: 0 is not within 1", 3},
    };
    const double nll[] = {1, 2, 4};
    bq_evals set;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_refused(take(&set, bad[i].text, 4, 0, bad[i].normalize), bad[i].needle);
        bq_evals_close(&set);
    }
    for (int normalize = 2; normalize < 4; normalize++) {
        assert_int_equal(take(&set, FIVE, 512, 0, normalize), BQ_OK);
        assert_true(kind()->judge(set.eval, 0, nll, 3) == -7. / 2);
        assert_true(kind()->judge(set.eval, 1, nll, 3) == -7. / (normalize == 2 ? 4 : 8));
        bq_evals_close(&set);
    }
}

static bool near(double a, double b) { return fabs(a - b) <= 1e-15; }

static void subjects(void **state) {
    (void)state;
    bq_evals set;
    char long_name[512];
    const double score[] = {-1, -2, /**/ -2, -1, /**/ -2, -1, /**/ -2, -1, /**/ -1, -2};
    double value[1 + 3 + 2], odd[10];
    assert_refused(take(&set, HEAD ITEM "," LONG("a", 0, "[1, 1]") "]}", 4, 0, 0),
                   "items.1.subject: all items must have one, or none");
    bq_evals_close(&set);
    assert_refused(take(&set, HEAD LONG("a", 0, "[1, 1]") "," ITEM "]}", 4, 0, 0),
                   "items.1.subject: all items must have one, or none");
    bq_evals_close(&set);
    snprintf(long_name, sizeof long_name,
             HEAD "{\"context\": [1], \"choices\": [[3], [4]], \"answer\": 0, \"subject\": \"%064d\"}]}", 0);
    assert_refused(take(&set, long_name, 4, 0, 0), "items.0.subject: has more than 63 bytes");
    bq_evals_close(&set);

    assert_int_equal(take(&set, FIVE, 512, 0, 0), BQ_OK);
    const bq_eval *e = set.eval;
    assert_true(e->stats == 3 && e->parts == 2 && bq_eval_values(e) == 6);
    assert_string_equal(e->part[0].name, "b");
    assert_true(e->part[0].items == 3 && e->part[1].items == 2);
    kind()->number(e, score, value); /* b: right, right, wrong; a: wrong, right */
    assert_true(value[0] == 3. / 5 && value[4] == 2. / 3 && value[5] == 1. / 2);
    /* the deviation of the sample 1, 0, 1, 1, 0 over sqrt(5), as statistics.stdev has it */
    assert_true(near(value[1], 0.5477225575051661 / sqrt(5)));
    assert_true(near(value[2], 7. / 12));
    assert_true(near(value[3], sqrt(2. / 9 / 2 + 1. / 4) / 2));
    memcpy(odd, score, sizeof odd);
    odd[7] = (double)NAN;
    kind()->number(e, odd, value);
    for (int i = 0; i < 6; i++) assert_true(isnan(value[i]));
    bq_evals_close(&set);
    assert_int_equal(take(&set, FIVE, 512, 1, 0), BQ_OK); /* one item, so one subject and no error */
    e = set.eval;
    assert_true(e->parts == 1 && e->part[0].items == 1);
    kind()->number(e, score, value);
    assert_true(value[0] == 1 && isnan(value[1]) && value[2] == 1 && isnan(value[3]) && value[4] == 1);
    bq_evals_close(&set);
}

/* ---- against sums over logits ---- */

static bq_comm alone;
static double found[16];
static void keep(const bq_eval *e, const double *score, double *value) {
    memcpy(found, score, (size_t)e->sequences * sizeof *found);
    kind()->number(e, score, value);
}

/* Its weights are made from a seed. */
static const char config[] =
    "{\"blockq_procedural\": 5, \"model_type\": \"llama\", \"hidden_act\": \"silu\", \"hidden_size\": 48, "
    "\"intermediate_size\": 72, \"head_dim\": 12, \"max_position_embeddings\": 64, \"num_attention_heads\": "
    "4, "
    "\"num_hidden_layers\": 2, \"num_key_value_heads\": 2, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, "
    "\"vocab_size\": 40, \"tie_word_embeddings\": false, \"architectures\": [\"LlamaForCausalLM\"]}";

/* Logits of one sequence, (T, vocab) in the arena, made as where they are compared with transformers. */
static bq_mat logits_of(const bq_source *src, bq_dev *dev, const int32_t *ids, int64_t tokens) {
    const bq_model *m = &src->arch.model;
    bq_block blk;
    bq_work work;
    bq_block_push(&blk, &src->arch, &dev->mem);
    bq_source_work(src, &src->arch, BQ_ANGLES_HF, dev, tokens, false, &work);
    bq_mat x = work.x, y = work.y;
    bq_mat norm = bq_arena_push(&dev->mem, 1, m->hidden, BQ_F32);
    bq_mat head = bq_arena_push(&dev->mem, m->vocab, m->hidden, BQ_F32);
    bq_mat logits = bq_arena_push(&dev->mem, tokens, m->vocab, BQ_F32);
    bq_source_embed(src, ids, false, x);
    for (int b = 0; b < m->blocks; b++) {
        bq_source_block(src, dev, b, &blk);
        bq_block_forward(dev, &blk, blk.w, &work, x, y);
        dev->op->copy(dev, y, x);
    }
    bq_source_head(src, dev, false, norm, head);
    dev->op->rmsnorm(dev, x, norm, (float)m->eps, y);
    dev->op->gemm(dev, false, true, 1, y, head, 0, logits);
    dev->op->wait(dev);
    return logits;
}

/* Sum of the log-likelihoods of ids[from ...]. */
static double plain(const bq_source *src, bq_dev *dev, const int32_t *ids, int64_t tokens, int64_t from) {
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat logits = logits_of(src, dev, ids, tokens);
    double sum = 0;
    for (int64_t t = from; t < tokens; t++) {
        const float *row = bq_f32(logits) + (t - 1) * logits.ld;
        double all = 0;
        for (int64_t v = 0; v < logits.cols; v++) all += exp((double)row[v]);
        sum += (double)row[ids[t]] - log(all);
    }
    bq_arena_reset(&dev->mem, mark);
    return sum;
}

static void golden_scores(void **state) {
    (void)state;
    bq_source src;
    bq_dev dev;
    bq_evals set;
    double value[2];
    mkdir(temp_path("model"), 0777);
    text_save(temp_path("model/config.json"), config);
    assert_int_equal(bq_source_open(&src, temp_path("model")), 0);
    assert_int_equal(bq_dev_open(&dev, "cpu", 2, (size_t)64 << 20), 0);
    bq_eval_kind keeper = *kind();
    keeper.number = keep;
    for (int normalize = 0; normalize < 2; normalize++) {
        assert_int_equal(take(&set, THREE, 512, 0, normalize), BQ_OK);
        bq_eval *e = set.eval;
        e->kind = &keeper;
        bq_score s = {.dev = &dev, .comm = &alone, .src = &src, .angles = BQ_ANGLES_HF, .label = "fp"};
        assert_int_equal(bq_score_run(&s, e, NULL, NULL, NULL, value), BQ_OK);
        for (int64_t i = 0; i < e->sequences; i++) {
            int32_t ids[8];
            int64_t from, n = kind()->sequence(e, i, ids, &from);
            double want = plain(&src, &dev, ids, n, from) / (normalize ? (double)(n - from) : 1);
            print_message("  choice %d: %.7f, plainly %.7f\n", (int)i, found[i], want);
            assert_true(fabs(found[i] - want) <= 1e-5 * fabs(want));
        }
        bq_evals_close(&set);
    }
    bq_dev_close(&dev);
    bq_source_close(&src);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(refuses),       cmocka_unit_test(refuses_large),
                                       cmocka_unit_test(sequences),     cmocka_unit_test(judges),
                                       cmocka_unit_test(golden_scores), cmocka_unit_test(lengths),
                                       cmocka_unit_test(subjects)};
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
    if (bq_comm_open(&alone, NULL, NULL)) return 1;
    int failed = cmocka_run_group_tests(tests, temp_make, temp_remove);
    bq_comm_close(&alone);
    return failed;
}
