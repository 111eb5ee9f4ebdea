/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/report.h"

#include "base/die.h"
#include "driver/recipe/args.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const step_name[BQ_REPORT_STEPS] = {"load", "targets", "passes", "advance", "save"};

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<title>blockq report</title>\n<style>\n"
    ":root { color-scheme: light dark; --ink: #1c2430; --soft: #5c6773; --line: #d8dde3; --page: #ffffff;\n"
    "  --c0: #9aa5b1; --c1: #6c9bd2; --c2: #2f6fb3; --c3: #5fb39b; --c4: #d9a441; --c5: #b06fb3; --c6: "
    "#8c6a5c; }\n"
    "@media (prefers-color-scheme: dark) { :root { --ink: #e6eaef; --soft: #9aa5b1; --line: #343c46;\n"
    "  --page: #161b22; } }\n"
    "body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);\n"
    "  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }\n"
    "h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; }\n"
    "table { border-collapse: collapse; } .wide { overflow-x: auto; } svg { max-width: 100%; height: auto; "
    "}\n"
    "td, th { text-align: left; padding: .25rem .9rem .25rem 0; vertical-align: top;\n"
    "  border-bottom: 1px solid var(--line); } th { color: var(--soft); font-weight: 500; }\n"
    "td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }\n"
    "svg text { fill: var(--soft); font: 12px system-ui, sans-serif; } svg .ink { fill: var(--ink); }\n"
    ".c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); }\n"
    ".c4 { fill: var(--c4); } .c5 { fill: var(--c5); } .c6 { fill: var(--c6); } .axis { stroke: var(--line); "
    "}\n"
    "pre { background: color-mix(in srgb, var(--line) 35%, transparent); padding: .8rem; overflow-x: auto;\n"
    "  font-size: 13px; }\n"
    ".key span { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em; }\n"
    "</style></head><body>\n";

/* Text from a file: what HTML would read as a mark, and control characters, are written apart. */
static void put(FILE *out, const char *text) {
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (strchr("<>&\"'", *c) || *c == 127 || (iscntrl(*c) && *c != '\n'))
            fprintf(out, "&#%u;", iscntrl(*c) ? 0xfffd : *c);
        else
            fputc(*c, out);
    }
}

static void put_number(FILE *out, double x, int digits) {
    if (isnan(x))
        fputs("<td class=\"n\">–</td>", out);
    else
        fprintf(out, "<td class=\"n\">%.*f</td>", digits, x);
}

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static void put_row(FILE *out, const char *name, const char *text) {
    if (!*text) return;
    fprintf(out, "<tr><th>%s</th><td>", name);
    put(out, text);
    fputs("</td></tr>\n", out);
}

/* "adascale", "smoothquant, gptq; adascale": the passes of the phases. */
static void name_method(const json_t *recipe, char *text, size_t size) {
    const json_t *phase, *pass;
    size_t i, k, n = 0;
    text[0] = 0;
    json_array_foreach(json_object_get(recipe, "phases"), i, phase)
        json_array_foreach(json_object_get(phase, "passes"), k, pass) if (n < size) n +=
        (size_t)snprintf(text + n, size - n, "%s%s",
                         k   ? ", "
                         : i ? "; "
                             : "",
                         text_of(pass, "pass"));
}

static void put_facts(FILE *out, const bq_report_run *r) {
    char text[512];
    fputs("<table>\n", out);
    put_row(out, "model", text_of(r->recipe, "model"));
    name_method(r->recipe, text, sizeof text);
    put_row(out, "passes", text);
    snprintf(text, sizeof text, "%.4g", bq_report_bits(r));
    if (!isnan(bq_report_bits(r))) put_row(out, "bits a weight", text);
    const json_t *of = json_object_get(r->recipe, "calibration");
    snprintf(text, sizeof text, "%lld samples of %lld tokens, %s",
             (long long)json_integer_value(json_object_get(of, "samples")),
             (long long)json_integer_value(json_object_get(of, "length")), text_of(of, "tokens"));
    if (of) put_row(out, "calibration", text);
    snprintf(text, sizeof text, "%d blocks on a grid of %d x %d ranks, %.1f s for the passes",
             r->state.blocks, r->state.stages, r->state.replicas, r->state.seconds);
    if (r->state.blocks) put_row(out, "run", text);
    snprintf(text, sizeof text, "%.0f MB planned, %.0f MB at the peak, of one rank", r->planned / 1e6,
             r->peak / 1e6);
    if (r->peak > 0) put_row(out, "memory", text);
    put_row(out, "arithmetic", text_of(r->origin, "numerics"));
    put_row(out, "directory", r->dir);
    fputs("</table>\n", out);
}

