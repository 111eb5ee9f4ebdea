/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/config_blocks.h"

#include <math.h>
#include <string.h>

void bq_config_experts(bq_json *j, const bq_family *f, bq_model *m) {
    const json_t *list = json_object_get(j->object, "mlp_only_layers");
    if (!m->chosen) return; /* a family without experts */
    if (!m->experts) bq_json_refuse(j, "num_experts", "is missing");
    if (m->chosen > m->experts)
        bq_json_refuse(j, "num_experts_per_tok", "%d of %d experts", m->chosen, m->experts);
    if (!m->route_groups) m->route_groups = m->route_kept = 1;
    if (m->experts % m->route_groups || m->route_kept > m->route_groups)
        bq_json_refuse(j, "n_group", "%d groups of %d experts, %d of them kept", m->route_groups, m->experts,
                       m->route_kept);
    m->route_sigmoid = f->traits & BQ_FAMILY_ROUTE_SIGMOID;
    m->route_normalize |= (f->traits & BQ_FAMILY_ROUTE_NORMALIZE) != 0;
    if (m->shared_experts) m->shared_inter = m->shared_experts * m->expert_inter;
    for (int b = 0; b < m->blocks && !j->status; b++)
        m->dense[b] = b < m->first_experts || (m->experts_step > 1 && (b + 1) % m->experts_step);
    for (size_t i = 0; i < json_array_size(list) && !j->status; i++) {
        json_int_t b = json_integer_value(json_array_get(list, i));
        if (b >= 0 && b < m->blocks) m->dense[b] = true;
    }
    bool some = false;
    for (int b = 0; b < m->blocks; b++) some |= !m->dense[b];
    if (!some) memset(m->dense, 0, sizeof m->dense), m->experts = 0;
}

void bq_config_windows(bq_json *j, const bq_family *f, bq_model *m) {
    static const char *const name[] = {"sliding_attention", "full_attention"};
    const json_t *list = json_object_get(j->object, "layer_types");
    if (json_is_null(json_object_get(j->object, "sliding_window"))) m->window = 0; /* not the default */
    if (f->window == BQ_WINDOW_ALL) return;
    if (f->window == BQ_WINDOW_FROM && !m->windowed) m->window = 0;
    bool given = bq_json_has(j, "layer_types");
    if (given && json_array_size(list) != (size_t)m->blocks)
        bq_json_refuse(j, "layer_types", "%zu entries, the model has %d layers", json_array_size(list),
                       m->blocks);
    for (int b = 0; b < m->blocks && !j->status; b++) {
        const char *type = given ? json_string_value(json_array_get(list, (size_t)b)) : "";
        bool full = given                         ? type && !strcmp(type, name[1])
                    : f->window == BQ_WINDOW_FROM ? b < m->window_from
                                                  : (b + 1) % m->window_period == 0;
        m->full[b] = full && m->window;
        if (given && (!type || (strcmp(type, name[0]) && strcmp(type, name[1]))))
            bq_json_refuse(j, "layer_types", "'%.60s' is not supported for %s", type ? type : "", f->type);
    }
}

void bq_config_latent(bq_json *j, bq_model *m) {
    if (!m->kv_rank || j->status) return;
    if (json_is_null(json_object_get(j->object, "q_lora_rank"))) m->q_rank = 0; /* not the default */
    m->kv_heads = m->heads;
    m->head_dim = m->nope_dim + m->rope_dim; /* whatever the file says */
    if (m->heads * (m->nope_dim + m->value_dim) > BQ_SIZE_MAX)
        bq_json_refuse(j, "v_head_dim", "%lld heads of %lld + %lld channels: out of range",
                       (long long)m->heads, (long long)m->nope_dim, (long long)m->value_dim);
}

double bq_config_yarn_scale(double factor, double m) { return factor > 1 ? 0.1 * m * log(factor) + 1 : 1; }

void bq_config_latent_scores(bq_model *m) {
    if (!m->kv_rank || m->rope.kind != BQ_ROPE_YARN || !m->rope.mscale_all) return;
    double scale = bq_config_yarn_scale(m->rope.factor, m->rope.mscale_all);
    m->query_scalar = (double)m->head_dim / pow(scale, 4);
}
