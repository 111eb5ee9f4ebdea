#include "block/passes/midblock.h"

#include "base/shard.h"
#include "comm/treesum.h"

#include <stdio.h>

enum { ELEMENTS = 3 }; /* the first values: one for each element; the others: one for each group of a row */
static const char *const value_name[BQ_INSIDE_VALUES] = {"s2",     "s2_m",  "s2_v",    "beta",    "beta_m",
                                                         "beta_v", "gamma", "gamma_m", "gamma_v", "s3",
                                                         "s3_m",   "s3_v",  "hi",      "lo"};

static int site_of(int part) { return part / BQ_INSIDE_VALUES; }
static int value_of(int part) { return part % BQ_INSIDE_VALUES; }

/* How many rows of a part come before a row of its site. */
static int64_t row_of(const bq_quantized *q, int part, int64_t row) {
    int64_t sum = 0;
    if (value_of(part) < ELEMENTS) return row;
    for (int i = 0; i < q->arch->linears; i++) {
        const bq_linear *l = &q->arch->linear[i];
        int64_t before = row < l->row + l->rows ? row - l->row : l->rows;
        if (l->site == site_of(part) && before > 0) sum += before * bq_linear_groups(q->arch, q->scheme, i);
    }
    return sum;
}

bq_mat bq_adascale_part(const bq_quantized *q, int part, char name[32]) {
    int m = site_of(part), value = value_of(part);
    snprintf(name, 32, "%s_%s", bq_role_name(q->arch->site[m].role), value_name[value]);
    return bq_mat_host(NULL, row_of(q, part, q->arch->site[m].rows),
                       value < ELEMENTS ? q->arch->site[m].cols : 1, BQ_F32);
}

/* Where a whole part lies: in q->fold, which gets its values after the last step. */
static bq_mat buffer(const bq_adascale_state *s, int part) {
    char name[32];
    bq_mat shape = bq_adascale_part(s->q, part, name), whole = s->q->fold[site_of(part)];
    whole.rows = shape.rows, whole.cols = whole.ld = shape.cols;
    return whole;
}

/* A part of the trained values p of a linear. */
static bq_mat trained(const bq_adascale *p, int part) {
    bq_mat m[3], v[3]; /* moments of beta, gamma, s3 lie side by side */
    for (int k = 0; k < 3; k++) m[k] = bq_mat_cols(p->m_row, k, 1), v[k] = bq_mat_cols(p->v_row, k, 1);
    const bq_mat values[BQ_INSIDE_VALUES] = {p->s2, p->m_s2, p->v_s2, p->beta, m[0], v[0],  p->gamma,
                                             m[1],  v[1],    p->s3,   m[2],    v[2], p->hi, p->lo};
    return values[value_of(part)];
}

/* Copy my rows of a part from the buffer to the training (take), or back. */
static void move(bq_adascale_state *s, int part, bool take) {
    const bq_arch *arch = s->q->arch;
    bq_shard own = bq_shard_of(arch->site[site_of(part)].rows, s->comm->replica, s->comm->nreplica);
    bq_mat whole = buffer(s, part);
    for (int i = 0; i < arch->linears; i++) {
        const bq_linear *l = &arch->linear[i];
        bq_mat mine = trained(&s->linear[i], part);
        if (l->site != site_of(part) || mine.rows == 0) continue;
        int64_t first = row_of(s->q, part, l->row > own.first ? l->row : own.first);
        bq_mat there = bq_mat_rows(whole, first, mine.rows * mine.cols / whole.cols);
        there = bq_mat_reshape(there, mine.cols);
        s->dev->op->copy(s->dev, take ? there : mine, take ? mine : there);
    }
}

bq_mat bq_adascale_gather(bq_adascale_state *s, int part) {
    int64_t first[BQ_REPLICAS + 1], rows = s->q->arch->site[site_of(part)].rows;
    bq_mat whole = buffer(s, part);
    for (int r = 0; r < s->comm->nreplica; r++)
        first[r] = row_of(s->q, part, bq_shard_of(rows, r, s->comm->nreplica).first);
    first[s->comm->nreplica] = whole.rows;
    move(s, part, false);
    bq_comm_gather_slices(s->comm, s->dev, whole, first);
    s->dev->op->wait(s->dev);
    return whole;
}

bq_mat bq_adascale_room(bq_adascale_state *s, int part, int64_t *first) {
    bq_shard own = bq_shard_of(s->q->arch->site[site_of(part)].rows, s->comm->replica, s->comm->nreplica);
    *first = row_of(s->q, part, own.first);
    return bq_mat_rows(buffer(s, part), *first, row_of(s->q, part, own.first + own.count) - *first);
}

void bq_adascale_take(bq_adascale_state *s, int part) { move(s, part, true); }
