/* A row is read once for its largest logit and once for the weights: e to the power of what a logit lacks to the
 * largest, by the temperature. Of each block of weights the sum and 16 largest ones are kept (one of each lane), so that
 * a draw and a search for the few tokens that filters keep pass over most blocks.
 *
 * What a filter keeps is found by a bound first, which is sure to be low enough: the k-th largest of the lanes' largest
 * is at most the k-th largest of all; and tokens that weigh less than (1 - top_p) / vocab of all do not make up
 * 1 - top_p together. What is above the bound becomes a heap, from which the best are taken while they are wanted.
 *
 * A row is computed by one thread, in one order: its token depends on nothing but the row and its rules.
 */
#include "sample.h"

enum { BLOCK = 256, VECTORS = BLOCK / VF_LANES };

typedef struct {
    float logit;
    float weight;
    int32_t id;
} candidate;

/* Room of a thread for a row. */
typedef struct {
    float *weights;    /* vocab, filled up to whole blocks by zeros */
    float *largest;    /* 16 a block */
    float *selected;   /* as many, to be put in another order */
    double *sums;      /* one a block */
    candidate *heap;   /* vocab */
    candidate *chosen; /* vocab */
    int64_t num_blocks;
} room;

GLM_INLINE int any_of(vi mask) { return __builtin_reduce_or(mask) != 0; }

/* Return the index of the largest logit, the first of equals; -1 where it is not a finite number. */
GLM_INLINE int64_t best_of(const float *row, int64_t vocab) {
    vf most = vf_set(-__builtin_inff());
    vi is_nan = {0};
    int64_t i = 0;
    for (; i + VF_LANES <= vocab; i += VF_LANES) {
        vf x = vf_load(row + i);
        is_nan |= (vi)(x != x);
        most = vf_max(x, most);
    }
    float best = vf_max_lane(most);
    int any_nan = any_of(is_nan);
    for (; i < vocab; i++) {
        any_nan |= row[i] != row[i];
        best = row[i] > best ? row[i] : best;
    }
    if (any_nan || !(best > -__builtin_inff() && best < __builtin_inff())) return -1;
    const vf wanted = vf_set(best);
    for (i = 0; i + VF_LANES <= vocab; i += VF_LANES) {
        vi same = (vi)(vf_load(row + i) == wanted);
        if (!any_of(same)) continue;
        int lane = 0;
        while (!same[lane]) lane++;
        return i + lane;
    }
    while (row[i] != best) i++;
    return i;
}

/* Fill weights, largest and sums. */
GLM_INLINE void weigh(const float *row, int64_t vocab, float best, double temperature, const room *at) {
    const vf top = vf_set(best), scale = vf_set(1.0f / (float)temperature);
    for (int64_t block = 0; block < at->num_blocks; block++) {
        float *weights = at->weights + block * BLOCK;
        vf sum = vf_zero(), most = vf_zero();
        for (int v = 0; v < VECTORS; v++) {
            int64_t begin = block * BLOCK + v * VF_LANES, left = vocab - begin;
            vf w = vf_zero();
            if (left >= VF_LANES) {
                w = vf_exp((vf_load(row + begin) - top) * scale);
            } else if (left > 0) {
                vf some = vf_exp((vf_load_first(row + begin, left) - top) * scale);
                for (int64_t lane = 0; lane < left; lane++) w[lane] = some[lane];
            }
            vf_store(weights + v * VF_LANES, w);
            sum += w;
            most = vf_max(w, most);
        }
        vf_store(at->largest + block * VF_LANES, most);
        at->sums[block] = (double)vf_sum(sum);
    }
}

/* Return the index that the target falls on in the cumulated weights: of the first whose sum is above it. */
static int64_t fall(const room *at, double target) {
    double passed = 0;
    int64_t last = 0; /* with any weight */
    for (int64_t block = 0; block < at->num_blocks; block++) {
        if (!(at->sums[block] > 0)) continue;
        if (passed + at->sums[block] <= target) {
            passed += at->sums[block];
            last = block;
            continue;
        }
        last = block;
        break;
    }
    int64_t found = last * BLOCK;
    for (int64_t i = last * BLOCK; i < (last + 1) * BLOCK; i++) {
        if (!(at->weights[i] > 0)) continue;
        found = i;
        passed += (double)at->weights[i];
        if (passed > target) break;
    }
    return found;
}

