/* Matrix products of activations in fp32 with weights in fp32 or bf16.
 *
 * An element of y is the sum over k in steps of 16 (or 32 pairs where the CPU multiplies bf16 itself), kept in 16 lanes
 * and added up by one tree. That order is the same whatever tile computes it, so the bits of a row depend on that row
 * alone. With products of bf16, rows of x are rounded to bf16 first.
 *
 * A tile is MR rows of x times NR rows of W, as many as registers hold. While the last rows of x meet a tile of W, a
 * later one is fetched, and at the end of a chunk that of the next: one row of x alone would wait for memory half of the
 * time.
 */
#include "linear.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#if defined(GLM_SMALL_TILES)
enum { MR = 2, NR = 2 };
#elif defined(__AVX512F__)
enum { MR = 4, NR = 6 };
#elif defined(__AVX2__)
enum { MR = 2, NR = 3 };
#else
enum { MR = 2, NR = 2 };
#endif
enum {
    ROWS = 64,
    AHEAD = 2,                /* tiles from what is computed to what is fetched */
    CHUNK_BYTES = 256 * 1024, /* of weights, at most, where these are most of the work: all threads end at once */
};

#if defined(__AVX512BF16__)
enum { HAS_BF16_PRODUCTS = 1 };
#else
enum { HAS_BF16_PRODUCTS = 0 };
#endif

/* Weights of one row from k on: 16 of them, or the n that are left. */
GLM_INLINE vf weights(const void *row, int64_t k, int dtype) {
    return dtype == GLM_F32 ? vf_load((const float *)row + k) : vf_load_bf16((const uint16_t *)row + k);
}

GLM_INLINE vf weights_first(const void *row, int64_t k, int64_t n, int dtype) {
    return dtype == GLM_F32 ? vf_load_first((const float *)row + k, n)
                            : vf_load_bf16_first((const uint16_t *)row + k, n);
}

/* One tile. x: mr rows; w: nr rows. ahead: what to fetch into the second cache, two tiles on, or NULL; it may lie past
 * the end of W, for fetching ahead never faults. */
GLM_INLINE void tile(const void *const *x, const char *w, size_t w_bytes, const char *ahead, int64_t k, int mr, int nr,
                     int dtype, vf acc[MR][NR]) {
    UNROLLED for (int m = 0; m < mr; m++)
        UNROLLED for (int n = 0; n < nr; n++) acc[m][n] = vf_zero();
#if defined(__AVX512BF16__)
    if (dtype == GLM_BF16) {
        int64_t i = 0;
        for (; i + 32 <= k; i += 32) {
            __m512bh xs[MR];
            UNROLLED for (int m = 0; m < mr; m++) xs[m] = (__m512bh)_mm512_loadu_si512((const uint16_t *)x[m] + i);
            UNROLLED for (int n = 0; n < nr; n++) {
                const char *at = w + (size_t)n * w_bytes + 2 * i;
                __m512bh ws = (__m512bh)_mm512_loadu_si512(at);
                if (ahead) __builtin_prefetch(ahead + (size_t)n * w_bytes + 2 * i, 0, 2);
                UNROLLED for (int m = 0; m < mr; m++) acc[m][n] = (vf)_mm512_dpbf16_ps((__m512)acc[m][n], xs[m], ws);
            }
        }
        if (i < k) { /* x has zeros behind its end, W the next row */
            __mmask32 mask = ((__mmask32)1 << (k - i)) - 1;
            UNROLLED for (int n = 0; n < nr; n++) {
                __m512bh ws = (__m512bh)_mm512_maskz_loadu_epi16(mask, w + (size_t)n * w_bytes + 2 * i);
                UNROLLED for (int m = 0; m < mr; m++) {
                    __m512bh xs = (__m512bh)_mm512_maskz_loadu_epi16(mask, (const uint16_t *)x[m] + i);
                    acc[m][n] = (vf)_mm512_dpbf16_ps((__m512)acc[m][n], xs, ws);
                }
            }
        }
        return;
    }
#endif
    int64_t i = 0;
    const int64_t width = dtype == GLM_F32 ? 4 : 2;
    for (; i + VF_LANES <= k; i += VF_LANES) {
        vf xs[MR];
        UNROLLED for (int m = 0; m < mr; m++) xs[m] = vf_load((const float *)x[m] + i);
        UNROLLED for (int n = 0; n < nr; n++) {
            vf ws = weights(w + (size_t)n * w_bytes, i, dtype);
            if (ahead) __builtin_prefetch(ahead + (size_t)n * w_bytes + width * i, 0, 2);
            UNROLLED for (int m = 0; m < mr; m++) acc[m][n] = vf_fma(xs[m], ws, acc[m][n]);
        }
    }
    if (i < k)
        UNROLLED for (int n = 0; n < nr; n++) {
            vf ws = weights_first(w + (size_t)n * w_bytes, i, k - i, dtype);
            UNROLLED for (int m = 0; m < mr; m++) acc[m][n] = vf_fma(vf_load_first((const float *)x[m] + i, k - i), ws, acc[m][n]);
        }
}

