/* Logits to token ids: greedy, or temperature, then min_p, top_k and top_p, then one draw. Compiled with GLM_ISA. */
#ifndef GLM_SAMPLE_H
#define GLM_SAMPLE_H

#include "simd.h"
#include "team.h"

/* What is asked of a row. */
typedef struct {
    double temperature; /* 0: greedy, and nothing else counts */
    double min_p;       /* 0: off */
    double top_k;       /* a whole number; 0: off */
    double top_p;       /* 1: off */
    double uniform;     /* random, in [0, 1) */
} glm_sample_rules;

typedef struct {
    const float *logits; /* (rows, vocab), rows lie `stride` floats apart */
    const glm_sample_rules *rules;
    int64_t *token_ids; /* one a row; -1 where the largest logit is not a finite number */
    int64_t num_rows, vocab, stride;
} glm_sample_args;

void GLM_FN(sample_part)(glm_team *team, int thread, int num_threads, const glm_sample_args *args);

#endif
