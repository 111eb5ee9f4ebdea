/* Ops of mixtures of experts.  A team has a token: its lanes look for the next expert together, and one lane
 * writes what was found. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/reduce.cuh"

static __global__ void choose(bq_router r, bq_rows<float> logits, const float *bias, int experts,
                              bq_rows<int32_t> index, bq_rows<float> weight, int64_t tokens) {
    BQ_EACH_ROW(t, tokens) {
        const bool in = t < tokens;
        const bq_routing of = {r, in ? bq_row(logits, t) : NULL, bias, in ? experts : 0};
        uint64_t groups = r.kept < r.groups ? 0 : UINT64_MAX, key = UINT64_MAX;
        for (int i = 0; i < r.kept && r.kept < r.groups; i++) {
            key = bq_team_max(bq_route_next_group(of, bq_lane(), BQ_LANES, key));
            groups |= UINT64_C(1) << bq_route_number(key);
        }
        key = UINT64_MAX;
        for (int i = 0; i < r.chosen; i++)
            key = bq_team_max(bq_route_next(of, groups, bq_lane(), BQ_LANES, key));
        if (in && bq_lane() == 0) bq_route_write(of, groups, key, bq_row(index, t), bq_row(weight, t));
    }
}

static __global__ void choose_bwd(bq_router r, bq_rows<float> logits, int experts, bq_rows<int32_t> index,
                                  bq_rows<float> dweight, bq_rows<float> dlogits, int64_t tokens) {
    const int64_t t = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (t < tokens)
        bq_route_back({r, bq_row(logits, t), NULL, experts}, bq_row(index, t), bq_row(dweight, t),
                      bq_row(dlogits, t));
}

void bq_cuda_route(bq_dev *dev, bq_router r, bq_mat logits, bq_mat bias, bq_mat index, bq_mat weight) {
    BQ_WANT_ROUTER(dev, r, logits, index, weight);
    if (bias.data) BQ_WANT(dev, 1, logits.cols, bias);
    bq_launch(dev, bq_grid_teams(logits.rows), BQ_THREADS, choose, r, logits, (const float *)bias.data,
              (int)logits.cols, index, weight, logits.rows);
}

void bq_cuda_route_bwd(bq_dev *dev, bq_router r, bq_mat logits, bq_mat index, bq_mat dweight,
                       bq_mat dlogits) {
    BQ_WANT_ROUTER(dev, r, logits, index, dweight);
    BQ_WANT(dev, logits.rows, logits.cols, dlogits);
    const unsigned threads = 32; /* a token a thread: more thread blocks use more of the GPU */
    bq_launch(dev, bq_pieces(logits.rows, threads), threads, choose_bwd, r, logits, (int)logits.cols, index,
              dweight, dlogits, logits.rows);
}
