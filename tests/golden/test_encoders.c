/* test_encoders.c: BERT and DeBERTa-v2 against transformers in float64 (fixtures: tools/golden/encoders.py).
 *
 * Bounds, as ||a - b|| / ||b||: ref fp64 1e-8, the requirement, for hidden states, embeddings, logits, and for all of
 * them with any one key of the config changed; cpu fp32 1e-5: fp32 products of at most 24 terms, three blocks.
 */
#include "support.h"

#include <jansson.h>
#include <unistd.h>

#include "encoder/encoder.h"

#define BOUND 1e-8
#define CPU_BOUND 1e-5

static const char *const names[] = {"bert-sentence", "bert-pools",      "bert-classifier",  "deberta-v3",
                                    "deberta-both",  "deberta-content", "deberta-position", "deberta-plain"};

typedef struct fixture {
    const char *name;
    json_t *json;
    tm__safetensors *expected;
    tm__encoder_text texts[8];
    size_t count;
} fixture;

static const char *in_case(const char *name, const char *file) {
    char path[128];
    snprintf(path, sizeof path, "golden/encoders/%s/%s", name, file);
    return test_path(path);
}

static int32_t *ids_of(const json_t *list, size_t *n) {
    *n = json_array_size(list);
    int32_t *ids = malloc((*n + 1) * sizeof *ids);
    for (size_t i = 0; i < *n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return ids;
}

static tm__encoder_text text_of(const json_t *row) {
    tm__encoder_text text;
    text.ids = ids_of(json_object_get(row, "ids"), &text.len);
    text.second = (size_t)json_integer_value(json_object_get(row, "second"));
    return text;
}

static fixture open_case(const char *name) {
    fixture f = {.name = name};
    size_t i;
    json_t *row;
    assert_ok(tm__json_load(in_case(name, "case.json"), (struct json_t **)&f.json));
    assert_ok(tm__safetensors_open(in_case(name, "expected.safetensors"), &f.expected));
    json_array_foreach(json_object_get(f.json, "texts"), i, row) f.texts[f.count++] = text_of(row);
    return f;
}

static void close_case(fixture *f) {
    for (size_t i = 0; i < f->count; i++) free((void *)f->texts[i].ids);
    tm__safetensors_close(f->expected);
    json_decref(f->json);
}

static tm_device *open_device(bool ref) {
    const tm_device_options options = {
        .name = ref ? "ref" : "cpu", .threads = 2, .precision = ref ? TM_PRECISION_F64 : TM_PRECISION_F32};
    tm_device *device;
    assert_ok(tm_device_open(&options, &device));
    return device;
}

static void compare(const fixture *f, const char *key, const double *got, double bound) {
    tm_tensor want;
    assert_ok(tm__safetensors_find(f->expected, key, &want));
    double error = test_relative_error(got, want.data, (size_t)tm__tensor_count(&want));
    if (!(error <= bound)) fail_msg("%s, %s: error %.3g > %.3g", f->name, key, error, bound);
}

/* ---- what transformers computes ---------------------------------------------------------------------------------- */

/* All texts end to end, as forward.c lays them. */
static void check_hidden(tm_encoder *encoder, const fixture *f, double bound) {
    enum { MOST = 256 };
    int32_t ids[MOST], types[MOST], position[MOST];
    int64_t start[8], length[8];
    tm__encoder_batch batch = {.segments = (int64_t)f->count,
                               .ids = ids,
                               .types = types,
                               .position = position,
                               .start = start,
                               .length = length};
    for (size_t i = 0; i < f->count; i++) {
        start[i] = batch.tokens;
        length[i] = (int64_t)f->texts[i].len;
        batch.longest = TM__MAX(batch.longest, length[i]);
        for (size_t t = 0; t < f->texts[i].len; t++, batch.tokens++) {
            assert_true(batch.tokens < MOST);
            ids[batch.tokens] = f->texts[i].ids[t];
            types[batch.tokens] = t >= f->texts[i].second;
            position[batch.tokens] = (int32_t)t;
        }
    }
    tm__tape *tape;
    tm__var *hidden;
    assert_ok(tm__tape_create(encoder->dev, &tape));
    tape->recording = false;
    assert_ok(tm__encoder_forward(encoder, tape, &batch, &hidden));
    size_t n = (size_t)tm__tensor_count(&hidden->value);
    double *wide = malloc(n * sizeof *wide);
    tm__convert(wide, TM_F64, hidden->value.data, encoder->dev->act, n);
    compare(f, "hidden", wide, bound);
    free(wide);
    tm__tape_free(tape);
}

/* Embeddings, or logits where the case has a classifier: (n, *width), the caller's. */
static double *outcome(tm_encoder *encoder, const tm__encoder_text *texts, size_t n, bool logits, size_t *width) {
    *width = (size_t)(logits ? encoder->config.labels : tm__encoder_dimensions(encoder));
    double *out = malloc(n * *width * sizeof *out);
    assert_ok((logits ? tm__encoder_classify_ids : tm__encoder_embed_ids)(encoder, texts, n, out));
    return out;
}

static void check_case(const char *name, bool ref) {
    fixture f = open_case(name);
    tm_device *device = open_device(ref);
    tm_encoder *encoder;
    tm_encoder_info info;
    double bound = ref ? BOUND : CPU_BOUND;
    assert_ok(tm_encoder_load(device, in_case(name, ""), &encoder));
    tm_encoder_describe(encoder, &info);
    check_hidden(encoder, &f, bound);
    for (int logits = 0; logits <= (info.labels > 0); logits++) {
        size_t width, unused;
        double *all = outcome(encoder, f.texts, f.count, logits, &width);
        compare(&f, logits ? "logits" : "embeddings", all, bound);
        for (size_t i = 0; i < f.count; i++) { /* the same bytes alone */
            double *alone = outcome(encoder, f.texts + i, 1, logits, &unused);
            assert_memory_equal(alone, all + i * width, width * sizeof *alone);
            free(alone);
        }
        free(all);
    }
    tm_encoder_free(encoder);
    tm_device_close(device);
    close_case(&f);
}

static void test_ref(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(names); i++) check_case(names[i], true);
}

