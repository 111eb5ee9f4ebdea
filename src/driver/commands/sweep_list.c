/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/sweep_list.h"

#include "base/die.h"
#include "base/log.h"
#include "driver/commands/report.h"
#include "io/files.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 4096 };

/* Value k of KEY=A,B,C, from the '=' on: *length bytes at the pointer; NULL behind the last.  A comma inside
 * brackets, braces or quotes does not part values. */
static const char *value_at(const char *text, int k, int *length) {
    const char *from = strchr(text, '='), *c;
    int depth = 0;
    bool quoted = false;
    if (!from) return NULL;
    for (c = ++from;; c++) {
        if (*c == '"') quoted = !quoted;
        if (!quoted) depth += (*c == '[' || *c == '{') - (*c == ']' || *c == '}');
        if (*c && (*c != ',' || depth > 0 || quoted)) continue;
        *length = (int)(c - from);
        if (k-- == 0) return *length ? from : NULL;
        if (!*c) return NULL;
        from = c + 1;
    }
}

static int values_of(const char *text) {
    int n = 0, length;
    while (value_at(text, n, &length)) n++;
    return n;
}

/* Append to a name of a directory; what could mean something to a shell becomes '_'. */
static bool append(char *name, const char *text, int length) {
    const size_t at = strlen(name);
    if (at + (size_t)length >= BQ_SWEEP_NAME) return false;
    for (int i = 0; i < length; i++)
        name[at + (size_t)i] = isalnum((unsigned char)text[i]) || strchr("._-+=,", text[i]) ? text[i] : '_';
    name[at + (size_t)length] = 0;
    return true;
}

/* Name and overrides of combination k of a recipe. */
static int fill(bq_sweep_run *run, const bq_args *a, char *recipe, int k) {
    const char *slash = strrchr(recipe, '/'), *base = slash ? slash + 1 : recipe;
    int length = (int)strlen(base);
    if (length > 5 && strcmp(base + length - 5, ".json") == 0) length -= 5;
    run->recipe = recipe;
    bool fits = append(run->name, base, length);
    for (int v = 0; v < a->nvary; v++) {
        const int count = values_of(a->vary[v]), key = (int)strcspn(a->vary[v], "=");
        int bytes;
        const char *value = value_at(a->vary[v], k % count, &bytes),
                   *dot = memrchr(a->vary[v], '.', (size_t)key);
        const char *last = dot ? dot + 1 : a->vary[v];
        k /= count;
        if (asprintf(&run->set[v], "%.*s=%.*s", key, a->vary[v], bytes, value) < 0) run->set[v] = NULL;
        BQ_CHECK(run->set[v], "no memory for the runs of a sweep");
        fits = fits && append(run->name, ",", 1) && append(run->name, last, (int)(a->vary[v] + key - last)) &&
               append(run->name, "=", 1) && append(run->name, value, bytes);
    }
    return fits ? BQ_OK
                : bq_refuse(BQ_USAGE, "%.200s: the name of a run would have more than %d bytes", run->name,
                            BQ_SWEEP_NAME - 1);
}

int bq_sweep_list_open(bq_sweep_list *list, const bq_args *a) {
    int each = 1, code = BQ_OK;
    *list = (bq_sweep_list){0};
    for (int v = 0; v < a->nvary; v++) {
        const int count = values_of(a->vary[v]);
        if (!count || a->vary[v][0] == '=')
            return bq_refuse(BQ_USAGE, "--vary %.200s: must be KEY=VALUE,VALUE,...", a->vary[v]);
        each = each > RUNS / count ? RUNS + 1 : each * count;
    }
    if (each > RUNS / a->nfile)
        return bq_refuse(BQ_USAGE, "a sweep of more than %d runs: give fewer recipes or values", RUNS);
    list->at = calloc((size_t)(a->nfile * each), sizeof *list->at);
    BQ_CHECK(list->at, "no memory for the runs of a sweep");
    for (int i = 0; i < a->nfile * each && !code; i++) {
        code = fill(&list->at[list->count++], a, a->file[i / each], i % each);
        for (int k = 0; k < i && !code; k++)
            if (strcmp(list->at[k].name, list->at[i].name) == 0)
                code =
                    bq_refuse(BQ_USAGE, "two runs would be named %s: rename a recipe, or give a value once",
                              list->at[i].name);
    }
    return code;
}

void bq_sweep_list_close(bq_sweep_list *list) {
    for (int i = 0; i < list->count; i++)
        for (int v = 0; v < BQ_VARIED; v++) free(list->at[i].set[v]);
    free(list->at);
    *list = (bq_sweep_list){0};
}

/* ---- the table ---- */

static double number_of(const bq_sweep_run *r) { return r->facts.value[2]; }

