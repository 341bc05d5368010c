/* Every config key that a family reads moves the logits; both spellings of the rotary settings; what methods, taps and
 * callers rely on in every family. Models and fixtures are those of test_families.c. */
#include "families.h"

#include "method/matrix.h"

#define FLIP_BOUND 1e-2

/* ---- one key at a time ---- */

static void set_key(json_t *config, const char *key, const char *text) {
    json_t *value = strcmp(text, "absent") == 0 ? NULL : json_loads(text, JSON_DECODE_ANY, NULL);
    json_t *object = config;
    if (strncmp(key, "rope.", 5) == 0) {
        object = json_object_get(config, "rope_parameters");
        key += 5;
    }
    if (value)
        json_object_set_new(object, key, value);
    else
        json_object_del(object, key);
}

static const struct {
    const char *name, *key, *value;
} flips[] = {
    {"mistral", "sliding_window", "5"},
    {"mistral", "sliding_window", "null"},
    {"mistral", "rms_norm_eps", "0.1"},
    {"mistral", "rope.rope_theta", "1000.0"},
    {"mistral", "hidden_act", "\"gelu_new\""},
    {"mistral", "tie_word_embeddings", "true"},
    {"qwen2", "use_sliding_window", "false"},
    {"qwen2", "sliding_window", "4"},
    {"qwen2", "max_window_layers", "2"},
    {"qwen2", "layer_types", "[\"sliding_attention\", \"sliding_attention\", \"full_attention\"]"},
    {"qwen2", "tie_word_embeddings", "false"},
    {"qwen2", "rms_norm_eps", "0.1"},
    {"qwen2", "rope.rope_theta", "1000.0"},
    {"qwen2", "hidden_act", "\"gelu_pytorch_tanh\""},
    {"qwen3", "attention_bias", "false"},
    {"qwen3", "rms_norm_eps", "0.1"},
    {"qwen3", "rope.factor", "2.0"},
    {"qwen3", "rope.original_max_position_embeddings", "40"},
    {"qwen3", "rope.rope_theta", "1000.0"},
    {"qwen3", "hidden_act", "\"gelu_new\""},
    {"qwen3-layers", "layer_types", "[\"full_attention\", \"full_attention\", \"sliding_attention\"]"},
    {"qwen3-layers", "use_sliding_window", "false"},
    {"qwen3-layers", "sliding_window", "9"},
    {"qwen3-layers", "max_window_layers", "1"},
    {"qwen3-layers", "tie_word_embeddings", "false"},
    {"gemma2", "query_pre_attn_scalar", "9"},
    {"gemma2", "attn_logit_softcapping", "null"},
    {"gemma2", "attn_logit_softcapping", "6.0"},
    {"gemma2", "final_logit_softcapping", "null"},
    {"gemma2", "final_logit_softcapping", "3.0"},
    {"gemma2", "sliding_window", "8"},
    {"gemma2", "layer_types", "[\"full_attention\", \"sliding_attention\", \"full_attention\"]"},
    {"gemma2", "hidden_activation", "\"silu\""},
    {"gemma2", "rms_norm_eps", "0.1"},
    {"gemma2", "attention_bias", "true"},
    {"gemma2", "rope.rope_theta", "1000.0"},
    {"gemma2", "tie_word_embeddings", "false"},
    {"gemma", "hidden_act", "\"silu\""},
    {"gemma", "rms_norm_eps", "0.1"},
    {"gemma", "attention_bias", "true"},
    {"gemma", "rope.rope_theta", "1000.0"},
    {"gemma", "tie_word_embeddings", "false"},
    {"phi", "rope.partial_rotary_factor", "0.25"},
    {"phi", "partial_rotary_factor", "0.25"},
    {"phi", "rope.rope_theta", "1000.0"},
    {"phi", "layer_norm_eps", "0.1"},
    {"phi", "hidden_act", "\"silu\""},
    {"phi", "qk_layernorm", "true"},
    {"phi", "tie_word_embeddings", "true"},
    {"linear", "rope.factor", "2.0"},
    {"linear", "rope.rope_type", "\"default\""},
    {"linear", "rope.rope_theta", "1000.0"},
    {"linear", "attention_bias", "true"},
    {"linear", "mlp_bias", "true"},
    {"linear", "rms_norm_eps", "0.1"},
    {"linear", "hidden_act", "\"gelu_new\""},
    {"linear", "tie_word_embeddings", "true"},
    {"dynamic", "rope.factor", "1.5"},
    {"dynamic", "rope.rope_type", "\"linear\""},
    {"dynamic", "max_position_embeddings", "16"},
    {"llama3", "rope.factor", "2.0"},
    {"llama3", "rope.rope_type", "\"dynamic\""},
    {"llama3", "rope.low_freq_factor", "0.5"},
    {"llama3", "rope.high_freq_factor", "9.0"},
    {"llama3", "rope.original_max_position_embeddings", "20"},
    {"llama3", "original_max_position_embeddings", "20"},
    {"yarn", "rope.factor", "2.0"},
    {"yarn", "rope.factor", "null"},
    {"yarn", "rope.rope_type", "\"linear\""},
    {"yarn", "rope.beta_fast", "1.0"},
    {"yarn", "rope.beta_slow", "1.0"},
    {"yarn", "rope.mscale", "1.0"},
    {"yarn", "rope.mscale_all_dim", "1.0"},
    {"yarn", "rope.mscale", "absent"},
    {"yarn", "rope.truncate", "true"},
    {"yarn", "rope.original_max_position_embeddings", "40"},
    {"yarn", "rope.attention_factor", "1.0"},
    {"yarn-factor", "rope.attention_factor", "1.0"},
    {"yarn-factor", "rope.attention_factor", "absent"},
};

