/* SPDX-License-Identifier: Apache-2.0 */
/* The mirror's table: runs each op of kernels/ops.def on all devices of a run, and says which of its
 * arguments are matrices.  In C++, where the types of a function's arguments can be taken apart. */
#include <cstring>
#include <type_traits>
extern "C" {
#include "mirror.h"
}

static constexpr double BITWISE = 0, NEAR = 1e-10; /* kernels/ops.h */

namespace {
/* The matrices of one call; an argument that holds matrices is replaced by a copy, since the mirror moves
 * them. */
struct matrices {
    bq_mat *list[16] = {}, host = {}; /* host: what the op writes on the host */
    int count = 0;
    const char *op;
    bq_adascale adascale = {};
    bq_gptq gptq = {};
    bq_refine refine = {};
    bq_tuned tuned = {};

    explicit matrices(const char *name) : op(name) {}
    void add(bq_mat &m) { list[count++] = &m; }
    void add(double *&values) {
        host = bq_mat_host(values, strcmp(op, "xent") == 0 || strcmp(op, "distill") == 0 ? list[0]->rows : 1,
                           1, BQ_F64);
        host.place = MIRROR_HOST;
        add(host);
    }
    void add(bq_mat *first, bq_mat *last) { /* members that follow each other */
        while (first <= last) add(*first++);
    }
    void add(const bq_adascale *&p) {
        p = &(adascale = *p);
        add(&adascale.w, &adascale.v_s2);
    }
    void add(const bq_tuned *&p) {
        p = &(tuned = *p);
        add(&tuned.w, &tuned.v);
    }
    void add(const bq_gptq *&p) {
        p = &(gptq = *p);
        add(&gptq.w, &gptq.zero);
    }
    void add(const bq_refine *&p) {
        p = &(refine = *p);
        add(&refine.fold, &refine.zero);
    }
    void add(bq_attention &a) { add(a.sinks); }
    template <class T> void add(const T &) {} /* a number, or a group of them */
};

template <class R, class... A>
R each(R (*bq_ops::*op)(bq_dev *, A...), const char *name, double limit, unsigned *calls, bq_dev *dev,
       A... argument) {
    matrices of(name);
    (of.add(argument), ...);
    mirror_run *run = mirror_start(dev, name, limit, calls, of.list);
    if constexpr (std::is_void_v<R>) {
        for (bq_dev *d; (d = mirror_next(run));) (d->op->*op)(d, argument...);
    } else {
        R first{};
        for (bq_dev *d; (d = mirror_next(run));) {
            R now = (d->op->*op)(d, argument...);
            if (d->op == &bq_ops_cpu) first = now;
            BQ_CHECK(now == first, "%s: the backends return different values", name);
        }
        return first;
    }
}
} // namespace

extern "C" bq_ops mirror_ops(void) {
    bq_ops both = bq_ops_cpu;
    both.name = "cpu and cuda";
#define OP(type, name, class, ...)                                                                           \
    both.name = [](bq_dev *dev, auto... argument) {                                                          \
        static unsigned calls;                                                                               \
        return each(&bq_ops::name, #name, class, &calls, dev, argument...);                                  \
    };
#include "kernels/ops.def"
    both.put = both.get = both.copy;
    return both;
}
