/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/plan/mixed.h"

#include "base/die.h"
#include "base/hash.h"
#include "driver/recipe/keys.h"
#include "io/files.h"
#include "io/json.h"
#include "io/state/stream.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int bq_mixed_sites(const bq_source *src, bq_mixed_site **list) {
    const int blocks = src->arch.model.blocks;
    int n = 0;
    *list = malloc((size_t)blocks * 2 * BQ_SITES * sizeof **list);
    BQ_CHECK(*list, "no memory for the sites of %d blocks", blocks);
    for (int b = 0; b < blocks; b++) {
        const bq_arch *core = bq_source_core(src, b), *unit[] = {core, core->experts ? &src->expert : NULL};
        for (int u = 0; u < 2 && unit[u]; u++)
            for (int m = 0; m < unit[u]->sites; m++) (*list)[n++] = (bq_mixed_site){b, m, unit[u]};
    }
    return n;
}

/* ---- costs ---- */

static double experts_of(const bq_arch *arch) {
    return arch->kind == BQ_UNIT_EXPERT ? (double)arch->model.experts : 1;
}

double bq_mixed_cost(const bq_mixed *m, const bq_mixed_site *at, bq_scheme s) {
    const bq_site *site = &at->arch->site[at->site];
    double all = experts_of(at->arch), sum = 0;
    for (int i = site->first; i < site->first + site->linears; i++) {
        const bq_linear *l = &at->arch->linear[i];
        double bits = (double)bq_scheme_bits(s, l->rows, l->cols), tokens = (double)m->tokens;
        if (s.group > 0 && l->cols % s.group) return INFINITY;
        if (m->unit != BQ_BUDGET_TIME) {
            sum += all * (m->unit == BQ_BUDGET_BYTES ? bits / 8 : bits);
            continue;
        }
        double share = all > 1 ? (double)at->arch->model.chosen : 1, used = fmin(all, share * tokens);
        double read = used * bits / 8 / (m->bandwidth * 1e3),
               multiplied = 2 * (double)(l->rows * l->cols) * tokens * share / (m->flops * 1e6);
        sum += fmax(read, multiplied);
    }
    return sum;
}

static double weights_of(const bq_mixed_site *list, int count) {
    double weights = 0;
    for (int k = 0; k < count; k++) {
        const bq_site *site = &list[k].arch->site[list[k].site];
        weights += experts_of(list[k].arch) * (double)(site->rows * site->cols);
    }
    return weights;
}

double bq_mixed_limit(const bq_mixed *m, const bq_mixed_site *list, int count) {
    return m->unit == BQ_BUDGET_BITS ? m->budget * weights_of(list, count) : m->budget;
}

int bq_mixed_check(const bq_mixed *m, const bq_source *src) {
    bq_mixed_site *list;
    int count = bq_mixed_sites(src, &list);
    double limit = bq_mixed_limit(m, list, count), sum = 0, weights = weights_of(list, count);
    for (int k = 0; k < count; k++) {
        double least = INFINITY;
        for (int i = 0; i < m->count; i++) least = fmin(least, bq_mixed_cost(m, &list[k], m->scheme[i]));
        sum += least;
    }
    free(list);
    if (sum <= limit || !m->count) return BQ_OK;
    if (!isfinite(sum))
        return bq_refuse(BQ_USAGE,
                         "bits.auto.schemes: none has groups that divide the columns of every linear");
    return bq_refuse(BQ_USAGE, "bits.auto.budget: is %.9g, and the cheapest schemes take %.9g", m->budget,
                     m->unit == BQ_BUDGET_BITS ? sum / weights : sum);
}

/* ---- what measuring takes ---- */

int64_t bq_mixed_samples(const bq_recipe *r) {
    int64_t some = r->bits.mixed.samples, all = r->calibration.samples;
    return !r->bits.mixed.count ? 0 : some < all ? some : all;
}

size_t bq_mixed_need(const bq_recipe *r, const bq_arch *arch) {
    int64_t t = r->calibration.length;
    if (!r->bits.mixed.count) return 0;
    return 2 * bq_arena_need(t, arch->model.hidden, BQ_F32) + bq_arena_need(t, 1, BQ_F32);
}

size_t bq_mixed_host(const bq_recipe *r) {
    return (size_t)(bq_mixed_samples(r) * r->calibration.length) * sizeof(float);
}

/* Inputs of a block, outputs of the original and of what is tried; with experts their inputs. */
size_t bq_mixed_stream(const bq_recipe *r, const bq_arch *arch) {
    size_t one = bq_stream_need(bq_mixed_samples(r), r->calibration.length, arch->model.hidden);
    return (arch->experts ? 4 : 3) * (r->bits.mixed.count ? one : 0);
}

