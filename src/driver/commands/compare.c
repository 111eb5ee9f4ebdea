/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/commands.h"
#include "driver/commands/side.h"

#include "base/die.h"
#include "base/log.h"
#include "io/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { A, B, SIDES, PIECE = 1 << 20 }; /* PIECE: values that are compared at a time */

/* What two tensors, or all linears together, differ in. */
typedef struct {
    double square, norm, largest; /* sums of (A - B)^2 and of A^2; the largest |A - B| */
    int64_t weights, differ;
    int64_t codes, scales; /* that differ; of zero points with their scales; -1: a side has no codes */
    double bits[SIDES];
} numbers;

typedef struct {
    const bq_args *args;
    bq_comm *comm;
    bq_side side[SIDES];
    numbers total;
    int equal; /* tensors that are no linears, and are the same */
    json_t *linears, *others, *only[SIDES];
    double perplexity[SIDES];
    int64_t windows;
} comparison;

static void *need(void *memory) {
    BQ_CHECK(memory, "no memory to compare models");
    return memory;
}

/* ---- two tensors ---- */

static int refuse_value(const bq_side *s, int64_t row, int64_t col) {
    return bq_refuse(BQ_DATA, "%s: tensor '%.200s' has a NaN or an infinity at row %lld, column %lld",
                     s->path, s->t.name, (long long)row, (long long)col);
}

static int add_piece(comparison *c, numbers *n, int64_t first, bq_mat a, bq_mat b) {
    for (int64_t i = 0; i < a.rows * a.cols; i++) {
        double x = bq_f32(a)[i], y = bq_f32(b)[i], d = fabs(x - y);
        if (!isfinite(x) || !isfinite(y))
            return refuse_value(&c->side[isfinite(x) ? B : A], first + i / a.cols, i % a.cols);
        n->square += d * d, n->norm += x * x, n->differ += d > 0;
        n->largest = d > n->largest ? d : n->largest;
    }
    return BQ_OK;
}

static int compare_values(comparison *c, numbers *n) {
    bq_side *a = &c->side[A], *b = &c->side[B];
    int64_t rows = a->rows, cols = a->cols, most = PIECE / (cols + !cols) + 1;
    if (most > rows) most = rows;
    float *room = need(malloc((size_t)(2 * most * cols) * sizeof *room + 1));
    int code = BQ_OK;
    for (int64_t first = 0; first < rows && !code; first += most) {
        int64_t k = rows - first < most ? rows - first : most;
        bq_mat x = bq_mat_host(room, k, cols, BQ_F32), y = bq_mat_host(room + most * cols, k, cols, BQ_F32);
        bq_side_read(a, first, x);
        bq_side_read(b, first, y);
        code = add_piece(c, n, first, x, y);
        bq_comm_beat();
    }
    free(room);
    return code;
}

/* Tensors of integers: their bytes. */
static void compare_bytes(comparison *c, numbers *n) {
    const bq_side *a = &c->side[A], *b = &c->side[B];
    char *room = need(malloc(2 * PIECE));
    for (size_t from = 0, bytes; from < a->t.bytes && !n->differ; from += bytes) {
        bytes = a->t.bytes - from < PIECE ? a->t.bytes - from : PIECE;
        bq_weights_read_raw(a->src->weights, &a->t, from, room, bytes);
        bq_weights_read_raw(b->src->weights, &b->t, from, room + PIECE, bytes);
        n->differ = memcmp(room, room + PIECE, bytes) ? n->weights : 0;
        bq_comm_beat();
    }
    free(room);
}

static void compare_codes(comparison *c, numbers *n) {
    const bq_qtensor *a = &c->side[A].q, *b = &c->side[B].q;
    const int8_t *x = a->code.data, *y = b->code.data;
    const bool grid = a->scale.cols == b->scale.cols;
    n->codes = n->scales = 0;
    for (int64_t i = 0; i < a->code.rows * a->code.cols; i++) n->codes += x[i] != y[i];
    int64_t more = a->scale.cols > b->scale.cols ? a->scale.cols : b->scale.cols;
    if (!grid) n->scales = a->scale.rows * more;
    for (int64_t i = 0; i < a->scale.rows * a->scale.cols && grid; i++) {
        float zero = a->zero.rows ? bq_f32(a->zero)[i] : 0, other = b->zero.rows ? bq_f32(b->zero)[i] : 0;
        n->scales += bq_f32(a->scale)[i] != bq_f32(b->scale)[i] || zero != other;
    }
}

