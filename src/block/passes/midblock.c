/* SPDX-License-Identifier: Apache-2.0 */
#include "block/passes/midblock.h"

#include "base/shard.h"
#include "comm/treesum.h"

#include <stdio.h>
#include <string.h>

/* Part p of a kind: value p % values of site p / values; those of elements come first. */
static int values_of(const bq_train_kind *kind) {
    return bq_train_count(kind->element) + bq_train_count(kind->row);
}
static bool is_element(const bq_train_kind *kind, int part) {
    return part % values_of(kind) < bq_train_count(kind->element);
}
static int row_value(const bq_train_kind *kind, int part) {
    return part % values_of(kind) - bq_train_count(kind->element);
}

int bq_train_parts(const bq_train_kind *kind, const bq_quantized *q) {
    return q->arch->sites * values_of(kind);
}

/* How many rows of a part come before a row of its site. */
static int64_t row_of(const bq_train_kind *kind, const bq_quantized *q, int part, int64_t row) {
    int64_t sum = 0;
    if (is_element(kind, part)) return row;
    for (int i = 0; i < q->arch->linears; i++) {
        const bq_linear *l = &q->arch->linear[i];
        int64_t before = row < l->row + l->rows ? row - l->row : l->rows;
        if (l->site == part / values_of(kind) && before > 0)
            sum += before * bq_linear_groups(q->arch, q->scheme, i);
    }
    return sum;
}

bq_mat bq_train_part(const bq_train_kind *kind, const bq_quantized *q, int part, char name[32]) {
    const bq_site *site = &q->arch->site[part / values_of(kind)];
    bool element = is_element(kind, part);
    snprintf(name, 32, "%s_%s", bq_role_name(site->role),
             element ? kind->element[part % values_of(kind)] : kind->row[row_value(kind, part)]);
    return bq_mat_host(NULL, row_of(kind, q, part, site->rows), element ? site->cols : 1, BQ_F32);
}

bq_mat bq_trained_value(const bq_trained *v, const char *name) {
    for (int k = 0; v->kind->element[k]; k++)
        if (strcmp(v->kind->element[k], name) == 0) return v->element[k];
    for (int k = 0; v->kind->row[k]; k++)
        if (strcmp(v->kind->row[k], name) == 0) return bq_trained_row(v, k);
    return (bq_mat){0};
}

/* Where a whole part lies: in q->fold, which gets its values after the last step. */
static bq_mat buffer(const bq_train_state *s, int part) {
    char name[32];
    bq_mat shape = bq_train_part(s->kind, s->q, part, name), whole = s->q->fold[part / values_of(s->kind)];
    whole.rows = shape.rows, whole.cols = whole.ld = shape.cols;
    return whole;
}

/* The rows of a part that this replica trains. */
static bq_shard mine(const bq_train_state *s, int part) {
    bq_shard own =
        bq_shard_of(s->q->arch->site[part / values_of(s->kind)].rows, s->comm->replica, s->comm->nreplica);
    int64_t first = row_of(s->kind, s->q, part, own.first);
    return (bq_shard){first, row_of(s->kind, s->q, part, own.first + own.count) - first, 0};
}

/* Copy my rows of a part from the buffer to the training (take), or back. */
static void move(bq_train_state *s, int part, bool take) {
    int64_t first = mine(s, part).first;
    bq_mat whole = buffer(s, part);
    for (int i = 0; i < s->q->arch->linears; i++) {
        const bq_trained *v = &s->linear[i];
        if (s->q->arch->linear[i].site != part / values_of(s->kind) || v->w.rows == 0) continue;
        bq_mat here = is_element(s->kind, part) ? v->element[part % values_of(s->kind)]
                                                : bq_trained_row(v, row_value(s->kind, part));
        int64_t rows = here.rows * here.cols / whole.cols;
        bq_mat there = bq_mat_reshape(bq_mat_rows(whole, first, rows), here.cols);
        s->dev->op->copy(s->dev, take ? there : here, take ? here : there);
        first += rows;
    }
}

bq_mat bq_train_gather(bq_train_state *s, int part) {
    int64_t first[BQ_REPLICAS + 1], rows = s->q->arch->site[part / values_of(s->kind)].rows;
    bq_mat whole = buffer(s, part);
    for (int r = 0; r < s->comm->nreplica; r++)
        first[r] = row_of(s->kind, s->q, part, bq_shard_of(rows, r, s->comm->nreplica).first);
    first[s->comm->nreplica] = whole.rows;
    move(s, part, false);
    bq_comm_gather_slices(s->comm, s->dev, whole, first);
    s->dev->op->wait(s->dev);
    return whole;
}

bq_mat bq_train_room(bq_train_state *s, int part, int64_t *first) {
    bq_shard rows = mine(s, part);
    *first = rows.first;
    return bq_mat_rows(buffer(s, part), rows.first, rows.count);
}

void bq_train_take(bq_train_state *s, int part) { move(s, part, true); }