static void test_cpu(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(names); i++) check_case(names[i], false);
}

static void test_buckets(void **state) {
    (void)state;
    json_t *list, *row, *bucket;
    size_t i, k;
    assert_ok(tm__json_load(test_path("golden/encoders/buckets.json"), (struct json_t **)&list));
    assert_int_equal(json_array_size(list), 6);
    json_array_foreach(list, i, row) {
        int64_t buckets = json_integer_value(json_object_get(row, "buckets")),
                most = json_integer_value(json_object_get(row, "max_relative"));
        json_array_foreach(json_object_get(row, "bucket"), k, bucket) {
            assert_int_equal(tm__relative_bucket((int64_t)k, buckets, most), json_integer_value(bucket));
            assert_int_equal(tm__relative_bucket(-(int64_t)k, buckets, most), -json_integer_value(bucket));
        }
    }
    json_decref(list);
}

/* ---- every key of the config ------------------------------------------------------------------------------------- */

/* A directory like the case's with one key of config.json changed; `value` NULL: as it is. */
static const char *changed(const char *name, const char *key, json_t *value) {
    static char home[512];
    static const char *scratch;
    static int number;
    static const char *const links[] = {"model.safetensors", "modules.json", "1_Pooling"};
    char path[600];
    json_t *config;
    if (!scratch) scratch = strdup(test_scratch());
    snprintf(home, sizeof home, "%s/%d", scratch, number++);
    assert_ok(tm__make_directories(home));
    assert_ok(tm__json_load(in_case(name, "config.json"), (struct json_t **)&config));
    if (value) json_object_set(config, key, value);
    snprintf(path, sizeof path, "%s/config.json", home);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
    for (size_t i = 0; i < TM__COUNT(links); i++) {
        snprintf(path, sizeof path, "%s/%s", home, links[i]);
        if (tm__path_exists(in_case(name, links[i]))) assert_int_equal(symlink(in_case(name, links[i]), path), 0);
    }
    return home;
}