/* Why the values cannot be compared, or NULL. */
static const char *unlike(const bq_side *a, const bq_side *b) {
    if (a->rows != b->rows || a->cols != b->cols) return "shape";
    if (a->floats && b->floats) return NULL;
    return strcmp(a->t.dtype, b->t.dtype) == 0 ? NULL : "type";
}

/* A text that is not UTF-8 becomes "?". */
static json_t *text_of(const char *text) {
    json_t *value = json_string(text);
    return need(value ? value : json_string("?"));
}

static json_t *real(double x) { return isfinite(x) ? json_real(x) : json_null(); }
static json_t *count(int64_t n) { return n < 0 ? json_null() : json_integer(n); }
static double error_of(const numbers *n) { return n->square > 0 ? sqrt(n->square / n->norm) : 0; }

static json_t *object_of(const numbers *n) {
    double w = (double)n->weights;
    return need(json_pack("{s:I, s:o, s:o, s:I, s:o, s:o, s:[o, o]}", "weights", (json_int_t)n->weights,
                          "error", real(error_of(n)), "largest", real(n->largest), "differ",
                          (json_int_t)n->differ, "codes_differ", count(n->codes), "scales_differ",
                          count(n->scales), "bits", real(n->bits[A] / w), real(n->bits[B] / w)));
}

static void add_total(numbers *t, const numbers *n) {
    t->square += n->square, t->norm += n->norm, t->weights += n->weights, t->differ += n->differ;
    t->largest = n->largest > t->largest ? n->largest : t->largest;
    t->codes = n->codes < 0 || t->codes < 0 ? -1 : t->codes + n->codes;
    t->scales = n->scales < 0 || t->scales < 0 ? -1 : t->scales + n->scales;
    for (int k = 0; k < SIDES; k++) t->bits[k] += n->bits[k];
}

static int compare_tensor(comparison *c, const char *name) {
    bq_side *a = &c->side[A], *b = &c->side[B];
    bq_side_take(a, name);
    bq_side_take(b, name);
    numbers n = {.weights = a->rows * a->cols, .codes = -1, .scales = -1};
    bool linear = bq_source_id(a->src, name).kind == BQ_TENSOR_WEIGHT;
    const char *why = unlike(a, b);
    int code = BQ_OK;
    if (!why && a->floats) code = compare_values(c, &n);
    if (!why && !a->floats) compare_bytes(c, &n);
    if (!why && a->coded && b->coded) compare_codes(c, &n);
    if (code) return code;
    for (int k = 0; k < SIDES; k++) n.bits[k] = bq_side_bits(&c->side[k]);
    if (linear && !why) add_total(&c->total, &n);
    c->equal += !linear && !why && !n.differ;
    if (!linear && !why && !n.differ) return BQ_OK;
    json_t *one = why ? need(json_pack("{s:s}", "unlike", why)) : object_of(&n), *named = need(json_object());
    json_object_set_new(named, "name", text_of(name));
    json_object_update(named, one);
    json_decref(one);
    json_array_append_new(linear ? c->linears : c->others, named);
    return BQ_OK;
}

/* Both lists are in one order. */
static int compare_all(comparison *c) {
    const bq_side *a = &c->side[A], *b = &c->side[B];
    int code = BQ_OK;
    c->linears = need(json_array()), c->others = need(json_array());
    for (int k = 0; k < SIDES; k++) c->only[k] = need(json_array());
    for (int i = 0, k = 0; (i < a->names || k < b->names) && !code;) {
        int order = i == a->names ? 1 : k == b->names ? -1 : strverscmp(a->name[i], b->name[k]);
        if (order)
            json_array_append_new(c->only[order < 0 ? A : B], text_of(order < 0 ? a->name[i] : b->name[k]));
        else
            code = compare_tensor(c, a->name[i]);
        i += order <= 0, k += order >= 0;
    }
    if (!c->total.weights) c->total.codes = c->total.scales = -1;
    return code;
}

/* ---- what is printed ---- */

static json_t *side_object(const comparison *c, int k) {
    const bq_side *s = &c->side[k];
    return json_pack("{s:o, s:s, s:o, s:o}", "path", text_of(s->path), "kind", s->is_run ? "run" : "model",
                     "only", json_incref(c->only[k]), "perplexity",
                     c->args->tokens ? real(c->perplexity[k]) : json_null());
}

