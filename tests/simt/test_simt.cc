/* The emulator itself: streams are lazy, events order them, pageable copies are what the manual says. */
#include "cuda_runtime.h"
#include "tensor_core.h"

#include <cmath>
#include <cstdio>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

static void expect(bool good, const char *what) {
    if (!good) printf("FAILED: %s\n", what), failures++;
}

static __global__ void twice(const float *x, float *y) {
    const float other = __shfl_xor_sync(~0u, x[threadIdx.x], 1);
    y[threadIdx.x] = x[threadIdx.x] + other;
}

enum { N = 32 };

static void launch(cudaStream_t s, const float *x, float *y) {
    cudaLaunchConfig_t c = {};
    c.gridDim = dim3(1), c.blockDim = dim3(N), c.stream = s;
    expect(cudaLaunchKernelEx(&c, twice, x, y) == cudaSuccess, "a launch");
}

/* x goes up on one stream, a kernel runs on another: with an event between, or without. */
static float across(bool event) {
    float *x, *y, *pinned, got[N];
    cudaStream_t up, work;
    cudaEvent_t there;
    cudaStreamCreateWithFlags(&up, cudaStreamNonBlocking),
        cudaStreamCreateWithFlags(&work, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&there, cudaEventDisableTiming);
    cudaMalloc(&x, sizeof got), cudaMalloc(&y, sizeof got), cudaMallocHost(&pinned, sizeof got);
    for (int i = 0; i < N; i++) pinned[i] = (float)(i / 2);
    cudaMemcpyAsync(x, pinned, sizeof got, cudaMemcpyHostToDevice, up);
    cudaEventRecord(there, up);
    if (event) cudaStreamWaitEvent(work, there);
    launch(work, x, y);
    cudaMemcpyAsync(got, y, sizeof got, cudaMemcpyDeviceToHost, work); /* pageable: done when it returns */
    cudaEventDestroy(there), cudaStreamDestroy(up), cudaStreamDestroy(work);
    cudaFree(x), cudaFree(y), cudaFreeHost(pinned);
    return got[N - 1];
}

static void pinned_copies_wait(void) {
    float *x, *pinned, value = 3;
    cudaStream_t s;
    cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    cudaMalloc(&x, sizeof *x), cudaMallocHost(&pinned, sizeof *pinned);
    cudaMemcpyAsync(x, &value, sizeof value, cudaMemcpyHostToDevice, s);
    value = 4; /* pageable: it was read by then */
    *pinned = 5;
    cudaMemcpyAsync(pinned, x, sizeof *x, cudaMemcpyDeviceToHost, s);
    expect(*pinned == 5, "a copy to pinned memory has not run before somebody waits");
    expect(cudaStreamQuery(s) == cudaErrorNotReady, "a stream is busy when it is first asked");
    cudaStreamSynchronize(s);
    expect(*pinned == 3, "it has run then, with what the source was");
    cudaStreamDestroy(s), cudaFree(x), cudaFreeHost(pinned);
}

/* A graph reads memory anew at each launch; a kernel's argument, here which element, is that of the capture.
 */
static __global__ void take(const float *x, int i, float *y) { y[threadIdx.x] = x[i] + y[threadIdx.x]; }

static void graphs_replay() {
    float *x, *y, *pinned;
    int which = 3;
    cudaStream_t s;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    cudaMalloc(&x, N * sizeof *x), cudaMalloc(&y, N * sizeof *y), cudaMallocHost(&pinned, N * sizeof *pinned);
    for (int i = 0; i < N; i++) pinned[i] = (float)i;
    cudaMemsetAsync(y, 0, N * sizeof *y, s);
    cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
    cudaMemcpyAsync(x, pinned, N * sizeof *x, cudaMemcpyHostToDevice, s);
    cudaLaunchConfig_t c = {};
    c.gridDim = dim3(1), c.blockDim = dim3(N), c.stream = s;
    cudaLaunchKernelEx(&c, take, (const float *)x, which, y);
    cudaStreamEndCapture(s, &graph);
    cudaGraphInstantiate(&exec, graph, 0), cudaGraphDestroy(graph);
    float got[N];
    cudaMemcpyAsync(got, y, sizeof got, cudaMemcpyDeviceToHost, s);
    expect(got[0] == 0, "what is captured has not run");
    which = 5;
    cudaGraphLaunch(exec, s), cudaStreamSynchronize(s);
    pinned[3] = 100, pinned[5] = 1000;
    cudaGraphLaunch(exec, s);
    cudaMemcpyAsync(got, y, sizeof got, cudaMemcpyDeviceToHost, s);
    expect(got[0] == 103 && got[N - 1] == 103, "twice run, with the argument as it was and memory as it is");
    cudaGraphExecDestroy(exec);
    cudaFree(x), cudaFree(y), cudaFreeHost(pinned), cudaStreamDestroy(s);
}