static void test_flips(void **state) {
    (void)state;
    tm_device *device = open_device(true);
    for (size_t c = 0; c < TM__COUNT(names); c++) {
        fixture f = open_case(names[c]);
        json_t *flip;
        size_t i, width;
        json_array_foreach(json_object_get(f.json, "flips"), i, flip) {
            tm_encoder *encoder;
            char key[32];
            const char *field = json_string_value(json_object_get(flip, "key"));
            assert_ok(tm_encoder_load(device, changed(names[c], field, json_object_get(flip, "value")), &encoder));
            bool logits = tm__safetensors_index(f.expected, "logits") >= 0;
            double *got = outcome(encoder, f.texts, f.count, logits, &width);
            tm_tensor before;
            snprintf(key, sizeof key, "flip.%zu", i);
            compare(&f, key, got, BOUND);
            assert_ok(tm__safetensors_find(f.expected, logits ? "logits" : "embeddings", &before));
            assert_true(test_relative_error(got, before.data, f.count * width) > 1e-2);
            free(got);
            tm_encoder_free(encoder);
        }
        close_case(&f);
    }
    tm_device_close(device);
}

static void refuse(tm_device *device, const char *directory, tm_status status, const char *field) {
    tm_encoder *encoder = NULL;
    tm_status got = tm_encoder_load(device, directory, &encoder);
    if (got == TM_OK || (status && got != status) || !strstr(tm_error_last()->field, field) ||
        strchr(tm_error_last()->line, '\n'))
        fail_msg("%s: '%s' instead of %s about '%s'", directory, got == TM_OK ? "ok" : tm_error_last()->line,
                 tm_status_name(status), field);
    assert_null(encoder);
}

/* Values that other weights belong to. */
static void test_other_weights(void **state) {
    (void)state;
    tm_device *device = open_device(true);
    for (size_t c = 0; c < TM__COUNT(names); c++) {
        fixture f = open_case(names[c]);
        json_t *row;
        size_t i;
        json_array_foreach(json_object_get(f.json, "refused"), i, row) refuse(
            device, changed(names[c], json_string_value(json_object_get(row, "key")), json_object_get(row, "value")),
            TM_OK, "");
        close_case(&f);
    }
    tm_device_close(device);
}

