#define _GNU_SOURCE
#include "exchange.h"

#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { LINE = 64, SPINS = 4000, LOOK_NS = 20 * 1000 * 1000 }; /* about 50 us of pauses; between two looks at a pidfd */

typedef struct {
    _Alignas(LINE) _Atomic uint32_t turn; /* of the last exchange that the rank has given its part to */
    _Atomic int32_t sleepers;
    _Atomic int64_t nums[2]; /* how many floats are in each place */
} rank_line;

struct glm_exchange {
    rank_line *lines;
    float *places;
    int64_t num_floats;
    int num_ranks, rank, num_spins;
    uint32_t turn;
    int pidfds[];
};

static float *place(const glm_exchange *exchange, int rank) {
    return exchange->places + (2 * (int64_t)rank + (exchange->turn & 1)) * exchange->num_floats;
}

static int is_here(const glm_exchange *exchange, int rank) {
    return (int32_t)(atomic_load_explicit(&exchange->lines[rank].turn, memory_order_acquire) - exchange->turn) >= 0;
}

static int has_died(int pidfd) {
    struct pollfd one = {pidfd, POLLIN, 0};
    return poll(&one, 1, 0) == 1;
}

/* Return whether the rank has come; it has not where it died. */
static int wait_for(glm_exchange *exchange, int rank) {
    rank_line *line = &exchange->lines[rank];
    for (int i = 0; i < exchange->num_spins; i++) {
        if (is_here(exchange, rank)) return 1;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#else
        __asm__ volatile("yield");
#endif
    }
    const struct timespec look = {0, LOOK_NS};
    int is_lost = 0;
    atomic_fetch_add(&line->sleepers, 1);
    while (!is_lost) {
        uint32_t seen = atomic_load(&line->turn);
        if ((int32_t)(seen - exchange->turn) >= 0) break;
        syscall(SYS_futex, &line->turn, FUTEX_WAIT, seen, &look, NULL, 0);
        is_lost = has_died(exchange->pidfds[rank]) && !is_here(exchange, rank);
    }
    atomic_fetch_sub(&line->sleepers, 1);
    return !is_lost;
}

/* A sleeper counts itself before the kernel compares the turn, so either it sees the new one or is seen here. */
static void come(glm_exchange *exchange) {
    rank_line *line = &exchange->lines[exchange->rank];
    atomic_store(&line->turn, exchange->turn);
    if (atomic_load(&line->sleepers)) syscall(SYS_futex, &line->turn, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Begin the next exchange: give the others what this rank has. */
static void give(glm_exchange *exchange, const float *x, int64_t num) {
    exchange->turn++;
    memcpy(place(exchange, exchange->rank), x, (size_t)num * sizeof *x);
    atomic_store(&exchange->lines[exchange->rank].nums[exchange->turn & 1], num);
    come(exchange);
}

/* Point at the num floats that a rank has given. Return 0, or what is wrong with the rank. */
static int take(glm_exchange *exchange, int rank, int64_t num, const float **given) {
    if (rank != exchange->rank && !wait_for(exchange, rank)) return 1 + rank;
    if (atomic_load(&exchange->lines[rank].nums[exchange->turn & 1]) != num) return -1 - rank;
    *given = place(exchange, rank);
    return 0;
}

static int sum_some(glm_exchange *exchange, float *x, int64_t num) {
    give(exchange, x, num);
    for (int rank = 0; rank < exchange->num_ranks; rank++) {
        const float *addends;
        int wrong = take(exchange, rank, num, &addends);
        if (wrong) return wrong;
        if (rank == 0)
            memcpy(x, addends, (size_t)num * sizeof *x);
        else
            for (int64_t i = 0; i < num; i++) x[i] += addends[i];
    }
    return 0;
}

/* Join the floats from `begin` on of x's rows, which lie one after the other. */
static int join_some(glm_exchange *exchange, const float *x, int64_t begin, int64_t num, int64_t cols, float *out) {
    give(exchange, x + begin, num);
    for (int rank = 0; rank < exchange->num_ranks; rank++) {
        const float *part;
        int wrong = take(exchange, rank, num, &part);
        if (wrong) return wrong;
        for (int64_t done = 0, some; done < num; done += some) {
            int64_t row = (begin + done) / cols, col = (begin + done) % cols;
            some = num - done < cols - col ? num - done : cols - col;
            memcpy(out + (row * exchange->num_ranks + rank) * cols + col, part + done, (size_t)some * sizeof *x);
        }
    }
    return 0;
}

static int64_t lines_bytes(int num_ranks) { return num_ranks * (int64_t)sizeof(rank_line); }

EXPORT int64_t glm_exchange_bytes(int num_ranks, int64_t num_floats) {
    return lines_bytes(num_ranks) + 2 * num_ranks * num_floats * (int64_t)sizeof(float);
}

EXPORT glm_exchange *glm_exchange_new(void *shared, int num_ranks, int rank, int64_t num_floats, const int *pidfds) {
    glm_exchange *exchange = malloc(sizeof *exchange + (size_t)num_ranks * sizeof *pidfds);
    if (!exchange) return NULL;
    cpu_set_t allowed;
    int num_cpus = sched_getaffinity(0, sizeof allowed, &allowed) ? 1 : CPU_COUNT(&allowed);
    *exchange = (glm_exchange){
        .lines = shared,
        .places = (float *)((char *)shared + lines_bytes(num_ranks)),
        .num_floats = num_floats,
        .num_ranks = num_ranks,
        .rank = rank,
        .num_spins = num_ranks <= num_cpus ? SPINS : 0,
    };
    memcpy(exchange->pidfds, pidfds, (size_t)num_ranks * sizeof *pidfds);
    return exchange;
}

EXPORT void glm_exchange_free(glm_exchange *exchange) { free(exchange); }

static int64_t at_most(int64_t num, int64_t bound) { return num < bound ? num : bound; }

EXPORT int glm_exchange_sum(glm_exchange *exchange, float *x, int64_t num) {
    int wrong = 0;
    for (int64_t done = 0; done < num && !wrong; done += exchange->num_floats)
        wrong = sum_some(exchange, x + done, at_most(num - done, exchange->num_floats));
    return wrong;
}

EXPORT int glm_exchange_join(glm_exchange *exchange, const float *x, int64_t rows, int64_t cols, float *out) {
    int wrong = 0;
    for (int64_t done = 0; done < rows * cols && !wrong; done += exchange->num_floats)
        wrong = join_some(exchange, x, done, at_most(rows * cols - done, exchange->num_floats), cols, out);
    return wrong;
}