/* ---- layouts ---- */

void bq_mixed_open(bq_layouts *layouts, const bq_source *src) {
    const int blocks = src->arch.model.blocks;
    bq_layout *own = calloc((size_t)blocks * 2, sizeof *own);
    BQ_CHECK(own, "no memory for the schemes of %d blocks", blocks);
    for (int b = 0; b < blocks; b++) {
        const bq_arch *core = bq_source_core(src, b);
        own[2 * b] = *bq_layout_of(layouts, core, b);
        if (core->experts) own[2 * b + 1] = *bq_layout_of(layouts, &src->expert, b);
    }
    layouts->own = own;
}

void bq_mixed_free(bq_layouts *layouts) {
    free(layouts->own);
    layouts->own = NULL;
}

void bq_mixed_set(bq_layouts *layouts, const bq_mixed_site *at, bq_scheme scheme) {
    bq_layout *own = &layouts->own[2 * at->block + (at->arch->kind == BQ_UNIT_EXPERT)];
    const bq_site *site = &at->arch->site[at->site];
    for (int i = site->first; i < site->first + site->linears; i++) own->scheme[i] = scheme;
}

/* Make *to take as much as s, too: the finer groups, zero points if one has them, the wider codes. */
static void widen(bq_scheme *to, bq_scheme s, int64_t cols) {
    if (s.group > 0 && cols % s.group == 0 && (to->group < 0 || s.group < to->group)) to->group = s.group;
    to->symmetric &= s.symmetric;
    if (bq_code_bits(s) > bq_code_bits(*to)) to->element = s.element;
}

void bq_mixed_bound(bq_layouts *layouts, int blocks) {
    for (int b = 0; b < 2 * blocks; b++)
        for (int k = 0; k < layouts->count; k++) {
            const bq_layout *own = &layouts->own[b];
            if (own->arch != layouts->at[k].arch) continue;
            for (int i = 0; i < own->arch->linears; i++)
                widen(&layouts->at[k].scheme[i], own->scheme[i], own->arch->linear[i].cols);
        }
}

void bq_mixed_bound_by(bq_layouts *layouts, const bq_mixed *m) {
    for (int k = 0; k < layouts->count; k++)
        for (int i = 0; i < layouts->at[k].arch->linears; i++)
            for (int s = 0; s < m->count; s++)
                widen(&layouts->at[k].scheme[i], m->scheme[s], layouts->at[k].arch->linear[i].cols);
}

/* ---- the file ---- */

/* The module of a linear; of experts with a star for the number, as a site is of all of them. */
static void module_of(const bq_arch *arch, int i, char out[64]) {
    const char *module = arch->linear[i].module, *at = strstr(module, ".experts.");
    snprintf(out, 64, "%s", module);
    if (arch->kind != BQ_UNIT_EXPERT || !at) return;
    const char *rest = at + strlen(".experts.");
    rest += strspn(rest, "0123456789");
    snprintf(out, 64, "%.*s.experts.*%s", (int)(at - module), module, rest);
}

static json_t *linears_of(const bq_mixed_site *at) {
    const bq_site *site = &at->arch->site[at->site];
    json_t *names = json_array();
    for (int i = site->first; i < site->first + site->linears; i++) {
        char name[64];
        module_of(at->arch, i, name);
        json_array_append_new(names, json_string(name));
    }
    return names;
}

static json_t *numbers(const double *x, int count) {
    json_t *list = json_array();
    for (int k = 0; k < count; k++)
        json_array_append_new(list, isfinite(x[k]) ? json_real(x[k]) : json_null());
    return list;
}

static void put(FILE *to, const char *before, json_t *value) {
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    BQ_CHECK(text, "no memory for the schemes");
    fprintf(to, "%s%s", before, text);
    free(text);
    json_decref(value);
}

void bq_mixed_write(const char *path, const bq_mixed *m, const bq_mixed_site *list,
                    const bq_choose_item *item, int count) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    BQ_CHECK(to, "no memory for the schemes");
    fputs("{\n\"schemes\": [", to);
    for (int k = 0; k < m->count; k++)
        put(to, k ? ",\n  " : "\n  ", bq_keys_struct(&bq_scheme_keys, &m->scheme[k]));
    fputs("],\n\"sites\": [", to);
    for (int k = 0; k < count; k++)
        put(to, k ? ",\n  " : "\n  ",
            json_pack("{s:i, s:o, s:i, s:o, s:o}", "block", list[k].block, "linears", linears_of(&list[k]),
                      "scheme", item[k].chosen, "cost", numbers(item[k].cost, m->count), "error",
                      numbers(item[k].error, m->count)));
    fputs("]\n}\n", to);
    fclose(to);
    int error = bq_file_write_atomic(path, text, bytes);
    BQ_CHECK(!error, "write of '%s' failed: %s", path, bq_file_why(error));
    free(text);
}

