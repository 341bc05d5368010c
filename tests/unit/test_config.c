/* config.json: defaults, both spellings of the rotary settings, and every refusal by name. */
#include "model/model.h"
#include "support.h"

#define SIZES                                                                                               \
    "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2, \"num_attention_heads\": 8," \
    "\"vocab_size\": 100"
#define LLAMA "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", " SIZES

#define OF(stem, type) \
    "{\"architectures\": [\"" stem "ForCausalLM\"], \"model_type\": \"" type "\", \"num_key_value_heads\": 4, " SIZES

static tm_status parse(const char *text, tm__config *config) {
    return tm__config_parse(text, strlen(text), "config.json", config);
}

static void defaults_are_transformers(void **state) {
    (void)state;
    tm__config c;
    assert_ok(parse(LLAMA "}", &c));
    assert_int_equal(c.kv_heads, 8);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.max_positions, 2048);
    assert_true(c.norm_eps == 1e-6);
    assert_true(c.rope_theta == 10000);
    assert_true(c.initializer_range == 0.02);
    assert_false(c.tied || c.qkv_bias || c.mlp_bias);
    assert_int_equal(c.rope_type, 0);
    assert_int_equal(c.dtype, TM_F32);
    assert_int_equal(c.bos, -1);
    assert_int_equal(c.pad, -1);
    assert_int_equal(c.eos_count, 0);
    tm__config_release(&c);
}

static void reads_what_is_given(void **state) {
    (void)state;
    tm__config c;
    assert_ok(parse(LLAMA ", \"num_key_value_heads\": 2, \"head_dim\": 16, \"max_position_embeddings\": 77,"
                          "\"rms_norm_eps\": 1e-5, \"tie_word_embeddings\": true, \"attention_bias\": true,"
                          "\"mlp_bias\": true, \"torch_dtype\": \"bfloat16\", \"bos_token_id\": 3,"
                          "\"eos_token_id\": [4, 5, 4], \"pad_token_id\": 6, \"hidden_act\": \"silu\","
                          "\"rope_scaling\": null, \"pretraining_tp\": 1, \"sliding_window\": null}",
                    &c));
    assert_int_equal(c.kv_heads, 2);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.max_positions, 77);
    assert_true(c.norm_eps == 1e-5);
    assert_true(c.tied && c.qkv_bias && c.mlp_bias);
    assert_int_equal(c.dtype, TM_BF16);
    assert_int_equal(c.bos, 3);
    assert_int_equal(c.pad, 6);
    assert_int_equal(c.eos_count, 2); /* a repeated id counts once */
    assert_int_equal(c.eos[0], 4);
    assert_int_equal(c.eos[1], 5);
    tm__config_release(&c);
    assert_ok(parse(LLAMA ", \"dtype\": \"float16\", \"torch_dtype\": \"float32\"}", &c));
    assert_int_equal(c.dtype, TM_F16);
    tm__config_release(&c);
    assert_ok(parse("{\"model_type\": \"llama\", " SIZES "}", &c)); /* as transformers saves a bare config */
    tm__config_release(&c);
}

static void both_spellings_of_rope(void **state) {
    (void)state;
    tm__config old, new;
    assert_ok(parse(LLAMA ", \"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0,"
                          "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0,"
                          "\"original_max_position_embeddings\": 8192}}",
                    &old));
    assert_ok(parse(LLAMA
                    ", \"rope_parameters\": {\"rope_theta\": 500000.0, \"rope_type\": \"llama3\", \"factor\": 8.0,"
                    "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0,"
                    "\"original_max_position_embeddings\": 8192}}",
                    &new));
    assert_int_equal(old.rope_type, 2);
    assert_int_equal(new.rope_type, 2);
    assert_true(old.rope_theta == 500000 && new.rope_theta == 500000);
    assert_true(old.rope_factor == new.rope_factor &&new.rope_factor == 8);
    assert_true(old.rope_low_freq == 1 && new.rope_high_freq == 4);
    assert_int_equal(old.rope_original_positions, 8192);
    tm__config_release(&old);
    tm__config_release(&new);
    assert_ok(parse(LLAMA ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}}", &old));
    assert_int_equal(old.rope_type, 1);
    assert_true(old.rope_factor == 2);
    tm__config_release(&old);
}

