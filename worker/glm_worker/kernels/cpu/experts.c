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
 * A thread claims a chunk before it begins the one before, so that it knows what to fetch.
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
    PADDED_PAIRS = 32, /* whole vectors */
    DOWN_ROWS = 24,    /* the same of down's, at least */
    MAX_DOWN_ROWS = 96,
    BLOCK_TOKENS = 64, /* tokens whose rows stay in the cache while a chunk of weights passes */
    ROUTED_TOKENS = 16,
    AHEAD_BYTES = 16384, /* how far ahead weights are fetched, in whole tiles */
    MAX_AHEAD_TILES = 4
};

/* What is multiplied: floats by floats, bfloat16 weights by floats, bfloat16 by bfloat16. */
enum kind { FLOATS, WIDENED, BF16_PAIRS };

/* Add the products of a vector's elements from k on to the sums, of fewer where `length` ends. */
GLM_INLINE void add_products(const enum kind kind, const int rows, const int tokens, const void *const *w,
                             const void *const *x, int64_t k, int64_t length, vf *sums, const int height) {
#if MULTIPLIES_BF16
    if (kind == BF16_PAIRS) {
        const __mmask32 is_there = length - k < 32 ? (1u << (length - k)) - 1 : 0xffffffffu;
        __m512bh row_w[ROWS];
        UNROLLED for (int r = 0; r < rows; r++)
            row_w[r] = (__m512bh)_mm512_maskz_loadu_epi16(is_there, (const uint16_t *)w[r] + k);
        UNROLLED for (int t = 0; t < tokens; t++) {
            __m512bh token_x = (__m512bh)_mm512_loadu_si512((const uint16_t *)x[t] + k);
            UNROLLED for (int r = 0; r < rows; r++)
                sums[t * height + r] = (vf)_mm512_dpbf16_ps((__m512)sums[t * height + r], row_w[r], token_x);
        }
        return;
    }
#endif
    const int64_t left = length - k;
    vf row_w[ROWS];
    UNROLLED for (int r = 0; r < rows; r++) {
        const float *floats = (const float *)w[r] + k;
        const uint16_t *halves = (const uint16_t *)w[r] + k;
        if (kind == FLOATS)
            row_w[r] = left < 16 ? vf_load_first(floats, left) : vf_load(floats);
        else
            row_w[r] = left < 16 ? vf_load_bf16_first(halves, left) : vf_load_bf16(halves);
    }
    UNROLLED for (int t = 0; t < tokens; t++) {
        vf token_x = left < 16 ? vf_load_first((const float *)x[t] + k, left) : vf_load((const float *)x[t] + k);
        UNROLLED for (int r = 0; r < rows; r++) sums[t * height + r] = vf_fma(row_w[r], token_x, sums[t * height + r]);
    }
}

/* Add all products of rows and tokens to their sums, and fetch as much of the rows `ahead` into the second cache. They
 * may lie past the end of the weights, for fetching never faults; NULL: fetch nothing. */
GLM_INLINE void add_all(const enum kind kind, const int rows, const int tokens, const void *const *w,
                        const void *const *ahead, const void *const *x, int64_t length, vf *sums, const int height) {
    const int64_t step = kind == BF16_PAIRS ? 32 : 16, bytes = kind == FLOATS ? 4 : 2;
    int64_t k = 0;
    for (; k + step <= length; k += step) {
        if (ahead)
            UNROLLED for (int r = 0; r < rows; r++) __builtin_prefetch((const char *)ahead[r] + k * bytes, 0, 2);
        add_products(kind, rows, tokens, w, x, k, k + step, sums, height);
    }
    if (k < length) add_products(kind, rows, tokens, w, x, k, length, sums, height);
}

/* out[token * rows + row] = w[row] . x[token]. rows, tokens, kind and streams are constants where it is inlined.
 *
 * x of BF16_PAIRS has zeros up to a whole vector. Weights that come from memory are read row by row (streams), and what
 * is read some tiles later is fetched meanwhile: the CPU by itself begins anew at each piece of an expert. Those that lie
 * in the cache are read side by side, so that every token's element serves all rows.
 */
