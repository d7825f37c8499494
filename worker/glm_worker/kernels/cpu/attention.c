/* Paged attention. The bits of a query depend on the query and its context alone.
 *
 * A context is cut into splits of 256 positions. For a row (a query token and a head) and a split, a score is one chain
 * of fused products over the dims in ascending order; the weights are exp(score - the split's largest); the values add
 * up position by position in ascending order. Splits join in ascending order. Which rows are computed together, and by
 * which thread, is free: each lane of a vector is another score or another dim, so tiles do not show in the bits.
 *
 * A job is a tile of rows that share a KV head: query tokens x the heads of the group. A job that would keep a thread
 * for long while others are idle is cut into runs of splits, whose results wait in the shared scratch for each other.
 * Keys and values past a row's own position are never part of its sums, so whatever stands there cannot reach it.
 */
#include "attention.h"

enum {
    SPLIT = 256, /* positions; part of what decides the bits */
    MAX_ROWS = 96, /* of a tile */
    STRIP = 32, /* positions whose keys are turned at once */
    PIECE = 64, /* positions whose values are packed at once */
    AHEAD = 64, /* positions whose keys are asked for before they are needed */
    SCORE_STRIDE = SPLIT + 16, /* floats; not a power of two, for the sake of the cache's sets */
    Q_STRIDE = 256 + 16, /* the most that a head dim is, and some for the same reason */
    LOAD_COST = 16, /* reading a split costs as much as computing so many rows of it */
};
static const int64_t MAX_PARTIAL_BYTES = 64 << 20;

#if defined(__AVX512F__)
enum { BLOCK_ROWS = 12, BLOCK_VECS = 2 };
#else
enum { BLOCK_ROWS = 4, BLOCK_VECS = 1 };
#endif

typedef struct {
    const glm_attention_args *a;
    int64_t dim; /* head_dim in whole vectors */
    int group, heads_per_tile, tiles_per_group, tokens_per_tile;
    int64_t limit; /* a job that costs more is cut */
    int64_t partial_bytes; /* that may be used for cut jobs */
} plan;

/* Rows of one KV head: tokens x heads, a token's heads side by side, so that what a row sees never shrinks. */
typedef struct {
    int seq, kv_head, first_head, num_heads, num_tokens;
    int64_t first_token; /* of the step */
    int64_t first_seen; /* positions that the first token sees */
    int64_t num_splits;
} tile;

typedef struct {
    float *q; /* (rows, Q_STRIDE), scaled */
    float *scores; /* (rows, SCORE_STRIDE), then weights */
    float *keys; /* (head_dim, STRIP) */
    float *values; /* strips of the dims, each (PIECE, its lanes) */
    float *part; /* (rows, dim): what the split gave */
    float *sum; /* (rows, dim): what the splits before gave */
    float *part_top, *part_weight, *sum_top, *sum_weight; /* (rows) */
} workspace;

static plan make_plan(const glm_attention_args *a) {
    plan p = {.a = a, .dim = (a->head_dim + VF_LANES - 1) / VF_LANES * VF_LANES};
    p.group = a->num_heads / a->num_kv_heads;
    p.tiles_per_group = (p.group + MAX_ROWS - 1) / MAX_ROWS;
    p.heads_per_tile = (p.group + p.tiles_per_group - 1) / p.tiles_per_group;
    p.tokens_per_tile = MAX_ROWS / p.heads_per_tile;
    return p;
}

static int64_t cost_of(const tile *t) { return t->num_splits * (t->num_tokens * t->num_heads + LOAD_COST); }

/* Jobs in a fixed order: the sequences', each from its last tokens to its first, since late ones cost most. */
typedef struct {
    int seq, part; /* part: KV head x head tile */
    int64_t tokens_left; /* of the sequence, tile by tile */
    int started;
} cursor;

