#include "driver/recipe.h"

#include "base/die.h"
#include "base/hash.h"
#include "driver/keys.h"
#include "driver/methods.h"
#include "driver/quark_map.h"
#include "io/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RECIPE_BYTES ((size_t)1 << 20) /* a recipe is small: more is a wrong file */

/* ---- overrides ---- */

/* The member or element that a word of a dotted path names.  Missing objects are made, so that --set reaches
 * keys whose scope the file leaves out; the last word takes the leaf; NULL where the word fits nothing. */
static json_t *enter(json_t *node, const char *word, bool more, json_t *leaf) {
    if (json_is_array(node)) {
        char *end;
        unsigned long i = strtoul(word, &end, 10);
        if (*end || *word < '0' || *word > '9') return NULL;
        if (!more) json_array_set(node, i, leaf); /* past the end nothing is set, and got */
        return json_array_get(node, i);
    }
    if (!json_is_object(node)) return NULL;
    if (!more)
        json_object_set(node, word, leaf);
    else if (!json_object_get(node, word))
        json_object_set_new(node, word, json_object());
    return json_object_get(node, word);
}

/* Lay one "a.b.0.c=value" over the recipe; the tables judge the result. */
static int lay(json_t *root, const char *set) {
    const char *equals = strchr(set, '='), *at = set;
    if (!equals || equals == set || equals - set > 200) {
        return bq_refuse(BQ_USAGE, "--set %.200s: must be KEY=VALUE, such as calibration.samples=64", set);
    }
    json_t *leaf = json_loads(equals + 1, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL), *node = root;
    if (!leaf) leaf = json_string(equals + 1);
    if (!leaf) return bq_refuse(BQ_USAGE, "--set %.*s: the value is not UTF-8", (int)(equals - set), set);
    while (node && at <= equals) {
        char word[208];
        size_t n = strcspn(at, ".=");
        snprintf(word, sizeof word, "%.*s", (int)n, at);
        node = n ? enter(node, word, at + n < equals, leaf) : NULL;
        if (node) at += n + 1;
    }
    json_decref(leaf);
    if (node) return BQ_OK;
    return bq_refuse(BQ_USAGE, "--set %.200s: there is no '%.*s' in the recipe%s", set,
                     (int)(at - set + (ptrdiff_t)strcspn(at, ".=")), set,
                     at == set ? "" : "; lists are set as a whole, or by the number of an element they have");
}

/* ---- rules between keys ---- */

static bool asymmetric(const bq_recipe *r) {
    bool any = false;
    for (int i = 0; i < BQ_LINEARS; i++) any |= !r->bits.linear[i].symmetric;
    return any;
}

static bool absmax(const bq_recipe *r) {
    bool any = false;
    for (int i = 0; i < BQ_LINEARS; i++) any |= r->bits.linear[i].grid != BQ_GRID_AIMET;
    return any;
}

static bool prescales(const bq_pass *p) { return p->kind == BQ_PASS_SMOOTHQUANT && !p->smooth.fuse; }

bool bq_recipe_prescaled(const bq_recipe *r) {
    bool any = false;
    for (int i = 0; i < r->nphase; i++)
        for (int k = 0; k < r->phase[i].npass; k++) any |= prescales(&r->phase[i].pass[k]);
    return any;
}