/* What transformers' config classes say of keys that are absent. */
static void defaults_of_families(void **state) {
    (void)state;
    tm__config c;
    assert_ok(parse(OF("Mistral", "mistral") "}", &c));
    assert_true(c.window && c.window[0] == 4096 && c.window[1] == 4096 && !c.qkv_bias);
    tm__config_release(&c);
    assert_ok(parse(OF("Mistral", "mistral") ", \"sliding_window\": null}", &c));
    assert_null(c.window);
    tm__config_release(&c);
    assert_ok(parse(OF("Qwen2", "qwen2") ", \"use_sliding_window\": true, \"max_window_layers\": 1}", &c));
    assert_true(c.window && c.window[0] == 0 && c.window[1] == 4096 && c.qkv_bias && !c.o_bias && !c.qk_norm);
    tm__config_release(&c);
    assert_ok(parse(OF("Qwen3", "qwen3") ", \"sliding_window\": 8, \"use_sliding_window\": false}", &c));
    assert_true(!c.window && c.qk_norm && c.head_dim == 128);
    tm__config_release(&c);
    assert_ok(parse(OF("Gemma2", "gemma2") "}", &c));
    assert_true(c.window && c.window[0] == 4096 && c.window[1] == 0 && c.head_dim == 256 && c.tied);
    assert_true(c.attention_cap == 50 && c.final_cap == 30 && c.attention_scale == 1. / 16 && c.embed_scale == 8);
    assert_int_equal(c.activation, TM__GELU_TANH);
    tm__config_release(&c);
    assert_ok(parse(OF("Phi", "phi") ", \"resid_pdrop\": 0.1}", &c));
    assert_true(c.rotary == 4 && c.head_dim == 8 && c.norm_eps == 1e-5 && c.residual_dropout == 0.1 && c.o_bias);
    tm__config_release(&c);
    assert_ok(parse("{\"architectures\": [\"LlamaForSequenceClassification\"], " SIZES "}", &c));
    assert_int_equal(c.labels, 2);
    tm__config_release(&c);
    assert_ok(parse("{\"model_type\": \"gemma2\", \"num_key_value_heads\": 4, " SIZES "}", &c)); /* a bare config */
    assert_true(c.family->norm_shift == 1 && !c.labels);
    tm__config_release(&c);
    assert_int_equal(parse("{\"architectures\": [\"GPT2LMHeadModel\"], " SIZES "}", &c), TM_UNSUPPORTED);
    static const char *const families[] = {"Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Phi"};
    for (size_t i = 0; i < TM__COUNT(families); i++) assert_non_null(strstr(tm_error_last()->line, families[i]));
}

/* Llama 3.1 8B: theta 500000, head_dim 128, factor 8, 1, 4, 8192. Frequencies are kept, blended or divided. */
static void llama3_frequencies(void **state) {
    (void)state;
    const tm__config c = {.head_dim = 128,
                          .rotary = 128,
                          .rope_theta = 500000,
                          .rope_type = 2,
                          .rope_factor = 8,
                          .rope_low_freq = 1,
                          .rope_high_freq = 4,
                          .rope_original_positions = 8192};
    double f[64], base[64];
    tm__rope_frequencies(&c, 0, f);
    int kept = 0, blended = 0, divided = 0;
    for (int i = 0; i < 64; i++) {
        base[i] = exp(-2.0 * i / 128 * log(500000.0));
        double wavelength = 2 * acos(-1.0) / base[i], expected;
        if (wavelength < 2048) {
            expected = base[i];
            kept++;
        } else if (wavelength > 8192) {
            expected = base[i] / 8;
            divided++;
        } else {
            double smooth = (8192 / wavelength - 1) / 3;
            expected = (1 - smooth) * base[i] / 8 + smooth * base[i];
            blended++;
        }
        assert_true(fabs(f[i] - expected) <= 1e-13 * expected);
    }
    assert_int_equal(kept, 29);
    assert_int_equal(blended, 6);
    assert_int_equal(divided, 29);
    /* inv_freq of transformers' LlamaRotaryEmbedding, which computes in fp32 */
    static const struct {
        int index;
        double value;
    } known[] = {{0, 1},
                 {20, 0.0165604409},
                 {28, 0.00321144611},
                 {30, 0.00137189368},
                 {31, 0.00085675146},
                 {34, 0.000178507791},
                 {35, 9.55621217e-05},
                 {63, 3.06892588e-07}};
    for (size_t i = 0; i < TM__COUNT(known); i++) assert_true(fabs(f[known[i].index] / known[i].value - 1) < 1e-6);
}