GLM_INLINE void tile_and_store(const void *const *x, float *const *y, const float *bias, const char *w, size_t w_bytes,
                               const char *ahead, int64_t k, int mr, int nr, int dtype) {
    vf acc[MR][NR], packed[MR * NR];
    float out[(MR * NR + 15) / 16 * 16];
    tile(x, w, w_bytes, ahead, k, mr, nr, dtype, acc);
    UNROLLED for (int m = 0; m < mr; m++)
        UNROLLED for (int n = 0; n < nr; n++) packed[m * nr + n] = acc[m][n];
    UNROLLED for (int i = 0; i < mr * nr; i += 16) vf_store(out + i, vf_sums(packed + i, mr * nr - i < 16 ? mr * nr - i : 16));
    UNROLLED for (int m = 0; m < mr; m++)
        UNROLLED for (int n = 0; n < nr; n++) y[m][n] = out[m * nr + n] + (bias ? bias[n] : 0.0f);
}

/* Tiles of every height and width, so that each is unrolled whole. */
#define WIDTHS(mr)                                                                                      \
    switch (nr) {                                                                                       \
        case 6: tile_and_store(x, y, bias, w, w_bytes, ahead, k, mr, NR >= 6 ? 6 : NR, dtype); return; \
        case 5: tile_and_store(x, y, bias, w, w_bytes, ahead, k, mr, NR >= 5 ? 5 : NR, dtype); return; \
        case 4: tile_and_store(x, y, bias, w, w_bytes, ahead, k, mr, NR >= 4 ? 4 : NR, dtype); return; \
        case 3: tile_and_store(x, y, bias, w, w_bytes, ahead, k, mr, NR >= 3 ? 3 : NR, dtype); return; \
        case 2: tile_and_store(x, y, bias, w, w_bytes, ahead, k, mr, 2, dtype); return;                 \
        default: tile_and_store(x, y, bias, w, w_bytes, ahead, k, mr, 1, dtype); return;                \
    }

GLM_INLINE void any_tile(const void *const *x, float *const *y, const float *bias, const char *w, size_t w_bytes,
                         const char *ahead, int64_t k, int64_t mr, int64_t nr, int dtype) {
    switch (mr) {
        case 4: WIDTHS(MR >= 4 ? 4 : MR)
        case 3: WIDTHS(MR >= 3 ? 3 : MR)
        case 2: WIDTHS(2)
        default: WIDTHS(1)
    }
}

static void tile_f32(const void *const *x, float *const *y, const float *bias, const char *w, size_t w_bytes,
                     const char *ahead, int64_t k, int64_t mr, int64_t nr) {
    any_tile(x, y, bias, w, w_bytes, ahead, k, mr, nr, GLM_F32);
}

static void tile_bf16(const void *const *x, float *const *y, const float *bias, const char *w, size_t w_bytes,
                      const char *ahead, int64_t k, int64_t mr, int64_t nr) {
    any_tile(x, y, bias, w, w_bytes, ahead, k, mr, nr, GLM_BF16);
}

/* Rows of x as bf16, where products take it so: packed, each padded to 64 bytes. */
static const uint16_t *rounded_rows(glm_team *team, int thread, const glm_linear_args *a, int64_t m0, int64_t m1,
                                    int64_t stride) {
    uint16_t *rounded = glm_scratch(team, thread, (size_t)((m1 - m0) * stride) * sizeof *rounded);
    for (int64_t m = m0; m < m1; m++) {
        const float *x = a->x + (a->rows ? a->rows[m] : m) * a->x_stride;
        uint16_t *to = rounded + (m - m0) * stride;
        int64_t i = 0;
#if defined(__AVX512BF16__)
        for (; i + VF_LANES <= a->k; i += VF_LANES)
            _mm256_storeu_si256((__m256i *)(to + i), (__m256i)_mm512_cvtneps_pbh((__m512)vf_load(x + i)));
#endif
        for (; i < a->k; i++) to[i] = bf16_from_f32(x[i]);
    }
    return rounded;
}