/* Those that are done first; by bits, then by the number, then by name. */
static int in_order(const void *left, const void *right) {
    const bq_sweep_run *a = left, *b = right;
    if (!a->code != !b->code) return a->code ? 1 : -1;
    if (a->facts.bits != b->facts.bits) return a->facts.bits < b->facts.bits ? -1 : 1;
    if (number_of(a) != number_of(b) && !isnan(number_of(a)) && !isnan(number_of(b)))
        return number_of(a) < number_of(b) ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* In the order of the table: does a run before it have a number that is as good? */
static bool is_best(const bq_sweep_list *list, int i) {
    if (list->at[i].code || isnan(number_of(&list->at[i]))) return false;
    for (int k = 0; k < i; k++)
        if (number_of(&list->at[k]) <= number_of(&list->at[i])) return false;
    return true;
}

static void put_number(FILE *to, double x, int width) {
    if (isnan(x))
        fprintf(to, " %*s", width, "-");
    else
        fprintf(to, " %*.4f", width, x);
}

static void put_row(FILE *to, const bq_sweep_list *list, int i, int width) {
    const bq_sweep_run *r = &list->at[i];
    fprintf(to, "%-*s", width, r->name);
    if (r->code) {
        fprintf(to, "  failed with code %d\n", (int)r->code);
        return;
    }
    fprintf(to, " %6.3f", r->facts.bits);
    for (int w = 0; w < 3; w++) put_number(to, r->facts.value[w], 9);
    put_number(to, log(number_of(r) / r->facts.value[0]), 7);
    fprintf(to, " %8.1f %7.0f%s\n", r->facts.seconds, r->facts.peak / 1e6, is_best(list, i) ? " *" : "");
}

static void put_csv(FILE *to, const bq_sweep_list *list, int i) {
    const bq_sweep_run *r = &list->at[i];
    fprintf(to, "\"%s\",%d", r->name, (int)r->code);
    if (r->code) {
        fputs(",,,,,,,,\n", to);
        return;
    }
    fprintf(to, ",%.6g", r->facts.bits);
    for (int w = 0; w < 3; w++) {
        fputc(',', to);
        if (!isnan(r->facts.value[w])) fprintf(to, "%.9g", r->facts.value[w]);
    }
    fprintf(to, ",%.1f,%.0f,%.0f,%d\n", r->facts.seconds, r->facts.planned, r->facts.peak, is_best(list, i));
}

static void keep(const char *dir, const char *name, const char *text, size_t bytes) {
    char path[BQ_PATH];
    bq_path_join(path, sizeof path, dir, name);
    int error = bq_file_write_atomic(path, text, bytes);
    if (error) bq_log(BQ_WARN, "'%s' cannot be written: %s", path, bq_file_why(error));
}

/* The page of the runs that are done; they are opened by their paths below dir. */
static void write_page(const bq_sweep_list *list, const char *dir) {
    char(*path)[BQ_PATH] = calloc((size_t)list->count, sizeof *path), *text = NULL;
    bq_report_run *run = calloc((size_t)list->count, sizeof *run);
    size_t bytes = 0;
    int count = 0;
    FILE *to = open_memstream(&text, &bytes);
    BQ_CHECK(path && run && to, "no memory for the page of a sweep");
    for (int i = 0; i < list->count; i++) {
        bq_path_join(path[count], BQ_PATH, dir, list->at[i].name);
        if (!list->at[i].code && bq_report_read(&run[count], path[count]) == BQ_OK) count++;
    }
    bq_report_page(to, run, count);
    fclose(to);
    keep(dir, "sweep.html", text, bytes);
    for (int i = 0; i < count; i++) bq_report_close(&run[i]);
    free(path);
    free(run);
    free(text);
}

void bq_sweep_list_report(bq_sweep_list *list, const char *dir) {
    char *text = NULL;
    size_t bytes = 0;
    int width = 3;
    FILE *to = open_memstream(&text, &bytes);
    BQ_CHECK(to, "no memory for the table of a sweep");
    qsort(list->at, (size_t)list->count, sizeof *list->at, in_order);
    fputs("run,code,bits,fp,rtn,result,seconds,planned_bytes,peak_bytes,best\n", to);
    for (int i = 0; i < list->count; i++) {
        const int length = (int)strlen(list->at[i].name);
        if (length > width) width = length;
        put_csv(to, list, i);
    }
    fclose(to);
    keep(dir, "sweep.csv", text, bytes);
    write_page(list, dir);
    free(text);
    printf("%-*s %6s %9s %9s %9s %7s %8s %7s\n", width, "run", "bits", "fp", "rtn", "result", "nats",
           "seconds", "MB");
    for (int i = 0; i < list->count; i++) put_row(stdout, list, i, width);
}