GLM_INLINE double below(double target, double total) {
    double most = total * (1 - 0x1p-52); /* rounding may lift the target to the total */
    return target < most ? target : most;
}

/* Return the k-th largest of n numbers, k from 1 on; their order changes. */
static float kth_largest(float *x, int64_t n, int64_t k) {
    int64_t low = 0, high = n - 1, wanted = k - 1;
    while (low < high) {
        float pivot = x[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (x[i] > pivot) i++;
            while (x[j] < pivot) j--;
            if (i <= j) {
                float swapped = x[i];
                x[i++] = x[j];
                x[j--] = swapped;
            }
        }
        if (wanted <= j) {
            high = j;
        } else if (wanted >= i) {
            low = i;
        } else {
            break;
        }
    }
    return x[wanted];
}

/* Return the k-th largest of the lanes' largest, of which there are at least k. */
static float kth_of_lanes(const room *at, int64_t k) {
    static const float guesses[] = {1e-3f, 1e-6f, 0}; /* nearly always few are above the first */
    int64_t n = 0;
    for (int guess = 0; guess < 3 && n < k; guess++) {
        n = 0;
        for (int64_t i = 0; i < at->num_blocks * VF_LANES; i += VF_LANES) {
            vi is_in = (vi)(vf_load(at->largest + i) >= vf_set(guesses[guess]));
            if (!any_of(is_in)) continue;
            for (int lane = 0; lane < VF_LANES; lane++)
                if (is_in[lane]) at->selected[n++] = at->largest[i + lane];
        }
    }
    return kth_largest(at->selected, n, k);
}

/* Return a weight that no token which the filters may keep is below. */
static float bound(const room *at, const glm_sample_rules *rules, int64_t vocab, double total) {
    float lowest = 0;
    int64_t num_lanes = at->num_blocks * VF_LANES;
    int is_top_k = rules->top_k > 0 && rules->top_k < (double)vocab;
    if (rules->min_p > 0) lowest = (float)(rules->min_p * (1 - 1e-6));
    if (is_top_k && rules->top_k <= (double)num_lanes) {
        float kth = kth_of_lanes(at, (int64_t)rules->top_k);
        lowest = kth > lowest ? kth : lowest;
    }
    if (!is_top_k && !(rules->min_p > 0) && rules->top_p < 1) {
        float rest = (float)((1 - rules->top_p) * total / (double)vocab * (1 - 1e-3));
        lowest = rest > lowest ? rest : lowest;
    }
    return lowest;
}