static int check_passes(const bq_origin *from, const bq_recipe *r) {
    bool coded = false, prescaled = false;
    for (int i = 0; i < r->nphase; i++) {
        const bq_phase *phase = &r->phase[i];
        if (bq_phase_calibrated(phase) && !r->calibration.tokens[0])
            return bq_origin_refuse(from, "calibration.tokens",
                                    "is missing, and phases.%d reads samples: write it there or give --set "
                                    "calibration.tokens=...",
                                    i);
        for (int k = 0; k < phase->npass; k++) {
            const bq_method *method = &bq_methods[phase->pass[k].kind];
            char path[64];
            snprintf(path, sizeof path, "phases.%d.passes.%d", i, k);
            if (coded && !method->quantizes)
                return bq_origin_refuse(
                    from, path, "%s prepares weights, and a pass before it has made codes", method->name);
            coded |= method->quantizes;
            if (prescaled && method->calibrated)
                return bq_origin_refuse(from, path,
                                        "%s looks at the inputs of linears: behind smoothquant without fuse "
                                        "there can be rtn and lpbq alone",
                                        method->name);
            prescaled |= prescales(&phase->pass[k]);
            if (k + 1 == phase->npass && !method->quantizes)
                return bq_origin_refuse(from, path,
                                        "%s makes no codes: end the phase with a pass that does, rtn say",
                                        method->name);
            if (!method->asymmetric && asymmetric(r))
                return bq_origin_refuse(from, path, "%s needs symmetric grids, and bits has others",
                                        method->name);
            if (method->trains && absmax(r))
                return bq_origin_refuse(
                    from, path, "%s trains the ends of aimet's grids, and bits has others", method->name);
            if (phase->pass[k].kind == BQ_PASS_GPTQ && phase->pass[k].gptq.qep > 0 &&
                phase->inputs == BQ_INPUTS_FP) {
                strcat(path, ".qep");
                return bq_origin_refuse(from, path,
                                        "needs inputs qt or mix: with fp there is nothing to correct");
            }
            if (bq_pass_steps(&phase->pass[k], 0) == 0 || r->calibration.samples % phase->pass[k].batch == 0)
                continue;
            strcat(path, ".batch");
            return bq_origin_refuse(from, path, "is %lld, must divide calibration.samples, which is %lld",
                                    (long long)phase->pass[k].batch, (long long)r->calibration.samples);
        }
    }
    return BQ_OK;
}

static int check_transforms(const bq_origin *from, const bq_recipe *r) {
    for (int i = 0; i < r->ntransform; i++) {
        const bq_transform *t = &r->transform[i];
        const bool block[2] = {t->r1 == BQ_ROTATE_BLOCK, t->r2 == BQ_ROTATE_BLOCK};
        const int64_t size[2] = {t->r1_block, t->r2_block};
        char path[64];
        for (int k = 0; k < 2; k++) {
            snprintf(path, sizeof path, "transforms.%d.r%d_block", i, k + 1);
            if (block[k] == (size[k] > 0)) continue;
            return bq_origin_refuse(
                from, path, block[k] ? "is missing, and r%d is block" : "is there, but r%d is not block",
                k + 1);
        }
        snprintf(path, sizeof path, "transforms.%d", i);
        if (!t->r1 && !t->r2) return bq_origin_refuse(from, path, "rotates nothing: r1 and r2 are none");
    }
    return BQ_OK;
}

/* Output folders lie beside what the run itself keeps. */
static int check_outputs(const bq_origin *from, const bq_recipe *r) {
    static const char *const taken[] = {"acts",    "ckpt",        "recipe.json", "run.csv",
                                        "run.log", "result.json", "report.html"};
    char path[64];
    for (int i = 0; i < r->noutput; i++) {
        const char *dir = r->output[i].dir;
        snprintf(path, sizeof path, "outputs.%d.dir", i);
        for (size_t k = 0; k < sizeof taken / sizeof *taken; k++) {
            if (strcmp(dir, taken[k]) == 0) return bq_origin_refuse(from, path, "'%s' is the run's own", dir);
        }
        for (int k = 0; k < i; k++) {
            if (strcmp(dir, r->output[k].dir)) continue;
            return bq_origin_refuse(from, path, "is '%s', as outputs.%d: give one of them another", dir, k);
        }
    }
    return BQ_OK;
}

/* Names that follow from other keys. */
static void fill_names(bq_recipe *r) {
    for (int i = 0; i < r->nphase; i++) {
        bq_phase *p = &r->phase[i];
        if (!p->name[0]) snprintf(p->name, sizeof p->name, "%s", bq_methods[p->pass[p->npass - 1].kind].name);
    }
    for (int i = 0; i < r->noutput; i++) {
        bq_output *o = &r->output[i];
        const char *name = o->format == BQ_OUT_SAFETENSORS ? "safetensors" : "compressed-tensors";
        if (!o->dir[0]) snprintf(o->dir, sizeof o->dir, "%s", name);
    }
}

/* ---- reading ---- */

/* A file of Quark's becomes the keys it stands for, so that the resolved recipe does not need it any more. */
static int fill_maps(bq_recipe *r) {
    int rc = BQ_OK;
    for (int i = 0; i < r->nphase; i++)
        for (int k = 0; k < r->phase[i].npass && !rc; k++) {
            bq_pass *p = &r->phase[i].pass[k];
            if (p->map[0]) rc = bq_quark_map(p->map, &p->autosmooth);
            memset(p->map, 0, sizeof p->map);
        }
    return rc;
}

