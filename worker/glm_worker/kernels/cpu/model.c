/* Decoder layers as parts of one region. See model.h for the dimensions. */
#include "model.h"

#include "attention.h"
#include "experts.h"
#include "linear.h"
#include "rows.h"

void GLM_FN(attention_part)(glm_team *team, int thread, int num_threads, const glm_attention_args *args);
int64_t GLM_FN(attention_scratch)(const glm_attention_args *args, int num_threads);
void GLM_FN(router_part)(glm_team *team, int thread, int num_threads, const glm_router_args *args);
void GLM_FN(experts_part)(glm_team *team, int thread, int num_threads, const glm_experts_args *args);
int64_t GLM_FN(glm_experts_scratch)(const glm_experts_args *args);

enum { ROWS_AT_ONCE = 4 };

typedef struct {
    const glm_model *model;
    const glm_step *step;
    int64_t first, end;
} run_args;

/* x = the tokens' vectors. */
static void embed_part(glm_team *team, const glm_model *m, const glm_step *s) {
    for (int64_t row; (row = glm_next(team, GLM_NEXT_ROWS)) < s->num_tokens;)
        row_load(s->x + row * m->hidden, m->embedding, s->token_ids[row] * m->hidden, m->hidden, m->w_dtype);
}

/* x += delta where there is one, normed = norm(x). */
static void norm_part(glm_team *team, const glm_model *m, const glm_step *s, const float *weight, int has_delta) {
    const int64_t n = m->hidden;
    for (int64_t chunk; (chunk = ROWS_AT_ONCE * glm_next(team, GLM_NEXT_ROWS)) < s->num_tokens;)
        for (int64_t row = chunk; row < glm_min(chunk + ROWS_AT_ONCE, s->num_tokens); row++) {
            if (has_delta) row_add(s->x + row * n, s->delta + row * n, n);
            row_norm(s->normed + row * n, s->x + row * n, weight, n, m->eps);
        }
}

/* Finish a head of a token: norm and rotation of q and k, and k and v go into the cache. */
static void finish_head(const glm_model *m, const glm_step *s, const glm_layer *layer, int64_t row, int64_t head,
                        float *x) {
    const int is_q = head < m->num_heads, is_k = !is_q && head < m->num_heads + m->num_kv_heads;
    if (is_q || is_k) {
        const float *weight = is_q ? layer->q_norm : layer->k_norm;
        const int64_t at = s->positions[row] * m->half_rotary;
        if (weight) row_norm(x, x, weight, m->head_dim, m->eps);
        row_rotate(x, m->cosines + at, m->sines + at, m->half_rotary);
    }
    if (is_q) return;
    const int64_t kv_head = head - m->num_heads - (is_k ? 0 : m->num_kv_heads);
    const int64_t index = (s->slots[row] * m->num_kv_heads + kv_head) * m->head_dim;
    row_store(is_k ? layer->k_cache : layer->v_cache, index, x, m->head_dim, m->kv_dtype);
}

static void qkv_part(glm_team *team, int thread, const glm_model *m, const glm_step *s, const glm_layer *layer) {
    const int64_t heads = m->num_heads + 2 * m->num_kv_heads;
    const glm_linear_args args = {.x = s->normed,
                                  .w = layer->qkv,
                                  .bias = layer->qkv_bias,
                                  .y = s->qkv,
                                  .m = s->num_tokens,
                                  .n = heads * m->head_dim,
                                  .k = m->hidden,
                                  .x_stride = m->hidden,
                                  .y_stride = heads * m->head_dim,
                                  .w_dtype = m->w_dtype};
    enum { ROWS = 64 };
    const int64_t row_chunks = glm_div_up(s->num_tokens, ROWS);
    for (int64_t chunk = glm_next(team, GLM_NEXT_LINEAR), next; chunk < row_chunks * heads; chunk = next) {
        next = glm_next(team, GLM_NEXT_LINEAR);
        const int64_t begin = chunk % row_chunks * ROWS, end = glm_min(begin + ROWS, s->num_tokens);
        const int64_t head = chunk / row_chunks, column = head * m->head_dim;
        GLM_FN(linear_tile)(team, thread, &args, begin, end, column, column + m->head_dim,
                            next / row_chunks * m->head_dim);
        for (int64_t row = begin; row < end; row++)
            finish_head(m, s, layer, row, head, s->qkv + row * args.y_stride + column);
    }
}