GLM_INLINE void tile(const enum kind kind, const int rows, const int tokens, const int streams, const void *const *w,
                     const void *const *ahead, const void *const *x, int64_t length, float *out) {
    vf sums[MAX_SUMS];
    UNROLLED for (int j = 0; j < MAX_SUMS; j++) sums[j] = vf_zero();
    if (streams) {
        UNROLLED for (int r = 0; r < rows; r++) add_all(kind, 1, tokens, w + r, ahead + r, x, length, sums + r, rows);
    } else {
        add_all(kind, rows, tokens, w, 0, x, length, sums, rows);
    }
    const int num = rows * tokens;
    UNROLLED for (int j = 0; j < num; j += 16) vf_store(out + j, vf_sums(sums + j, num - j < 16 ? num - j : 16));
}

typedef void (*tile_function)(const void *const *w, const void *const *ahead, const void *const *x, int64_t length,
                              float *out);

#define NAME(kind, rows, tokens, streams) tile_##kind##_##rows##_##tokens##_##streams
#define TILE(kind, rows, tokens, streams)                                                                      \
    static void NAME(kind, rows, tokens, streams)(const void *const *w, const void *const *ahead,              \
                                                  const void *const *x, int64_t length, float *out) {          \
        tile(kind, rows, tokens, streams, w, ahead, x, length, out);                                           \
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

/* out[token * rows + row] = w[row] . x[token]. ahead: rows to fetch meanwhile, if these come from memory themselves. */
GLM_INLINE void multiply(int32_t dtype, int rows, int tokens, const void *const *w, const void *const *ahead,
                         const void *const *x, int64_t length, float *out) {
    int height = rows == 1 ? 0 : rows == 2 ? 1 : NUM_HEIGHTS - 1;
    tiles[dtype][height][ahead != 0][tokens - 1](w, ahead, x, length, out);
}

/* Return how many tiles of ROWS rows ahead weights are fetched. */
GLM_INLINE int64_t tiles_ahead(int64_t row_bytes) {
    return glm_min(glm_max(AHEAD_BYTES / (ROWS * row_bytes), 1), MAX_AHEAD_TILES);
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
            multiply(GLM_F32, rows, num, w, token == first ? w : 0, x, a->hidden, out);
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

/* Where what this thread reads next begins: rows of gate and of up, or of down; NULL where nothing is known. */
typedef struct {
    const char *rows, *up_rows;
} following;

/* Return the row that comes `distance` rows after `row`, of rows that go on elsewhere at `end`. */
GLM_INLINE const char *row_ahead(const char *rows, const char *next, int64_t row, int64_t distance, int64_t end,
                                 int64_t row_bytes) {
    if (row + distance < end) return rows + (row + distance) * row_bytes;
    return next ? next + (row + distance - end) * row_bytes : rows + row * row_bytes;
}

/* Write silu(gate) * up of an expert's rows, elements [first_pair, end_pair). */
static void gate_and_up(const glm_experts_args *a, const room *room, const expert_rows *e, int64_t first_pair,
                        int64_t end_pair, following next) {
    float gate[BLOCK_TOKENS][PADDED_PAIRS], up[BLOCK_TOKENS][PADDED_PAIRS], out[MAX_SUMS];
    int64_t row_bytes = a->hidden * (a->w_dtype == GLM_BF16 ? 2 : 4);
    const int64_t distance = PAIRS * tiles_ahead(row_bytes);
    const char *gate_rows = e->gate_up, *up_rows = e->gate_up + e->width * row_bytes;
    const char *base_x = is_rounded(a) ? room->x : (const char *)a->x;
    int64_t x_bytes = is_rounded(a) ? room->x_bytes : a->x_stride * 4;
    for (int64_t block = 0; block < e->num; block += BLOCK_TOKENS) {
        int64_t num_here = glm_min(BLOCK_TOKENS, e->num - block);
        const void *x[BLOCK_TOKENS];
        for (int64_t t = 0; t < num_here; t++)
            x[t] = base_x + (e->tokens ? e->tokens[block + t] : block + t) * x_bytes;
        for (int64_t pair = first_pair; pair < end_pair;) {
            int pairs = end_pair - pair >= PAIRS ? PAIRS : 1;
            const void *w[ROWS], *ahead[ROWS];
            for (int p = 0; p < pairs; p++) {
                w[p] = gate_rows + (pair + p) * row_bytes;
                w[pairs + p] = up_rows + (pair + p) * row_bytes;
                ahead[p] = row_ahead(gate_rows, next.rows, pair + p, distance, end_pair, row_bytes);
                ahead[pairs + p] = row_ahead(up_rows, next.up_rows, pair + p, distance, end_pair, row_bytes);
            }
            for (int64_t token = 0; token < num_here;) {
                int num = (int)glm_min(TOKENS, num_here - token);
                multiply(a->w_dtype, 2 * pairs, num, w, block + token ? 0 : ahead, x + token, a->hidden, out);
                for (int t = 0; t < num; t++) {
                    float *gates = &gate[token + t][pair - first_pair], *ups = &up[token + t][pair - first_pair];
                    if (pairs == PAIRS) {
                        memcpy(gates, out + t * ROWS, PAIRS * sizeof *out);
                        memcpy(ups, out + t * ROWS + PAIRS, PAIRS * sizeof *out);
                    } else {
                        *gates = out[t * 2];
                        *ups = out[t * 2 + 1];
                    }
                }
                token += num;
            }
            pair += pairs;
        }
        const int64_t num_pairs = end_pair - first_pair, padded = glm_div_up(num_pairs, VF_LANES) * VF_LANES;
        for (int64_t token = 0; token < num_here; token++) {
            memset(&gate[token][num_pairs], 0, (size_t)(padded - num_pairs) * sizeof **gate);
            memset(&up[token][num_pairs], 0, (size_t)(padded - num_pairs) * sizeof **up);
            char *hidden = e->hidden + (block + token) * e->hidden_bytes;
            for (int64_t pair = 0; pair < num_pairs; pair += VF_LANES) {
                int64_t lanes = glm_min(VF_LANES, num_pairs - pair);
                vf value = vf_silu(vf_load(&gate[token][pair])) * vf_load(&up[token][pair]);
                if (is_rounded(a)) {
                    vh rounded = vh_from_f32(value);
                    memcpy((uint16_t *)hidden + first_pair + pair, &rounded, (size_t)lanes * sizeof(uint16_t));
                } else {
                    memcpy((float *)hidden + first_pair + pair, &value, (size_t)lanes * sizeof(float));
                }
            }
            if (end_pair == e->width && is_rounded(a)) /* zeros up to a whole vector */
                memset(hidden + e->width * 2, 0, (size_t)(e->hidden_bytes - e->width * 2));
        }
    }
}

/* y += weight * out */
GLM_INLINE void add_weighted(float *y, float weight, const float *out, const int rows) {
    float sums[ROWS]; /* so that the compiler need not ask whether y and out are the same */
    for (int r = 0; r < rows; r++) sums[r] = y[r] + weight * out[r];
    memcpy(y, sums, (size_t)rows * sizeof *y);
}

/* Add what an expert says to elements [first_row, end_row) of its tokens. */
static void down(const glm_experts_args *a, const expert_rows *e, int64_t first_row, int64_t end_row, following next) {
    float out[MAX_SUMS];
    int64_t row_bytes = e->width * (a->w_dtype == GLM_BF16 ? 2 : 4);
    const int64_t distance = ROWS * tiles_ahead(row_bytes);
    for (int64_t block = 0; block < e->num; block += BLOCK_TOKENS) {
        const int64_t num_here = glm_min(BLOCK_TOKENS, e->num - block);
        const void *x[BLOCK_TOKENS];
        float *y[BLOCK_TOKENS], weights[BLOCK_TOKENS];
        for (int64_t t = 0; t < num_here; t++) {
            x[t] = e->hidden + (block + t) * e->hidden_bytes;
            y[t] = a->y + (e->tokens ? e->tokens[block + t] : block + t) * a->y_stride;
            weights[t] = e->weights ? e->weights[block + t] : 1.0f;
        }
        for (int64_t row = first_row; row < end_row;) {
            int rows = height_of(end_row - row);
            const void *w[ROWS], *ahead[ROWS];
            for (int r = 0; r < rows; r++) {
                w[r] = e->down + (row + r) * row_bytes;
                ahead[r] = row_ahead(e->down, next.rows, row + r, distance, end_row, row_bytes);
            }
            for (int64_t token = 0; token < num_here;) {
                int num = (int)glm_min(TOKENS, num_here - token);
                multiply(a->w_dtype, rows, num, w, block + token ? 0 : ahead, x + token, e->width, out);
                for (int t = 0; t < num; t++) {
                    if (rows == ROWS)
                        add_weighted(y[token + t] + row, weights[token + t], out + t * ROWS, ROWS);
                    else
                        add_weighted(y[token + t] + row, weights[token + t], out + t * rows, rows);
                }
                token += num;
            }
            row += rows;
        }
    }
}

/* Set the expert of a chunk of gate and up, and return which chunk of it. The shared one is first: most rows. */
static int64_t gate_up_item(const glm_experts_args *a, const room *room, int64_t item, int64_t of_shared,
                            int64_t chunks, expert_rows *e) {
    if (item < of_shared) {
        *e = rows_of_shared(a, room);
        return item;
    }
    *e = rows_of(a, room, room->touched[(item - of_shared) / chunks]);
    return (item - of_shared) % chunks;
}

static expert_rows down_of(const glm_experts_args *a, const room *room, int64_t i, int64_t num_touched) {
    return i < num_touched ? rows_of(a, room, room->touched[i]) : rows_of_shared(a, room);
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

    const int64_t num_touched = room.touched[a->num_local], size = a->w_dtype == GLM_BF16 ? 2 : 4;
    const int64_t chunks = glm_div_up(a->width, CHUNK_PAIRS);
    const int64_t of_shared = a->shared_gate_up && a->num_tokens ? glm_div_up(a->shared_width, CHUNK_PAIRS) : 0;
    const int64_t items = of_shared + num_touched * chunks;
    for (int64_t item = glm_next(team, GLM_NEXT_EXPERTS), next_item; item < items; item = next_item) {
        next_item = glm_next(team, GLM_NEXT_EXPERTS); /* claimed early: it is known then what to fetch */
        expert_rows e, after;
        const int64_t chunk = gate_up_item(a, &room, item, of_shared, chunks, &e);
        following next = {0};
        if (next_item < items) {
            const int64_t at = gate_up_item(a, &room, next_item, of_shared, chunks, &after) * CHUNK_PAIRS;
            next.rows = after.gate_up + at * a->hidden * size;
            next.up_rows = after.gate_up + (after.width + at) * a->hidden * size;
        }
        gate_and_up(a, &room, &e, chunk * CHUNK_PAIRS, glm_min((chunk + 1) * CHUNK_PAIRS, e.width), next);
    }
    glm_barrier(team, thread);

    const int64_t wanted = a->num_tokens < BLOCK_TOKENS ? DOWN_ROWS : a->hidden / (4 * num_threads) / ROWS * ROWS;
    const int64_t rows = glm_min(glm_max(wanted, DOWN_ROWS), MAX_DOWN_ROWS), num_experts = num_touched + !!of_shared;
    int64_t next_first;
    for (int64_t first = rows * glm_next(team, GLM_NEXT_EXPERTS_DOWN); first < a->hidden; first = next_first) {
        next_first = rows * glm_next(team, GLM_NEXT_EXPERTS_DOWN);
        const int64_t end = glm_min(first + rows, a->hidden);
        for (int64_t token = 0; token < a->num_tokens; token++)
            memset(a->y + token * a->y_stride + first, 0, (size_t)(end - first) * 4);
        for (int64_t i = 0; i < num_experts; i++) { /* the shared one is the last */
            const int is_last = i + 1 == num_experts;
            const expert_rows e = down_of(a, &room, i, num_touched);
            const expert_rows after = down_of(a, &room, is_last ? 0 : i + 1, num_touched);
            following next = {after.down + (is_last ? next_first : first) * after.width * size, 0};
            if (is_last && next_first >= a->hidden) next.rows = 0;
            down(a, &e, first, end, next);
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
