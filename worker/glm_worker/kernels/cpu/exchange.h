/* Sums and joins over ranks that share memory: no socket, and no call of the kernel unless a rank comes late.
 *
 * Each rank writes what it has into a place of its own, says so, and reads all places: sums are added up in the order of
 * ranks, so all get the same bits. A rank has two places, used in turns: when it writes into one again, everybody has
 * said that they are past the exchange before the last. Who has died is noticed by its pidfd; who hangs is waited for.
 */
#ifndef GLM_EXCHANGE_H
#define GLM_EXCHANGE_H

#include <stdint.h>

typedef struct glm_exchange glm_exchange;

/* Return the bytes that ranks share, zero at first, for num_floats of each at a time. */
int64_t glm_exchange_bytes(int num_ranks, int64_t num_floats);

/* Return a rank's end of it, or NULL where memory lacks. pidfds: of each rank, its own is not looked at. */
glm_exchange *glm_exchange_new(void *shared, int num_ranks, int rank, int64_t num_floats, const int *pidfds);
void glm_exchange_free(glm_exchange *exchange);

/* Both are called by every rank with the same sizes, and return 0; 1 + a rank that died; or -1 - one that gave another
 * size. After that the ranks are not together any more, and must end. */

/* Sum num floats over all ranks, in place. */
int glm_exchange_sum(glm_exchange *exchange, float *x, int64_t num);

/* Join x (rows, cols) of all ranks, in their order, along cols: out is (rows, num_ranks * cols). */
int glm_exchange_join(glm_exchange *exchange, const float *x, int64_t rows, int64_t cols, float *out);

#endif