/* How a child ends that does `what`: false for exit code 0. */
static bool dies(const std::function<void()> &what) {
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(0);
        what();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status != 0;
}

struct deep { /* where addresses may be in an argument */
    int before;
    const float *x;
    int after;
};
static __global__ void add_deep(deep d, float *y) { *y = d.x[d.before + d.after]; }
static __global__ void beyond(float *y, int i) { y[i] = 1; }

template <class... P, class... A> static void run(cudaStream_t s, void (*kernel)(P...), A... a) {
    cudaLaunchConfig_t c = {};
    c.gridDim = dim3(1), c.blockDim = dim3(N), c.stream = s;
    cudaLaunchKernelEx(&c, kernel, a...), cudaStreamSynchronize(s);
}

/* The host and the device each use their own memory alone. */
static void memory_has_sides() {
    float *x, *y, got[2] = {1, 2}, mine[4] = {};
    cudaStream_t s;
    cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    cudaMalloc(&x, sizeof got), cudaMalloc(&y, sizeof *y);
    cudaMemcpyAsync(x, got, sizeof got, cudaMemcpyHostToDevice, s);
    run(s, add_deep, deep{-3, x, 4}, y);
    cudaMemcpyAsync(got, y, sizeof *y, cudaMemcpyDeviceToHost, s);
    expect(got[0] == 2, "an address within an argument");
    volatile float *at = y;
    expect(dies([=] { *at = 1; }), "the host writes to device memory");
    expect(dies([=] {
               float v = *at;
               (void)v;
           }),
           "the host reads device memory");
    expect(dies([&] { run(s, beyond, (float *)mine, 0); }), "a kernel gets an address of the host");
    expect(dies([&] { run(s, beyond, y, 1), cudaFree(y); }), "a kernel writes just beyond a piece");
    expect(dies([&] { run(s, beyond, y, -1), cudaFree(y); }), "a kernel writes just before a piece");
    expect(dies([&] { cudaFree(y), run(s, beyond, y, 0); }), "a kernel writes to what was freed");
    expect(dies([&] { cudaMemcpyAsync(mine, x, 3 * sizeof *x, cudaMemcpyDeviceToHost, s); }),
           "a copy beyond a piece");
    expect(!dies([&] { run(s, beyond, y, 0), cudaFree(y); }), "and nothing of that");
    cudaFree(x), cudaFree(y), cudaStreamDestroy(s);
}

/* What a tensor core loses: terms below the cut, whatever their sum is, and a remainder of the sum. */
static void adds_as_tensor_cores_do() {
    const double small[] = {-0x1p-26, -0x1p-26, -0x1p-26}, kept[] = {-0x1p-25}, more[] = {0x1.8p-24};
    const double infinite[] = {INFINITY, 1}, whole[] = {3, 0.5};
    expect(simt::tensor_core_sum(1, small, 3) == 1, "terms below the cut are lost");
    expect(simt::tensor_core_sum(1, kept, 1) == 1 - 0x1p-24f, "a sum is cut towards zero");
    expect(simt::tensor_core_sum(1, more, 1) == 1, "a sum is not rounded");
    expect(simt::tensor_core_sum(0, small, 3) == -0x1.8p-25f, "small terms alone are kept");
    expect(simt::tensor_core_sum(0, infinite, 2) == INFINITY, "infinity stays");
    expect(simt::tensor_core_sum(1.5f, whole, 2) == 5, "what a float holds is exact");
}

int main() {
    adds_as_tensor_cores_do();
    for (int s = 0; s < 3; s++) {
        simt::schedule = (simt::order)s;
        expect(across(true) == 30, "an event orders two streams");
        expect(std::isnan(across(false)), "without it the kernel sees memory that nobody has written");
    }
    pinned_copies_wait();
    graphs_replay();
    memory_has_sides();
    printf("%d failures\n", failures);
    return failures != 0;
}