/* Keys that are not understood: refused by name; neutral ones are not. */
static void test_refused_keys(void **state) {
    (void)state;
    static const struct {
        const char *name, *key, *value; /* `value` NULL: neutral ones follow */
        tm_status status;
    } cases[] = {
        {"bert-sentence", "architectures", "[\"RobertaModel\"]", TM_UNSUPPORTED},
        {"bert-sentence", "architectures", "[]", TM_FORMAT},
        {"bert-sentence", "architectures", "[\"BertForTokenClassification\"]", TM_UNSUPPORTED},
        {"bert-sentence", "model_type", "\"deberta-v2\"", TM_UNSUPPORTED},
        {"bert-sentence", "position_embedding_type", "\"relative_key\"", TM_UNSUPPORTED},
        {"bert-sentence", "hidden_act", "\"quick_gelu\"", TM_UNSUPPORTED},
        {"bert-sentence", "is_decoder", "true", TM_UNSUPPORTED},
        {"bert-sentence", "add_cross_attention", "true", TM_UNSUPPORTED},
        {"bert-sentence", "quantization_config", "{\"bits\": 4}", TM_UNSUPPORTED},
        {"bert-sentence", "auto_map", "{\"AutoModel\": \"own.Model\"}", TM_UNSUPPORTED},
        {"bert-sentence", "pruned_heads", "{\"0\": [1]}", TM_UNSUPPORTED},
        {"bert-sentence", "embedding_size", "6", TM_UNSUPPORTED},
        {"bert-sentence", "num_attention_heads", "5", TM_FORMAT},
        {"bert-sentence", "num_attention_heads", "\"3\"", TM_FORMAT},
        {"bert-sentence", "layer_norm_eps", "-1", TM_FORMAT},
        {"bert-sentence", "hidden_size", "null", TM_FORMAT},
        {"bert-classifier", "problem_type", "\"ranking\"", TM_UNSUPPORTED},
        {"bert-classifier", "id2label", "{\"0\": \"a\", \"2\": \"b\", \"3\": \"c\"}", TM_FORMAT},
        {"deberta-v3", "conv_kernel_size", "3", TM_UNSUPPORTED},
        {"deberta-v3", "attention_head_size", "4", TM_UNSUPPORTED},
        {"deberta-v3", "pooler_hidden_size", "13", TM_UNSUPPORTED},
        {"deberta-v3", "pos_att_type", "\"c2p|p2p\"", TM_UNSUPPORTED},
        {"deberta-v3", "pos_att_type", "[1]", TM_FORMAT},
        {"deberta-v3", "norm_rel_ebd", "\"batch_norm\"", TM_UNSUPPORTED},
        {"deberta-v3", "pooler_hidden_act", "\"mish\"", TM_UNSUPPORTED},
        {"deberta-v3", "max_relative_positions", "5", TM_FORMAT}, /* names position_buckets */
        {"deberta-v3", "architectures", "[\"DebertaForSequenceClassification\"]", TM_UNSUPPORTED},
        {"bert-sentence", "hidden_dropout_prob", "0.9", TM_OK},
        {"bert-sentence", "gradient_checkpointing", "true", TM_OK},
        {"bert-sentence", "architectures", "null", TM_OK},
        {"bert-sentence", "pruned_heads", "{}", TM_OK},
        {"deberta-v3", "legacy", "false", TM_OK},
        {"deberta-v3", "conv_kernel_size", "0", TM_OK},
        {"deberta-v3", "attention_head_size", "6", TM_OK},
        {"deberta-v3", "anything_else", "[3]", TM_OK},
    };
    tm_device *device = open_device(true);
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        json_t *value = json_loads(cases[i].value, JSON_DECODE_ANY, NULL);
        const char *directory = changed(cases[i].name, cases[i].key, value);
        tm_encoder *encoder = NULL;
        bool elsewhere = strcmp(cases[i].key, "max_relative_positions") == 0;
        if (cases[i].status)
            refuse(device, directory, cases[i].status, elsewhere ? "position_buckets" : cases[i].key);
        else
            assert_ok(tm_encoder_load(device, directory, &encoder));
        tm_encoder_free(encoder);
        json_decref(value);
    }
    tm_device_close(device);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* Writes the case's weights into `home` anew: names through `rename` (false: leave the tensor out). */
static void rewrite(const char *name, const char *home, bool (*rename)(tm__safetensors_entry *entry, char *to)) {
    enum { MOST = 96 };
    static char to[MOST][160];
    tm__safetensors_entry entries[MOST];
    tm__safetensors *file;
    char path[600];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/model.safetensors", home);
    unlink(path);
    assert_ok(tm__safetensors_open(in_case(name, "model.safetensors"), &file));
    for (size_t i = 0; i < tm__safetensors_count(file); i++) {
        tm_tensor tensor;
        assert_true(n < MOST);
        assert_ok(tm__safetensors_at(file, i, &tensor));
        snprintf(to[n], sizeof to[n], "%s", tm__safetensors_name(file, i));
        entries[n] = (tm__safetensors_entry){.name = to[n], .dtype = tensor.dtype, .source = tensor};
        n += rename(&entries[n], to[n]);
    }
    assert_ok(tm__safetensors_write(home, "model.safetensors", entries, n));
    tm__safetensors_close(file);
}

static bool without_key_bias(tm__safetensors_entry *entry, char *to) {
    (void)entry;
    return !strstr(to, "layer.1.attention.self.key.bias");
}

static bool with_stranger(tm__safetensors_entry *entry, char *to) {
    (void)entry;
    if (strcmp(to, "pooler.dense.bias") == 0) snprintf(to, 160, "adapter.dense.bias");
    return true;
}