/* What another key would decide instead is taken out. */
static void let_it_decide(json_t *config, const char *key, const char *value) {
    bool no_window = strcmp(key, "sliding_window") == 0 && strcmp(value, "null") == 0;
    if (no_window || strcmp(key, "max_window_layers") == 0 || strcmp(key, "use_sliding_window") == 0)
        json_object_del(config, "layer_types");
    if (strcmp(key, "partial_rotary_factor") == 0) json_object_del(json_object_get(config, "rope_parameters"), key);
}

static void every_key_moves_the_logits(void **state) {
    (void)state;
    tm_device *dev = open_device("ref", TM_PRECISION_F64);
    for (size_t i = 0; i < TM__COUNT(flips); i++) {
        const fixture *f = fixture_of(flips[i].name);
        json_t *config = json_deep_copy(json_object_get(f->json, "config"));
        let_it_decide(config, flips[i].key, flips[i].value);
        set_key(config, flips[i].key, flips[i].value);
        double by = moved(dev, f, config);
        if (!(by > FLIP_BOUND))
            fail_msg("%s: %s = %s moves the logits by %.3g only", f->name, flips[i].key, flips[i].value, by);
        json_decref(config);
    }
    tm_device_close(dev);
}

static bool is_flipped(const tm__family *family, const char *key) {
    for (size_t i = 0; i < TM__COUNT(flips); i++) {
        const json_t *config = json_object_get(fixture_of(flips[i].name)->json, "config");
        const char *type = json_string_value(json_object_get(config, "model_type"));
        if (strcmp(type, family->model_type) == 0 && strcmp(flips[i].key, key) == 0) return true;
    }
    return false;
}

/* The table above holds every key that a family reads, but for those that no logits depend on. */
static void every_key_is_in_the_table(void **state) {
    static const struct {
        const char *type, *key;
    } still[] = {
        {"qwen2", "attention_bias"}, /* the biases are there whatever it says */
        {"mistral", "layer_types"},  /* other types than those of sliding_window are refused */
        {"phi", "resid_pdrop"},      /* in training alone */
        {"phi", "embd_pdrop"},
    };
    (void)state;
    for (size_t i = 0; tm__family_at(i); i++) {
        const tm__family *f = tm__family_at(i);
        const char *keys[TM__COUNT(f->reads) + 4] = {f->act_key, f->layer_norm ? "layer_norm_eps" : "rms_norm_eps",
                                                     "rope.rope_theta", "tie_word_embeddings"};
        memcpy(keys + 4, f->reads, sizeof f->reads);
        for (size_t k = 0; k < TM__COUNT(keys) && keys[k]; k++) {
            bool found = is_flipped(f, keys[k]);
            for (size_t s = 0; s < TM__COUNT(still); s++)
                found |= strcmp(still[s].type, f->model_type) == 0 && strcmp(still[s].key, keys[k]) == 0;
            if (!found) fail_msg("%s reads %s, which no line of the table flips", f->model_type, keys[k]);
        }
    }
}

