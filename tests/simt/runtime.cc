/* SPDX-License-Identifier: Apache-2.0 */
#include "cuda_runtime.h"

#include <cstdio>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <sys/mman.h>
#include <vector>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

namespace simt {

/* One operation of a stream, or (run empty) a wait for another stream's first `upto` operations. */
struct operation {
    std::function<void()> run;
    std::shared_ptr<struct line> after;
    uint64_t upto;
};
struct line {
    std::deque<operation> queue;
    uint64_t issued = 0, done = 0;
    bool asked = false;
};

} // namespace simt

struct CUgraph_st {
    std::vector<std::function<void()>> work;
};
struct CUgraphExec_st {
    std::vector<std::function<void()>> work;
    std::shared_ptr<simt::line>
        line; /* where it was launched last, and how far that must be for it to have run */
    uint64_t upto = 0;
};
struct CUstream_st {
    std::shared_ptr<simt::line> line = std::make_shared<simt::line>();
    CUgraph_st *capture = nullptr;
};
struct CUevent_st {
    std::shared_ptr<simt::line> line;
    uint64_t upto = 0;
};

namespace simt {

void misuse(const char *what) {
    fprintf(stderr, "simt: %s\n", what);
    abort();
}

static std::set<CUstream_st *> streams;

counts launched;
counts::~counts() {
    if (getenv("SIMT_COUNT"))
        fprintf(stderr, "simt: %ld kernels, %ld graphs launched, %ld waits\n", kernels, graphs, waits);
}

/* What may not be done while a stream is captured: that one, or any. */
static void refuse(const CUstream_st *s) {
    if (s->capture) misuse("a wait, an event or pageable memory on a stream that is captured");
}
static void refuse() {
    for (const CUstream_st *s : streams) refuse(s);
}

static void drain(line &l, uint64_t upto) {
    while (l.done < upto) {
        operation next = std::move(l.queue.front());
        l.queue.pop_front();
        l.done++; /* before it runs: a circle of waits cannot come back here */
        if (next.run)
            next.run();
        else
            drain(*next.after, next.upto);
    }
}

static void drain_all() {
    refuse();
    if (schedule == REVERSE)
        for (auto s = streams.rbegin(); s != streams.rend(); ++s) drain(*(*s)->line, (*s)->line->issued);
    else
        for (CUstream_st *s : streams) drain(*s->line, s->line->issued);
}

void enqueue(cudaStream_t s, std::function<void()> work) {
    if (!s) misuse("work on the default stream");
    if (s->capture) {
        s->capture->work.push_back(std::move(work));
        return;
    }
    s->line->queue.push_back({std::move(work), nullptr, 0});
    s->line->issued++;
    s->line->asked = false;
}

/* ---- memory: a guard page's worth of pattern on both sides ---- */

/* The host's addresses of device memory are never mapped, so that one used on the wrong side is a fault
 * there. The memory itself lies SPACE below; a kernel's arguments are moved there at the launch (there()).
 * What is freed does not come back: the space is larger than all a program allocates. */
enum { PAGE = 4096, GUARD = PAGE, PATTERN = 0xa5 };
constexpr size_t SPACE = (size_t)1 << 38;
struct piece {
    size_t bytes, mapped;
    bool device;
};
static std::map<char *, piece> pieces; /* by the host's address */
static size_t taken;

static char *space() {
    static char *const at =
        (char *)mmap(nullptr, 2 * SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) misuse("no addresses for device memory");
    return at;
}

void *there(const void *p) {
    const uintptr_t at = (uintptr_t)p, first = (uintptr_t)space() + SPACE;
    return (void *)(at >= first && at < first + SPACE ? at - SPACE : at);
}

/* Fresh memory as the host will know it; null if there is none. */
static char *map(size_t all, bool device) {
    if (device && all > SPACE - taken) return nullptr;
    char *at = (char *)mmap(device ? space() + taken : nullptr, all, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | (device ? MAP_FIXED : 0), -1, 0);
    if (at == MAP_FAILED) return nullptr;
    if (!device) return at;
    taken += all;
    return at + SPACE;
}

static void unmap(char *at, size_t all, bool device) {
    if (device)
        mmap(there(at), all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    else
        munmap(at, all);
}

/* The piece that holds byte p, or null. */
static const std::pair<char *const, piece> *piece_of(const void *p) {
    auto next = pieces.upper_bound((char *)const_cast<void *>(p));
    if (next == pieces.begin()) return nullptr;
    --next;
    return (const char *)p < next->first + next->second.bytes ? &*next : nullptr;
}

static bool inside(const void *p, size_t n, bool device) {
    auto found = piece_of(p);
    return found && found->second.device == device &&
           (size_t)((const char *)p - found->first) + n <= found->second.bytes;
}

bool on_device(const void *p, size_t n) { return inside(p, n, true); }

cudaError_t allocate(void **p, size_t n, bool device) {
    *p = nullptr;
    refuse();
    if (n == 0) return cudaSuccess;
    const size_t all = (n + 2 * GUARD + PAGE - 1) / PAGE * PAGE;
    char *at = map(all, device);
    if (!at) return cudaErrorMemoryAllocation;
    memset(there(at), PATTERN, all);
    memset(there(at + GUARD), 0xff, n);
    pieces[at + GUARD] = {n, all, device};
    ASAN_POISON_MEMORY_REGION(there(at), GUARD);
    ASAN_POISON_MEMORY_REGION(there(at + GUARD + n), all - GUARD - n);
    *p = at + GUARD;
    return cudaSuccess;
}

cudaError_t release(void *p, bool device) {
    if (!p) return cudaSuccess;
    drain_all();
    auto found = pieces.find((char *)p);
    if (found == pieces.end() || found->second.device != device) misuse("freed what was not allocated");
    const piece was = found->second;
    char *at = found->first - GUARD;
    const char *bytes = (char *)there(at);
    ASAN_UNPOISON_MEMORY_REGION(bytes, was.mapped);
    for (size_t i = 0; i < was.mapped; i++)
        if ((i < GUARD || i >= GUARD + was.bytes) && bytes[i] != (char)PATTERN)
            misuse("a write beyond an allocation");
    pieces.erase(found);
    unmap(at, was.mapped, device);
    return cudaSuccess;
}

static bool mapped(const void *p) {
    unsigned char resident;
    return mincore((void *)((uintptr_t)p / PAGE * PAGE), 1, &resident) == 0;
}

void move_argument(void *argument, size_t bytes) {
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
        void *word;
        memcpy(&word, (const char *)argument + i, 8);
        if (void *moved = there(word); moved != word) {
            memcpy((char *)argument + i, &moved, 8);
            continue;
        }
        /* programs, heaps and stacks lie high; lower numbers may be anything, and are mapped under ASan */
        if ((uintptr_t)word >> 40 < 0x50 || (uintptr_t)word >> 47) continue;
        if (mapped(word)) misuse("a kernel's argument is the address of host memory");
    }
}

bool launchable(const cudaLaunchConfig_t *c) {
    const dim3 g = c->gridDim, b = c->blockDim;
    const uint64_t in_block = (uint64_t)b.x * b.y * b.z, blocks = (uint64_t)g.x * g.y * g.z;
    return in_block > 0 && in_block <= MAX_THREADS && b.z <= 64 && b.x % WARP == 0 && blocks > 0 &&
           g.x <= INT32_MAX && g.y <= 65535 && g.z <= 65535 && blocks <= UINT32_MAX && !c->numAttrs;
}

/* ---- copies ---- */

static size_t span(size_t pitch, size_t width, size_t rows) { return (rows - 1) * pitch + width; }

static void copy_rows(char *to, size_t to_pitch, const char *from, size_t from_pitch, size_t width,
                      size_t rows) {
    for (size_t r = 0; r < rows; r++) memcpy(to + r * to_pitch, from + r * from_pitch, width);
}

/* The kind must be true of both ends. */
static void check_copy(const void *to, size_t to_bytes, const void *from, size_t from_bytes,
                       cudaMemcpyKind kind) {
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice,
               from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind > cudaMemcpyDeviceToDevice) misuse("a copy of unknown kind");
    if (to_device != inside(to, to_bytes, true) || from_device != inside(from, from_bytes, true))
        misuse("a copy whose kind does not fit its ends, or beyond an allocation");
}

} // namespace simt