static bool with_nan(tm__safetensors_entry *entry, char *to) {
    static float values[4096];
    if (!strstr(to, "layer.0.output.dense.weight")) return true;
    memcpy(values, entry->source.data, tm__tensor_bytes(&entry->source));
    values[5] = NAN;
    entry->source.data = values;
    return true;
}

static bool narrower(tm__safetensors_entry *entry, char *to) {
    if (strstr(to, "layer.0.intermediate.dense.weight")) entry->source.shape[0]--;
    return true;
}

/* As converted from TensorFlow and saved with the head of pre-training. */
static bool old_names(tm__safetensors_entry *entry, char *to) {
    char old[128];
    (void)entry;
    snprintf(old, sizeof old, "%s", to);
    char *norm = strstr(old, "LayerNorm.");
    if (strncmp(old, "pooler.", 7) == 0) {
        snprintf(to, 160, "cls.%s", old);
    } else if (norm) {
        bool weight = strcmp(norm, "LayerNorm.weight") == 0;
        snprintf(to, 160, "bert.%.*sLayerNorm.%s", (int)(norm - old), old, weight ? "gamma" : "beta");
    } else {
        snprintf(to, 160, "bert.%s", old);
    }
    return true;
}

static void test_weights(void **state) {
    (void)state;
    static const char name[] = "bert-sentence";
    tm_device *device = open_device(true);
    const char *home = changed(name, NULL, NULL);
    rewrite(name, home, without_key_bias);
    refuse(device, home, TM_NOT_FOUND, "encoder.layer.1.attention.self.key.bias");
    rewrite(name, home, with_stranger);
    refuse(device, home, TM_MISMATCH, "adapter.dense.bias");
    rewrite(name, home, with_nan);
    refuse(device, home, TM_NUMERIC, "encoder.layer.0.output.dense.weight");
    rewrite(name, home, narrower);
    refuse(device, home, TM_MISMATCH, "encoder.layer.0.intermediate.dense.weight");
    fixture f = open_case(name);
    tm_encoder *encoder;
    size_t width;
    rewrite(name, home, old_names);
    assert_ok(tm_encoder_load(device, home, &encoder));
    double *got = outcome(encoder, f.texts, f.count, false, &width);
    compare(&f, "embeddings", got, BOUND);
    free(got);
    tm_encoder_free(encoder);
    close_case(&f);
    char path[600];
    snprintf(path, sizeof path, "%s/model.safetensors", home);
    unlink(path);
    refuse(device, home, TM_NOT_FOUND, "");
    refuse(device, "/nowhere/at/all", TM_NOT_FOUND, "");
    tm_device_close(device);
}

/* ---- ids and texts ----------------------------------------------------------------------------------------------- */

static void test_wrong_ids(void **state) {
    (void)state;
    tm_device *device = open_device(false);
    tm_encoder *encoder;
    double out[64];
    int32_t ids[64] = {1, 2, 97};
    assert_ok(tm_encoder_load(device, in_case("bert-sentence", ""), &encoder));
    tm__encoder_text text = {ids, 3, 3};
    assert_int_equal(tm__encoder_embed_ids(encoder, &text, 1, out), TM_MISMATCH);
    ids[2] = -1;
    assert_int_equal(tm__encoder_embed_ids(encoder, &text, 1, out), TM_MISMATCH);
    ids[2] = 5;
    text.len = 41; /* of 40 positions */
    assert_int_equal(tm__encoder_embed_ids(encoder, &text, 1, out), TM_INVALID);
    text.len = 0;
    assert_int_equal(tm__encoder_embed_ids(encoder, &text, 1, out), TM_INVALID);
    text.len = 3;
    assert_int_equal(tm__encoder_classify_ids(encoder, &text, 1, out), TM_INVALID);
    tm_encoder_free(encoder);
    tm_device_close(device);
}