/* The list of schemes. */
static int read_schemes(const char *path, const bq_recipe *r, const json_t *root,
                        bq_scheme scheme[BQ_MIXED]) {
    const json_t *list = json_object_get(root, "schemes");
    const bq_origin from = {path, "/", 0, NULL};
    int code = BQ_OK;
    if (!json_is_array(list) || json_array_size(list) > BQ_MIXED)
        return bq_refuse(BQ_DATA, "%s: schemes: must be a list of at most %d", path, BQ_MIXED);
    for (size_t k = 0; k < json_array_size(list) && !code; k++) {
        char at[32];
        snprintf(at, sizeof at, "schemes.%zu", k);
        code = bq_keys_read_struct(&from, at, &bq_scheme_keys, json_array_get(list, k), &scheme[k]);
        if (!code) code = bq_recipe_takes(r, scheme[k], path, at);
    }
    return code;
}

/* The site of an entry; -1: the model has none with that block and these linears. */
static int find(const bq_mixed_site *list, int count, const json_t *entry) {
    const json_t *block = json_object_get(entry, "block"), *names = json_object_get(entry, "linears");
    for (int k = 0; k < count && json_is_integer(block); k++) {
        if (json_integer_value(block) != list[k].block) continue;
        json_t *own = linears_of(&list[k]);
        bool same = json_equal(own, names);
        json_decref(own);
        if (same) return k;
    }
    return -1;
}

static int read_site(const char *path, size_t i, const json_t *entry, const bq_mixed_site *list, int count,
                     const bq_scheme *scheme, size_t schemes, bq_layouts *layouts) {
    const json_t *chosen = json_object_get(entry, "scheme");
    int k = find(list, count, entry);
    if (k < 0)
        return bq_refuse(
            BQ_DATA, "%s: sites.%zu: the model has no block with such linears that share an input", path, i);
    json_int_t s = json_is_integer(chosen) ? json_integer_value(chosen) : -1;
    if (s < 0 || s >= (json_int_t)schemes)
        return bq_refuse(BQ_DATA, "%s: sites.%zu: scheme: must be the number of one of %zu schemes, from 0",
                         path, i, schemes);
    const bq_site *site = &list[k].arch->site[list[k].site];
    if (scheme[s].group > 0 && site->cols % scheme[s].group)
        return bq_refuse(BQ_USAGE, "%s: sites.%zu: group %ld does not divide the %ld input columns", path, i,
                         (long)scheme[s].group, (long)site->cols);
    bq_mixed_set(layouts, &list[k], scheme[s]);
    return BQ_OK;
}

/* Of the scheme of each site. */
static uint64_t hash_of(const bq_layouts *layouts, const bq_mixed_site *list, int count) {
    bq_hash *all = bq_hash_open();
    for (int k = 0; k < count; k++) {
        const bq_layout *of = bq_layout_of(layouts, list[k].arch, list[k].block);
        json_t *scheme = bq_keys_struct(&bq_scheme_keys, &of->scheme[of->arch->site[list[k].site].first]);
        size_t bytes;
        char *text = bq_json_text_of(scheme, &bytes);
        bq_hash_add(all, text, bytes);
        free(text);
        json_decref(scheme);
    }
    return bq_hash_close(all);
}

int bq_mixed_read(const char *path, const bq_recipe *r, const bq_source *src, bq_layouts *layouts,
                  uint64_t *hash) {
    bq_scheme scheme[BQ_MIXED] = {{0}};
    bq_mixed_site *list;
    json_t *root;
    int code = bq_json_read(path, BQ_MIXED_BYTES, &root);
    if (code) return code;
    const json_t *sites = json_object_get(root, "sites");
    size_t schemes = json_array_size(json_object_get(root, "schemes"));
    int count = bq_mixed_sites(src, &list);
    code = read_schemes(path, r, root, scheme);
    if (!code && !json_is_array(sites)) code = bq_refuse(BQ_DATA, "%s: sites: must be a list", path);
    if (!code) bq_mixed_open(layouts, src);
    for (size_t i = 0; i < json_array_size(sites) && !code; i++)
        code = read_site(path, i, json_array_get(sites, i), list, count, scheme, schemes, layouts);
    if (!code) {
        bq_mixed_bound(layouts, src->arch.model.blocks);
        *hash = hash_of(layouts, list, count);
    }
    free(list);
    json_decref(root);
    return code;
}
