/* Router and routed experts of a sparse MoE layer.
 *
 * A token's bits depend on that token alone. Every dot product adds the same 16 partial sums in one order of k and
 * joins them in one tree, whatever tile of rows and tokens it is computed in; and what a token's experts say is added in
 * the order of their ids, the shared expert last. Tiles differ between instruction sets, and so do sums where weights
 * are bfloat16 and the CPU multiplies pairs of them (AVX512-BF16: activations are rounded to bfloat16 there).
 *
 * The layer goes in three steps with a barrier after each of the first two: bucket the copies of tokens by expert;
 * gate, up and SiLU of the touched experts, in chunks of rows of weights; down, in chunks of the hidden size, each over
 * all touched experts, so that nobody else adds to the same element. Weights are read once per block of tokens.
 */
#include "experts.h"

#include "simd.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#define MULTIPLIES_BF16 1
#else
#define MULTIPLIES_BF16 0
#endif

/* A tile of PAIRS gate and PAIRS up rows by TOKENS tokens holds its sums in registers. */
#if defined(__AVX512F__)
enum { PAIRS = 3, TOKENS = 4 };
#elif defined(__AVX2__) || defined(__aarch64__)
enum { PAIRS = 1, TOKENS = 3 };
#else
enum { PAIRS = 1, TOKENS = 1 };
#endif

enum {
    ROWS = 2 * PAIRS,
    MAX_SUMS = 32,     /* of a tile, rounded up to whole vectors */
    CHUNK_PAIRS = 24,  /* of an expert's rows that a thread claims at once */
    DOWN_ROWS = 24,    /* the same of down's, at least */
    MAX_DOWN_ROWS = 96,
    BLOCK_TOKENS = 64, /* tokens whose rows stay in the cache while a chunk of weights passes */
    ROUTED_TOKENS = 16
};

/* What is multiplied: floats by floats, bfloat16 weights by floats, bfloat16 by bfloat16. */
enum kind { FLOATS, WIDENED, BF16_PAIRS };