static int next_tile(const plan *p, cursor *c, tile *t) {
    const glm_attention_args *a = p->a;
    const int num_parts = a->num_kv_heads * p->tiles_per_group;
    for (; c->seq < a->num_seqs; c->seq++, c->started = 0) {
        int64_t start = a->cu_query_lens[c->seq], num_tokens = a->cu_query_lens[c->seq + 1] - start;
        int64_t context = a->context_lens[c->seq];
        if (!c->started) *c = (cursor){c->seq, 0, num_tokens, 1};
        if (c->tokens_left <= 0 || context <= 0) continue;
        int64_t first = (c->tokens_left - 1) / p->tokens_per_tile * p->tokens_per_tile;
        int head = c->part % p->tiles_per_group * p->heads_per_tile;
        t->seq = c->seq;
        t->kv_head = c->part / p->tiles_per_group;
        t->first_head = t->kv_head * p->group + head;
        t->num_heads = (int)glm_min(p->heads_per_tile, p->group - head);
        t->num_tokens = (int)(c->tokens_left - first);
        t->first_token = start + first;
        t->first_seen = context - num_tokens + first + 1;
        t->num_splits = glm_div_up(t->first_seen + t->num_tokens - 1, SPLIT);
        if (++c->part == num_parts) {
            c->part = 0;
            c->tokens_left = first;
        }
        return 1;
    }
    return 0;
}

static int64_t partial_floats(const plan *p, const tile *t) {
    return t->num_splits * t->num_tokens * t->num_heads * (p->dim + VF_LANES);
}

/* Jobs that are cut, as far as scratch reaches. Returns whether this one is, and how many splits a run has. */
static int is_cut(const plan *p, const tile *t, int64_t *used, int64_t *run) {
    if (cost_of(t) <= p->limit || t->num_splits < 2) return 0;
    int64_t bytes = partial_floats(p, t) * (int64_t)sizeof(float);
    if (*used + bytes > p->partial_bytes) return 0;
    *used += bytes;
    *run = glm_max(1, p->limit * t->num_splits / cost_of(t));
    return 1;
}

static void set_limit(plan *p, int num_threads) {
    int64_t total = 0;
    tile t;
    for (cursor c = {0}; next_tile(p, &c, &t);) total += cost_of(&t);
    p->limit = num_threads > 1 ? glm_max(1, total / (8 * num_threads)) : INT64_MAX;
}

/* Say where in the cache the KV head's vectors of `count` positions begin, in elements. */
static void find_positions(const plan *p, const tile *t, int64_t position, int64_t count, int64_t *starts) {
    const glm_attention_args *a = p->a;
    const int32_t *table = a->block_tables + t->seq * a->table_stride + position / a->block_size;
    const int64_t stride = (int64_t)a->num_kv_heads * a->head_dim, offset = (int64_t)t->kv_head * a->head_dim;
    int64_t slot = position % a->block_size;
    for (int64_t n = 0; n < count; slot = 0) {
        int64_t start = ((int64_t)*table++ * a->block_size + slot) * stride + offset;
        for (; slot < a->block_size && n < count; slot++, n++, start += stride) starts[n] = start;
    }
}