/* Texts through the checkpoint's tokenizer give what the ids of Hugging Face's tokenizers give. */
static void check_written(const char *name) {
    fixture f = open_case(name);
    tm_device *device = open_device(true);
    tm_encoder *encoder;
    tm_encoder_info info;
    json_t *row;
    size_t i, width;
    assert_ok(tm_encoder_load(device, in_case(name, ""), &encoder));
    tm_encoder_describe(encoder, &info);
    assert_true(json_array_size(json_object_get(f.json, "written")) == 5);
    json_array_foreach(json_object_get(f.json, "written"), i, row) {
        const char *text = json_string_value(json_object_get(row, "text")),
                   *pair = json_string_value(json_object_get(row, "pair"));
        tm__encoder_text ids = text_of(row);
        float got[64];
        if (info.labels) {
            assert_ok(tm_encoder_classify(encoder, &text, &pair, 1, NULL, got));
        } else if (!pair) {
            assert_ok(tm_encoder_embed(encoder, &text, 1, NULL, got));
        }
        double *want = outcome(encoder, &ids, 1, info.labels > 0, &width);
        for (size_t k = 0; k < width && (info.labels || !pair); k++)
            if (got[k] != (float)want[k]) fail_msg("%s, '%s': %g instead of %g", name, text, (double)got[k], want[k]);
        free(want);
        free((void *)ids.ids);
    }
    tm_encoder_free(encoder);
    tm_device_close(device);
    close_case(&f);
}

static void test_written(void **state) {
    (void)state;
    check_written("bert-sentence");
    check_written("deberta-v3");
}

static void test_scores(void **state) {
    (void)state;
    tm_device *device = open_device(false);
    tm_encoder *encoder;
    const float logits[6] = {0, 1, -1, 3, 3, 3};
    float scores[6];
    assert_ok(tm_encoder_load(device, in_case("bert-classifier", ""), &encoder));
    assert_string_equal(tm_encoder_label(encoder, 1), "loud");
    assert_null(tm_encoder_label(encoder, 3));
    tm_encoder_scores(encoder, logits, 2, scores);
    assert_float_equal(scores[1], 0.7310585786, 1e-7);
    assert_float_equal(scores[2], 0.2689414214, 1e-7);
    encoder->config.problem = TM_PROBLEM_SINGLE_LABEL;
    tm_encoder_scores(encoder, logits, 2, scores);
    assert_float_equal(scores[1], 0.6652409558, 1e-7);
    assert_float_equal(scores[5], 1.0 / 3, 1e-7);
    tm_encoder_free(encoder);
    tm_device_close(device);
}

/* Whatever allocation fails, the call says so, or does without (the tokenizer's cache), and leaves nothing behind. */
static void test_memory(void **state) {
    (void)state;
    const char *const text = "the fox jumps", *const pair = "you bake";
    tm_device *device = open_device(false);
    long n = 0, reported = 0;
    for (bool failed = true; failed; n++) {
        tm_encoder *encoder = NULL;
        float logits[2];
        tm__alloc_fail_at(n + 1, false);
        tm_status status = tm_encoder_load(device, in_case("deberta-v3", ""), &encoder);
        if (status == TM_OK) status = tm_encoder_classify(encoder, &text, &pair, 1, NULL, logits);
        failed = tm__alloc_has_failed();
        tm__alloc_fail_at(0, false);
        tm_encoder_free(encoder);
        reported += status == TM_NO_MEMORY;
        if (status != TM_OK && (status != TM_NO_MEMORY || !failed))
            fail_msg("allocation %ld: %s", n + 1, tm_status_name(status));
    }
    assert_true(reported > 1000 && reported > n - 20);
    tm_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets),      cmocka_unit_test(test_ref),       cmocka_unit_test(test_cpu),
        cmocka_unit_test(test_flips),        cmocka_unit_test(test_wrong_ids), cmocka_unit_test(test_other_weights),
        cmocka_unit_test(test_refused_keys), cmocka_unit_test(test_weights),   cmocka_unit_test(test_written),
        cmocka_unit_test(test_scores),       cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
