/* adapter_config.json: which linears get a part, of which rank and scale; what is refused, by which key. */
#include "support.h"

#include "model/adapter.h"

#include <jansson.h>

/* "0q" for q_proj of layer 0 and so on, with ":rank*scale" where these are not 8 and 1. */
static void parts_of(const tm__adapter_rules *rules, char *out, size_t size) {
    static const char *const short_names[TM__LINEARS] = {"q", "k", "v", "o", "g", "u", "d"};
    const tm_model llama = {.config = {.family = tm__family_find("LlamaForCausalLM", "llama")}};
    size_t at = 0;
    out[0] = 0;
    for (int64_t layer = 0; layer < 2; layer++)
        for (int k = 0; k < TM__LINEARS; k++) {
            char *path = tm__linear_path(&llama, layer, k);
            bool wanted;
            tm__adapter_shape s;
            assert_ok(tm__adapter_rules_part(rules, path, &wanted, &s));
            free(path);
            if (!wanted) continue;
            at += (size_t)snprintf(out + at, size - at, "%s%d%s", at ? " " : "", (int)layer, short_names[k]);
            if (s.rank != 8 || s.scale != 1)
                at += (size_t)snprintf(out + at, size - at, ":%d*%g", (int)s.rank, s.scale);
        }
}

static const struct {
    const char *config; /* what follows {"peft_type": "LORA", */
    const char *parts;
} accepted[] = {
    {"'target_modules': ['q_proj', 'v_proj']}", "0q 0v 1q 1v"},
    {"'target_modules': ['self_attn.q_proj', 'proj', 'own_proj']}", "0q 1q"},
    {"'target_modules': ['model.layers.1.mlp.up_proj']}", "1u"},
    {"'target_modules': '.*\\\\.(q|v)_proj'}", "0q 0v 1q 1v"},
    {"'target_modules': 'q_proj'}", ""},
    {"'target_modules': 'ALL-linear'}", "0q 0k 0v 0o 0g 0u 0d 1q 1k 1v 1o 1g 1u 1d"},
    {"'target_modules': ['all-linear']}", ""},
    {"'target_modules': 'all-linear', 'exclude_modules': ['self_attn', 'q_proj', 'mlp.up_proj']}",
     "0k 0v 0o 0g 0d 1k 1v 1o 1g 1d"},
    {"'target_modules': 'all-linear', 'exclude_modules': '.*(self_attn|\\\\.0\\\\.).*'}", "1g 1u 1d"},
    {"'target_modules': ['q_proj', 'model.layers.0.mlp.up_proj'], 'layers_to_transform': [1]}", "0u 1q"},
    {"'target_modules': ['q_proj'], 'layers_to_transform': 0}", "0q"},
    {"'target_modules': ['q_proj'], 'layers_to_transform': [], 'layers_pattern': 'h'}", "0q 1q"},
    {"'target_modules': ['q_proj'], 'layers_to_transform': [0, 1], 'layers_pattern': ['h', 'layers']}", "0q 1q"},
    {"'target_modules': ['q_proj'], 'layers_to_transform': [0, 1], 'layers_pattern': 'h'}", ""},
    {"'target_modules': ['q_proj'], 'r': 4, 'lora_alpha': 6}", "0q:4*1.5 1q:4*1.5"},
    {"'target_modules': ['q_proj'], 'r': 4, 'lora_alpha': 6, 'use_rslora': true}", "0q:4*3 1q:4*3"},
    {"'target_modules': ['q_proj', 'v_proj'], 'rank_pattern': {'q_proj': 4, '.*': 2}}", "0q:4*2 0v:2*4 1q:4*2 1v:2*4"},
    {"'target_modules': ['q_proj'], 'rank_pattern': {'0.self_attn.q_proj': 4, 'layers': 2, '_proj': 1}}", "0q:4*2 1q"},
    {"'target_modules': ['q_proj'], 'alpha_pattern': {'^model.layers.1.self_attn.q_proj': 16}}", "0q 1q:8*2"},
    {"'target_modules': ['q_proj', 'v_proj'], 'modules_to_save': ['v_proj', 'lm_head']}", "0q 1q"},
    {"'target_modules': ['q_proj', 'up_proj'], 'modules_to_save': ['mlp', 'elf_attn']}", "0q 1q"},
    {"'target_modules': ['q_proj'], 'init_lora_weights': 'gaussian', 'loftq_config': {}, 'use_dora': false,"
     "'peft_version': '9', 'runtime': {'a': 1}, 'bias': null, 'task_type': null, 'inference_mode': false}",
     "0q 1q"},
};

