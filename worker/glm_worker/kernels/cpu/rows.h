/* What is done to a row at a time: norms, rotation, activation, type of the cache. Compiled with GLM_ISA. */
#ifndef GLM_ROWS_H
#define GLM_ROWS_H

#include "simd.h"

/* The sum of squares of n floats. */
GLM_INLINE float row_squares(const float *x, int64_t n) {
    vf sum = vf_zero();
    int64_t i = 0;
    for (; i + VF_LANES <= n; i += VF_LANES) {
        vf part = vf_load(x + i);
        sum = vf_fma(part, part, sum);
    }
    if (i < n) {
        vf part = vf_load_first(x + i, n - i);
        sum = vf_fma(part, part, sum);
    }
    return vf_sum(sum);
}

/* y = x / rms(x) * weight; y may be x. */
GLM_INLINE void row_norm(float *y, const float *x, const float *weight, int64_t n, float eps) {
    float scale = 1.0f / __builtin_sqrtf(row_squares(x, n) / (float)n + eps);
    int64_t i = 0;
    for (; i + VF_LANES <= n; i += VF_LANES) vf_store(y + i, vf_load(x + i) * scale * vf_load(weight + i));
    for (; i < n; i++) y[i] = x[i] * scale * weight[i];
}

GLM_INLINE void row_add(float *x, const float *other, int64_t n) {
    int64_t i = 0;
    for (; i + VF_LANES <= n; i += VF_LANES) vf_store(x + i, vf_load(x + i) + vf_load(other + i));
    for (; i < n; i++) x[i] += other[i];
}

/* Rotate the first 2 * half dims of a head, half with half (NeoX). */
GLM_INLINE void row_rotate(float *x, const float *cosines, const float *sines, int64_t half) {
    int64_t i = 0;
    for (; i + VF_LANES <= half; i += VF_LANES) {
        vf a = vf_load(x + i), b = vf_load(x + half + i), c = vf_load(cosines + i), s = vf_load(sines + i);
        vf_store(x + i, a * c - b * s);
        vf_store(x + half + i, b * c + a * s);
    }
    for (; i < half; i++) {
        float a = x[i], b = x[half + i];
        x[i] = a * cosines[i] - b * sines[i];
        x[half + i] = b * cosines[i] + a * sines[i];
    }
}

/* gate = silu(gate) * up. The elements left over go the way of all others. */
GLM_INLINE void row_silu_mul(float *gate, const float *up, int64_t n) {
    int64_t i = 0;
    for (; i + VF_LANES <= n; i += VF_LANES) vf_store(gate + i, vf_silu(vf_load(gate + i)) * vf_load(up + i));
    if (i < n) vf_store_first(gate + i, vf_silu(vf_load_first(gate + i, n - i)) * vf_load_first(up + i, n - i), n - i);
}

/* Store n floats as elements of a type, `index` elements behind `to`. */
GLM_INLINE void row_store(void *to, int64_t index, const float *x, int64_t n, int dtype) {
    if (dtype == GLM_F32) {
        memcpy((float *)to + index, x, (size_t)n * sizeof(float));
        return;
    }
    uint16_t *out = (uint16_t *)to + index;
    int64_t i = 0;
    for (; i + VF_LANES <= n; i += VF_LANES) vf_store_bf16(out + i, vf_load(x + i));
    for (; i < n; i++) out[i] = bf16_from_f32(x[i]);
}

GLM_INLINE void row_load(float *to, const void *from, int64_t index, int64_t n, int dtype) {
    if (dtype == GLM_F32) {
        memcpy(to, (const float *)from + index, (size_t)n * sizeof(float));
        return;
    }
    const uint16_t *in = (const uint16_t *)from + index;
    int64_t i = 0;
    for (; i + VF_LANES <= n; i += VF_LANES) vf_store(to + i, vf_load_bf16(in + i));
    for (; i < n; i++) to[i] = f32_from_bf16(in[i]);
}

#endif
