/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/report.h"

#include "base/die.h"
#include "base/log.h"
#include "driver/commands/commands.h"
#include "io/files.h"
#include "io/rundir.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64 << 20 /* bytes of a file */, COLUMNS = 64, ROWS = 1 << 16 };

static json_t *read_json(const char *dir, const char *name) {
    char path[BQ_PATH], *text;
    size_t bytes;
    bq_path_join(path, sizeof path, dir, name);
    if (bq_file_read(path, MOST, &text, &bytes)) return NULL;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    if (json_is_object(root)) return root;
    json_decref(root);
    return NULL;
}

/* ---- run.csv ---- */

/* Cut a line at its commas; returns the number of fields. */
static int cut(char *line, char *field[COLUMNS]) {
    int n = 0;
    for (char *at = line; at && n < COLUMNS; n++) {
        field[n] = at;
        if ((at = strchr(at, ','))) *at++ = 0;
    }
    return n;
}

typedef struct {
    char *name[COLUMNS], *field[COLUMNS];
    int names, fields;
} row;

static const char *text_at(const row *r, const char *name) {
    for (int i = 0; i < r->names && i < r->fields; i++)
        if (strcmp(r->name[i], name) == 0) return r->field[i];
    return "";
}

static double number_at(const row *r, const char *name) {
    char *end;
    const char *text = text_at(r, name);
    const double x = strtod(text, &end);
    return end == text || *end || !isfinite(x) ? NAN : x;
}

static double or_zero(double x) { return isnan(x) ? 0 : x; }

static void take_block(bq_report_run *run, const row *r) {
    static const char *const step[BQ_REPORT_STEPS] = {"load_s", "target_s", "passes_s", "advance_s",
                                                      "save_s"};
    const double block = number_at(r, "block");
    if (run->blocks == ROWS || !(block >= 0 && block < ROWS)) return;
    bq_report_block *b = &run->block[run->blocks++];
    *b = (bq_report_block){.block = (int)block,
                           .sweep = atoi(text_at(r, "sweep")),
                           .phase = atoi(text_at(r, "phase")),
                           .wall = or_zero(number_at(r, "wall_s")),
                           .first = number_at(r, "loss_first"),
                           .last = number_at(r, "loss_last")};
    if (!(number_at(r, "steps") > 0)) b->first = b->last = NAN;
    for (int i = 0; i < BQ_REPORT_STEPS; i++) b->seconds[i] = or_zero(number_at(r, step[i]));
}

static void take_part(bq_report_run *run, const row *r, const char *name) {
    int i = 0;
    if (strcmp(text_at(r, "rank"), "0")) return;
    while (i < run->parts && strcmp(run->part[i].name, name)) i++;
    if (i == (int)(sizeof run->part / sizeof *run->part)) return;
    if (i == run->parts) snprintf(run->part[run->parts++].name, sizeof run->part->name, "%s", name);
    run->part[i].wall += or_zero(number_at(r, "wall_s"));
}

static void read_rows(bq_report_run *run) {
    char path[BQ_PATH], *text, *more = NULL;
    size_t bytes;
    row r = {.names = 0};
    bq_path_join(path, sizeof path, run->dir, "run.csv");
    if (bq_file_read(path, MOST, &text, &bytes)) return;
    run->block = calloc(ROWS, sizeof *run->block);
    BQ_CHECK(run->block, "no memory for the rows of '%s'", path);
    for (char *line = strtok_r(text, "\n", &more); line; line = strtok_r(NULL, "\n", &more)) {
        bq_log_clean(line, 0);
        if (!r.names) {
            r.names = cut(line, r.name);
            continue;
        }
        r.fields = cut(line, r.field);
        const char *part = text_at(&r, "part");
        if (strcmp(part, "block") == 0)
            take_block(run, &r);
        else if (*part)
            take_part(run, &r, part);
        run->planned = fmax(run->planned, or_zero(number_at(&r, "planned_bytes")));
        run->peak = fmax(run->peak, or_zero(number_at(&r, "peak_bytes")));
        const double ranks = number_at(&r, "stages") * number_at(&r, "replicas");
        if (ranks >= 1 && ranks < 1e6) run->ranks = (int)ranks;
    }
    free(text);
}

/* ---- the whole ---- */

int bq_report_read(bq_report_run *run, const char *dir) {
    char name[BQ_PATH];
    *run = (bq_report_run){.dir = dir};
    if (!bq_rundir_is(dir)) return bq_refuse(BQ_USAGE, "%s: there is no run", dir);
    run->recipe = read_json(dir, "recipe.json");
    run->result = read_json(dir, "result.json");
    bq_path_join(name, sizeof name, dir, "ckpt/origin.json");
    run->origin = bq_json_read_sealed(name, MOST);
    if (!bq_state_read(dir, &run->state)) run->state = (bq_state_summary){0};
    const json_t *output = json_array_get(json_object_get(run->recipe, "outputs"), 0);
    const char *folder = json_string_value(json_object_get(output, "dir"));
    if (!folder || !*folder) folder = json_string_value(json_object_get(output, "format"));
    if (folder && !strchr(folder, '/') &&
        snprintf(name, sizeof name, "%s/quantization.json", folder) < BQ_PATH_MAX)
        run->summary = read_json(dir, name);
    read_rows(run);
    return BQ_OK;
}

void bq_report_close(bq_report_run *run) {
    json_decref(run->recipe);
    json_decref(run->result);
    json_decref(run->origin);
    json_decref(run->summary);
    free(run->block);
    *run = (bq_report_run){0};
}

double bq_report_value(const bq_report_run *run, const char *of, const char **key) {
    const char *name;
    json_t *value;
    const char *found = of;
    json_object_foreach(run->result, name, value) if (!of && json_is_real(value) &&
                                                      strcmp(name, "fp")) if (strcmp(name, "rtn") || !found)
        found = name; /* rtn alone: it is the result */
    if (key) *key = found;
    value = found ? json_object_get(run->result, found) : NULL;
    return json_is_number(value) ? json_number_value(value) : NAN;
}

double bq_report_bits(const bq_report_run *run) {
    const json_t *bits = json_object_get(run->summary, "bits_per_weight");
    if (!bits)
        bits = json_object_get(json_object_get(json_object_get(run->recipe, "bits"), "decoder"), "bits");
    return json_is_number(bits) ? json_number_value(bits) : NAN;
}

int bq_cmd_report(const bq_args *args, bq_comm *comm) {
    (void)comm;
    char *text = NULL;
    size_t bytes = 0;
    int code = BQ_OK, count = 0;
    bq_report_run *run = calloc((size_t)args->nfile, sizeof *run);
    FILE *to = open_memstream(&text, &bytes);
    BQ_CHECK(run && to, "no memory for a report of %d runs", args->nfile);
    for (; count < args->nfile && !code; count++) code = bq_report_read(&run[count], args->file[count]);
    if (!code) bq_report_page(to, run, count);
    fclose(to);
    int error = code ? 0 : bq_file_write_atomic(args->out, text, bytes);
    if (error) code = bq_refuse(BQ_USAGE, "'%s' cannot be written: %s", args->out, bq_file_why(error));
    if (!code)
        bq_log(BQ_INFO, "%s: a report of %d run%s; open it in a browser", args->out, count,
               count > 1 ? "s" : "");
    for (int i = 0; i < count; i++) bq_report_close(&run[i]);
    free(run);
    free(text);
    return code;
}