static const struct {
    const char *config;
    tm_status status;
    const char *field;
} refused[] = {
    {"'target_modules': '('}", TM_FORMAT, "target_modules"},
    {"'target_modules': [1]}", TM_FORMAT, "target_modules"},
    {"'target_modules': null}", TM_FORMAT, "target_modules"},
    {"'target_modules': 'x', 'exclude_modules': '['}", TM_FORMAT, "exclude_modules"},
    {"'target_modules': 'x', 'exclude_modules': [[]]}", TM_FORMAT, "exclude_modules"},
    {"'target_modules': 'x', 'exclude_modules': 3}", TM_FORMAT, "exclude_modules"},
    {"'target_modules': 'x', 'layers_to_transform': 1}", TM_FORMAT, "layers_to_transform"},
    {"'target_modules': ['x'], 'layers_to_transform': [1.5]}", TM_FORMAT, "layers_to_transform"},
    {"'target_modules': ['x'], 'layers_to_transform': 'first'}", TM_FORMAT, "layers_to_transform"},
    {"'target_modules': ['x'], 'layers_to_transform': 1, 'layers_pattern': '('}", TM_FORMAT, "layers_pattern"},
    {"'target_modules': ['x'], 'layers_to_transform': 1, 'layers_pattern': {}}", TM_FORMAT, "layers_pattern"},
    {"'target_modules': ['x'], 'rank_pattern': []}", TM_FORMAT, "rank_pattern"},
    {"'target_modules': ['x'], 'rank_pattern': {'q_proj': 0}}", TM_FORMAT, "rank_pattern"},
    {"'target_modules': ['x'], 'rank_pattern': {'q_proj': 2.5}}", TM_FORMAT, "rank_pattern"},
    {"'target_modules': ['x'], 'rank_pattern': {'q_proj': '4'}}", TM_FORMAT, "rank_pattern"},
    {"'target_modules': ['x'], 'alpha_pattern': {'(': 4}}", TM_FORMAT, "alpha_pattern"},
    {"'target_modules': ['x'], 'modules_to_save': 'lm_head'}", TM_FORMAT, "modules_to_save"},
    {"'target_modules': ['x'], 'modules_to_save': [0]}", TM_FORMAT, "modules_to_save"},
    {"'r': 0}", TM_FORMAT, "r"},
    {"'lora_dropout': 1}", TM_FORMAT, "lora_dropout"},
    {"'lora_alpha': '16'}", TM_FORMAT, "lora_alpha"},
    {"'init_lora_weights': 3}", TM_FORMAT, "init_lora_weights"},
    {"'init_lora_weights': 'pissa_niter_4'}", TM_UNSUPPORTED, "init_lora_weights"},
    {"'init_lora_weights': 'loftq'}", TM_UNSUPPORTED, "init_lora_weights"},
    {"'init_lora_weights': 'corda'}", TM_UNSUPPORTED, "init_lora_weights"},
    {"'task_type': 'SEQ_CLS'}", TM_UNSUPPORTED, "task_type"},
    {"'bias': 'lora_only'}", TM_UNSUPPORTED, "bias"},
    {"'use_dora': true}", TM_UNSUPPORTED, "use_dora"},
    {"'use_future': true}", TM_UNSUPPORTED, "use_future"},
    {"'fan_in_fan_out': true}", TM_UNSUPPORTED, "fan_in_fan_out"},
    {"'layer_replication': [[0, 1]]}", TM_UNSUPPORTED, "layer_replication"},
    {"'trainable_token_indices': [0]}", TM_UNSUPPORTED, "trainable_token_indices"},
    {"'target_parameters': ['x']}", TM_UNSUPPORTED, "target_parameters"},
};