static const struct {
    const char *text;
    tm_status status;
    const char *field;
} bad[] = {
    {"[]", TM_FORMAT, ""},
    {"{", TM_FORMAT, "line 1, column 1"},
    {"{" SIZES "}", TM_FORMAT, "model_type"},
    {"{\"architectures\": [\"GPT2LMHeadModel\"], " SIZES "}", TM_UNSUPPORTED, "architectures"},
    {"{\"architectures\": \"LlamaForCausalLM\", " SIZES "}", TM_FORMAT, "architectures"},
    {"{\"architectures\": [3], " SIZES "}", TM_FORMAT, "architectures"},
    {"{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"mistral\", " SIZES "}", TM_UNSUPPORTED,
     "model_type"},
    {"{\"model_type\": \"llama\", \"hidden_size\": 8}", TM_FORMAT, "intermediate_size"},
    {LLAMA ", \"num_key_value_heads\": 3}", TM_FORMAT, "num_key_value_heads"},
    {LLAMA ", \"num_key_value_heads\": 0}", TM_FORMAT, "num_key_value_heads"},
    {LLAMA ", \"head_dim\": 7}", TM_FORMAT, "head_dim"},
    {LLAMA ", \"head_dim\": -8}", TM_FORMAT, "head_dim"},
    {LLAMA ", \"head_dim\": \"8\"}", TM_FORMAT, "head_dim"},
    {"{\"model_type\": \"llama\", \"hidden_size\": 65, \"intermediate_size\": 96, \"num_hidden_layers\": 2,"
     "\"num_attention_heads\": 8, \"vocab_size\": 100}",
     TM_FORMAT, "num_attention_heads"},
    {"{\"model_type\": \"llama\", \"hidden_size\": 8, \"intermediate_size\": 96, \"num_hidden_layers\": 2,"
     "\"num_attention_heads\": 8, \"vocab_size\": 100}",
     TM_FORMAT, "head_dim"},
    {"{\"model_type\": \"llama\", \"hidden_size\": 9000000000, \"intermediate_size\": 96, \"num_hidden_layers\": 2,"
     "\"num_attention_heads\": 8, \"vocab_size\": 100}",
     TM_FORMAT, "hidden_size"},
    {LLAMA ", \"head_dim\": 65536, \"num_key_value_heads\": 8, \"max_position_embeddings\": 0}", TM_FORMAT,
     "max_position_embeddings"},
    {LLAMA ", \"hidden_act\": \"gelu\"}", TM_UNSUPPORTED, "hidden_act"},
    {LLAMA ", \"rope_scaling\": {\"type\": \"yarn\"}}", TM_FORMAT, "factor"},
    {LLAMA ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2, \"beta_fast\": -1}}", TM_FORMAT, "beta_fast"},
    {LLAMA ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2, \"attention_factor\": 0}}", TM_FORMAT,
     "attention_factor"},
    {LLAMA ", \"rope_scaling\": {\"rope_type\": \"dynamic\", \"factor\": 0.5}}", TM_FORMAT, "factor"},
    {LLAMA ", \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 2, \"long_factor\": [1]}}", TM_UNSUPPORTED,
     "long_factor"},
    {LLAMA ", \"attn_logit_softcapping\": 30}", TM_UNSUPPORTED, "attn_logit_softcapping"},
    {LLAMA ", \"query_pre_attn_scalar\": 8}", TM_UNSUPPORTED, "query_pre_attn_scalar"},
    {LLAMA ", \"use_bidirectional_attention\": true}", TM_UNSUPPORTED, "use_bidirectional_attention"},
    {LLAMA ", \"use_sliding_window\": true}", TM_UNSUPPORTED, "use_sliding_window"},
    {OF("Mistral", "mistral") ", \"attention_bias\": true}", TM_UNSUPPORTED, "attention_bias"},
    {OF("Mistral", "mistral") ", \"sliding_window\": 0}", TM_FORMAT, "sliding_window"},
    {OF("Mistral", "mistral") ", \"layer_types\": [\"full_attention\", \"sliding_attention\"]}", TM_UNSUPPORTED,
     "layer_types"},
    {OF("Mistral", "mistral") ", \"rope_parameters\": {\"rope_type\": \"default\", \"partial_rotary_factor\": 0.5}}",
     TM_UNSUPPORTED, "partial_rotary_factor"},
    {OF("Qwen2", "qwen2") ", \"layer_types\": [\"full_attention\", \"sliding_attention\"]}", TM_UNSUPPORTED,
     "layer_types"}, /* use_sliding_window is false */
    {OF("Qwen2", "qwen2") ", \"layer_types\": [\"full_attention\"]}", TM_FORMAT, "layer_types"},
    {OF("Qwen3", "qwen3") ", \"layer_types\": [\"full_attention\", \"chunked_attention\"]}", TM_UNSUPPORTED,
     "layer_types"},
    {OF("Gemma2", "gemma2") ", \"sliding_window\": null}", TM_FORMAT, "sliding_window"},
    {OF("Gemma2", "gemma2") ", \"hidden_activation\": \"relu\"}", TM_UNSUPPORTED, "hidden_activation"},
    {OF("Gemma2", "gemma2") ", \"final_logit_softcapping\": 0}", TM_FORMAT, "final_logit_softcapping"},
    {OF("Phi", "phi") ", \"partial_rotary_factor\": 0.4}", TM_FORMAT, "partial_rotary_factor"},
    {OF("Phi", "phi") ", \"attention_dropout\": 0.1}", TM_UNSUPPORTED, "attention_dropout"},
    {OF("Phi", "phi") ", \"resid_pdrop\": 1}", TM_FORMAT, "resid_pdrop"},
    {OF("Phi", "phi") ", \"sliding_window\": 8}", TM_UNSUPPORTED, "sliding_window"},
    {"{\"architectures\": [\"Qwen2ForSequenceClassification\"], \"id2label\": {}, " SIZES "}", TM_FORMAT, "id2label"},
    {"{\"architectures\": [\"Qwen2ForTokenClassification\"], " SIZES "}", TM_UNSUPPORTED, "architectures"},
    {"{\"model_type\": \"gpt2\", " SIZES "}", TM_UNSUPPORTED, "model_type"},
    {LLAMA ", \"rope_scaling\": {\"rope_type\": \"linear\"}}", TM_FORMAT, "factor"},
    {LLAMA ", \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 0}}", TM_FORMAT, "factor"},
    {LLAMA ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}}", TM_FORMAT, "low_freq_factor"},
    {LLAMA ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4,"
           "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 8}}",
     TM_FORMAT, "high_freq_factor"},
    {LLAMA ", \"rope_scaling\": 3}", TM_FORMAT, "rope_scaling"},
    {LLAMA ", \"rope_parameters\": {\"rope_type\": \"longrope\"}}", TM_UNSUPPORTED, "rope_type"},
    {LLAMA ", \"rope_parameters\": {\"rope_type\": \"default\", \"partial_rotary_factor\": 0.5}}", TM_UNSUPPORTED,
     "partial_rotary_factor"},
    {LLAMA ", \"rope_theta\": 0}", TM_FORMAT, "rope_theta"},
    {LLAMA ", \"rms_norm_eps\": \"small\"}", TM_FORMAT, "rms_norm_eps"},
    {LLAMA ", \"pretraining_tp\": 2}", TM_UNSUPPORTED, "pretraining_tp"},
    {LLAMA ", \"partial_rotary_factor\": 0.5}", TM_UNSUPPORTED, "partial_rotary_factor"},
    {LLAMA ", \"attention_dropout\": 0.1}", TM_UNSUPPORTED, "attention_dropout"},
    {LLAMA ", \"quantization_config\": {\"bits\": 4}}", TM_UNSUPPORTED, "quantization_config"},
    {LLAMA ", \"sliding_window\": 4096}", TM_UNSUPPORTED, "sliding_window"},
    {LLAMA ", \"layer_types\": [\"full_attention\", \"sliding_attention\"]}", TM_UNSUPPORTED, "layer_types"},
    {LLAMA ", \"torch_dtype\": \"int8\"}", TM_UNSUPPORTED, "torch_dtype"},
    {LLAMA ", \"dtype\": \"float8_e4m3fn\"}", TM_UNSUPPORTED, "dtype"},
    {LLAMA ", \"tie_word_embeddings\": 1}", TM_FORMAT, "tie_word_embeddings"},
    {LLAMA ", \"initializer_range\": -1}", TM_FORMAT, "initializer_range"},
    {LLAMA ", \"eos_token_id\": 100}", TM_FORMAT, "eos_token_id"},
    {LLAMA ", \"eos_token_id\": [1, \"2\"]}", TM_FORMAT, "eos_token_id"},
    {LLAMA ", \"eos_token_id\": [1, 2, 3, 4, 5, 6, 7, 8, 9]}", TM_UNSUPPORTED, "eos_token_id"},
    {LLAMA ", \"bos_token_id\": 100}", TM_FORMAT, "bos_token_id"},
};