void GLM_FN(linear_tile)(glm_team *team, int thread, const glm_linear_args *a, int64_t m0, int64_t m1, int64_t n0,
                             int64_t n1, int64_t next) {
    const int is_bf16 = a->w_dtype == GLM_BF16, is_rounded = is_bf16 && HAS_BF16_PRODUCTS;
    const size_t w_bytes = (size_t)a->k * (is_bf16 ? 2 : 4);
    const char *w = a->w;
    for (int64_t m_begin = m0; m_begin < m1; m_begin += ROWS) {
        const int64_t m_end = glm_min(m_begin + ROWS, m1), stride = glm_div_up(a->k, 32) * 32;
        const uint16_t *rounded = is_rounded ? rounded_rows(team, thread, a, m_begin, m_end, stride) : NULL;
        for (int64_t n = n0; n < n1; n += NR) {
            const int64_t nr = glm_min(NR, n1 - n), after = n + AHEAD * NR - n1; /* columns past those of this call */
            const int64_t column = after < 0 ? n1 + after : next + after;
            for (int64_t m = m_begin; m < m_end; m += MR) {
                const int64_t mr = glm_min(MR, m_end - m);
                const void *x[MR];
                float *y[MR];
                for (int64_t i = 0; i < mr; i++) {
                    x[i] = is_rounded ? (const void *)(rounded + (m + i - m_begin) * stride)
                                      : a->x + (a->rows ? a->rows[m + i] : m + i) * a->x_stride;
                    y[i] = a->y + (m + i) * a->y_stride + n;
                }
                const char *ahead = m + MR >= m_end && column < a->n ? w + (size_t)column * w_bytes : NULL;
                (is_bf16 ? tile_bf16 : tile_f32)(x, y, a->bias ? a->bias + n : NULL, w + (size_t)n * w_bytes, w_bytes,
                                                 ahead, a->k, mr, nr);
            }
        }
    }
}

void GLM_FN(linear_chunk)(const glm_linear_args *a, int num_threads, int64_t *rows, int64_t *columns) {
    int64_t least = num_threads == 1 ? 1 : 4 * num_threads;
    *rows = glm_min(glm_max(a->m, 1), ROWS);
    int64_t row_chunks = glm_div_up(a->m, *rows);
    const int64_t w_bytes = a->k * (a->w_dtype == GLM_BF16 ? 2 : 4);
    int64_t wanted = a->m <= ROWS ? glm_min(glm_div_up(a->n, least), glm_max(CHUNK_BYTES / w_bytes, 1)) : 48;
    if (row_chunks * glm_div_up(a->n, wanted) < least) wanted = glm_div_up(a->n * row_chunks, least);
    *columns = glm_max(glm_div_up(wanted, NR), 1) * NR;
}

void GLM_FN(linear_part)(glm_team *team, int thread, int num_threads, const glm_linear_args *a) {
    int64_t rows, columns;
    GLM_FN(linear_chunk)(a, num_threads, &rows, &columns);
    const int64_t row_chunks = glm_div_up(a->m, rows), chunks = row_chunks * glm_div_up(a->n, columns);
    for (int64_t chunk = glm_next(team, a->counter), next; chunk < chunks; chunk = next) {
        next = glm_next(team, a->counter); /* claimed early: it is known then what to fetch */
        const int64_t m = chunk % row_chunks * rows, n = chunk / row_chunks * columns;
        GLM_FN(linear_tile)(team, thread, a, m, glm_min(m + rows, a->m), n, glm_min(n + columns, a->n),
                            next / row_chunks * columns);
    }
}

static void run(glm_team *team, int thread, int num_threads, void *args) {
    GLM_FN(linear_part)(team, thread, num_threads, args);
}

GLM_EXPORT void GLM_FN(glm_linear)(glm_team *team, glm_linear_args *args) { glm_team_run(team, run, args); }
