/* Causal grouped-query attention over a paged KV cache, in place: decode steps and prefill chunks in one call. */
#ifndef GLM_ATTENTION_H
#define GLM_ATTENTION_H

#include "simd.h"
#include "team.h"

/* T tokens of the step, B sequences, H query heads, V KV heads (H is a multiple), D head dim, P blocks, S slots of one.
 *
 * Sequence b has the tokens cu_query_lens[b] .. cu_query_lens[b + 1] - 1, the last of its context_lens[b] positions,
 * whose keys and values the cache holds. A sequence without tokens, or with context 0, is passed over. */
typedef struct {
    const float *q; /* (T, H, D), a token's heads contiguous */
    int64_t q_stride; /* floats from one token to the next */
    const void *k_cache, *v_cache; /* (P, S, V, D) of kv_dtype, contiguous */
    const int32_t *cu_query_lens; /* B + 1 */
    const int32_t *context_lens; /* B */
    const int32_t *block_tables; /* B rows; read only as far as the context reaches */
    int64_t table_stride;
    float *out; /* (T, H * D) */
    int64_t out_stride;
    void *scratch; /* shared by the threads, aligned to 64 bytes; contents do not matter */
    int64_t scratch_bytes; /* at least what attention_scratch says; with less, work is split more coarsely */
    int32_t num_seqs, num_heads, num_kv_heads, head_dim, block_size, kv_dtype;
    float scale; /* of the scores */
} glm_attention_args;

/* Return the bytes of shared scratch with which num_threads threads split long contexts; 0 is fine. */
int64_t GLM_FN(attention_scratch)(const glm_attention_args *args, int num_threads);

/* One thread's part of a region; no barrier at its end, and one inside where contexts are split. */
void GLM_FN(attention_part)(glm_team *team, int thread, int num_threads, const glm_attention_args *args);

#endif
