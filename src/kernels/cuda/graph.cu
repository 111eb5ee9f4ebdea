/* SPDX-License-Identifier: Apache-2.0 */
/* Recorded ops, as CUDA graphs: one launch for all of them.  The first call runs as usual, since it loads
 * kernels and lets cuBLAS choose; the second one is captured from the stream. */
#include "kernels/cuda/cuda_ops.h"

static bq_cuda_graph *find(bq_cuda *cuda, uint64_t key, size_t used) {
    for (int i = 0; i < cuda->graphs; i++)
        if (cuda->graph[i].key == key && cuda->graph[i].used == used) return &cuda->graph[i];
    return NULL;
}

/* The results are in the same place as when they were recorded, and become pending again. */
static bool launch(bq_cuda *cuda, const bq_cuda_graph *g) {
    if (g->first != cuda->nresults || cuda->npending + g->results > BQ_CUDA_PENDING) return false;
    for (int i = 0; i < g->results; i++) {
        cuda->pending[cuda->npending++] = g->result[i];
        cuda->nresults += g->result[i].count;
    }
    BQ_CUDA(cudaGraphLaunch(g->exec, cuda->stream));
    return true;
}

bool bq_cuda_replay(bq_dev *dev, uint64_t key) {
    bq_cuda *cuda = bq_cuda_of(dev);
    BQ_CHECK(!cuda->recording, "a replay among ops that are recorded");
    bq_cuda_graph *g = find(cuda, key, dev->mem.used);
    if (g && g->exec) return launch(cuda, g);
    if (!g && !cuda->plain && cuda->graphs < BQ_CUDA_GRAPHS)
        cuda->graph[cuda->graphs++] = {key, dev->mem.used, NULL, 0, 0, {}};
    if (!g) return false;
    g->first = cuda->nresults;
    cuda->recorded_from = cuda->npending;
    cuda->recording = g;
    BQ_CUDA(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal));
    return false;
}

void bq_cuda_recorded(bq_dev *dev) {
    bq_cuda *cuda = bq_cuda_of(dev);
    bq_cuda_graph *g = cuda->recording;
    cudaGraph_t graph;
    if (!g) return;
    BQ_CHECK(dev->mem.used == g->used, "ops that are recorded keep memory");
    cuda->recording = NULL;
    BQ_CUDA(cudaStreamEndCapture(cuda->stream, &graph));
    BQ_CUDA(cudaGraphInstantiate(&g->exec, graph, 0));
    BQ_CUDA(cudaGraphDestroy(graph));
    g->results = cuda->npending - cuda->recorded_from;
    BQ_CHECK(g->results <= BQ_CUDA_GRAPH_RESULTS, "%d results of ops that are recorded", g->results);
    for (int i = 0; i < g->results; i++) g->result[i] = cuda->pending[cuda->recorded_from + i];
    BQ_CUDA(cudaGraphLaunch(g->exec, cuda->stream));
}

void bq_cuda_forget(bq_dev *dev) {
    bq_cuda *cuda = bq_cuda_of(dev);
    BQ_CUDA(cudaStreamSynchronize(cuda->stream)); /* they may still be running */
    for (int i = 0; i < cuda->graphs; i++)
        if (cuda->graph[i].exec) BQ_CUDA(cudaGraphExecDestroy(cuda->graph[i].exec));
    cuda->graphs = 0;
}
