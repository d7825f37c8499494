/* A team of threads that stays: thread 0 is the caller, the others wait for the next region.
 *
 * A region runs one task on every thread. Inside it threads meet at barriers, where they spin for some microseconds and
 * then sleep, or sleep at once where there are more threads than CPUs. Chunks of work are claimed from counters, which
 * each barrier sets to 0. Make a team after the last fork: threads do not survive one.
 */
#ifndef GLM_TEAM_H
#define GLM_TEAM_H

#include <stddef.h>
#include <stdint.h>

typedef struct glm_team glm_team;
typedef void (*glm_task)(glm_team *, int thread, int num_threads, void *args);

/* Counters of the parts that may stand between the same two barriers. */
enum {
    GLM_NEXT_LINEAR,
    GLM_NEXT_ATTENTION,
    GLM_NEXT_ATTENTION_MERGE,
    GLM_NEXT_ROUTER,
    GLM_NEXT_EXPERTS,
    GLM_NEXT_EXPERTS_DOWN,
    GLM_NEXT_ROWS,
    GLM_NEXT_OTHER,
    GLM_NUM_COUNTERS
};

/* Return a team, or NULL where threads or memory lack. num_threads >= 1, the caller counted. */
glm_team *glm_team_new(int num_threads);
void glm_team_free(glm_team *team);
int glm_team_size(const glm_team *team);

/* Run the task on every thread of the team and return when all have ended. For one caller at a time. */
void glm_team_run(glm_team *team, glm_task task, void *args);

/* Return when all threads are here. */
void glm_barrier(glm_team *team, int thread);

/* Return 0, 1, 2, ... to whoever calls, each number once between two barriers. */
int64_t glm_next(glm_team *team, int counter);

/* Return memory of this thread, aligned to 64 bytes, valid until the thread asks for more. Contents are kept only as
 * long as nobody on this thread asks again. Ends the process where there is no memory. */
void *glm_scratch(glm_team *team, int thread, size_t bytes);

#endif
