/* adapter.h: what an adapter_config.json of PEFT asks for, as far as this program does it (adapter_config.c). */
#ifndef TM_MODEL_ADAPTER_H
#define TM_MODEL_ADAPTER_H

#include "model/weights.h"

typedef struct tm__adapter_rules tm__adapter_rules;

/* `config` must outlive the rules. What is not supported is refused by its key; `file` names the text in errors. */
tm_status tm__adapter_rules_make(const struct json_t *config, const char *file, tm__adapter_rules **rules);
void tm__adapter_rules_free(tm__adapter_rules *rules);

typedef struct tm__adapter_shape {
    int64_t rank;
    double alpha, scale, dropout;
} tm__adapter_shape;
/* Whether the adapter has a part in the linear layer of this path ("model.layers.3.self_attn.q_proj"), and which. */
tm_status tm__adapter_rules_part(const tm__adapter_rules *rules, const char *path, bool *wanted,
                                 tm__adapter_shape *shape);
/* Whether the adapter brings its own values of a parameter: modules_to_save names its module or one around it. */
bool tm__adapter_rules_saves(const tm__adapter_rules *rules, const char *parameter);
/* ensure_weight_tying */
bool tm__adapter_rules_tie(const tm__adapter_rules *rules);

/* ---- replaced parameters (adapter_replace.c) ---- */

/* Puts values that adapter `number` brings in the place of a parameter's own, which are kept until the adapter goes.
 * Takes a buffer of act type in the parameter's shape over, also on failure. TM_UNSUPPORTED: it is replaced already. */
tm_status tm__param_replace(tm_model *model, tm__param *param, void *buffer, tm_dtype stored, size_t number);
/* The replacements of adapters `from` and later end. */
void tm__replaced_restore(tm_model *model, size_t from);
/* Those of adapter `number` end; later adapters move down by one. */
void tm__replaced_remove(tm_model *model, size_t number);
/* What replaced becomes the model's own. */
void tm__replaced_keep(tm_model *model);
bool tm__param_is_replaced(const tm_model *model, const tm__param *param, size_t number);

/* ---- an adapter instead of the whole model (adapter_alone.c) ---- */

/* Whether saving the model's adapter (as fp32) keeps all that sets it apart from what was loaded: it has one, which its
 * description describes, and no weight of its own was written to. Merged on loading it gives the same bytes as the
 * model merged and saved as fp32 would. */
tm_status tm__model_adapter_alone(tm_model *model, bool *alone);
/* From now on no weight counts as changed. */
tm_status tm__model_settle(tm_model *model);
/* base_model_name_or_path of the adapter's description */
tm_status tm__model_adapter_stands_on(tm_model *model, const char *name);
/* Of the only adapter, as fp32. */
int64_t tm__model_adapter_bytes(tm_model *model);

#endif
