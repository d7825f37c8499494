#define _GNU_SOURCE
#include "team.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { LINE = 64, SPINS = 4000 }; /* about 50 us of pauses */

typedef struct {
    _Alignas(LINE) _Atomic int64_t value;
} counter_line;

typedef struct {
    _Alignas(LINE) _Atomic uint32_t value; /* changes when what is waited for has come */
    _Atomic int32_t sleepers;
} signal_line;

typedef struct {
    _Alignas(LINE) void *memory;
    size_t bytes;
} scratch_line;

struct glm_team {
    signal_line region, phase;
    _Alignas(LINE) _Atomic int32_t arrived;
    counter_line counters[GLM_NUM_COUNTERS];
    _Alignas(LINE) glm_task task;
    void *args;
    int num_threads, num_spins, is_over;
    scratch_line *scratch;
    pthread_t *threads;
};

typedef struct {
    glm_team *team;
    int thread;
} start;

static void wait_for_change(signal_line *line, uint32_t old, int num_spins) {
    for (int i = 0; i < num_spins; i++) {
        if (atomic_load_explicit(&line->value, memory_order_acquire) != old) return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#else
        __asm__ volatile("yield");
#endif
    }
    atomic_fetch_add(&line->sleepers, 1);
    while (atomic_load(&line->value) == old)
        syscall(SYS_futex, &line->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&line->sleepers, 1);
}

/* A sleeper counts itself before the kernel compares the value, so either it sees the new one or is seen here. */
static void change(signal_line *line) {
    atomic_fetch_add(&line->value, 1);
    if (atomic_load(&line->sleepers)) syscall(SYS_futex, &line->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void reset_counters(glm_team *team) {
    for (int i = 0; i < GLM_NUM_COUNTERS; i++) atomic_store_explicit(&team->counters[i].value, 0, memory_order_relaxed);
}

static void *serve(void *argument) {
    start given = *(start *)argument;
    free(argument);
    glm_team *team = given.team;
    for (uint32_t seen = 0;; seen++) {
        wait_for_change(&team->region, seen, team->num_spins);
        if (team->is_over) return NULL;
        team->task(team, given.thread, team->num_threads, team->args);
        glm_barrier(team, given.thread);
    }
}

/* Start thread number `thread`; signals stay with the threads that were there before. */
static int start_thread(glm_team *team, int thread) {
    start *given = malloc(sizeof *given);
    if (!given) return 0;
    *given = (start){team, thread};
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&team->threads[thread], NULL, serve, given);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed) free(given);
    return !failed;
}

static void end(glm_team *team, int num_started) {
    team->is_over = 1;
    change(&team->region);
    for (int i = 1; i < num_started; i++) pthread_join(team->threads[i], NULL);
    if (team->scratch)
        for (int i = 0; i < team->num_threads; i++) free(team->scratch[i].memory);
    free(team->scratch);
    free(team->threads);
    free(team);
}

EXPORT glm_team *glm_team_new(int num_threads) {
    if (num_threads < 1) return NULL;
    glm_team *team = aligned_alloc(LINE, (sizeof *team + LINE - 1) / LINE * LINE);
    if (!team) return NULL;
    memset(team, 0, sizeof *team);
    cpu_set_t allowed;
    int num_cpus = sched_getaffinity(0, sizeof allowed, &allowed) ? 1 : CPU_COUNT(&allowed);
    team->num_threads = num_threads;
    team->num_spins = num_threads <= num_cpus ? SPINS : 0;
    team->threads = calloc((size_t)num_threads, sizeof *team->threads);
    team->scratch = aligned_alloc(LINE, (size_t)num_threads * sizeof *team->scratch);
    if (team->scratch) memset(team->scratch, 0, (size_t)num_threads * sizeof *team->scratch);
    int num_started = 1;
    if (team->threads && team->scratch)
        while (num_started < num_threads && start_thread(team, num_started)) num_started++;
    if (team->threads && team->scratch && num_started == num_threads) return team;
    end(team, num_started);
    return NULL;
}

EXPORT void glm_team_free(glm_team *team) {
    if (team) end(team, team->num_threads);
}

EXPORT int glm_team_size(const glm_team *team) { return team->num_threads; }

void glm_team_run(glm_team *team, glm_task task, void *args) {
    reset_counters(team);
    team->task = task;
    team->args = args;
    if (team->num_threads > 1) change(&team->region);
    task(team, 0, team->num_threads, args);
    glm_barrier(team, 0);
}

void glm_barrier(glm_team *team, int thread) {
    (void)thread;
    if (team->num_threads == 1) {
        reset_counters(team);
        return;
    }
    uint32_t phase = atomic_load_explicit(&team->phase.value, memory_order_relaxed);
    if (atomic_fetch_add(&team->arrived, 1) + 1 < team->num_threads) {
        wait_for_change(&team->phase, phase, team->num_spins);
        return;
    }
    atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
    reset_counters(team);
    change(&team->phase);
}

int64_t glm_next(glm_team *team, int counter) {
    return atomic_fetch_add_explicit(&team->counters[counter].value, 1, memory_order_relaxed);
}

void *glm_scratch(glm_team *team, int thread, size_t bytes) {
    scratch_line *own = &team->scratch[thread];
    if (own->bytes < bytes) {
        size_t rounded = (bytes + 4095) / 4096 * 4096;
        free(own->memory);
        own->memory = aligned_alloc(LINE, rounded);
        if (!own->memory) abort();
        own->bytes = rounded;
    }
    return own->memory;
}

#ifndef GLM_KEY
#define GLM_KEY "not built by build.py"
#endif
EXPORT const char glm_key[] = GLM_KEY; /* build.py looks for it */

/* What the CPU can and the kernel keeps in its registers: 0 generic, 1 avx2, 2 avx512, 3 avx512bf16. */
EXPORT int glm_cpu_level(void) {
#if defined(__x86_64__)
    uint32_t a, b, c, d, low, high;
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0), "c"(0));
    if (a < 7) return 0;
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(1), "c"(0));
    const uint32_t fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
    if ((c & (fma | osxsave | avx | f16c)) != (fma | osxsave | avx | f16c)) return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 0x6u) != 0x6u) return 0;
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
    if (!(b & (1u << 5))) return 0;
    const uint32_t avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    if ((b & avx512) != avx512 || (low & 0xe6u) != 0xe6u) return 1;
    if (a < 1) return 2;
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(1));
    return a & (1u << 5) ? 3 : 2;
#else
    return 0;
#endif
}
