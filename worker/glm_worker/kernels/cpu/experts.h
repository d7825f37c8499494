/* The router and the feed-forward of routed experts: arguments of experts.c.
 *
 * Dimensions: T tokens, D hidden size, E experts of the model, K experts a token, L experts here, I width of an expert.
 */
#ifndef GLM_EXPERTS_H
#define GLM_EXPERTS_H

#include <stdint.h>

#include "team.h"

typedef struct {
    const float *x; /* (T, D), rows x_stride floats apart */
    int64_t x_stride;
    const float *weight; /* (E, D) */
    const float *bias;   /* (E): takes part in the choice only */
    int64_t num_tokens, hidden, num_experts, num_chosen;
    int32_t *expert_ids; /* (T, K), ascending */
    float *weights;      /* (T, K) */
    float *scores;       /* (T, E): room to work in */
    int32_t is_normalized;
    float scale;
} glm_router_args;

typedef struct {
    const float *x; /* (T, D), rows x_stride floats apart */
    int64_t x_stride;
    const int32_t *expert_ids; /* (T, K); those outside [first_expert, first_expert + L) are of other ranks */
    const float *weights;      /* (T, K) */
    int64_t num_tokens, hidden, num_chosen, first_expert, num_local, width;
    const void *gate_up;        /* (L, 2I, D): gate's rows first */
    const void *down;           /* (L, D, I) */
    const void *shared_gate_up; /* (2Is, D), or NULL: another rank's */
    const void *shared_down;    /* (D, Is) */
    int64_t shared_width;
    float *y; /* (T, D), rows y_stride floats apart: written, not added to */
    int64_t y_stride;
    void *scratch; /* glm_experts_scratch(args) bytes, aligned to 64 */
    int32_t w_dtype;
} glm_experts_args;

#endif
