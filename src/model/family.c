/* family.c: the architectures that are supported, as data: module names, what is fixed, what is transformers' default.
 *
 * Names and defaults are those of transformers 5 (models/<family>/configuration_*.py, modeling_*.py).
 * Pinned by tests/golden/test_families.c.
 */
#include "model/model.h"

#define ATTENTION "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"
#define GATED_MLP "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"
#define CLASSES(stem) .causal = stem "ForCausalLM", .classifier = stem "ForSequenceClassification"
#define LLAMA_LAYOUT                                                                                           \
    .linear = {ATTENTION, "self_attn.o_proj", GATED_MLP}, .final_norm = "model.norm", .act_key = "hidden_act", \
    .act = "silu"
#define WINDOWED "sliding_window", "layer_types"

static const tm__family families[] = {
    {
        CLASSES("Llama"),
        .model_type = "llama",
        LLAMA_LAYOUT,
        .norm = {[TM__NORM_INPUT] = "input_layernorm", [TM__NORM_MLP] = "post_attention_layernorm"},
        .reads = {"attention_bias", "mlp_bias"},
        .qkv_bias = TM__BIAS_KEY,
        .o_bias = TM__BIAS_KEY,
        .mlp_bias = TM__BIAS_KEY,
        .max_positions = 2048,
    },
    {
        CLASSES("Mistral"),
        .model_type = "mistral",
        LLAMA_LAYOUT,
        .norm = {[TM__NORM_INPUT] = "input_layernorm", [TM__NORM_MLP] = "post_attention_layernorm"},
        .reads = {WINDOWED},
        .windows = TM__WINDOW_ALL,
        .kv_heads = 8,
        .max_positions = 131072,
    },
    {
        CLASSES("Qwen2"),
        .model_type = "qwen2",
        LLAMA_LAYOUT,
        .norm = {[TM__NORM_INPUT] = "input_layernorm", [TM__NORM_MLP] = "post_attention_layernorm"},
        .reads = {WINDOWED, "use_sliding_window", "attention_bias"},
        .qkv_bias = TM__BIAS_ALWAYS,
        .windows = TM__WINDOW_LAST,
        .kv_heads = 32,
        .max_positions = 32768,
    },
    {
        CLASSES("Qwen3"),
        .model_type = "qwen3",
        LLAMA_LAYOUT,
        .norm = {[TM__NORM_INPUT] = "input_layernorm",
                 [TM__NORM_MLP] = "post_attention_layernorm",
                 [TM__NORM_Q] = "self_attn.q_norm",
                 [TM__NORM_K] = "self_attn.k_norm"},
        .reads = {WINDOWED, "use_sliding_window", "attention_bias"},
        .qkv_bias = TM__BIAS_KEY,
        .o_bias = TM__BIAS_KEY,
        .windows = TM__WINDOW_LAST,
        .kv_heads = 32,
        .head_dim = 128,
        .max_positions = 32768,
    },
    {
        CLASSES("Gemma"),
        .model_type = "gemma",
        .linear = {ATTENTION, "self_attn.o_proj", GATED_MLP},
        .norm = {[TM__NORM_INPUT] = "input_layernorm", [TM__NORM_MLP] = "post_attention_layernorm"},
        .final_norm = "model.norm",
        .act_key = "hidden_act",
        .act = "gelu_pytorch_tanh",
        .gelu_is_tanh = true,
        .reads = {"attention_bias"},
        .qkv_bias = TM__BIAS_KEY,
        .o_bias = TM__BIAS_KEY,
        .tied = true,
        .scales_embedding = true,
        .norm_shift = 1,
        .kv_heads = 16,
        .head_dim = 256,
        .max_positions = 8192,
    },
    {
        CLASSES("Gemma2"),
        .model_type = "gemma2",
        .linear = {ATTENTION, "self_attn.o_proj", GATED_MLP},
        .norm = {[TM__NORM_INPUT] = "input_layernorm",
                 [TM__NORM_ATTENTION_POST] = "post_attention_layernorm",
                 [TM__NORM_MLP] = "pre_feedforward_layernorm",
                 [TM__NORM_MLP_POST] = "post_feedforward_layernorm"},
        .final_norm = "model.norm",
        .act_key = "hidden_activation",
        .act = "gelu_pytorch_tanh",
        .reads = {WINDOWED, "attention_bias", "attn_logit_softcapping", "final_logit_softcapping",
                  "query_pre_attn_scalar"},
        .qkv_bias = TM__BIAS_KEY,
        .o_bias = TM__BIAS_KEY,
        .windows = TM__WINDOW_ALTERNATE,
        .tied = true,
        .scales_embedding = true,
        .caps = true,
        .norm_shift = 1,
        .kv_heads = 4,
        .head_dim = 256,
        .max_positions = 8192,
    },
    {
        CLASSES("Phi"),
        .model_type = "phi",
        .linear = {ATTENTION, "self_attn.dense", NULL, "mlp.fc1", "mlp.fc2"},
        .norm = {[TM__NORM_INPUT] = "input_layernorm",
                 [TM__NORM_Q] = "self_attn.q_layernorm",
                 [TM__NORM_K] = "self_attn.k_layernorm"},
        .final_norm = "model.final_layernorm",
        .act_key = "hidden_act",
        .act = "gelu_new",
        .reads = {"partial_rotary_factor", "qk_layernorm", "resid_pdrop", "embd_pdrop"},
        .qkv_bias = TM__BIAS_ALWAYS,
        .o_bias = TM__BIAS_ALWAYS,
        .mlp_bias = TM__BIAS_ALWAYS,
        .layer_norm = true,
        .parallel = true,
        .qk_norm_key = true,
        .head_bias = true,
        .rotary_share = 0.5,
        .max_positions = 2048,
    },
};

const tm__family *tm__family_find(const char *architecture, const char *model_type) {
    for (size_t i = 0; i < TM__COUNT(families); i++) {
        const tm__family *f = &families[i];
        if (architecture ? strcmp(architecture, f->causal) == 0 || strcmp(architecture, f->classifier) == 0
                         : strcmp(model_type, f->model_type) == 0)
            return f;
    }
    return NULL;
}

const tm__family *tm__family_at(size_t index) {
    return index < TM__COUNT(families) ? &families[index] : NULL;
}

const char *tm__family_list(void) {
    return "supported: ForCausalLM and ForSequenceClassification of Llama, Mistral, Qwen2, Qwen3, Gemma, Gemma2, Phi";
}

static const size_t linears[TM__LINEARS] = {
    offsetof(tm__block, q),    offsetof(tm__block, k),  offsetof(tm__block, v),    offsetof(tm__block, o),
    offsetof(tm__block, gate), offsetof(tm__block, up), offsetof(tm__block, down),
};

tm__linear *tm__block_linear(tm__block *block, int index) {
    assert(index >= 0 && index < TM__LINEARS);
    return (tm__linear *)((char *)block + linears[index]);
}

bool tm__linear_exists(const tm__linear *linear) {
    return linear->weight.name != NULL;
}

const char *tm__linear_name(const tm__family *family, int index) {
    assert(index >= 0 && index < TM__LINEARS);
    const char *path = family->linear[index];
    return path ? strchr(path, '.') + 1 : NULL;
}
