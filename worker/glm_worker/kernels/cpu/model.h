/* A glm4_moe decoder, or a rank's part of it: weights, the buffers of a step, and stages that one region runs.
 *
 * Dimensions: T tokens of the step, B sequences, S rows whose logits are wanted, D hidden size, H query heads and V KV
 * heads here, C head dim, R rotated dims of a head, I width of the dense layers, E experts, K of them a token.
 * Weights are of w_dtype; norms, biases and the router are fp32, as is everything between the parts.
 */
#ifndef GLM_MODEL_H
#define GLM_MODEL_H

#include <stdint.h>

typedef struct {
    const float *attention_norm, *mlp_norm; /* D */
    const void *qkv;                        /* ((H + 2V) * C, D): rows of q, of k, of v */
    const float *qkv_bias;                  /* or NULL */
    const float *q_norm, *k_norm;           /* C, or NULL */
    const void *o;                          /* (D, H * C) */
    const void *gate_up, *down;             /* (2I, D) and (D, I): the dense MLP's or the shared expert's, or NULL */
    int64_t width;                          /* I of those */
    const float *router, *correction_bias;  /* (E, D) and E; NULL: a dense layer */
    const void *expert_gate_up, *expert_down;
    void *k_cache, *v_cache; /* (blocks, block_size, V, C) of kv_dtype */
} glm_layer;

typedef struct {
    const glm_layer *layers;
    const void *embedding; /* (vocabulary, D) */
    const float *norm;
    const void *head;              /* (vocab_rows, D) */
    const float *cosines, *sines;  /* (positions, R / 2) */
    int64_t num_layers, hidden, num_heads, num_kv_heads, head_dim, half_rotary, block_size, vocab_rows;
    int64_t num_experts, num_chosen, first_expert, num_local, expert_width;
    float eps, routed_scale;
    int32_t is_normalized, w_dtype, kv_dtype;
} glm_model;

typedef struct {
    const int64_t *token_ids, *positions, *slots; /* T */
    const int64_t *logit_rows;                    /* S, of T */
    const int32_t *cu_query_lens, *context_lens, *block_tables;
    int64_t num_tokens, num_seqs, num_rows, table_stride;
    float *x;              /* (T, D): the residual stream */
    float *normed;         /* (T, D) */
    float *qkv;            /* (T, (H + 2V) * C) */
    float *attended;       /* (T, H * C) */
    float *delta;          /* (T, D): what the last stage adds to x; ranks add theirs up between two stages */
    float *gate_up;        /* (T, 2I) of the widest dense layer */
    int32_t *expert_ids;   /* (T, K) */
    float *expert_weights; /* (T, K) */
    float *scores;         /* (T, E) */
    float *rows;           /* (S, D) */
    float *logits;         /* (S, vocab_rows) */
    void *attention_scratch, *experts_scratch;
    int64_t attention_scratch_bytes;
    int64_t *expert_tokens; /* E: counts that the step adds to, or NULL */
} glm_step;

#endif