/* Return the sums of 16 vectors, each by the tree of vf_sum: lane j is that of x[j]. */
GLM_INLINE vf sums_of_16(const vf *x) {
    vf a[8], b[4], c[2];
    for (int j = 0; j < 8; j++)
        a[j] = __builtin_shufflevector(x[j], x[j + 8], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
               __builtin_shufflevector(x[j], x[j + 8], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    for (int j = 0; j < 4; j++)
        b[j] = __builtin_shufflevector(a[j], a[j + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
               __builtin_shufflevector(a[j], a[j + 4], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    for (int j = 0; j < 2; j++)
        c[j] = __builtin_shufflevector(b[j], b[j + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
               __builtin_shufflevector(b[j], b[j + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    return __builtin_shufflevector(c[0], c[1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
           __builtin_shufflevector(c[0], c[1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}

/* Add the products of a vector's elements from k on to the sums, of fewer where `length` ends. */
GLM_INLINE void add_products(const enum kind kind, const int rows, const int tokens, const void *const *w,
                             const void *const *x, int64_t k, int64_t length, vf *sums, const int height) {
#if MULTIPLIES_BF16
    if (kind == BF16_PAIRS) {
        const __mmask32 is_there = length - k < 32 ? (1u << (length - k)) - 1 : 0xffffffffu;
        __m512bh row_w[ROWS];
#pragma clang loop unroll(full)
        for (int r = 0; r < rows; r++)
            row_w[r] = (__m512bh)_mm512_maskz_loadu_epi16(is_there, (const uint16_t *)w[r] + k);
#pragma clang loop unroll(full)
        for (int t = 0; t < tokens; t++) {
            __m512bh token_x = (__m512bh)_mm512_loadu_si512((const uint16_t *)x[t] + k);
#pragma clang loop unroll(full)
            for (int r = 0; r < rows; r++)
                sums[t * height + r] = (vf)_mm512_dpbf16_ps((__m512)sums[t * height + r], row_w[r], token_x);
        }
        return;
    }
#endif
    const int64_t left = length - k;
    vf row_w[ROWS];
#pragma clang loop unroll(full)
    for (int r = 0; r < rows; r++) {
        const float *floats = (const float *)w[r] + k;
        const uint16_t *halves = (const uint16_t *)w[r] + k;
        if (kind == FLOATS)
            row_w[r] = left < 16 ? vf_load_first(floats, left) : vf_load(floats);
        else
            row_w[r] = left < 16 ? vf_load_bf16_first(halves, left) : vf_load_bf16(halves);
    }
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++) {
        vf token_x = left < 16 ? vf_load_first((const float *)x[t] + k, left) : vf_load((const float *)x[t] + k);
#pragma clang loop unroll(full)
        for (int r = 0; r < rows; r++) sums[t * height + r] = vf_fma(row_w[r], token_x, sums[t * height + r]);
    }
}

/* Add all products of rows and tokens to their sums. */
GLM_INLINE void add_all(const enum kind kind, const int rows, const int tokens, const void *const *w,
                        const void *const *x, int64_t length, vf *sums, const int height) {
    const int64_t step = kind == BF16_PAIRS ? 32 : 16;
    int64_t k = 0;
    for (; k + step <= length; k += step) add_products(kind, rows, tokens, w, x, k, k + step, sums, height);
    if (k < length) add_products(kind, rows, tokens, w, x, k, length, sums, height);
}

/* out[token * rows + row] = w[row] . x[token]. rows, tokens, kind and streams are constants where it is inlined.
 *
 * x of BF16_PAIRS has zeros up to a whole vector. Weights that come from memory are read row by row (streams): the CPU
 * fetches ahead of one stream twice as fast as of several. Those that lie in the cache are read side by side, so that
 * every token's element serves all rows.
 */
GLM_INLINE void tile(const enum kind kind, const int rows, const int tokens, const int streams, const void *const *w,
                     const void *const *x, int64_t length, float *out) {
    vf sums[MAX_SUMS];
#pragma clang loop unroll(full)
    for (int j = 0; j < MAX_SUMS; j++) sums[j] = vf_zero();
    if (streams) {
#pragma clang loop unroll(full)
        for (int r = 0; r < rows; r++) add_all(kind, 1, tokens, w + r, x, length, sums + r, rows);
    } else {
        add_all(kind, rows, tokens, w, x, length, sums, rows);
    }
#pragma clang loop unroll(full)
    for (int j = 0; j < rows * tokens; j += 16) vf_store(out + j, sums_of_16(sums + j));
}

typedef void (*tile_function)(const void *const *w, const void *const *x, int64_t length, float *out);

#define NAME(kind, rows, tokens, streams) tile_##kind##_##rows##_##tokens##_##streams
#define TILE(kind, rows, tokens, streams)                                                                      \
    static void NAME(kind, rows, tokens, streams)(const void *const *w, const void *const *x, int64_t length,  \
                                                  float *out) {                                                \
        tile(kind, rows, tokens, streams, w, x, length, out);                                                  \
    }
/* X(kind, rows, tokens, streams) of each number of tokens. */
#if defined(__AVX512F__)
#define EACH_TOKENS(X, kind, rows, s) X(kind, rows, 1, s) X(kind, rows, 2, s) X(kind, rows, 3, s) X(kind, rows, 4, s)
#define EACH_HEIGHT(Y, kind) Y(kind, 1) Y(kind, 2) Y(kind, 6)
enum { NUM_HEIGHTS = 3 };
#elif defined(__AVX2__) || defined(__aarch64__)
#define EACH_TOKENS(X, kind, rows, s) X(kind, rows, 1, s) X(kind, rows, 2, s) X(kind, rows, 3, s)
#define EACH_HEIGHT(Y, kind) Y(kind, 1) Y(kind, 2)
enum { NUM_HEIGHTS = 2 };
#else
#define EACH_TOKENS(X, kind, rows, s) X(kind, rows, 1, s)
#define EACH_HEIGHT(Y, kind) Y(kind, 1) Y(kind, 2)
enum { NUM_HEIGHTS = 2 };
#endif
#define TILES_OF(kind, rows) EACH_TOKENS(TILE, kind, rows, 0) EACH_TOKENS(TILE, kind, rows, 1)
#define TILES(kind) EACH_HEIGHT(TILES_OF, kind)
#define ENTRY(kind, rows, tokens, streams) NAME(kind, rows, tokens, streams),
#define ENTRIES_OF(kind, rows) {{EACH_TOKENS(ENTRY, kind, rows, 0)}, {EACH_TOKENS(ENTRY, kind, rows, 1)}},

TILES(FLOATS)
#if MULTIPLIES_BF16
#define OF_BF16(X) EACH_HEIGHT(X, BF16_PAIRS)
TILES(BF16_PAIRS)
#else
#define OF_BF16(X) EACH_HEIGHT(X, WIDENED)
TILES(WIDENED)
#endif

/* By dtype, height (1, 2 or ROWS rows), whether it streams, tokens - 1. */
static const tile_function tiles[2][NUM_HEIGHTS][2][TOKENS] = {
    [GLM_F32] = {EACH_HEIGHT(ENTRIES_OF, FLOATS)}, [GLM_BF16] = {OF_BF16(ENTRIES_OF)}};

/* Return how many rows the next tile takes where `left` are left. */
GLM_INLINE int height_of(int64_t left) { return left >= ROWS ? ROWS : left >= 2 ? 2 : 1; }

/* out[token * rows + row] = w[row] . x[token] */
GLM_INLINE void multiply(int32_t dtype, int rows, int tokens, int streams, const void *const *w, const void *const *x,
                         int64_t length, float *out) {
    int height = rows == 1 ? 0 : rows == 2 ? 1 : NUM_HEIGHTS - 1;
    tiles[dtype][height][streams][tokens - 1](w, x, length, out);
}

/* The router. */

/* Scores of tokens [first, end) and experts [first_row, end_row). */
static void score(const glm_router_args *a, int64_t first, int64_t end, int64_t first_row, int64_t end_row) {
    float out[MAX_SUMS];
    for (int64_t row = first_row; row < end_row;) {
        int rows = height_of(end_row - row);
        const void *w[ROWS];
        for (int r = 0; r < rows; r++) w[r] = a->weight + (row + r) * a->hidden;
        for (int64_t token = first; token < end;) {
            int num = (int)glm_min(TOKENS, end - token);
            const void *x[TOKENS];
            for (int t = 0; t < num; t++) x[t] = a->x + (token + t) * a->x_stride;
            multiply(GLM_F32, rows, num, token == first, w, x, a->hidden, out);
            for (int t = 0; t < num; t++)
                memcpy(a->scores + (token + t) * a->num_experts + row, out + t * rows, (size_t)rows * sizeof(float));
            token += num;
        }
        row += rows;
    }
}

/* Choose the experts of one token: the highest scores with the bias, of equal ones the lower id. */
static void choose(const glm_router_args *a, int64_t token) {
    float *scores = a->scores + token * a->num_experts;
    int32_t *ids = a->expert_ids + token * a->num_chosen;
    float *weights = a->weights + token * a->num_chosen;
    int64_t num = 0;
    for (int64_t expert = 0; expert < a->num_experts; expert += VF_LANES) {
        int64_t lanes = glm_min(VF_LANES, a->num_experts - expert);
        if (lanes == VF_LANES)
            vf_store(scores + expert, vf_sigmoid(vf_load(scores + expert)));
        else
            vf_store_first(scores + expert, vf_sigmoid(vf_load_first(scores + expert, lanes)), lanes);
        for (int64_t id = expert; id < expert + lanes; id++) {
            float value = scores[id] + a->bias[id];
            if (!(value == value)) value = -__builtin_inff(); /* its weight stays NaN */
            if (num == a->num_chosen && !(value > weights[num - 1])) continue;
            int64_t place = num < a->num_chosen ? num++ : num - 1; /* sorted, best first; weights hold the values yet */
            for (; place > 0 && value > weights[place - 1]; place--) {
                weights[place] = weights[place - 1];
                ids[place] = ids[place - 1];
            }
            weights[place] = value;
            ids[place] = (int32_t)id;
        }
    }
    for (int64_t i = 1; i < num; i++) { /* by id */
        int32_t id = ids[i];
        int64_t place = i;
        for (; place > 0 && ids[place - 1] > id; place--) ids[place] = ids[place - 1];
        ids[place] = id;
    }
    float sum = 0.0f;
    for (int64_t i = 0; i < num; i++) {
        weights[i] = scores[ids[i]];
        sum += weights[i];
    }
    for (int64_t i = 0; i < num; i++) {
        if (a->is_normalized) weights[i] = weights[i] / (sum + 1e-20f);
        weights[i] = weights[i] * a->scale;
    }
}

/* Write the ids and weights of every token. Meets one barrier, none at its end. */
void GLM_FN(router_part)(glm_team *team, int thread, int num_threads, const glm_router_args *a) {
    int64_t rows = a->num_tokens >= num_threads * ROUTED_TOKENS ? a->num_experts : ROWS;
    int64_t chunks = glm_div_up(a->num_experts, rows);
    int64_t total = chunks * glm_div_up(a->num_tokens, ROUTED_TOKENS);
    for (int64_t item; (item = glm_next(team, GLM_NEXT_ROUTER)) < total;) {
        int64_t first = item / chunks * ROUTED_TOKENS, row = item % chunks * rows;
        score(a, first, glm_min(first + ROUTED_TOKENS, a->num_tokens), row, glm_min(row + rows, a->num_experts));
    }
    glm_barrier(team, thread);
    for (int64_t token = thread; token < a->num_tokens; token += num_threads) choose(a, token);
}

/* The experts. */

typedef struct {
    int32_t *starts;  /* (L + 1): where an expert's copies begin in the next two */
    int32_t *touched; /* (L): experts that have any, then their number */
    int32_t *tokens;  /* (T * K): whose copy it is */
    float *weights;   /* (T * K) */
    char *x;          /* (T, D): rounded, where bfloat16 is multiplied */
    char *hidden;     /* (T * K, I): what down reads */
    char *shared;     /* (T, Is) */
    int64_t x_bytes, hidden_bytes, shared_bytes; /* of a row */
    int64_t total;
} room;

static int is_rounded(const glm_experts_args *a) { return MULTIPLIES_BF16 && a->w_dtype == GLM_BF16; }

static room room_of(const glm_experts_args *a) {
    int64_t size = is_rounded(a) ? 2 : 4, copies = a->num_tokens * a->num_chosen;
    room room;
    uintptr_t at = (uintptr_t)a->scratch;
#define TAKE(field, bytes)                                \
    do {                                                  \
        room.field = (void *)at;                          \
        at += (uintptr_t)glm_div_up((bytes), 64) * 64;    \
    } while (0)
    room.x_bytes = is_rounded(a) ? glm_div_up(a->hidden * 2, 64) * 64 : 0;
    room.hidden_bytes = glm_div_up(a->width * size, 64) * 64;
    room.shared_bytes = a->shared_gate_up ? glm_div_up(a->shared_width * size, 64) * 64 : 0;
    TAKE(starts, (a->num_local + 1) * 4);
    TAKE(touched, (a->num_local + 1) * 4);
    TAKE(tokens, copies * 4);
    TAKE(weights, copies * 4);
    TAKE(x, a->num_tokens * room.x_bytes);
    TAKE(hidden, copies * room.hidden_bytes);
    TAKE(shared, a->num_tokens * room.shared_bytes);
#undef TAKE
    room.total = (int64_t)(at - (uintptr_t)a->scratch);
    return room;
}

/* Return how many bytes the scratch of these arguments must have. */
GLM_EXPORT int64_t GLM_FN(glm_experts_scratch)(const glm_experts_args *a) {
    glm_experts_args sizes = *a;
    sizes.scratch = 0;
    return room_of(&sizes).total;
}

/* Sort the copies of tokens by expert, of one expert by token. */
static void bucket(const glm_experts_args *a, const room *room) {
    int64_t copies = a->num_tokens * a->num_chosen;
    memset(room->starts, 0, (size_t)(a->num_local + 1) * 4);
    for (int64_t copy = 0; copy < copies; copy++) {
        int64_t expert = a->expert_ids[copy] - a->first_expert;
        if (expert >= 0 && expert < a->num_local) room->starts[expert + 1]++;
    }
    int32_t num_touched = 0;
    for (int64_t expert = 0; expert < a->num_local; expert++) {
        if (room->starts[expert + 1]) room->touched[num_touched++] = (int32_t)expert;
        room->starts[expert + 1] += room->starts[expert];
    }
    room->touched[a->num_local] = num_touched;
    for (int64_t copy = 0; copy < copies; copy++) {
        int64_t expert = a->expert_ids[copy] - a->first_expert;
        if (expert < 0 || expert >= a->num_local) continue;
        int32_t place = room->starts[expert]++;
        room->tokens[place] = (int32_t)(copy / a->num_chosen);
        room->weights[place] = a->weights[copy];
    }
    for (int64_t expert = a->num_local; expert > 0; expert--) room->starts[expert] = room->starts[expert - 1];
    room->starts[0] = 0;
}

static void round_rows(const glm_experts_args *a, const room *room, int64_t first, int64_t end) {
    for (int64_t token = first; token < end; token++) {
        const float *x = a->x + token * a->x_stride;
        uint16_t *rounded = (uint16_t *)(room->x + token * room->x_bytes);
        int64_t k = 0;
        for (; k + VF_LANES <= a->hidden; k += VF_LANES) vf_store_bf16(rounded + k, vf_load(x + k));
        for (; k < a->hidden; k++) rounded[k] = bf16_from_f32(x[k]);
        for (; k * 2 < room->x_bytes; k++) rounded[k] = 0;
    }
}

/* Rows of an expert: whose they are (NULL: of every token in turn), how much each counts (NULL: 1). */
typedef struct {
    const int32_t *tokens;
    const float *weights;
    int64_t num;
    char *hidden;
    int64_t hidden_bytes, width;
    const char *gate_up, *down;
} expert_rows;

static expert_rows rows_of(const glm_experts_args *a, const room *room, int64_t expert) {
    int64_t first = room->starts[expert], size = a->w_dtype == GLM_BF16 ? 2 : 4;
    return (expert_rows){
        .tokens = room->tokens + first,
        .weights = room->weights + first,
        .num = room->starts[expert + 1] - first,
        .hidden = room->hidden + first * room->hidden_bytes,
        .hidden_bytes = room->hidden_bytes,
        .width = a->width,
        .gate_up = (const char *)a->gate_up + expert * 2 * a->width * a->hidden * size,
        .down = (const char *)a->down + expert * a->hidden * a->width * size,
    };
}

static expert_rows rows_of_shared(const glm_experts_args *a, const room *room) {
    return (expert_rows){
        .num = a->num_tokens,
        .hidden = room->shared,
        .hidden_bytes = room->shared_bytes,
        .width = a->shared_width,
        .gate_up = a->shared_gate_up,
        .down = a->shared_down,
    };
}

/* Write silu(gate) * up of an expert's rows, elements [first_pair, end_pair). */
static void gate_and_up(const glm_experts_args *a, const room *room, const expert_rows *e, int64_t first_pair,
                        int64_t end_pair) {
    float gate[BLOCK_TOKENS][CHUNK_PAIRS + VF_LANES], up[BLOCK_TOKENS][CHUNK_PAIRS + VF_LANES], out[MAX_SUMS];
    int64_t row_bytes = a->hidden * (a->w_dtype == GLM_BF16 ? 2 : 4);
    const char *base_x = is_rounded(a) ? room->x : (const char *)a->x;
    int64_t x_bytes = is_rounded(a) ? room->x_bytes : a->x_stride * 4;
    for (int64_t block = 0; block < e->num; block += BLOCK_TOKENS) {
        int64_t num_here = glm_min(BLOCK_TOKENS, e->num - block);
        for (int64_t pair = first_pair; pair < end_pair;) {
            int pairs = end_pair - pair >= PAIRS ? PAIRS : 1;
            const void *w[ROWS];
            for (int p = 0; p < pairs; p++) {
                w[p] = e->gate_up + (pair + p) * row_bytes;
                w[pairs + p] = e->gate_up + (e->width + pair + p) * row_bytes;
            }
            for (int64_t token = 0; token < num_here;) {
                int num = (int)glm_min(TOKENS, num_here - token), streams = block == 0 && token == 0;
                const void *x[TOKENS];
                for (int t = 0; t < num; t++) {
                    int64_t row = block + token + t;
                    x[t] = base_x + (e->tokens ? e->tokens[row] : row) * x_bytes;
                }
                multiply(a->w_dtype, 2 * pairs, num, streams, w, x, a->hidden, out);
                for (int t = 0; t < num; t++) {
                    for (int p = 0; p < pairs; p++) {
                        gate[token + t][pair - first_pair + p] = out[t * 2 * pairs + p];
                        up[token + t][pair - first_pair + p] = out[t * 2 * pairs + pairs + p];
                    }
                }
                token += num;
            }
            pair += pairs;
        }
        for (int64_t token = 0; token < num_here; token++) {
            char *hidden = e->hidden + (block + token) * e->hidden_bytes;
            for (int64_t pair = 0; pair < end_pair - first_pair; pair += VF_LANES) {
                int64_t lanes = glm_min(VF_LANES, end_pair - first_pair - pair);
                vf value = vf_silu(vf_load_first(&gate[token][pair], lanes)) * vf_load_first(&up[token][pair], lanes);
                if (is_rounded(a)) {
                    for (int64_t i = 0; i < lanes; i++)
                        ((uint16_t *)hidden)[first_pair + pair + i] = bf16_from_f32(value[i]);
                } else {
                    vf_store_first((float *)hidden + first_pair + pair, value, lanes);
                }
            }
            if (end_pair == e->width && is_rounded(a)) /* zeros up to a whole vector */
                memset(hidden + e->width * 2, 0, (size_t)(e->hidden_bytes - e->width * 2));
        }
    }
}

/* Add what an expert says to elements [first_row, end_row) of its tokens. */
static void down(const glm_experts_args *a, const expert_rows *e, int64_t first_row, int64_t end_row) {
    float out[MAX_SUMS];
    int64_t row_bytes = e->width * (a->w_dtype == GLM_BF16 ? 2 : 4);
    for (int64_t block = 0; block < e->num; block += BLOCK_TOKENS) {
        int64_t block_end = glm_min(block + BLOCK_TOKENS, e->num);
        for (int64_t row = first_row; row < end_row;) {
            int rows = height_of(end_row - row);
            const void *w[ROWS];
            for (int r = 0; r < rows; r++) w[r] = e->down + (row + r) * row_bytes;
            for (int64_t copy = block; copy < block_end;) {
                int num = (int)glm_min(TOKENS, block_end - copy);
                const void *x[TOKENS];
                for (int t = 0; t < num; t++) x[t] = e->hidden + (copy + t) * e->hidden_bytes;
                multiply(a->w_dtype, rows, num, copy == 0, w, x, e->width, out);
                for (int t = 0; t < num; t++) {
                    float weight = e->weights ? e->weights[copy + t] : 1.0f;
                    float *y = a->y + (e->tokens ? e->tokens[copy + t] : copy + t) * a->y_stride + row;
                    for (int r = 0; r < rows; r++) y[r] = y[r] + weight * out[t * rows + r];
                }
                copy += num;
            }
            row += rows;
        }
    }
}

/* Write what this rank's experts and the shared one say of every token. Meets two barriers, none at its end. */
void GLM_FN(experts_part)(glm_team *team, int thread, int num_threads, const glm_experts_args *a) {
    room room = room_of(a);
    int64_t roundings = is_rounded(a) ? glm_div_up(a->num_tokens, ROUTED_TOKENS) : 0;
    for (int64_t item; (item = glm_next(team, GLM_NEXT_EXPERTS)) < 1 + roundings;) {
        if (item == 0)
            bucket(a, &room);
        else
            round_rows(a, &room, (item - 1) * ROUTED_TOKENS, glm_min(item * ROUTED_TOKENS, a->num_tokens));
    }
    glm_barrier(team, thread);

    int64_t num_touched = room.touched[a->num_local];
    int64_t chunks = glm_div_up(a->width, CHUNK_PAIRS);
    int64_t of_shared = a->shared_gate_up && a->num_tokens ? glm_div_up(a->shared_width, CHUNK_PAIRS) : 0;
    for (int64_t item; (item = glm_next(team, GLM_NEXT_EXPERTS)) < of_shared + num_touched * chunks;) {
        expert_rows e;
        int64_t chunk = item; /* the shared expert first: it has the most rows */
        if (item < of_shared) {
            e = rows_of_shared(a, &room);
        } else {
            e = rows_of(a, &room, room.touched[(item - of_shared) / chunks]);
            chunk = (item - of_shared) % chunks;
        }
        gate_and_up(a, &room, &e, chunk * CHUNK_PAIRS, glm_min((chunk + 1) * CHUNK_PAIRS, e.width));
    }
    glm_barrier(team, thread);

    int64_t wanted = a->num_tokens < BLOCK_TOKENS ? DOWN_ROWS : a->hidden / (4 * num_threads) / ROWS * ROWS;
    int64_t rows = glm_min(glm_max(wanted, DOWN_ROWS), MAX_DOWN_ROWS);
    for (int64_t item; (item = glm_next(team, GLM_NEXT_EXPERTS_DOWN)) < glm_div_up(a->hidden, rows);) {
        int64_t first = item * rows, end = glm_min(first + rows, a->hidden);
        for (int64_t token = 0; token < a->num_tokens; token++)
            memset(a->y + token * a->y_stride + first, 0, (size_t)(end - first) * 4);
        for (int64_t i = 0; i < num_touched; i++) {
            expert_rows e = rows_of(a, &room, room.touched[i]);
            down(a, &e, first, end);
        }
        if (of_shared) {
            expert_rows e = rows_of_shared(a, &room);
            down(a, &e, first, end);
        }
    }
}

static void run_router(glm_team *team, int thread, int num_threads, void *args) {
    GLM_FN(router_part)(team, thread, num_threads, args);
}

static void run_experts(glm_team *team, int thread, int num_threads, void *args) {
    GLM_FN(experts_part)(team, thread, num_threads, args);
}

/* Each alone, in a region of its own. */
GLM_EXPORT void GLM_FN(glm_router)(glm_team *team, glm_router_args *args) { glm_team_run(team, run_router, args); }
GLM_EXPORT void GLM_FN(glm_experts)(glm_team *team, glm_experts_args *args) { glm_team_run(team, run_experts, args); }