/* A key that decides shapes is refused where it does not fit the weights. */
static void every_size_is_compared_with_the_weights(void **state) {
    static const char *const sizes[] = {
        "hidden_size",         "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "vocab_size",        "head_dim"};
    (void)state;
    tm_device *dev = open_device("ref", TM_PRECISION_F64);
    for (int i = 0; i < FULL; i++) {
        char *directory = tm__path_join(test_scratch(), fixtures[i].name);
        char *path = tm__path_join(directory, "config.json");
        tm_model *model = fixture_model(dev, &fixtures[i]), *other;
        assert_ok(tm_model_save(model, directory, NULL));
        tm_model_free(model);
        for (size_t k = 0; k < TM__COUNT(sizes); k++)
            for (int times = 0; times < 2; times++) {
                json_t *config = json_deep_copy(json_object_get(fixtures[i].json, "config"));
                int64_t was = json_integer_value(json_object_get(config, sizes[k]));
                if (was == 0) was = 8; /* Phi's head_dim: 24 / 3 */
                json_object_del(config, "layer_types");
                json_object_set_new(config, sizes[k], json_integer(times ? 2 * was : was / 2));
                char *text = json_dumps(config, 0);
                assert_ok(tm__file_write(path, text, strlen(text)));
                if (tm_model_load(dev, directory, NULL, &other) == TM_OK)
                    fail_msg("%s: half or twice %s fits the weights", fixtures[i].name, sizes[k]);
                free(text);
                json_decref(config);
            }
        free(path);
        free(directory);
    }
    tm_device_close(dev);
}

/* rope_scaling beside rope_theta says the same as rope_parameters. */
static void old_spelling_of_rope(void **state) {
    (void)state;
    tm_device *dev = open_device("ref", TM_PRECISION_F64);
    for (int i = 0; i < CASES; i++) {
        json_t *config = json_deep_copy(json_object_get(fixtures[i].json, "config"));
        json_t *rope = json_incref(json_object_get(config, "rope_parameters"));
        json_object_set(config, "rope_theta", json_object_get(rope, "rope_theta"));
        if (json_object_get(rope, "partial_rotary_factor"))
            json_object_set(config, "partial_rotary_factor", json_object_get(rope, "partial_rotary_factor"));
        json_object_set(rope, "type", json_object_get(rope, "rope_type"));
        json_object_del(rope, "rope_theta");
        json_object_del(rope, "rope_type");
        json_object_del(rope, "partial_rotary_factor");
        json_object_set_new(config, "rope_scaling", rope);
        json_object_del(config, "rope_parameters");
        if (moved(dev, &fixtures[i], config) > FP64_BOUND) fail_msg("%s: the old spelling differs", fixtures[i].name);
        json_decref(config);
    }
    tm_device_close(dev);
}

/* ---- taps ---- */

/* add (tokens, d) to sum, through the norm of a block where it has one. */
static void add_normed(const tm_model *model, const tm__norm *norm, const double *x, size_t tokens, double *sum) {
    size_t d = (size_t)model->config.hidden;
    double *w = norm->weight.name ? as_double(model->dev, norm->weight.value.data, d) : NULL;
    for (size_t t = 0; t < tokens; t++) {
        double squares = 0;
        for (size_t j = 0; j < d; j++) squares += x[t * d + j] * x[t * d + j];
        double r = w ? 1 / sqrt(squares / (double)d + model->config.norm_eps) : 1;
        for (size_t j = 0; j < d; j++)
            sum[t * d + j] += x[t * d + j] * r * (w ? model->config.family->norm_shift + w[j] : 1);
    }
    free(w);
}

/* attn_out and mlp_out are the modules' own outputs: with the post-norms applied by hand they add up to the block. */
static void taps_stand_before_post_norms(void **state) {
    (void)state;
    tm_device *dev = open_device("ref", TM_PRECISION_F64);
    for (int i = 0; i < FULL; i++) {
        tm_model *model = fixture_model(dev, &fixtures[i]);
        const tm__block *block = &model->blocks[1];
        batch b;
        tm__tape *tape;
        tm__var *hidden;
        batch_make(&fixtures[i], 0, true, &b);
        size_t n = (size_t)(b.batch->tokens * model->config.hidden), tokens = (size_t)b.batch->tokens;
        double *values[4];
        for (int k = 0; k < 4; k++) values[k] = calloc(n, sizeof(double));
        const tm__tap taps[4] = {{.layer = 0, .site = TM__TAP_HIDDEN, .value = values[0]},
                                 {.layer = 1, .site = TM__TAP_ATTENTION_OUT, .value = values[1]},
                                 {.layer = 1, .site = TM__TAP_MLP_OUT, .value = values[2]},
                                 {.layer = 1, .site = TM__TAP_HIDDEN, .value = values[3]}};
        assert_ok(tm__model_train_full(model));
        assert_ok(tm__tape_create(dev, &tape));
        tape->recording = false;
        assert_ok(tm__model_forward(model, tape, b.batch, &(const tm__forward_options){.taps = taps, .tap_count = 4},
                                    &hidden));
        add_normed(model, &block->norm[TM__NORM_ATTENTION_POST], values[1], tokens, values[0]);
        add_normed(model, &block->norm[TM__NORM_MLP_POST], values[2], tokens, values[0]);
        assert_true(test_relative_error(values[0], values[3], n) < 1e-13);
        for (int k = 0; k < 4; k++) free(values[k]);
        tm__tape_free(tape);
        batch_release(&b);
        tm_model_free(model);
    }
    tm_device_close(dev);
}

/* ---- what methods and callers rely on ---- */

/* A direction taken out of the weights is in no state, whatever stands between an output and the residual stream. */
static void ablation_reaches_every_state(void **state) {
    (void)state;
    tm_device *dev = open_device("ref", TM_PRECISION_F64);
    for (int i = 0; i < FULL; i++) {
        tm_model *model = fixture_model(dev, &fixtures[i]);
        size_t d = (size_t)model->config.hidden;
        double r[64], length = 0;
        batch b;
        tm__tape *tape;
        tm__var *hidden, *states[8];
        for (size_t j = 0; j < d; j++) r[j] = sin((double)(j + 1));
        for (size_t j = 0; j < d; j++) length += r[j] * r[j];
        for (size_t j = 0; j < d; j++) r[j] /= sqrt(length);
        assert_ok(tm__model_train_full(model));
        assert_ok(tm__ablate_model(model, r));
        batch_make(&fixtures[i], 0, true, &b);
        assert_ok(tm__tape_create(dev, &tape));
        assert_ok(tm__model_forward(model, tape, b.batch, &(const tm__forward_options){.states = states}, &hidden));
        for (int64_t l = 0; l <= model->config.layers; l++)
            for (int64_t t = 0; t < b.batch->tokens; t++) {
                const double *h = (const double *)states[l]->value.data + (size_t)t * d;
                double along = 0, squares = 0;
                for (size_t j = 0; j < d; j++) along += h[j] * r[j];
                for (size_t j = 0; j < d; j++) squares += h[j] * h[j];
                assert_true(fabs(along) <= 1e-12 * sqrt(squares));
            }
        tm__tape_free(tape);
        batch_release(&b);
        tm_model_free(model);
    }
    tm_device_close(dev);
}

static void count_notes(void *user, const char *line) {
    *(int *)user += strstr(line, "positions") != NULL;
}

static void a_sequence_beyond_the_trained_length_is_noted_once(void **state) {
    (void)state;
    tm_device *dev = open_device("cpu", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, fixture_of("dynamic"));
    tm_ids prompts[2] = {{0}}, out[2] = {{0}};
    int notes = 0;
    const tm_monitor monitor = {.note = count_notes, .user = &notes};
    for (int k = 0; k < 2; k++)
        for (int t = 0; t < 10; t++) assert_ok(tm_ids_push(&prompts[k], 4 + t));
    tm_generate_options options = {.max_new_tokens = 10, .ignore_stop = true};
    assert_ok(tm_generate(model, prompts, 2, NULL, 0, &options, &monitor, out)); /* 20 positions */
    free_all(out, 2);
    assert_int_equal(notes, 0);
    options.max_new_tokens = 14;
    assert_ok(tm_generate(model, prompts, 2, NULL, 0, &options, &monitor, out));
    assert_int_equal(notes, 1);
    free_all(out, 2);
    free_all(prompts, 2);
    tm_model_free(model);
    tm_device_close(dev);
}

static void targets_are_those_of_the_family(void **state) {
    (void)state;
    tm_device *dev = open_device("cpu", TM_PRECISION_F32);
    tm_model *phi = fixture_model(dev, fixture_of("phi")), *qwen = fixture_model(dev, fixture_of("qwen2"));
    assert_int_equal(tm_model_add_lora(phi, &(const tm_lora_options){.rank = 1, .alpha = 1, .targets = "gate_proj"}, 1),
                     TM_INVALID);
    assert_non_null(strstr(tm_error_last()->line, "dense,fc1,fc2"));
    assert_int_equal(tm_model_add_lora(qwen, &(const tm_lora_options){.rank = 1, .alpha = 1, .targets = "fc1"}, 1),
                     TM_INVALID);
    assert_ok(tm_model_add_lora(phi, &(const tm_lora_options){.rank = 1, .alpha = 1, .targets = "all-linear"}, 1));
    for (int k = 0; k < TM__LINEARS; k++)
        assert_int_equal(tm__block_linear(&phi->blocks[0], k)->adapter_count, k != TM__GATE);
    tm_model_free(phi);
    tm_model_free(qwen);
    tm_device_close(dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_moves_the_logits),
        cmocka_unit_test(every_key_is_in_the_table),
        cmocka_unit_test(every_size_is_compared_with_the_weights),
        cmocka_unit_test(old_spelling_of_rope),
        cmocka_unit_test(taps_stand_before_post_norms),
        cmocka_unit_test(ablation_reaches_every_state),
        cmocka_unit_test(a_sequence_beyond_the_trained_length_is_noted_once),
        cmocka_unit_test(targets_are_those_of_the_family),
    };
    return run_families("family keys", tests, TM__COUNT(tests));
}