static glm_attention_args attention_of(const glm_model *m, const glm_step *s, const glm_layer *layer) {
    return (glm_attention_args){.q = s->qkv,
                                .q_stride = (m->num_heads + 2 * m->num_kv_heads) * m->head_dim,
                                .k_cache = layer->k_cache,
                                .v_cache = layer->v_cache,
                                .cu_query_lens = s->cu_query_lens,
                                .context_lens = s->context_lens,
                                .block_tables = s->block_tables,
                                .table_stride = s->table_stride,
                                .out = s->attended,
                                .out_stride = m->num_heads * m->head_dim,
                                .scratch = s->attention_scratch,
                                .scratch_bytes = s->attention_scratch_bytes,
                                .num_seqs = (int32_t)s->num_seqs,
                                .num_heads = (int32_t)m->num_heads,
                                .num_kv_heads = (int32_t)m->num_kv_heads,
                                .head_dim = (int32_t)m->head_dim,
                                .block_size = (int32_t)m->block_size,
                                .kv_dtype = m->kv_dtype,
                                .scale = 1.0f / __builtin_sqrtf((float)m->head_dim)};
}

static void attention_stage(glm_team *team, int thread, int n, const glm_model *m, const glm_step *s, int64_t index) {
    const glm_layer *layer = &m->layers[index];
    if (!index) {
        embed_part(team, m, s);
        glm_barrier(team, thread);
    }
    norm_part(team, m, s, layer->attention_norm, index > 0);
    glm_barrier(team, thread);
    qkv_part(team, thread, m, s, layer);
    glm_barrier(team, thread);
    const glm_attention_args attention = attention_of(m, s, layer);
    GLM_FN(attention_part)(team, thread, n, &attention);
    glm_barrier(team, thread);
    const int64_t inside = m->num_heads * m->head_dim;
    const glm_linear_args o = {.x = s->attended,
                               .w = layer->o,
                               .y = s->delta,
                               .m = s->num_tokens,
                               .n = m->hidden,
                               .k = inside,
                               .x_stride = inside,
                               .y_stride = m->hidden,
                               .w_dtype = m->w_dtype,
                               .counter = GLM_NEXT_LINEAR};
    GLM_FN(linear_part)(team, thread, n, &o);
    glm_barrier(team, thread);
}

/* The gate's columns and the same of up by one thread, which then has what silu(gate) * up needs. */
static void gate_up_part(glm_team *team, int thread, int n, const glm_model *m, const glm_step *s,
                         const glm_layer *layer) {
    const int64_t width = layer->width;
    glm_linear_args args = {.x = s->normed,
                                  .w = layer->gate_up,
                                  .y = s->gate_up,
                                  .m = s->num_tokens,
                                  .n = width,
                                  .k = m->hidden,
                                  .x_stride = m->hidden,
                                  .y_stride = 2 * width,
                                  .w_dtype = m->w_dtype};
    int64_t rows, columns;
    GLM_FN(linear_chunk)(&args, n, &rows, &columns);
    args.n = 2 * width;
    const int64_t row_chunks = glm_div_up(args.m, rows), chunks = row_chunks * glm_div_up(width, columns);
    for (int64_t chunk = glm_next(team, GLM_NEXT_LINEAR), next; chunk < chunks; chunk = next) {
        next = glm_next(team, GLM_NEXT_LINEAR);
        const int64_t begin = chunk % row_chunks * rows, end = glm_min(begin + rows, args.m);
        const int64_t from = chunk / row_chunks * columns, to = glm_min(from + columns, width);
        GLM_FN(linear_tile)(team, thread, &args, begin, end, from, to, width + from);
        GLM_FN(linear_tile)(team, thread, &args, begin, end, width + from, width + to,
                            next < chunks ? next / row_chunks * columns : args.n);
        for (int64_t row = begin; row < end; row++) {
            float *gate = s->gate_up + row * args.y_stride + from;
            row_silu_mul(gate, gate + width, to - from);
        }
    }
}

static void dense_parts(glm_team *team, int thread, int n, const glm_model *m, const glm_step *s,
                        const glm_layer *layer) {
    gate_up_part(team, thread, n, m, s, layer);
    glm_barrier(team, thread);
    const glm_linear_args down = {.x = s->gate_up,
                                  .w = layer->down,
                                  .y = s->delta,
                                  .m = s->num_tokens,
                                  .n = m->hidden,
                                  .k = layer->width,
                                  .x_stride = 2 * layer->width,
                                  .y_stride = m->hidden,
                                  .w_dtype = m->w_dtype,
                                  .counter = GLM_NEXT_LINEAR};
    GLM_FN(linear_part)(team, thread, n, &down);
}

