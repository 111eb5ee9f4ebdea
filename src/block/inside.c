#include "block/inside.h"

#include "base/shard.h"
#include "comm/treesum.h"

#include <stdio.h>

static const char *const value_name[] = {"s2", "beta", "gamma", "s3"}, *const moment_name[] = {"", "_m",
                                                                                               "_v"};
static const char *const mat_name[BQ_MATS] = {"qkv", "o", "gate_up", "down"};

enum { MOMENTS = 3 }; /* a value is followed by its first and its second moment */

static int mat_of(int part) { return part / BQ_INSIDE_VALUES; }
static int value_of(int part) { return part % BQ_INSIDE_VALUES / MOMENTS; }
static int moment_of(int part) { return part % MOMENTS; }

/* Rows of a part before a row of its matrix: a value for each group of a row, or, of s2, one for each
 * element. */
static int64_t row_of(const bq_quantized *q, int part, int64_t row) {
    int64_t sum = 0;
    if (value_of(part) == 0) return row;
    for (int i = 0; i < q->arch->linears; i++) {
        const bq_linear *l = &q->arch->linear[i];
        int64_t before = row < l->row + l->rows ? row - l->row : l->rows;
        if (l->mat == mat_of(part) && before > 0) sum += before * bq_linear_groups(q->arch, q->scheme, i);
    }
    return sum;
}

bq_mat bq_adascale_part(const bq_quantized *q, int part, char name[32]) {
    int m = mat_of(part), value = value_of(part);
    snprintf(name, 32, "%s_%s%s", mat_name[m], value_name[value], moment_name[moment_of(part)]);
    return bq_mat_host(NULL, row_of(q, part, q->arch->rows[m]), value ? 1 : q->arch->cols[m], BQ_F32);
}

/* The part in the buffer: the folded weights are made after the last step. */
static bq_mat buffer(const bq_adascale_state *s, int part) {
    char name[32];
    bq_mat shape = bq_adascale_part(s->q, part, name), whole = s->q->fold[mat_of(part)];
    whole.rows = shape.rows, whole.cols = whole.ld = shape.cols;
    return whole;
}

/* My rows of one linear's part, where they are trained. */
static bq_mat trained(const bq_adascale *p, int part) {
    int value = value_of(part), moment = moment_of(part);
    const bq_mat element[] = {p->s2, p->m_s2, p->v_s2}, row[] = {p->beta, p->gamma, p->s3};
    if (value == 0) return element[moment];
    return moment ? bq_mat_cols(moment == 1 ? p->m_row : p->v_row, value - 1, 1) : row[value - 1];
}

/* My rows between the buffer and the training. */
static void move(bq_adascale_state *s, int part, bool take) {
    const bq_arch *arch = s->q->arch;
    bq_shard own = bq_shard_of(arch->rows[mat_of(part)], s->comm->replica, s->comm->nreplica);
    bq_mat whole = buffer(s, part);
    for (int i = 0; i < arch->linears; i++) {
        const bq_linear *l = &arch->linear[i];
        bq_mat mine = trained(&s->linear[i], part);
        if (l->mat != mat_of(part) || mine.rows == 0) continue;
        int64_t first = row_of(s->q, part, l->row > own.first ? l->row : own.first);
        bq_mat there = bq_mat_rows(whole, first, mine.rows * mine.cols / whole.cols);
        there = bq_mat_reshape(there, mine.cols);
        s->dev->op->copy(s->dev, take ? there : mine, take ? mine : there);
    }
}

bq_mat bq_adascale_gather(bq_adascale_state *s, int part) {
    int64_t first[BQ_REPLICAS + 1], rows = s->q->arch->rows[mat_of(part)];
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
    bq_shard own = bq_shard_of(s->q->arch->rows[mat_of(part)], s->comm->replica, s->comm->nreplica);
    *first = row_of(s->q, part, own.first);
    return bq_mat_rows(buffer(s, part), *first, row_of(s->q, part, own.first + own.count) - *first);
}

void bq_adascale_take(bq_adascale_state *s, int part) { move(s, part, true); }
