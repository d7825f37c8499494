/* Vectors of 16 floats on every instruction set, so that sums have one order everywhere.
 *
 * A source file is compiled once for each instruction set, with -DGLM_ISA=<name>; what it exports carries that name at
 * its end. Products are never contracted behind our back (-ffp-contract=off): vf_fma is the only fused one, and where
 * the CPU has none it is a product and a sum.
 */
#ifndef GLM_SIMD_H
#define GLM_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define GLM_JOIN2(a, b) a##_##b
#define GLM_JOIN(a, b) GLM_JOIN2(a, b)
#define GLM_FN(name) GLM_JOIN(name, GLM_ISA)
#define GLM_EXPORT __attribute__((visibility("default")))
/* Loops over accumulators must be unrolled, or these are no registers. */
#define UNROLLED _Pragma("clang loop unroll(full)")
#define GLM_INLINE static inline __attribute__((always_inline))

enum { GLM_F32 = 0, GLM_BF16 = 1 };
enum { VF_LANES = 16 };

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef float vf8 __attribute__((vector_size(32)));
typedef float vf4 __attribute__((vector_size(16)));
typedef uint16_t vh __attribute__((vector_size(32)));

GLM_INLINE int64_t glm_min(int64_t a, int64_t b) { return a < b ? a : b; }
GLM_INLINE int64_t glm_max(int64_t a, int64_t b) { return a > b ? a : b; }
GLM_INLINE int64_t glm_div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

GLM_INLINE vf vf_zero(void) { return (vf){0}; }
GLM_INLINE vf vf_set(float x) { return x - (vf){0}; } /* not x + 0, which loses the sign of -0 */

GLM_INLINE vf vf_load(const float *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}

GLM_INLINE void vf_store(float *p, vf x) { memcpy(p, &x, sizeof x); }

/* The first n of 16, zeros behind them; reads nothing past them. */
GLM_INLINE vf vf_load_first(const float *p, int64_t n) {
    vf x = {0};
    for (int64_t i = 0; i < n; i++) x[i] = p[i];
    return x;
}

GLM_INLINE void vf_store_first(float *p, vf x, int64_t n) {
    for (int64_t i = 0; i < n; i++) p[i] = x[i];
}

GLM_INLINE vf vf_from_bf16(vh h) { return (vf)(__builtin_convertvector(h, vu) << 16); }

GLM_INLINE vf vf_load_bf16(const uint16_t *p) {
    vh h;
    memcpy(&h, p, sizeof h);
    return vf_from_bf16(h);
}

GLM_INLINE vf vf_load_bf16_first(const uint16_t *p, int64_t n) {
    vh h = {0};
    for (int64_t i = 0; i < n; i++) h[i] = p[i];
    return vf_from_bf16(h);
}

GLM_INLINE float f32_from_bf16(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Round to nearest, ties to even; a NaN stays one. */
GLM_INLINE uint16_t bf16_from_f32(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

GLM_INLINE vh vh_from_f32(vf x) {
    vu u = (vu)x;
    vu is_nan = (vu)((u & 0x7fffffffu) > 0x7f800000u);
    vu rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    vu quiet = (u >> 16) | 0x40u;
    return __builtin_convertvector((is_nan & quiet) | (~is_nan & rounded), vh);
}

GLM_INLINE void vf_store_bf16(uint16_t *p, vf x) {
    vh h = vh_from_f32(x);
    memcpy(p, &h, sizeof h);
}

GLM_INLINE vf vf_fma(vf a, vf b, vf c) {
#if defined(__FMA__) || defined(__AVX512F__) || defined(__ARM_FEATURE_FMA)
    return __builtin_elementwise_fma(a, b, c);
#else
    return a * b + c;
#endif
}

GLM_INLINE vf vf_select(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
GLM_INLINE vf vf_max(vf a, vf b) { return vf_select((vi)(a > b), a, b); }

/* Lanes i and i + 8, then i and i + 4, i and i + 2, i and i + 1: one tree everywhere. */
GLM_INLINE float vf_sum(vf x) {
    vf8 a = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
    vf4 b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
    float low = b[0] + b[2], high = b[1] + b[3];
    return low + high;
}

/* Sums of 16 vectors at once, by the very tree of vf_sum: each step halves all of them. */
GLM_INLINE vf vf_halves8(vf a, vf b) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}

GLM_INLINE vf vf_halves4(vf a, vf b) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
           __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}

GLM_INLINE vf vf_halves2(vf a, vf b) {
    return __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +
           __builtin_shufflevector(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
}

GLM_INLINE vf vf_halves1(vf a, vf b) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

/* The sums of the first n of 16 vectors; the others are not looked at. */
GLM_INLINE vf vf_sums(const vf *x, int n) {
    vf a[16], b[8], c[4], d[2];
    UNROLLED for (int i = 0; i < 16; i++) a[i] = i < n ? x[i] : vf_zero();
    UNROLLED for (int i = 0; i < 8; i++) b[i] = 2 * i < n ? vf_halves8(a[2 * i], a[2 * i + 1]) : vf_zero();
    UNROLLED for (int i = 0; i < 4; i++) c[i] = 4 * i < n ? vf_halves4(b[2 * i], b[2 * i + 1]) : vf_zero();
    UNROLLED for (int i = 0; i < 2; i++) d[i] = 8 * i < n ? vf_halves2(c[2 * i], c[2 * i + 1]) : vf_zero();
    return vf_halves1(d[0], d[1]);
}

GLM_INLINE float vf_max_lane(vf x) {
    float best = x[0];
    for (int i = 1; i < VF_LANES; i++) best = x[i] > best ? x[i] : best;
    return best;
}

/* e^x to 2 units in the last place; below -87.33 it is 0, above 88.72 infinite, and of NaN it is NaN. */
GLM_INLINE vf vf_exp(vf x) {
    const vf magic = vf_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    vf clamped = vf_select((vi)(x > vf_set(88.72284f)), vf_set(88.72284f), x);
    clamped = vf_select((vi)(clamped < vf_set(-87.33655f)), vf_set(-87.33655f), clamped);
    vf shifted = vf_fma(clamped, vf_set(1.44269504088896341f), magic);
    vf n = shifted - magic;
    vf r = vf_fma(n, vf_set(-0.693359375f), clamped);
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf p = vf_set(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set(5.0000001201e-1f));
    p = vf_fma(p, r * r, r) + 1.0f;
    vi exponent = (vi)shifted - (vi)magic;
    vi half = exponent >> 1; /* in two steps: 2^128 is no float */
    vf y = p * (vf)((half + 127) << 23) * (vf)((exponent - half + 127) << 23);
    y = vf_select((vi)(x > vf_set(88.72284f)), vf_set(__builtin_inff()), y);
    y = vf_select((vi)(x < vf_set(-87.33655f)), vf_zero(), y);
    return vf_select((vi)(x != x), x, y);
}

GLM_INLINE vf vf_sigmoid(vf x) { return 1.0f / (1.0f + vf_exp(-x)); }
GLM_INLINE vf vf_silu(vf x) { return x / (1.0f + vf_exp(-x)); }

GLM_INLINE float f32_exp(float x) {
    vf y = vf_exp(vf_set(x));
    return y[0];
}

#endif