using namespace simt;

#ifdef __SANITIZE_ADDRESS__
/* Arenas poison device memory by the host's addresses (CMakeLists.txt has the linker wrap the two). */
extern "C" {
void __real___asan_poison_memory_region(const volatile void *p, size_t n);
void __real___asan_unpoison_memory_region(const volatile void *p, size_t n);
void __wrap___asan_poison_memory_region(const volatile void *p, size_t n) {
    __real___asan_poison_memory_region(there(const_cast<const void *>(p)), n);
}
void __wrap___asan_unpoison_memory_region(const volatile void *p, size_t n) {
    __real___asan_unpoison_memory_region(there(const_cast<const void *>(p)), n);
}
}
#endif

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t rows, cudaMemcpyKind kind, cudaStream_t s) {
    if (width == 0 || rows == 0) return cudaSuccess;
    if (width > to_pitch || width > from_pitch) return cudaErrorInvalidValue;
    const size_t n = span(from_pitch, width, rows);
    check_copy(to, span(to_pitch, width, rows), from, n, kind);
    const bool keep = kind == cudaMemcpyHostToDevice && !inside(from, n, false);
    const bool waits = kind == cudaMemcpyDeviceToHost && !inside(to, span(to_pitch, width, rows), false);
    if (keep || waits) refuse(s);
    std::shared_ptr<std::vector<char>> kept; /* pageable: the driver has its own copy before it returns */
    if (keep) {
        kept = std::make_shared<std::vector<char>>(width * rows);
        copy_rows(kept->data(), width, (const char *)from, from_pitch, width, rows);
    }
    enqueue(s, [=] {
        copy_rows((char *)there(to), to_pitch, keep ? kept->data() : (const char *)there(from),
                  keep ? width : from_pitch, width, rows);
    });
    if (waits) drain(*s->line, s->line->issued);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind kind, cudaStream_t s) {
    return cudaMemcpy2DAsync(to, n, from, n, n, 1, kind, s);
}

cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int value, size_t width, size_t rows, cudaStream_t s) {
    if (width == 0 || rows == 0) return cudaSuccess;
    if (width > pitch) return cudaErrorInvalidValue;
    if (!on_device(to, span(pitch, width, rows))) misuse("a memset beyond the device's memory");
    enqueue(s, [=] {
        for (size_t r = 0; r < rows; r++) memset((char *)there(to) + r * pitch, value, width);
    });
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t n, cudaStream_t s) {
    return cudaMemset2DAsync(to, n, value, n, 1, s);
}

/* ---- streams and events ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    streams.insert(*s = new CUstream_st());
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    refuse(s);
    drain(*s->line, s->line->issued);
    streams.erase(s);
    delete s;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    refuse(s);
    simt::launched.waits++;
    drain(*s->line, s->line->issued);
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t s) {
    refuse(s);
    if (!s->line->asked && s->line->done < s->line->issued) {
        s->line->asked = true;
        return cudaErrorNotReady;
    }
    return cudaStreamSynchronize(s);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    *e = new CUevent_st();
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    refuse(s);
    e->line = s->line, e->upto = s->line->issued;
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    if (e->line) drain(*e->line, e->upto);
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
    if (e->line && e->line->done < e->upto && !e->line->asked) {
        e->line->asked = true;
        return cudaErrorNotReady;
    }
    return cudaEventSynchronize(e);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    refuse(s);
    if (!e->line) return cudaSuccess;
    s->line->queue.push_back({nullptr, e->line, e->upto});
    s->line->issued++;
    return cudaSuccess;
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
    refuse(s);
    s->capture = new CUgraph_st();
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph) {
    if (!s->capture) return cudaErrorInvalidValue;
    *graph = s->capture;
    s->capture = nullptr;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
    *exec = new CUgraphExec_st();
    (*exec)->work = graph->work;
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s) {
    refuse(s);
    for (const auto &work : exec->work) enqueue(s, work);
    exec->line = s->line, exec->upto = s->line->issued;
    launched.graphs++;
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    if (exec->line && exec->line->done < exec->upto) misuse("a graph destroyed before it has run");
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void) {
    drain_all();
    return cudaSuccess;
}