static glm_experts_args experts_of(const glm_model *m, const glm_step *s, const glm_layer *layer) {
    return (glm_experts_args){.x = s->normed,
                              .x_stride = m->hidden,
                              .expert_ids = s->expert_ids,
                              .weights = s->expert_weights,
                              .num_tokens = s->num_tokens,
                              .hidden = m->hidden,
                              .num_chosen = m->num_chosen,
                              .first_expert = m->first_expert,
                              .num_local = m->num_local,
                              .width = m->expert_width,
                              .gate_up = layer->expert_gate_up,
                              .down = layer->expert_down,
                              .shared_gate_up = layer->gate_up,
                              .shared_down = layer->down,
                              .shared_width = layer->gate_up ? layer->width : 0,
                              .y = s->delta,
                              .y_stride = m->hidden,
                              .scratch = s->experts_scratch,
                              .w_dtype = m->w_dtype};
}

static void experts_parts(glm_team *team, int thread, int n, const glm_model *m, const glm_step *s,
                          const glm_layer *layer) {
    const glm_router_args router = {.x = s->normed,
                                    .x_stride = m->hidden,
                                    .weight = layer->router,
                                    .bias = layer->correction_bias,
                                    .num_tokens = s->num_tokens,
                                    .hidden = m->hidden,
                                    .num_experts = m->num_experts,
                                    .num_chosen = m->num_chosen,
                                    .expert_ids = s->expert_ids,
                                    .weights = s->expert_weights,
                                    .scores = s->scores,
                                    .is_normalized = m->is_normalized,
                                    .scale = m->routed_scale};
    GLM_FN(router_part)(team, thread, n, &router);
    glm_barrier(team, thread);
    if (!thread && s->expert_tokens)
        for (int64_t i = 0; i < s->num_tokens * m->num_chosen; i++) s->expert_tokens[s->expert_ids[i]]++;
    const glm_experts_args experts = experts_of(m, s, layer);
    GLM_FN(experts_part)(team, thread, n, &experts);
}

static void mlp_stage(glm_team *team, int thread, int n, const glm_model *m, const glm_step *s, int64_t index) {
    const glm_layer *layer = &m->layers[index];
    norm_part(team, m, s, layer->mlp_norm, 1);
    glm_barrier(team, thread);
    (layer->router ? experts_parts : dense_parts)(team, thread, n, m, s, layer);
    glm_barrier(team, thread);
}

static void head_stage(glm_team *team, int thread, int n, const glm_model *m, const glm_step *s) {
    for (int64_t i; (i = glm_next(team, GLM_NEXT_ROWS)) < s->num_rows;) {
        const int64_t from = s->logit_rows[i] * m->hidden;
        float *row = s->rows + i * m->hidden;
        memcpy(row, s->x + from, (size_t)m->hidden * sizeof *row);
        row_add(row, s->delta + from, m->hidden);
        row_norm(row, row, m->norm, m->hidden, m->eps);
    }
    glm_barrier(team, thread);
    const glm_linear_args head = {.x = s->rows,
                                  .w = m->head,
                                  .y = s->logits,
                                  .m = s->num_rows,
                                  .n = m->vocab_rows,
                                  .k = m->hidden,
                                  .x_stride = m->hidden,
                                  .y_stride = m->vocab_rows,
                                  .w_dtype = m->w_dtype,
                                  .counter = GLM_NEXT_LINEAR};
    GLM_FN(linear_part)(team, thread, n, &head);
}

/* Stage 2i is the attention of layer i, 2i + 1 its MLP, and the one behind the last the head. */
static void run(glm_team *team, int thread, int n, void *args) {
    const run_args *given = args;
    for (int64_t stage = given->first; stage < given->end; stage++) {
        if (stage == 2 * given->model->num_layers)
            head_stage(team, thread, n, given->model, given->step);
        else
            (stage % 2 ? mlp_stage : attention_stage)(team, thread, n, given->model, given->step, stage / 2);
    }
}

/* Run stages first .. end - 1 in one region. */
GLM_EXPORT void GLM_FN(glm_model_run)(glm_team *team, const glm_model *model, const glm_step *step, int64_t first,
                                      int64_t end) {
    run_args args = {model, step, first, end};
    glm_team_run(team, run, &args);
}

/* What the shared scratches of a step must have: bytes of attention's and of experts'. */
GLM_EXPORT void GLM_FN(glm_model_scratch)(const glm_model *model, const glm_step *step, int num_threads,
                                          int64_t bytes[2]) {
    bytes[0] = bytes[1] = 0;
    for (int64_t i = 0; i < model->num_layers; i++) {
        const glm_attention_args attention = attention_of(model, step, &model->layers[i]);
        if (!i) bytes[0] = GLM_FN(attention_scratch)(&attention, num_threads);
        if (!model->layers[i].router) continue;
        const glm_experts_args experts = experts_of(model, step, &model->layers[i]);
        bytes[1] = glm_max(bytes[1], GLM_FN(glm_experts_scratch)(&experts));
    }
}
