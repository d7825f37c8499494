/* y = x W^T + bias, as a part of a region and as a piece of other parts. Compiled with GLM_ISA. */
#ifndef GLM_LINEAR_H
#define GLM_LINEAR_H

#include "simd.h"
#include "team.h"

/* (M, K) times (N, K) transposed. Rows of x and y lie x_stride and y_stride floats apart; W is packed. */
typedef struct {
    const float *x;
    const void *w; /* of w_dtype */
    const float *bias; /* N, or NULL */
    float *y;
    const int64_t *rows; /* M: which row of x each row of y is made of; NULL: the same one */
    int64_t m, n, k;
    int64_t x_stride, y_stride;
    int32_t w_dtype;
    int32_t counter; /* GLM_NEXT_* whose chunks are claimed */
} glm_linear_args;

/* Compute rows m0..m1 and columns n0..n1 on this thread. next: the column whose weights it reads after these, which are
 * fetched in time; one past the last: none is known. */
void GLM_FN(linear_tile)(glm_team *team, int thread, const glm_linear_args *args, int64_t m0, int64_t m1, int64_t n0,
                             int64_t n1, int64_t next);

/* Rows and columns of a chunk that one thread claims: enough chunks for all threads, few enough to cost nothing. */
void GLM_FN(linear_chunk)(const glm_linear_args *args, int num_threads, int64_t *rows, int64_t *columns);

void GLM_FN(linear_part)(glm_team *team, int thread, int num_threads, const glm_linear_args *args);

#endif
