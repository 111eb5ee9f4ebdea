/* SPDX-License-Identifier: Apache-2.0 */
#include "simt.h"
#include "tensor_core.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sys/mman.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#define ASAN(call) call
#else
#define ASAN(call)
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

/* Save the callee's registers on this stack, note where it ends, go on at `to` (System V, x86-64). */
extern "C" void simt_switch(void **from, void *to);
asm(R"(
.text
.globl simt_switch
simt_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");

namespace simt {

order schedule = FORWARD;

enum state { UNSTARTED, READY, AT_BLOCK, AT_WARP, DONE };
constexpr size_t STACK = 256 * 1024, LINE = 64;

/* A stack that threads run on, one after the other, until one of them has to wait. */
struct fiber {
    void *sp;
    char *stack;
    void *fake; /* ASan's handle */
};
struct thread {
    state st;
    fiber *on;
    const char *file; /* where it waits */
    int line;
    dim3 index;
    unsigned mask; /* lanes that must meet */
    uint64_t mine; /* offered */
};

static fiber fibers[MAX_THREADS], *spare[MAX_THREADS], *current;
static int nfibers, nspare;
static thread threads[MAX_THREADS];
static uint64_t values[MAX_THREADS]; /* what the lanes that met last have offered */
static unsigned turn[MAX_THREADS], cursor, limit, cur, nthreads;
static unsigned next, end; /* of the turn: who goes on when a fiber leaves */
static void *scheduler_sp;
[[maybe_unused]] static void *scheduler_fake; /* for ASan */
[[maybe_unused]] static const void *scheduler_stack;
[[maybe_unused]] static size_t scheduler_size;
[[maybe_unused]] static bool from_scheduler;
static const std::function<void()> *body;
static void *shared_memory;

void die(const char *why) {
    fprintf(stderr, "simt: %s, block (%u,%u,%u)\n", why, blockIdx.x, blockIdx.y, blockIdx.z);
    for (unsigned t = 0; t < nthreads; t++) {
        const thread &f = threads[t];
        if (f.st == DONE)
            fprintf(stderr, "  thread %4u has returned\n", t);
        else if (f.st != UNSTARTED)
            fprintf(stderr, "  thread %4u waits at %s:%d\n", t, f.file, f.line);
    }
    abort();
}

unsigned lane() { return cur % WARP; }

static void become(unsigned t) {
    cur = t;
    threadIdx = threads[t].index;
}

/* The fiber of the next thread in turn that can run, or null. */
static fiber *ready() {
    while (next < end) {
        const unsigned t = turn[next++];
        if (threads[t].st != READY) continue;
        become(t);
        return threads[t].on;
    }
    return nullptr;
}

/* For ASan: the fiber is back; if from the scheduler, that is where its stack is. */
[[maybe_unused]] static void arrive([[maybe_unused]] void *fake) {
    const void *stack = nullptr;
    size_t size = 0;
    ASAN(__sanitizer_finish_switch_fiber(fake, &stack, &size));
    if (from_scheduler) scheduler_stack = stack, scheduler_size = size;
    from_scheduler = false;
}

static void leave() { /* fiber -> the next one, or the scheduler */
    fiber *me = current, *to = ready();
    if (to) current = to;
    ASAN(__sanitizer_start_switch_fiber(&me->fake, to ? to->stack : scheduler_stack,
                                        to ? STACK : scheduler_size));
    simt_switch(&me->sp, to ? to->sp : scheduler_sp);
    ASAN(arrive(me->fake));
}

static void enter(fiber *f) { /* scheduler -> fiber */
    current = f;
    ASAN(from_scheduler = true);
    ASAN(__sanitizer_start_switch_fiber(&scheduler_fake, f->stack, STACK));
    simt_switch(&scheduler_sp, f->sp);
    ASAN(__sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr));
}

/* Where a fiber starts: threads that have not begun, until one waits; then (resumed) the rest of that one. */
static void work() {
    ASAN(arrive(nullptr));
    for (;;) {
        while (cursor < limit) {
            const unsigned t = turn[cursor++];
            threads[t].on = current;
            become(t);
            (*body)();
            threads[cur].st = DONE;
        }
        spare[nspare++] = current;
        leave();
    }
}

static fiber *fresh() {
    if (nspare > 0) return spare[--nspare];
    if (nfibers == MAX_THREADS) die("out of fibers");
    fiber *f = &fibers[nfibers++];
    f->stack = (char *)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f->stack == MAP_FAILED) die("no memory for a stack");
    /* the stacks' ends lie in different sets of the processor's caches: each switch touches one */
    void **top = (void **)(f->stack + STACK - 11 * LINE * (size_t)(nfibers % 64)) - 2;
    *top = (void *)work;
    f->sp = top - 6; /* six registers, whatever they hold */
    return f;
}