static void refuses_by_name(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(bad); i++) {
        tm__config c = {.hidden = 12345};
        tm_status status = parse(bad[i].text, &c);
        if (status != bad[i].status || strcmp(tm_error_last()->field, bad[i].field) != 0)
            fail_msg("case %zu (%s): %s, field '%s', %s", i, bad[i].text, tm_status_name(status),
                     tm_error_last()->field, tm_error_last()->line);
        assert_string_equal(tm_error_last()->file, "config.json");
        assert_int_equal(c.hidden, 12345); /* untouched */
    }
}

static void says_what_is_supported(void **state) {
    (void)state;
    static const struct {
        const char *text, *hint;
    } cases[] = {
        {LLAMA ", \"attention_dropout\": 0.1}", "supported: 0"},
        {LLAMA ", \"residual_multiplier\": 2}", "supported: 1"},
        {LLAMA ", \"use_qk_norm\": true}", "supported: false"},
        {LLAMA ", \"clip_qkv\": true}", "supported: null"},
    };
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        tm__config c;
        assert_int_equal(parse(cases[i].text, &c), TM_UNSUPPORTED);
        assert_string_equal(tm_error_last()->hint, cases[i].hint);
    }
}

static void survives_failing_allocations(void **state) {
    (void)state;
    for (long n = 1;; n++) {
        tm__config c;
        tm__alloc_fail_at(n, true);
        tm_status status = parse(LLAMA ", \"eos_token_id\": [1, 2]}", &c);
        tm__alloc_fail_at(0, false);
        if (status == TM_OK) {
            tm__config_release(&c);
            return;
        }
        assert_int_equal(status, TM_NO_MEMORY);
        assert_true(n < 10000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_transformers), cmocka_unit_test(reads_what_is_given),
        cmocka_unit_test(both_spellings_of_rope),    cmocka_unit_test(llama3_frequencies),
        cmocka_unit_test(refuses_by_name),           cmocka_unit_test(says_what_is_supported),
        cmocka_unit_test(defaults_of_families),      cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