static json_t *parse(const char *rest) {
    struct json_t *value;
    char *text = tm__format("{'peft_type': 'LORA', %s", rest);
    for (char *at = text; *at; at++)
        if (*at == '\'') *at = '"';
    assert_ok(tm__json_parse(text, strlen(text), NULL, &value));
    free(text);
    return value;
}

static void chooses_parts(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(accepted); i++) {
        json_t *config = parse(accepted[i].config);
        tm__adapter_rules *rules = NULL;
        char parts[256];
        if (tm__adapter_rules_make(config, "f", &rules) != TM_OK)
            fail_msg("%s: %s", accepted[i].config, tm_error_last()->line);
        parts_of(rules, parts, sizeof parts);
        if (strcmp(parts, accepted[i].parts) != 0)
            fail_msg("%s: '%s' instead of '%s'", accepted[i].config, parts, accepted[i].parts);
        tm__adapter_rules_free(rules);
        json_decref(config);
    }
}

static void refuses_by_key(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(refused); i++) {
        json_t *config = parse(refused[i].config);
        tm__adapter_rules *rules = NULL;
        tm_error_clear();
        tm_status status = tm__adapter_rules_make(config, "f", &rules);
        if (status != refused[i].status || strcmp(tm_error_last()->field, refused[i].field) != 0)
            fail_msg("%s: %s (%s)", refused[i].config, tm_status_name(status), tm_error_last()->line);
        assert_string_equal(tm_error_last()->file, "f");
        json_decref(config);
    }
}

static void saves_modules_as_peft(void **state) {
    (void)state;
    json_t *config = parse("'target_modules': 'x', 'modules_to_save': ['norm', 'head', 'layers.1.mlp']}");
    tm__adapter_rules *rules;
    assert_ok(tm__adapter_rules_make(config, "f", &rules));
    assert_true(tm__adapter_rules_saves(rules, "model.norm.weight"));
    assert_true(tm__adapter_rules_saves(rules, "model.layers.0.input_layernorm.weight"));
    assert_true(tm__adapter_rules_saves(rules, "lm_head.weight"));
    assert_true(tm__adapter_rules_saves(rules, "model.layers.1.mlp.up_proj.bias"));
    assert_false(tm__adapter_rules_saves(rules, "model.layers.0.mlp.up_proj.bias"));
    assert_false(tm__adapter_rules_saves(rules, "model.embed_tokens.weight"));
    tm__adapter_rules_free(rules);
    json_decref(config);
}

static void survives_failing_allocations(void **state) {
    (void)state;
    json_t *config = parse("'target_modules': ['q_proj'], 'exclude_modules': 'x', 'rank_pattern': {'a': 1, 'b': 2},"
                           "'alpha_pattern': {'c': 1}, 'layers_to_transform': 1, 'layers_pattern': ['h', 'layers']}");
    for (long n = 1;; n++) {
        tm__adapter_rules *rules = NULL;
        tm__alloc_fail_at(n, false);
        tm_status status = tm__adapter_rules_make(config, "f", &rules);
        tm__alloc_fail_at(0, false);
        if (status == TM_OK) {
            assert_true(n > 5);
            tm__adapter_rules_free(rules);
            break;
        }
        assert_int_equal(status, TM_NO_MEMORY);
    }
    json_decref(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chooses_parts),
        cmocka_unit_test(refuses_by_key),
        cmocka_unit_test(saves_modules_as_peft),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