/* Transpose 16 x 16: first 4 x 4 within each quarter of the vectors, then the quarters. */
GLM_INLINE void turn(vf x[16]) {
    vf y[16];
#pragma clang loop unroll(full)
    for (int i = 0; i < 16; i += 4) {
        vf low[2], high[2];
#pragma clang loop unroll(full)
        for (int j = 0; j < 2; j++) {
            const vf a = x[i + 2 * j], b = x[i + 2 * j + 1];
            low[j] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
            high[j] = __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
        }
        y[i] = __builtin_shufflevector(low[0], low[1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
        y[i + 1] = __builtin_shufflevector(low[0], low[1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
        y[i + 2] = __builtin_shufflevector(high[0], high[1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
        y[i + 3] = __builtin_shufflevector(high[0], high[1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
#define EVEN(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
#define ODD(a, b) __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++) {
        const vf a = EVEN(y[i], y[i + 4]), b = ODD(y[i], y[i + 4]);
        const vf c = EVEN(y[i + 8], y[i + 12]), d = ODD(y[i + 8], y[i + 12]);
        x[i] = EVEN(a, c);
        x[i + 4] = EVEN(b, d);
        x[i + 8] = ODD(a, c);
        x[i + 12] = ODD(b, d);
    }
#undef EVEN
#undef ODD
}

/* The lanes of the cache from element `at` on; fewer than 16 where the head dim ends. */
GLM_INLINE vf load_cache(const void *cache, int64_t at, int64_t lanes, int is_bf16) {
    if (is_bf16) {
        const uint16_t *x = (const uint16_t *)cache + at;
        return lanes >= VF_LANES ? vf_load_bf16(x) : vf_load_bf16_first(x, lanes);
    }
    const float *x = (const float *)cache + at;
    return lanes >= VF_LANES ? vf_load(x) : vf_load_first(x, lanes);
}

/* Write the keys of 16 positions, turned; those past `count` read as 0. */
GLM_INLINE void pack_16_keys(const glm_attention_args *a, const int64_t *starts, int count, int is_bf16, float *keys) {
    const int64_t rest = a->head_dim % VF_LANES, whole = a->head_dim - rest;
    vf x[VF_LANES];
    for (int64_t d = 0; d < whole; d += VF_LANES, keys += VF_LANES * STRIP) {
#pragma clang loop unroll(full)
        for (int i = 0; i < VF_LANES; i++)
            x[i] = i < count ? load_cache(a->k_cache, starts[i] + d, VF_LANES, is_bf16) : vf_zero();
        turn(x);
#pragma clang loop unroll(full)
        for (int i = 0; i < VF_LANES; i++) vf_store(keys + i * STRIP, x[i]);
    }
    if (!rest) return;
    for (int i = 0; i < VF_LANES; i++)
        x[i] = i < count ? load_cache(a->k_cache, starts[i] + whole, rest, is_bf16) : vf_zero();
    turn(x);
    for (int i = 0; i < rest; i++) vf_store(keys + i * STRIP, x[i]);
}

/* Write the keys of up to STRIP positions as (head_dim, STRIP). */
__attribute__((noinline)) static void pack_keys(const plan *p, const int64_t *starts, int count, int is_bf16, float *keys) {
    const glm_attention_args *a = p->a;
    int n = 0;
    for (; n + VF_LANES <= count; n += VF_LANES)
        if (is_bf16) pack_16_keys(a, starts + n, VF_LANES, 1, keys + n);
        else pack_16_keys(a, starts + n, VF_LANES, 0, keys + n);
    if (n < count) pack_16_keys(a, starts + n, count - n, is_bf16, keys + n);
}

GLM_INLINE void pack_values_as(const plan *p, const int64_t *starts, int count, int is_bf16, float *values) {
    const glm_attention_args *a = p->a;
    const int64_t width = BLOCK_VECS * VF_LANES, whole = a->head_dim / width * width;
    for (int n = 0; n < count; n++) {
        for (int64_t d = 0; d < whole; d += width)
            for (int64_t i = 0; i < width; i += VF_LANES)
                vf_store(values + d * PIECE + n * width + i,
                         load_cache(a->v_cache, starts[n] + d + i, VF_LANES, is_bf16));
        for (int64_t d = whole; d < a->head_dim; d += VF_LANES)
            vf_store(values + whole * PIECE + n * (p->dim - whole) + d - whole,
                     load_cache(a->v_cache, starts[n] + d, a->head_dim - d, is_bf16));
    }
}

/* Write the values of up to PIECE positions as strips of BLOCK_VECS vectors of dims, each (PIECE, its lanes). */
__attribute__((noinline)) static void pack_values(
    const plan *p, const int64_t *starts, int count, int is_bf16, float *values
) {
    if (is_bf16) pack_values_as(p, starts, count, 1, values);
    else pack_values_as(p, starts, count, 0, values);
}

/* Ask for one head's vectors of some positions: they lie apart, which the CPU does not foresee. */
GLM_INLINE void fetch(const void *cache, const int64_t *starts, int64_t count, int64_t head_dim, int is_bf16) {
    const int64_t size = is_bf16 ? 2 : 4;
    for (int64_t n = 0; n < count; n++) {
        const char *from = (const char *)cache + starts[n] * size;
        for (int64_t i = 0; i < head_dim * size; i += 64) __builtin_prefetch(from + i, 0, 2);
    }
}

/* scores[r][0 .. 16 vecs) = q[r] . keys */
GLM_INLINE void score_block(
    const float *q, const float *keys, int64_t head_dim, float *scores, int rows, int vecs
) {
    vf sum[BLOCK_ROWS][BLOCK_VECS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vecs; v++) sum[r][v] = vf_zero();
    for (int64_t d = 0; d < head_dim; d++) {
        vf k[BLOCK_VECS];
        for (int v = 0; v < vecs; v++) k[v] = vf_load(keys + d * STRIP + v * VF_LANES);
        for (int r = 0; r < rows; r++) {
            const vf x = vf_set(q[r * Q_STRIDE + d]);
            for (int v = 0; v < vecs; v++) sum[r][v] = vf_fma(x, k[v], sum[r][v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vecs; v++) vf_store(scores + r * SCORE_STRIDE + v * VF_LANES, sum[r][v]);
}

/* part[r][0 .. 16 vecs) += weights[r][n] * values[n], n ascending */
GLM_INLINE void value_block(
    const float *weights, const float *values, int64_t width, int64_t from, int64_t to, float *part, int64_t dim,
    int rows, int vecs
) {
    vf sum[BLOCK_ROWS][BLOCK_VECS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vecs; v++) sum[r][v] = vf_load(part + r * dim + v * VF_LANES);
    for (int64_t n = from; n < to; n++) {
        vf x[BLOCK_VECS];
        for (int v = 0; v < vecs; v++) x[v] = vf_load(values + n * width + v * VF_LANES);
        for (int r = 0; r < rows; r++) {
            const vf w = vf_set(weights[r * SCORE_STRIDE + n]);
            for (int v = 0; v < vecs; v++) sum[r][v] = vf_fma(w, x[v], sum[r][v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vecs; v++) vf_store(part + r * dim + v * VF_LANES, sum[r][v]);
}

/* The blocks' loops are unrolled for each number of rows and vectors. */
#if defined(__AVX512F__)
#define EACH_ROWS(CASE, vecs) \
    CASE(1, vecs) CASE(2, vecs) CASE(3, vecs) CASE(4, vecs) CASE(5, vecs) CASE(6, vecs) CASE(7, vecs) CASE(8, vecs) \
    CASE(9, vecs) CASE(10, vecs) CASE(11, vecs) CASE(12, vecs)
#define EACH_BLOCK(CASE) EACH_ROWS(CASE, 1) EACH_ROWS(CASE, 2)
#else
#define EACH_ROWS(CASE, vecs) CASE(1, vecs) CASE(2, vecs) CASE(3, vecs) CASE(4, vecs)
#define EACH_BLOCK(CASE) EACH_ROWS(CASE, 1)
#endif

__attribute__((noinline)) static void scores_of(
    const float *q, const float *keys, int64_t head_dim, float *scores, int rows, int vecs
) {
#define CASE(r, v) \
    case r * 4 + v: score_block(q, keys, head_dim, scores, r, v); break;
    switch (rows * 4 + vecs) { EACH_BLOCK(CASE) }
#undef CASE
}

__attribute__((noinline)) static void values_of(
    const float *weights, const float *values, int64_t width, int64_t from, int64_t to, float *part, int64_t dim,
    int rows, int vecs
) {
#define CASE(r, v) \
    case r * 4 + v: value_block(weights, values, width, from, to, part, dim, r, v); break;
    switch (rows * 4 + vecs) { EACH_BLOCK(CASE) }
#undef CASE
}

/* Turn a row's scores of `count` positions into weights; say the largest score and the sum of the weights. */
GLM_INLINE void weigh(float *scores, int64_t count, float *top, float *weight) {
    const vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const vi is_there = lane < (int32_t)(count - (count - 1) / VF_LANES * VF_LANES); /* in the last vector */
    const int64_t last = (count - 1) / VF_LANES * VF_LANES;
    vf best = vf_set(-__builtin_inff());
    for (int64_t n = 0; n < last; n += VF_LANES) best = vf_max(vf_load(scores + n), best);
    best = vf_max(vf_select(is_there, vf_load(scores + last), best), best);
    *top = vf_max_lane(best);
    vf sum = vf_zero();
    for (int64_t n = 0; n < last; n += VF_LANES) {
        const vf w = vf_exp(vf_load(scores + n) - vf_set(*top));
        vf_store(scores + n, w);
        sum = sum + w;
    }
    const vf w = vf_select(is_there, vf_exp(vf_load(scores + last) - vf_set(*top)), vf_zero());
    vf_store(scores + last, w);
    *weight = vf_sum(sum + w);
}

/* Positions of the split that begins at `start` which a row sees. */
GLM_INLINE int64_t seen_of(const tile *t, int64_t row, int64_t start) {
    return glm_max(0, glm_min(SPLIT, t->first_seen + row / t->num_heads - start));
}

__attribute__((noinline)) static void weigh_rows(const tile *t, int64_t start, int64_t row, int64_t end, workspace *w) {
    for (; row < end; row++)
        weigh(w->scores + row * SCORE_STRIDE, seen_of(t, row, start), w->part_top + row, w->part_weight + row);
}

/* Join what a split gave to what the splits before it gave. */
GLM_INLINE void join(
    float *sum, float *sum_top, float *sum_weight, const float *part, float part_top, float part_weight, int64_t dim
) {
    const float top = part_top > *sum_top ? part_top : *sum_top;
    const vf factors = vf_exp((vf){*sum_top - top, part_top - top});
    const vf old = vf_set(factors[0]), new = vf_set(factors[1]);
    for (int64_t d = 0; d < dim; d += VF_LANES)
        vf_store(sum + d, vf_fma(vf_load(part + d), new, vf_load(sum + d) * old));
    *sum_weight = *sum_weight * factors[0] + part_weight * factors[1];
    *sum_top = top;
}

GLM_INLINE void write_row(const plan *p, const tile *t, int64_t row, const float *sum, float weight) {
    const glm_attention_args *a = p->a;
    float *out = a->out + (t->first_token + row / t->num_heads) * a->out_stride +
        (t->first_head + row % t->num_heads) * (int64_t)a->head_dim;
    for (int64_t d = 0; d < a->head_dim; d += VF_LANES) {
        const vf y = vf_load(sum + d) / vf_set(weight);
        const int64_t lanes = a->head_dim - d;
        if (lanes >= VF_LANES) vf_store(out + d, y);
        else vf_store_first(out + d, y, lanes);
    }
}

static void load_queries(const plan *p, const tile *t, workspace *w) {
    const glm_attention_args *a = p->a;
    const vf scale = vf_set(a->scale);
    for (int64_t row = 0; row < t->num_tokens * t->num_heads; row++) {
        const float *q = a->q + (t->first_token + row / t->num_heads) * a->q_stride +
            (t->first_head + row % t->num_heads) * (int64_t)a->head_dim;
        for (int64_t d = 0; d < a->head_dim; d += VF_LANES) {
            const int64_t lanes = a->head_dim - d;
            vf_store(w->q + row * Q_STRIDE + d, (lanes >= VF_LANES ? vf_load(q + d) : vf_load_first(q + d, lanes)) * scale);
        }
    }
}

/* Compute one split for the tile's rows that see any of it. Returns the first of those rows. */
static int64_t attend_split(const plan *p, const tile *t, int64_t split, workspace *w) {
    const int is_bf16 = p->a->kv_dtype == GLM_BF16;
    const int64_t start = split * SPLIT, dim = p->dim, num_rows = t->num_tokens * t->num_heads;
    const int64_t count = seen_of(t, num_rows - 1, start);
    const int64_t first_row = glm_max(0, start + 1 - t->first_seen) * t->num_heads;
    const int64_t next = glm_min(AHEAD, seen_of(t, num_rows - 1, start + SPLIT)); /* of the next split */
    int64_t starts[SPLIT], next_starts[AHEAD];
    find_positions(p, t, start, count, starts);
    find_positions(p, t, start + SPLIT, next, next_starts);
    fetch(p->a->k_cache, starts, glm_min(AHEAD, count), p->a->head_dim, is_bf16);
    for (int64_t n = 0; n < count; n += STRIP) {
        const int here = (int)glm_min(STRIP, count - n);
        fetch(p->a->k_cache, starts + n + AHEAD, glm_min(STRIP, count - n - AHEAD), p->a->head_dim, is_bf16);
        fetch(p->a->v_cache, starts + n, here, p->a->head_dim, is_bf16);
        pack_keys(p, starts + n, here, is_bf16, w->keys);
        for (int64_t row = first_row; row < num_rows; row += BLOCK_ROWS) {
            const int rows = (int)glm_min(BLOCK_ROWS, num_rows - row);
            const int64_t seen = seen_of(t, row + rows - 1, start) - n;
            for (int64_t m = 0; m < glm_min(here, seen); m += BLOCK_VECS * VF_LANES) {
                const int64_t vecs = glm_min(BLOCK_VECS, glm_div_up(glm_min(here, seen) - m, VF_LANES));
                scores_of(w->q + row * Q_STRIDE, w->keys + m, p->a->head_dim, w->scores + row * SCORE_STRIDE + n + m,
                          rows, (int)vecs);
            }
        }
    }
    weigh_rows(t, start, first_row, num_rows, w);
    memset(w->part + first_row * dim, 0, (size_t)((num_rows - first_row) * dim) * sizeof(float));
    for (int64_t piece = 0; piece < count; piece += PIECE) {
        const int64_t end = glm_min(count, piece + PIECE);
        const int64_t soon = piece * AHEAD / SPLIT; /* the next split's first positions, in as many pieces as this one */
        fetch(p->a->k_cache, next_starts + soon, glm_min(PIECE * AHEAD / SPLIT, next - soon), p->a->head_dim, is_bf16);
        pack_values(p, starts + piece, (int)(end - piece), is_bf16, w->values);
        for (int64_t d = 0; d < dim; d += BLOCK_VECS * VF_LANES) {
            const int64_t width = glm_min(BLOCK_VECS * VF_LANES, dim - d);
            const float *values = w->values + d * PIECE;
            const int vecs = (int)(width / VF_LANES);
            for (int64_t row = first_row; row < num_rows; row += BLOCK_ROWS) {
                const int rows = (int)glm_min(BLOCK_ROWS, num_rows - row);
                const int64_t common = glm_min(end, seen_of(t, row, start)); /* what the first row sees, all see */
                const float *weights = w->scores + row * SCORE_STRIDE + piece;
                float *part = w->part + row * dim + d;
                if (common > piece) values_of(weights, values, width, 0, common - piece, part, dim, rows, vecs);
                for (int r = 1; r < rows; r++) {
                    const int64_t from = glm_max(common, piece), to = glm_min(end, seen_of(t, row + r, start));
                    if (to > from)
                        values_of(weights + r * SCORE_STRIDE, values, width, from - piece, to - piece, part + r * dim,
                                  dim, 1, vecs);
                }
            }
        }
    }
    return first_row;
}

/* All splits of a job, one after the other. */
static void whole_job(const plan *p, const tile *t, workspace *w) {
    const int64_t num_rows = t->num_tokens * t->num_heads, dim = p->dim;
    load_queries(p, t, w);
    for (int64_t split = 0; split < t->num_splits; split++) {
        const int64_t first_row = attend_split(p, t, split, w);
        if (split == 0) { /* every row sees position 0 */
            float *part = w->part, *top = w->part_top, *weight = w->part_weight;
            w->part = w->sum, w->part_top = w->sum_top, w->part_weight = w->sum_weight;
            w->sum = part, w->sum_top = top, w->sum_weight = weight;
            continue;
        }
        for (int64_t row = first_row; row < num_rows; row++)
            join(w->sum + row * dim, w->sum_top + row, w->sum_weight + row, w->part + row * dim, w->part_top[row],
                 w->part_weight[row], dim);
    }
    for (int64_t row = 0; row < num_rows; row++) write_row(p, t, row, w->sum + row * dim, w->sum_weight[row]);
}

/* Some splits of a cut job, each left in the shared scratch: for a row its largest score, its weight, its values. */
static void some_splits(const plan *p, const tile *t, int64_t split, int64_t end, float *partials, workspace *w) {
    const int64_t num_rows = t->num_tokens * t->num_heads, dim = p->dim, stride = dim + VF_LANES;
    load_queries(p, t, w);
    for (; split < end; split++)
        for (int64_t row = attend_split(p, t, split, w); row < num_rows; row++) {
            float *to = partials + (split * num_rows + row) * stride;
            to[0] = w->part_top[row];
            to[1] = w->part_weight[row];
            memcpy(to + VF_LANES, w->part + row * dim, (size_t)dim * sizeof(float));
        }
}

static void join_row(const plan *p, const tile *t, int64_t row, const float *partials, float *sum) {
    const int64_t num_rows = t->num_tokens * t->num_heads, dim = p->dim, stride = dim + VF_LANES;
    const int64_t num_splits = glm_div_up(t->first_seen + row / t->num_heads, SPLIT);
    const float *from = partials + row * stride;
    float top = from[0], weight = from[1];
    memcpy(sum, from + VF_LANES, (size_t)dim * sizeof(float));
    for (int64_t split = 1; split < num_splits; split++) {
        from = partials + (split * num_rows + row) * stride;
        join(sum, &top, &weight, from + VF_LANES, from[0], from[1], dim);
    }
    write_row(p, t, row, sum, weight);
}

static workspace make_workspace(const plan *p, glm_team *team, int thread) {
    const int64_t rows = MAX_ROWS, dim = p->dim;
    const int64_t sizes[] = {rows * Q_STRIDE, rows * SCORE_STRIDE, dim * STRIP, dim * PIECE, rows * dim, rows * dim, 4 * rows};
    int64_t total = 0;
    for (int i = 0; i < 7; i++) total += sizes[i];
    float *memory = glm_scratch(team, thread, (size_t)total * sizeof(float)), *at[7];
    for (int i = 0; i < 7; i++) at[i] = memory, memory += sizes[i];
    return (workspace){at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[6] + rows, at[6] + 2 * rows, at[6] + 3 * rows};
}

void GLM_FN(attention_part)(glm_team *team, int thread, int num_threads, const glm_attention_args *a) {
    plan p = make_plan(a);
    set_limit(&p, num_threads);
    p.partial_bytes = glm_min(MAX_PARTIAL_BYTES, a->scratch_bytes);
    workspace w = make_workspace(&p, team, thread);
    int64_t mine = glm_next(team, GLM_NEXT_ATTENTION), item = 0, used = 0, run;
    tile t;
    for (cursor c = {0}; next_tile(&p, &c, &t);) { /* the long ones first */
        float *partials = (float *)a->scratch + used / (int64_t)sizeof(float);
        if (!is_cut(&p, &t, &used, &run)) continue;
        for (int64_t split = 0; split < t.num_splits; split += run, item++)
            if (item == mine) {
                some_splits(&p, &t, split, glm_min(split + run, t.num_splits), partials, &w);
                mine = glm_next(team, GLM_NEXT_ATTENTION);
            }
    }
    const int has_cut = used > 0;
    used = 0;
    for (cursor c = {0}; next_tile(&p, &c, &t);) {
        if (is_cut(&p, &t, &used, &run)) continue;
        if (item++ == mine) {
            whole_job(&p, &t, &w);
            mine = glm_next(team, GLM_NEXT_ATTENTION);
        }
    }
    if (!has_cut) return;
    glm_barrier(team, thread);
    used = 0;
    int64_t unit = 0;
    for (cursor c = {0}; next_tile(&p, &c, &t);) {
        const float *partials = (const float *)a->scratch + used / (int64_t)sizeof(float);
        if (!is_cut(&p, &t, &used, &run)) continue;
        for (int64_t row = 0; row < t.num_tokens * t.num_heads; row++)
            if (unit++ % num_threads == thread) join_row(&p, &t, row, partials, w.sum);
    }
}

int64_t GLM_FN(attention_scratch)(const glm_attention_args *a, int num_threads) {
    plan p = make_plan(a);
    set_limit(&p, num_threads);
    p.partial_bytes = MAX_PARTIAL_BYTES;
    int64_t used = 0, run;
    tile t;
    for (cursor c = {0}; next_tile(&p, &c, &t);) (void)is_cut(&p, &t, &used, &run);
    return used;
}

static void attention_task(glm_team *team, int thread, int num_threads, void *args) {
    GLM_FN(attention_part)(team, thread, num_threads, args);
}

/* The part as a region of its own. */
GLM_EXPORT void GLM_FN(glm_attention)(glm_team *team, const glm_attention_args *a) {
    glm_team_run(team, attention_task, (void *)a);
}

GLM_EXPORT int64_t GLM_FN(glm_attention_scratch)(const glm_attention_args *a, int num_threads) {
    return GLM_FN(attention_scratch)(a, num_threads);
}