static void print_json(const comparison *c) {
    json_t *all =
        need(json_pack("{s:o, s:o, s:O, s:o, s:O, s:i, s:o}", "a", side_object(c, A), "b", side_object(c, B),
                       "linears", c->linears, "total", object_of(&c->total), "others", c->others,
                       "others_equal", c->equal, "windows", count(c->args->tokens ? c->windows : -1)));
    size_t bytes;
    char *text = bq_json_text_of(all, &bytes);
    fwrite(text, 1, bytes, stdout);
    free(text);
    json_decref(all);
}

/* An error has no bound where all values of A are 0. */
static void print_real(const json_t *one, const char *key) {
    const json_t *x = json_object_get(one, key);
    printf(" %9.3e", json_is_number(x) ? json_number_value(x) : (double)INFINITY);
}

static void print_count(const json_t *one, const char *key) {
    const json_t *n = json_object_get(one, key);
    if (json_is_integer(n))
        printf(" %10lld", (long long)json_integer_value(n));
    else
        printf(" %10s", "-");
}

/* Names come from files, which may be a stranger's. */
static void print_name(const char *before, const char *name) {
    char text[512];
    snprintf(text, sizeof text, "%s", name);
    bq_log_clean(text, 0);
    printf("%s%s\n", before, text);
}

static void print_line(const json_t *one, const char *name) {
    const char *unlike = json_string_value(json_object_get(one, "unlike"));
    const json_t *bits = json_object_get(one, "bits");
    if (unlike) {
        printf("  another %-60s ", unlike);
        return print_name("", name);
    }
    putchar(' ');
    print_real(one, "error");
    print_real(one, "largest");
    print_count(one, "differ");
    print_count(one, "codes_differ");
    print_count(one, "scales_differ");
    printf(" %7.3f %7.3f", json_number_value(json_array_get(bits, A)),
           json_number_value(json_array_get(bits, B)));
    print_name("  ", name);
}

static void print_list(const json_t *list) {
    const json_t *one;
    size_t i;
    json_array_foreach(list, i, one) print_line(one, json_string_value(json_object_get(one, "name")));
}

static void print_text(const comparison *c) {
    static const char *const head = "      error   largest     differ      codes     scales  bits A  bits B";
    char all[64];
    const json_t *name;
    size_t i;
    json_t *total = object_of(&c->total);
    for (int k = 0; k < SIDES; k++)
        printf("%c  %s, a %s\n", 'A' + k, c->side[k].path, c->side[k].is_run ? "run" : "model");
    printf("%s  linear\n", head);
    print_list(c->linears);
    snprintf(all, sizeof all, "all linears, %lld weights", (long long)c->total.weights);
    if (c->total.weights) print_line(total, all);
    if (c->total.codes < 0) printf("  codes are compared where both sides are runs; these are values\n");
    printf("%d of the other tensors are equal, %zu differ\n", c->equal, json_array_size(c->others));
    print_list(c->others);
    for (int k = 0; k < SIDES; k++)
        json_array_foreach(c->only[k], i, name)
            print_name(k == A ? "only in A  " : "only in B  ", json_string_value(name));
    if (c->args->tokens)
        printf("perplexity: a=%.6f b=%.6f windows=%ld ctx=%ld\n", c->perplexity[A], c->perplexity[B],
               (long)c->windows, (long)c->args->ctx);
    json_decref(total);
}

/* ---- */

static int evaluate(comparison *c, int k) {
    bq_args one = *c->args;
    one.command = BQ_COMMAND_EVAL, one.result_only = true;
    one.run = c->side[k].is_run ? c->side[k].path : NULL;
    one.model = c->side[k].is_run ? NULL : c->side[k].path;
    return bq_eval_perplexity(&one, c->comm, &c->perplexity[k], &c->windows);
}

int bq_cmd_compare(const bq_args *args, bq_comm *comm) {
    comparison *c = need(calloc(1, sizeof *c));
    int code = BQ_OK;
    c->args = args, c->comm = comm;
    for (int k = 0; k < SIDES && !code; k++) code = bq_side_open(&c->side[k], args->file[k], args, comm);
    if (!code) code = bq_comm_agree(comm, comm->rank == 0 ? compare_all(c) : BQ_OK);
    for (int k = 0; k < SIDES && !code && args->tokens; k++) code = evaluate(c, k);
    if (!code && comm->rank == 0) args->json ? print_json(c) : print_text(c);
    for (int k = 0; k < SIDES; k++) {
        json_decref(c->only[k]);
        bq_side_close(&c->side[k]);
    }
    json_decref(c->linears);
    json_decref(c->others);
    free(c);
    return code;
}