static void wait(state st, const char *file, int line) {
    thread &t = threads[cur];
    t.st = st, t.file = file, t.line = line;
    leave();
}

void barrier(const char *file, int line) { wait(AT_BLOCK, file, line); }

const uint64_t *meet(unsigned mask, uint64_t value, const char *file, int line) {
    thread &t = threads[cur];
    t.mine = value, t.mask = mask;
    if (!(mask >> cur % WARP & 1)) die("a lane calls a warp exchange whose mask leaves it out");
    wait(AT_WARP, file, line);
    return &values[cur / WARP * WARP];
}

/* What a lane brings to a product and takes from it, on its own stack. */
struct fragment {
    float d[4];
    uint32_t a[4], b[2];
    bool done;
};

/* A number of a word; of a float a tensor core reads 10 bits behind the point. */
static float operand(uint32_t word, int numbers, int which) {
    uint32_t bits = numbers == 1 ? word & ~0x1fffu : word << 16;
    if (numbers == 2 && which == 1) bits = word & 0xffff0000u;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The products of a warp, all at once. */
static void multiply(const uint64_t *address, int numbers) {
    fragment *of[WARP];
    double a[16][16], b[8][16], product[16];
    for (unsigned l = 0; l < WARP; l++) {
        fragment *f = of[l] = (fragment *)(uintptr_t)address[l];
        const unsigned g = l / 4, t = l % 4;
        for (int k = 0; k < numbers; k++) {
            for (unsigned e = 0; e < 4; e++)
                a[g + e % 2 * 8][(t + e / 2 * 4) * (unsigned)numbers + (unsigned)k] =
                    (double)operand(f->a[e], numbers, k);
            for (unsigned e = 0; e < 2; e++)
                b[g][(t + e * 4) * (unsigned)numbers + (unsigned)k] = (double)operand(f->b[e], numbers, k);
        }
        f->done = true;
    }
    for (unsigned i = 0; i < 16; i++)
        for (unsigned j = 0; j < 8; j++) {
            for (int k = 0; k < 8 * numbers; k++) product[k] = a[i][k] * b[j][k];
            float *d = &of[i % 8 * 4 + j / 2]->d[i / 8 * 2 + j % 2];
            *d = tensor_core_sum(*d, product, 8 * numbers);
        }
}

void mma(float *d, const uint32_t *a, const uint32_t *b, int numbers, const char *file, int line) {
    fragment mine = {};
    memcpy(mine.d, d, sizeof mine.d), memcpy(mine.a, a, sizeof mine.a), memcpy(mine.b, b, sizeof mine.b);
    const uint64_t *all = meet(~0u, (uint64_t)(uintptr_t)&mine, file, line);
    if (!*(volatile bool *)&mine.done)
        multiply(all, numbers); /* the first lane that goes on does it for all */
    memcpy(d, mine.d, sizeof mine.d);
}

static bool elsewhere(const thread &a, const thread &b) {
    return a.line != b.line || (a.file != b.file && strcmp(a.file, b.file) != 0);
}

/* Every thread waits for the block at one line: let them go. */
static bool release_block() {
    unsigned waiting = 0, done = 0;
    for (unsigned t = 0; t < nthreads; t++) {
        waiting += threads[t].st == AT_BLOCK;
        done += threads[t].st == DONE;
    }
    if (waiting == 0 || waiting + done < nthreads) return false;
    if (done) die("a thread returned before a barrier");
    for (unsigned t = 1; t < nthreads; t++)
        if (elsewhere(threads[t], threads[0])) die("threads wait at different barriers");
    for (unsigned t = 0; t < nthreads; t++) threads[t].st = READY;
    return true;
}

/* Lanes of a warp that have met at one line with one mask: exchange values, let them go. */
static bool release_warp(unsigned first) {
    bool any = false;
    thread *w = &threads[first];
    const unsigned n = nthreads - first < WARP ? nthreads - first : (unsigned)WARP;
    for (unsigned t = 0; t < n; t++) {
        if (w[t].st != AT_WARP) continue;
        unsigned mask = w[t].mask, met = 0;
        for (unsigned k = 0; k < n; k++)
            if (w[k].st == AT_WARP && w[k].mask == mask && !elsewhere(w[k], w[t])) met |= 1u << k;
        if (met != mask) continue;
        for (unsigned k = 0; k < n; k++) {
            if (!(mask >> k & 1)) continue;
            values[first + k] = w[k].mine;
            w[k].st = READY;
        }
        any = true;
    }
    return any;
}

static void shuffle() {
    static uint32_t rng = 1;
    for (unsigned i = nthreads - 1; i > 0; i--) {
        rng = rng * 1664525u + 1013904223u;
        const unsigned j = (rng >> 8) % (i + 1), x = turn[i];
        turn[i] = turn[j], turn[j] = x;
    }
}

/* Threads of turn[from ... from + 31] that can run do so, until each waits. */
static bool run_some(unsigned from) {
    next = from, end = from + WARP < nthreads ? from + WARP : nthreads;
    fiber *first = ready();
    if (first) enter(first);
    return first;
}

/* As far as a warp gets without the others. */
static void run_warp(unsigned from) {
    const unsigned first = turn[from] / WARP * WARP;
    while (release_warp(first) || run_some(from)) continue;
}

/* Forward and reverse, one warp after the other runs ahead as far as it can, so that what it does too early
 * shows; shuffled, all threads take one turn each, in another order every time. */
static void run_block() {
    for (unsigned t = 0; t < nthreads; t++) {
        threads[t].st = UNSTARTED;
        turn[t] = schedule == REVERSE ? nthreads - 1 - t : t;
    }
    if (schedule == SHUFFLED) shuffle();
    for (cursor = limit = 0; cursor < nthreads;) {
        const unsigned from = cursor;
        limit = schedule == SHUFFLED || from + WARP > nthreads ? nthreads : from + WARP;
        while (cursor < limit) enter(fresh());
        if (schedule != SHUFFLED) run_warp(from);
    }
    for (bool any = true; any;) {
        any = release_block();
        if (schedule == SHUFFLED) {
            shuffle();
            for (unsigned w = 0; w < nthreads; w += WARP) any |= release_warp(w);
        }
        for (unsigned w = 0; w < nthreads; w += WARP)
            if (schedule == SHUFFLED)
                any |= run_some(w);
            else
                run_warp(w);
    }
    for (unsigned t = 0; t < nthreads; t++)
        if (threads[t].st != DONE) die("no thread can run");
}

void *dynamic_shared() { return shared_memory; }

void launch(dim3 grid, dim3 block, const std::function<void()> &fn, size_t shared) {
    gridDim = grid, blockDim = block, body = &fn;
    const std::unique_ptr<void, void (*)(void *)> memory(malloc(shared), free); /* ASan knows its end */
    shared_memory = memory.get();
    nthreads = block.x * block.y * block.z;
    if (nthreads == 0 || nthreads > MAX_THREADS) die("a block of that many threads");
    for (unsigned t = 0; t < nthreads; t++)
        threads[t].index = dim3(t % block.x, t / block.x % block.y, t / (block.x * block.y));
    for (unsigned i = 0, n = grid.x * grid.y * grid.z; i < n; i++) {
        const unsigned b = schedule == REVERSE ? n - 1 - i : i;
        blockIdx = dim3(b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y));
        if (shared) memset(shared_memory, 0xff, shared);
        run_block();
    }
}

} // namespace simt
