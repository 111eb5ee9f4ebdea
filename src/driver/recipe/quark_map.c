/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/recipe/quark_map.h"

#include "base/die.h"
#include "io/quark.h"

#include <string.h>

static int refuse(const char *path, int entry, const char *key, const char *name, const char *why) {
    return bq_refuse(BQ_DATA, "%s: scaling_layers.%d.%s: '%s' %s", path, entry, key, name, why);
}

static const char *producer_of(const bq_arch *arch, int site) {
    bq_fusion f = bq_fusion_of(arch, site);
    if (f.norm >= 0) return arch->norm[f.norm];
    for (int i = 0; i < arch->linears; i++) {
        const bq_linear *l = &arch->linear[i];
        if (l->site == f.producer && l->row <= f.row && f.row + f.rows <= l->row + l->rows) return l->module;
    }
    return NULL;
}

/* The role of the site after prev_op that has exactly the entry's layers; -1: the family has none. */
static int find(const bq_arch *arch, const bq_quark_entry *e) {
    for (int m = 0; m < arch->sites; m++) {
        const bq_site *site = &arch->site[m];
        const char *by = producer_of(arch, m);
        int named = 0;
        if (!by || strcmp(by, e->prev_op) != 0) continue;
        for (int i = site->first; i < site->first + site->linears; i++) {
            bool there = false;
            for (int k = 0; k < e->layers; k++) there |= strcmp(arch->linear[i].module, e->layer[k]) == 0;
            named += there;
        }
        if (site->linears == e->layers && named == e->layers) return (int)site->role;
    }
    return -1;
}

static int take(const char *path, int i, const bq_quark_entry *e, bq_autosmooth_options *o) {
    bq_arch arch;
    int role = -1;
    bool reads = false;
    bq_model m = {.hidden = 1,
                  .inter = 1,
                  .vocab = 1,
                  .heads = 1,
                  .kv_heads = 1,
                  .head_dim = 1,
                  .q_rank = 1,
                  .kv_rank = 1};
    for (; bq_family_at(m.family) && role < 0; m.family++) { /* its names need no sizes */
        bq_arch_of(&m, &arch);
        role = find(&arch, e);
    }
    if (role < 0)
        return refuse(
            path, i, "prev_op", e->prev_op,
            "and these layers are no fusion: all that read its output, and nothing else, are scaled");
    if (o->inspect[role] != BQ_INSPECT_OFF)
        return refuse(path, i, "prev_op", e->prev_op, "is there twice for these layers");
    for (int k = 0; k < e->layers; k++) reads |= strcmp(e->layer[k], e->inp) == 0;
    if (!reads) return refuse(path, i, "inp", e->inp, "is not one of the layers");
    const char *module = bq_role_attends((bq_role)role) ? "self_attn" : "mlp";
    bool self = !e->inspects || (e->layers == 1 && strcmp(e->module, e->layer[0]) == 0);
    if (self && e->layers > 1)
        return refuse(path, i, "layers", e->layer[1], "is a second layer: say which module2inspect");
    if (!self && e->module[0] && strcmp(e->module, module))
        return refuse(path, i, "module2inspect", e->module, "does not hold the layers");
    o->inspect[role] = self ? BQ_INSPECT_SELF : e->module[0] ? BQ_INSPECT_MODULE : BQ_INSPECT_BLOCK;
    return BQ_OK;
}

int bq_quark_map(const char *path, bq_autosmooth_options *o) {
    bq_quark file;
    int rc = bq_quark_read(path, &file);
    if (rc) return rc;
    for (int r = 0; r < BQ_ROLES; r++) o->inspect[r] = BQ_INSPECT_OFF;
    o->loss = strcmp(file.loss, "MAE") == 0   ? BQ_DISTANCE_MAE
              : strcmp(file.loss, "MSE") == 0 ? BQ_DISTANCE_MSE
                                              : BQ_DISTANCE_RMSE;
    for (int i = 0; i < file.entries && !rc; i++) rc = take(path, i, &file.entry[i], o);
    return rc;
}