/* ---- pictures ---- */

enum { WIDTH = 860, HIGH = 190, LEFT = 60, LOW = 24 };

/* A number of 1, 2 or 5 times a power of ten that is not below x. */
static double round_up(double x) {
    const double power = pow(10, floor(log10(x > 0 ? x : 1)));
    for (const double *m = (const double[]){1, 2, 2.5, 5, 10};; m++)
        if (*m * power >= x || *m == 10) return *m * power;
}

static void put_axis(FILE *out, double most, const char *unit, int blocks) {
    for (int i = 0; i <= 2; i++) {
        const double y = HIGH - HIGH * i / 2.0 + 8;
        fprintf(out,
                "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\" "
                "text-anchor=\"end\">%.3g%s</text>\n",
                LEFT, WIDTH, y, y, LEFT - 6, y + 4, most * i / 2, unit);
    }
    fprintf(out,
            "<text x=\"%d\" y=\"%d\">block 1</text><text x=\"%d\" y=\"%d\" text-anchor=\"end\">%d</text>\n",
            LEFT, HIGH + LOW, WIDTH, HIGH + LOW, blocks);
}

/* Seconds of each block of one phase and sweep, one bar a block. */
static void put_bars(FILE *out, const bq_report_run *r, int sweep, int phase) {
    double most = 0;
    for (int i = 0; i < r->blocks; i++) {
        double sum = 0;
        for (int k = 0; k < BQ_REPORT_STEPS; k++) sum += r->block[i].seconds[k];
        if (r->block[i].sweep == sweep && r->block[i].phase == phase) most = fmax(most, sum);
    }
    most = round_up(most);
    const double wide = (double)(WIDTH - LEFT) / r->state.blocks;
    fprintf(out,
            "<svg viewBox=\"0 0 %d %d\" width=\"%d\" role=\"img\" aria-label=\"seconds of each block\">\n",
            WIDTH + 10, HIGH + LOW + 8, WIDTH + 10);
    put_axis(out, most, " s", r->state.blocks);
    for (int i = 0; i < r->blocks; i++) {
        const bq_report_block *b = &r->block[i];
        double y = HIGH + 8;
        if (b->sweep != sweep || b->phase != phase || b->block >= r->state.blocks) continue;
        fprintf(out, "<g><title>block %d: %.2f s", b->block + 1, b->wall);
        if (!isnan(b->first)) fprintf(out, ", loss %.4g to %.4g", b->first, b->last);
        fputs("</title>", out);
        for (int k = 0; k < BQ_REPORT_STEPS; k++) {
            const double high = most > 0 ? HIGH * b->seconds[k] / most : 0;
            y -= high;
            fprintf(out, "<rect class=\"c%d\" x=\"%.1f\" y=\"%.2f\" width=\"%.1f\" height=\"%.2f\"/>", k,
                    LEFT + b->block * wide + wide * .1, y, wide * .8, high);
        }
        fputs("</g>\n", out);
    }
    fputs("</svg>\n<p class=\"key\">", out);
    for (int k = 0; k < BQ_REPORT_STEPS; k++)
        fprintf(out, "<span style=\"background: var(--c%d)\"></span>%s", k, step_name[k]);
    fputs("</p>\n", out);
}

