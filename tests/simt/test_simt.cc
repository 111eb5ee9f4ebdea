/* SPDX-License-Identifier: Apache-2.0 */
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

/* A lane's words lie where mma.cuh says: a warp's product is the plain one. */
static __global__ void multiply(const uint32_t *a, const uint32_t *b, float *d, int numbers) {
    const unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
    const uint32_t left[4] = {a[g * 8 + t], a[(g + 8) * 8 + t], a[g * 8 + t + 4], a[(g + 8) * 8 + t + 4]};
    const uint32_t right[2] = {b[t * 8 + g], b[(t + 4) * 8 + g]};
    float *row = d + g * 8 + 2 * t, mine[4] = {row[0], row[1], row[64], row[65]};
    simt::mma(mine, left, right, numbers, __FILE__, __LINE__);
    row[0] = mine[0], row[1] = mine[1], row[64] = mine[2], row[65] = mine[3];
}

static uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}
static float small_number(int i) { return (float)(i * 37 % 61 - 30); }
/* Word i: two such numbers in bf16; or one as a float, with bits set of which a tensor core reads nothing. */
static uint32_t word_of(int i, int numbers) {
    if (numbers == 1) return bits_of(small_number(i)) | 0x1fffu;
    return (bits_of(small_number(2 * i + 1)) & 0xffff0000u) | bits_of(small_number(2 * i)) >> 16;
}

static void warps_multiply(int numbers) {
    uint32_t *a, *b, words[2][128];
    float *d, got[128];
    cudaStream_t s;
    cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    cudaMalloc(&a, sizeof words[0]), cudaMalloc(&b, sizeof words[0]), cudaMalloc(&d, sizeof got);
    for (int i = 0; i < 128; i++)
        words[0][i] = word_of(i, numbers), words[1][i] = word_of(i + 200, numbers), got[i] = (float)i;
    cudaMemcpyAsync(a, words[0], sizeof words[0], cudaMemcpyHostToDevice, s);
    cudaMemcpyAsync(b, words[1], sizeof words[1], cudaMemcpyHostToDevice, s);
    cudaMemcpyAsync(d, got, sizeof got, cudaMemcpyHostToDevice, s);
    run(s, multiply, (const uint32_t *)a, (const uint32_t *)b, d, numbers);
    cudaMemcpyAsync(got, d, sizeof got, cudaMemcpyDeviceToHost, s);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            float want = (float)(i * 8 + j);
            for (int k = 0; k < 8; k++)
                for (int n = 0; n < numbers; n++)
                    want += small_number((i * 8 + k) * numbers + n) *
                            small_number((200 + k * 8 + j) * numbers + n);
            expect(got[i * 8 + j] == want, "a product of a warp's tiles");
        }
    cudaFree(a), cudaFree(b), cudaFree(d), cudaStreamDestroy(s);
}

/* Dynamic shared memory: what nobody wrote is NaN; more than 48 KiB has to be asked for, 99 KiB are there. */
static __global__ void share(float *y, int n) {
    float *mine = (float *)simt::dynamic_shared();
    if (threadIdx.x == 0) *y = mine[n - 1];
    __syncthreads();
    mine[n - 1] = 1;
}
static void shared_memory_has_limits() {
    float *y, got;
    cudaStream_t s;
    cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    cudaMalloc(&y, sizeof *y);
    cudaLaunchConfig_t c = {};
    c.gridDim = dim3(2), c.blockDim = dim3(N), c.stream = s, c.dynamicSmemBytes = 99 << 10;
    expect(cudaLaunchKernelEx(&c, share, y, 99 << 8) != cudaSuccess, "more than 48 KiB, and nobody asked");
    const cudaFuncAttribute most = cudaFuncAttributeMaxDynamicSharedMemorySize;
    expect(cudaFuncSetAttribute(share, most, 100 << 10) != cudaSuccess, "more than each GPU has");
    expect(cudaFuncSetAttribute(share, most, 99 << 10) == cudaSuccess, "as much as each GPU has");
    expect(cudaLaunchKernelEx(&c, share, y, 99 << 8) == cudaSuccess, "what was asked for");
    cudaMemcpyAsync(&got, y, sizeof got, cudaMemcpyDeviceToHost, s);
    expect(std::isnan(got), "a block does not see another one's shared memory");
    cudaFree(y), cudaStreamDestroy(s);
}

int main() {
    adds_as_tensor_cores_do();
    for (int s = 0; s < 3; s++) {
        simt::schedule = (simt::order)s;
        expect(across(true) == 30, "an event orders two streams");
        expect(std::isnan(across(false)), "without it the kernel sees memory that nobody has written");
        warps_multiply(1), warps_multiply(2);
    }
    pinned_copies_wait();
    graphs_replay();
    memory_has_sides();
    shared_memory_has_limits();
    printf("%d failures\n", failures);
    return failures != 0;
}