GLM_INLINE int is_better(candidate a, candidate b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

static void sink(candidate *heap, int64_t n, int64_t at) {
    candidate one = heap[at];
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= n) break;
        if (child + 1 < n && is_better(heap[child + 1], heap[child])) child++;
        if (!is_better(heap[child], one)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = one;
}

/* Make a heap, the best on top, of the tokens that weigh at least `lowest`; return how many these are. */
static int64_t gather(const float *row, int64_t vocab, const room *at, float lowest) {
    int64_t n = 0;
    for (int64_t block = 0; block < at->num_blocks; block++) {
        vi is_in = (vi)(vf_load(at->largest + block * VF_LANES) >= vf_set(lowest));
        if (!any_of(is_in)) continue;
        int64_t end = glm_min((block + 1) * BLOCK, vocab);
        for (int64_t i = block * BLOCK; i < end; i++) {
            if (at->weights[i] >= lowest) at->heap[n++] = (candidate){row[i], at->weights[i], (int32_t)i};
        }
    }
    for (int64_t i = n / 2 - 1; i >= 0; i--) sink(at->heap, n, i);
    return n;
}

static int64_t draw_filtered(const float *row, int64_t vocab, const glm_sample_rules *rules, const room *at,
                             double total) {
    int64_t n = gather(row, vocab, at, bound(at, rules, vocab, total)), num_left = 0;
    double most = rules->top_k > 0 ? rules->top_k : (double)vocab;
    int is_whole = !(rules->min_p > 0) && most >= (double)vocab;
    double left = total, wanted = rules->top_p < 1 ? rules->top_p * total : __builtin_inf();
    double cumulated = 0;
    while (n > 0 && (double)num_left < most) {
        candidate best = at->heap[0];
        if (num_left > 0 && (double)best.weight < rules->min_p) break;
        at->chosen[num_left++] = best;
        cumulated += (double)best.weight;
        at->heap[0] = at->heap[--n];
        sink(at->heap, n, 0);
        if (is_whole && cumulated >= wanted) break;
    }
    if (!is_whole) left = cumulated;
    int64_t num_kept = num_left;
    if (!is_whole && rules->top_p < 1) {
        double passed = 0;
        num_kept = 0;
        while (num_kept < num_left && passed < rules->top_p * left) passed += (double)at->chosen[num_kept++].weight;
        if (num_kept < 1) num_kept = 1;
    }
    double kept = 0, passed = 0;
    for (int64_t i = 0; i < num_kept; i++) kept += (double)at->chosen[i].weight;
    double target = below(rules->uniform * kept, kept);
    int64_t found = at->chosen[0].id;
    for (int64_t i = 0; i < num_kept; i++) {
        if (!(at->chosen[i].weight > 0)) break;
        found = at->chosen[i].id;
        passed += (double)at->chosen[i].weight;
        if (passed > target) break;
    }
    return found;
}

static int64_t sample(const float *row, int64_t vocab, const glm_sample_rules *rules, const room *at) {
    int64_t best = best_of(row, vocab);
    if (best < 0 || !(rules->temperature > 0)) return best;
    weigh(row, vocab, row[best], rules->temperature, at);
    double total = 0;
    for (int64_t block = 0; block < at->num_blocks; block++) total += at->sums[block];
    int is_filtered = rules->min_p > 0 || rules->top_k > 0 || rules->top_p < 1;
    if (is_filtered) return draw_filtered(row, vocab, rules, at, total);
    return fall(at, below(rules->uniform * total, total));
}

GLM_INLINE size_t whole_lines(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

void GLM_FN(sample_part)(glm_team *team, int thread, int num_threads, const glm_sample_args *args) {
    (void)num_threads;
    int64_t num_blocks = glm_div_up(args->vocab, BLOCK);
    size_t weights = whole_lines((size_t)(num_blocks * BLOCK) * sizeof(float));
    size_t lanes = whole_lines((size_t)(num_blocks * VF_LANES) * sizeof(float));
    size_t sums = whole_lines((size_t)num_blocks * sizeof(double));
    size_t candidates = whole_lines((size_t)args->vocab * sizeof(candidate));
    char *memory = glm_scratch(team, thread, weights + 2 * lanes + sums + 2 * candidates);
    room at = {
        .weights = (float *)memory,
        .largest = (float *)(memory + weights),
        .selected = (float *)(memory + weights + lanes),
        .sums = (double *)(memory + weights + 2 * lanes),
        .heap = (candidate *)(memory + weights + 2 * lanes + sums),
        .chosen = (candidate *)(memory + weights + 2 * lanes + sums + candidates),
        .num_blocks = num_blocks,
    };
    for (int64_t row; (row = glm_next(team, GLM_NEXT_ROWS)) < args->num_rows;)
        args->token_ids[row] = sample(args->logits + row * args->stride, args->vocab, &args->rules[row], &at);
}

static void run(glm_team *team, int thread, int num_threads, void *args) {
    GLM_FN(sample_part)(team, thread, num_threads, args);
}

GLM_EXPORT void GLM_FN(glm_sample)(glm_team *team, glm_sample_args *args) { glm_team_run(team, run, args); }