static void put_parts(FILE *out, const bq_report_run *r) {
    double all = 0, x = 0;
    for (int i = 0; i < r->parts; i++) all += r->part[i].wall;
    if (!(all > 0)) return;
    fprintf(out,
            "<h3>The run, %.1f s of rank 0</h3>\n<svg viewBox=\"0 0 %d 26\" width=\"%d\" role=\"img\" "
            "aria-label=\"parts\">\n",
            all, WIDTH, WIDTH);
    for (int i = 0; i < r->parts; i++, x += WIDTH * r->part[i - 1].wall / all) {
        fprintf(out, "<rect class=\"c%d\" x=\"%.1f\" y=\"0\" width=\"%.1f\" height=\"26\"><title>", i % 7, x,
                WIDTH * r->part[i].wall / all);
        put(out, r->part[i].name);
        fprintf(out, ": %.1f s</title></rect>\n", r->part[i].wall);
    }
    fputs("</svg>\n<p class=\"key\">", out);
    for (int i = 0; i < r->parts; i++) {
        if (r->part[i].wall < all / 200) continue;
        fprintf(out, "<span style=\"background: var(--c%d)\"></span>", i % 7);
        put(out, r->part[i].name);
        fprintf(out, " %.1f s", r->part[i].wall);
    }
    fputs("</p>\n", out);
}

static void put_losses(FILE *out, const bq_report_run *r) {
    bool any = false;
    for (int i = 0; i < r->blocks; i++) {
        const bq_report_block *b = &r->block[i];
        if (isnan(b->first)) continue;
        if (!any)
            fputs("<h3>Training</h3>\n<div class=\"wide\"><table><tr><th class=\"n\">phase</th><th "
                  "class=\"n\">block</th><th class=\"n\">first "
                  "loss</th><th class=\"n\">last loss</th><th class=\"n\">ratio</th></tr>\n",
                  out);
        any = true;
        fprintf(out,
                "<tr><td class=\"n\">%d</td><td class=\"n\">%d</td><td class=\"n\">%.5g</td><td "
                "class=\"n\">%.5g</td>",
                b->phase + 1, b->block + 1, b->first, b->last);
        put_number(out, b->last / b->first, 3);
        fputs("</tr>\n", out);
    }
    if (any) fputs("</table></div>\n", out);
}

static void put_run(FILE *out, const bq_report_run *r) {
    const char *key;
    fputs("<h2>", out);
    put(out, r->dir);
    fputs("</h2>\n", out);
    put_facts(out, r);
    const double fp = bq_report_value(r, "fp", NULL), rtn = bq_report_value(r, "rtn", NULL),
                 own = bq_report_value(r, NULL, &key);
    if (!isnan(own)) {
        fputs("<h3>First evaluation</h3>\n<table><tr><th class=\"n\">original</th><th class=\"n\">round to "
              "nearest</th><th class=\"n\">",
              out);
        put(out, key);
        fputs("</th><th class=\"n\">nats above the original</th></tr>\n<tr>", out);
        put_number(out, fp, 4), put_number(out, rtn, 4), put_number(out, own, 4),
            put_number(out, log(own / fp), 4);
        fputs("</tr></table>\n", out);
    }
    put_parts(out, r);
    for (int sweep = 0; sweep < r->state.sweeps; sweep++)
        for (int phase = 0; phase < r->state.phases; phase++) {
            int n = 0;
            for (int i = 0; i < r->blocks; i++) n += r->block[i].sweep == sweep && r->block[i].phase == phase;
            if (!n) continue;
            fprintf(out, "<h3>Phase %d%s: seconds of each block</h3>\n", phase + 1,
                    sweep ? ", a later sweep" : "");
            put_bars(out, r, sweep, phase);
        }
    put_losses(out, r);
    char *text = r->recipe ? json_dumps(r->recipe, JSON_INDENT(2)) : NULL;
    if (text)
        fputs("<details><summary>The recipe</summary><pre>", out), put(out, text),
            fputs("</pre></details>\n", out);
    free(text);
}

/* ---- several runs ---- */

static void put_table(FILE *out, const bq_report_run *run, int count) {
    fputs("<div class=\"wide\"><table><tr><th>run</th><th class=\"n\">bits</th><th "
          "class=\"n\">original</th><th class=\"n\">round to "
          "nearest</th><th class=\"n\">result</th><th class=\"n\">nats</th><th class=\"n\">seconds</th><th "
          "class=\"n\">peak MB</th></tr>\n",
          out);
    for (int i = 0; i < count; i++) {
        const double fp = bq_report_value(&run[i], "fp", NULL), own = bq_report_value(&run[i], NULL, NULL);
        fputs("<tr><td>", out);
        put(out, run[i].dir);
        fputs("</td>", out);
        put_number(out, bq_report_bits(&run[i]), 3), put_number(out, fp, 4);
        put_number(out, bq_report_value(&run[i], "rtn", NULL), 4), put_number(out, own, 4);
        put_number(out, log(own / fp), 4), put_number(out, run[i].state.seconds, 1);
        put_number(out, run[i].peak / 1e6, 0);
        fputs("</tr>\n", out);
    }
    fputs("</table></div>\n", out);
}