int bq_recipe_parse(const char *text, size_t bytes, const char *name, const char *folder, int nset,
                    char *const *set, bq_recipe *recipe) {
    bq_origin from = {name, folder, nset, set};
    json_error_t error;
    BQ_CHECK(folder[0] == '/', "folder '%s' is not absolute", folder);
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        char where[400];
        snprintf(where, sizeof where, "%.300s:%d:%d", name, error.line, error.column);
        from = (bq_origin){where, folder, 0, NULL};
        return bq_origin_refuse(&from, "", "%s", error.text);
    }
    int rc = BQ_OK;
    for (int i = 0; i < nset && !rc; i++) rc = lay(root, set[i]);
    memset(recipe, 0, sizeof *recipe);
    if (!rc) rc = bq_keys_read(&from, root, recipe);
    json_decref(root);
    if (!rc) rc = fill_maps(recipe);
    if (rc) return rc;
    fill_names(recipe);
    rc = check_passes(&from, recipe);
    if (!rc) rc = check_transforms(&from, recipe);
    return rc ? rc : check_outputs(&from, recipe);
}

int bq_recipe_read(const char *path, int nset, char *const *set, bq_recipe *recipe) {
    char *text, *real = realpath(path, NULL);
    size_t bytes;
    int err = real ? bq_file_read(path, RECIPE_BYTES, &text, &bytes) : errno;
    if (err) {
        free(real);
        return bq_refuse(BQ_USAGE, "%s: cannot be read as a recipe: %s", path, bq_file_why(err));
    }
    char *slash = strrchr(real, '/');
    slash[slash == real] = 0;
    int rc = bq_recipe_parse(text, bytes, path, real, nset, set, recipe);
    free(text);
    free(real);
    return rc;
}

/* ---- looking things up ---- */

static int find_linear(const char *name) {
    const char *dot = strrchr(name, '.');
    for (int i = 0; i < BQ_LINEARS; i++) {
        if (strcmp(dot ? dot + 1 : name, bq_linear_names[i]) == 0) return i;
    }
    return -1;
}

bq_scheme bq_recipe_scheme(const bq_recipe *recipe, const char *linear) {
    int i = find_linear(linear);
    BQ_CHECK(i >= 0, "no recipe has bits for a linear '%s'", linear);
    return recipe->bits.linear[i];
}

int bq_recipe_fits(const bq_recipe *recipe, int count, const char *const *names) {
    bool there[BQ_LINEARS] = {false};
    char all[256] = "";
    size_t n = 0;
    for (int i = 0; i < count; i++) {
        int k = find_linear(names[i]);
        if (k < 0 || there[k]) continue;
        there[k] = true;
        n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", n ? ", " : "", bq_linear_names[k]);
    }
    const bq_scheme *d = &recipe->bits.decoder;
    for (int i = 0; i < BQ_LINEARS; i++) {
        const bq_scheme *s = &recipe->bits.linear[i];
        if (there[i] || (s->bits == d->bits && s->group == d->group && s->symmetric == d->symmetric &&
                         s->scale == d->scale && s->grid == d->grid))
            continue;
        return bq_refuse(BQ_USAGE, "bits.linears.%s: the model has no such linear; it has %s",
                         bq_linear_names[i], all);
    }
    return BQ_OK;
}

/* ---- writing ---- */

void bq_recipe_write(const bq_recipe *recipe, FILE *out) {
    json_t *json = bq_keys_json(recipe, false);
    size_t bytes;
    char *text = bq_json_text_of(json, &bytes);
    fwrite(text, 1, bytes, out);
    free(text);
    json_decref(json);
}

int bq_recipe_parts(const bq_recipe *recipe, bq_part part[BQ_PARTS]) {
    json_t *json = bq_keys_json(recipe, true), *value;
    const char *key;
    int n = 0;
    json_object_foreach(json, key, value) {
        json_t *pair = json_pack("{sO}", key, value); /* the text is of one object, whatever the value is */
        size_t bytes;
        char *text = bq_json_text_of(pair, &bytes);
        BQ_CHECK(n < BQ_PARTS, "more than %d parts", BQ_PARTS);
        snprintf(part[n].name, sizeof part[n].name, "%s", key);
        part[n++].hash = bq_hash_bytes(text, bytes);
        free(text);
        json_decref(pair);
    }
    json_decref(json);
    return n;
}