/* Bits against the first evaluation; those that no other run beats in both are dark, and joined. */
static void put_pareto(FILE *out, const bq_report_run *run, int count) {
    double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
    for (int i = 0; i < count; i++) {
        const double x = bq_report_bits(&run[i]), y = bq_report_value(&run[i], NULL, NULL);
        if (isnan(x) || isnan(y)) continue;
        x0 = fmin(x0, x), x1 = fmax(x1, x), y0 = fmin(y0, y), y1 = fmax(y1, y);
    }
    if (!(x1 >= x0)) return;
    const double px = fmax(.1, .1 * (x1 - x0)), py = fmax(.01 * y1, .1 * (y1 - y0));
    x0 -= px, x1 += px, y0 -= py, y1 += py;
    fprintf(out,
            "<h3>Bits a weight against the first evaluation</h3>\n<svg viewBox=\"0 0 %d 330\" width=\"%d\" "
            "role=\"img\" "
            "aria-label=\"bits against evaluation\">\n<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"300\" "
            "y2=\"300\"/>"
            "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"10\" y2=\"300\"/>\n",
            WIDTH, WIDTH, LEFT, WIDTH, LEFT, LEFT);
    for (int i = 0; i <= 2; i++)
        fprintf(out,
                "<text x=\"%.0f\" y=\"318\" text-anchor=\"middle\">%.3g</text><text x=\"%d\" y=\"%.0f\" "
                "text-anchor=\"end\">%.4g</text>\n",
                LEFT + (WIDTH - LEFT - 30) * i / 2.0, x0 + (x1 - x0) * i / 2, LEFT - 6, 304 - 285 * i / 2.0,
                y0 + (y1 - y0) * i / 2);
    for (int i = 0; i < count; i++) {
        const double x = bq_report_bits(&run[i]), y = bq_report_value(&run[i], NULL, NULL);
        bool best = true;
        if (isnan(x) || isnan(y)) continue;
        for (int k = 0; k < count; k++) {
            const double a = bq_report_bits(&run[k]), b = bq_report_value(&run[k], NULL, NULL);
            if (a <= x && b <= y && (a < x || b < y)) best = false;
        }
        const double at = LEFT + (WIDTH - LEFT - 30) * (x - x0) / (x1 - x0),
                     up = 300 - 285 * (y - y0) / (y1 - y0);
        double below = 4; /* a label under those of earlier points at the same place */
        for (int k = 0; k < i; k++)
            below += 13 * (fabs(bq_report_bits(&run[k]) - x) < (x1 - x0) / 8 &&
                           fabs(bq_report_value(&run[k], NULL, NULL) - y) < (y1 - y0) / 20);
        const char *slash = strrchr(run[i].dir, '/');
        fprintf(out,
                "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%d\"/><text%s x=\"%.1f\" y=\"%.1f\" "
                "text-anchor=\"%s\">",
                best ? "c2" : "c0", at, up, best ? 6 : 4, best ? " class=\"ink\"" : "",
                at > WIDTH / 2 ? at - 9 : at + 9, up + below, at > WIDTH / 2 ? "end" : "start");
        put(out, slash && slash[1] ? slash + 1 : run[i].dir);
        fputs("</text>\n", out);
    }
    fputs("</svg>\n<p>Large points: no other run has as few bits and as good a number.</p>\n", out);
}

void bq_report_page(FILE *out, const bq_report_run *run, int count) {
    fputs(head, out);
    fprintf(out, "<h1>blockq report</h1>\n");
    if (count > 1) {
        put_table(out, run, count);
        put_pareto(out, run, count);
    }
    for (int i = 0; i < count; i++) put_run(out, &run[i]);
    fputs("<p><small>Made by blockq " BQ_VERSION ".</small></p>\n</body></html>\n", out);
}
