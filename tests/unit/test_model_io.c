/* Creating, saving, loading and hashing models; malformed model directories; memory that runs out. */
#include "model_fixture.h"

#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

static char *path_in(const char *directory, const char *name) {
    char *path = tm__path_join(directory, name);
    assert_non_null(path);
    return path;
}

static void write_file(const char *directory, const char *name, const char *text) {
    char *path = path_in(directory, name);
    assert_ok(tm__file_write(path, text, strlen(text)));
    free(path);
}

static bool has_file(const char *directory, const char *name) {
    char *path = path_in(directory, name);
    bool yes = tm__path_exists(path);
    free(path);
    return yes;
}

/* ---- round trips ------------------------------------------------------------------------------------------------- */

/* Saves as `dtype`, loads, and compares hashes; sharded when `shard` is small. */
static void round_trip(tm_device *dev, const char *root, const char *config, int dtype, int64_t shard,
                       const char *stored) {
    char first[65], second[65], third[65];
    char *a = path_in(root, "a"), *b = path_in(root, "b");
    tm_model *made = fixture_model(dev, config, 11), *loaded = NULL, *again = NULL;
    const tm_save_options options = {.dtype = dtype, .shard_bytes = shard, .overwrite = true};
    const tm_save_options keep = {.dtype = TM_SAVE_KEEP, .overwrite = true};
    assert_ok(tm_model_save(made, a, &options));
    assert_int_equal(has_file(a, "model.safetensors.index.json"), shard != 0);
    assert_ok(tm_model_load(dev, a, NULL, &loaded));
    tm_model_info info;
    tm_model_describe(loaded, &info);
    assert_string_equal(info.dtype, stored);
    assert_ok(tm_model_hash(loaded, first));
    assert_ok(tm_model_save(loaded, b, &keep)); /* resharded where it was sharded */
    assert_ok(tm_model_load(dev, b, NULL, &again));
    assert_ok(tm_model_hash(again, second));
    assert_string_equal(first, second);
    assert_ok(tm__model_train_full(again)); /* a master copy has the same hash */
    assert_ok(tm_model_hash(again, third));
    assert_string_equal(first, third);
    tm_model_free(made);
    tm_model_free(loaded);
    tm_model_free(again);
    free(a);
    free(b);
}

static void saves_and_loads(void **state) {
    (void)state;
    static const struct {
        int dtype;
        const char *name;
    } types[] = {{TM_SAVE_KEEP, "fp32"}, {TM_SAVE_F32, "fp32"}, {TM_SAVE_BF16, "bf16"}, {TM_SAVE_F16, "fp16"}};
    static const char *const configs[] = {
        FIXTURE_CONFIG(""), FIXTURE_CONFIG("\"tie_word_embeddings\": true, "),
        FIXTURE_CONFIG("\"attention_bias\": true, \"mlp_bias\": true, \"head_dim\": 10, ")};
    const char *root = test_scratch();
    for (int precision = TM_PRECISION_F32; precision <= TM_PRECISION_F64; precision += 2) {
        tm_device *dev = fixture_device("ref", precision);
        for (size_t c = 0; c < TM__COUNT(configs); c++)
            for (size_t t = 0; t < TM__COUNT(types); t++) {
                round_trip(dev, root, configs[c], types[t].dtype, 0, types[t].name);
                round_trip(dev, root, configs[c], types[t].dtype, 4000, types[t].name);
            }
        assert_int_equal(dev->bytes_in_use, 0);
        tm_device_close(dev);
    }
}

static void saved_model_computes_the_same(void **state) {
    (void)state;
    static const int32_t ids[] = {3, 9, 27, 7, 21};
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *made = fixture_model(dev, FIXTURE_CONFIG(""), 5), *loaded;
    char *path = path_in(test_scratch(), "m");
    double before, after;
    assert_ok(tm_model_save(made, path, NULL));
    assert_ok(tm_model_load(dev, path, NULL, &loaded));
    assert_ok(tm_model_score(made, ids, 5, &before));
    assert_ok(tm_model_score(loaded, ids, 5, &after));
    assert_true(before == after);
    assert_int_equal(tm_model_save(made, path, NULL), TM_EXISTS);
    const tm_save_options replace = {.overwrite = true, .dtype = TM_SAVE_BF16};
    assert_ok(tm_model_save(loaded, path, &replace)); /* over the directory it is mapped from */
    assert_ok(tm_model_score(loaded, ids, 5, &after));
    assert_true(before == after);
    tm_model_free(loaded);
    tm_model_free(made);
    tm_device_close(dev);
    free(path);
}

/* Keys this program does not know, and the look of numbers, survive; the type is brought up to date. */
static void config_is_carried_through(void **state) {
    (void)state;
    static const char config[] =
        FIXTURE_CONFIG("\"zeta\": [1, 2.5, {\"x\": null}], \"rms_norm_eps\": 1e-05,"
                       "\"torch_dtype\": \"float32\", \"name\": \"\\u00e4\\n\", \"huge\": 1e30, "
                       "\"rope_theta\": 500000.0, \"small\": 0.0001, ");
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *made = fixture_model(dev, config, 5);
    const char *root = test_scratch();
    char *path = path_in(root, "m"), *file = path_in(path, "config.json"), *text;
    const tm_save_options options = {.dtype = TM_SAVE_BF16};
    assert_ok(tm_model_save(made, path, &options));
    struct json_t *expected, *found;
    assert_ok(tm__json_parse(config, strlen(config), NULL, &expected));
    json_object_set_new(expected, "torch_dtype", json_string("bfloat16"));
    assert_ok(tm__json_load(file, &found));
    assert_true(json_equal(expected, found));
    assert_ok(tm__file_read(file, 0, &text, NULL));
    assert_non_null(strstr(text, "\"rms_norm_eps\": 1e-05"));
    assert_non_null(strstr(text, "\"rope_theta\": 500000.0,"));
    assert_non_null(strstr(text, "\"small\": 0.0001,"));
    assert_non_null(strstr(text, "\"huge\": 1e+30"));
    assert_non_null(strstr(text, "2.5"));
    free(text);
    json_decref(expected);
    json_decref(found);
    free(file);
    file = path_in(path, "generation_config.json");
    assert_ok(tm__json_load(file, &found));
    assert_int_equal(json_integer_value(json_object_get(found, "bos_token_id")), 1);
    assert_int_equal(json_integer_value(json_object_get(found, "eos_token_id")), 2);
    json_decref(found);
    /* a generation_config.json that came along is copied, and its eos ids count */
    write_file(path, "generation_config.json", "{\"eos_token_id\": [2, 7], \"top_p\": 0.9}");
    tm_model *loaded;
    assert_ok(tm_model_load(dev, path, NULL, &loaded));
    assert_int_equal(loaded->config.eos_count, 2);
    char *copy = path_in(root, "copy");
    assert_ok(tm_model_save(loaded, copy, NULL));
    free(file);
    file = path_in(copy, "generation_config.json");
    assert_ok(tm__file_read(file, 0, &text, NULL));
    assert_string_equal(text, "{\"eos_token_id\": [2, 7], \"top_p\": 0.9}");
    free(text);
    free(file);
    free(copy);
    free(path);
    tm_model_free(loaded);
    tm_model_free(made);
    tm_device_close(dev);
}

static void creation_depends_on_the_seed_alone(void **state) {
    (void)state;
    char a[65], b[65], c[65], wide[65];
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32), *fine = fixture_device("ref", TM_PRECISION_F64);
    tm_model *first = fixture_model(dev, FIXTURE_CONFIG(""), 1), *second = fixture_model(dev, FIXTURE_CONFIG(""), 1);
    tm_model *third = fixture_model(dev, FIXTURE_CONFIG(""), 2), *fourth = fixture_model(fine, FIXTURE_CONFIG(""), 1);
    assert_ok(tm_model_hash(first, a));
    assert_ok(tm_model_hash(second, b));
    assert_ok(tm_model_hash(third, c));
    assert_ok(tm_model_hash(fourth, wide));
    assert_string_equal(a, b);
    assert_string_equal(a, wide);
    assert_string_not_equal(a, c);
    double sum = 0, square = 0;
    const float *x = first->embed.value.data;
    for (int i = 0; i < 37 * 24; i++) {
        sum += x[i];
        square += (double)x[i] * x[i];
    }
    assert_true(fabs(sum / 888) < 4 * 0.3 / sqrt(888));
    assert_true(fabs(sqrt(square / 888) - 0.3) < 4 * 0.3 / sqrt(2 * 888));
    assert_true(((float *)first->final_norm.weight.value.data)[5] == 1);
    tm_model_free(first);
    tm_model_free(second);
    tm_model_free(third);
    tm_model_free(fourth);
    tm_device_close(dev);
    tm_device_close(fine);
}

/* ---- visiting ---------------------------------------------------------------------------------------------------- */

typedef struct seen {
    char last[128];
    int64_t scalars;
    int count;
    double embed_norm;
} seen;

static tm_status look(void *user, const tm_weight_info *info) {
    seen *s = user;
    int64_t n = 1;
    assert_true(strcmp(s->last, info->name) < 0); /* name order */
    snprintf(s->last, sizeof s->last, "%s", info->name);
    for (int i = 0; i < info->ndim; i++) n *= info->shape[i];
    s->scalars += n;
    s->count++;
    if (strcmp(info->name, "model.embed_tokens.weight") == 0) s->embed_norm = info->norm;
    return TM_OK;
}

static tm_status stop_at_once(void *user, const tm_weight_info *info) {
    (void)info;
    ++*(int *)user;
    return TM_INTERRUPTED;
}

static void visits_in_name_order(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, FIXTURE_CONFIG(""), 1);
    tm_model_info info;
    seen s = {.last = ""};
    int calls = 0;
    tm_model_describe(model, &info);
    assert_ok(tm_model_visit(model, true, look, &s));
    assert_int_equal(s.count, 3 + 2 * 9);
    assert_int_equal(s.scalars, info.parameters);
    double square = 0;
    for (int i = 0; i < 37 * 24; i++) square += pow(((float *)model->embed.value.data)[i], 2);
    assert_true(fabs(s.embed_norm - sqrt(square)) < 1e-12);
    assert_int_equal(tm_model_visit(model, false, stop_at_once, &calls), TM_INTERRUPTED);
    assert_int_equal(calls, 1);
    tm_model_free(model);
    tm_device_close(dev);
}

/* ---- what a 16-bit save loses ------------------------------------------------------------------------------------ */

static void rounding_loss_counts(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *made = fixture_model(dev, FIXTURE_CONFIG(""), 5), *loaded;
    char *path = path_in(test_scratch(), "m");
    const tm_save_options options = {.dtype = TM_SAVE_BF16};
    double share = 7;
    assert_ok(tm_model_save(made, path, &options));
    assert_ok(tm_model_load(dev, path, NULL, &loaded));
    assert_ok(tm__model_rounding_loss(loaded, TM_BF16, &share));
    assert_true(share == 0); /* nothing changed */
    assert_ok(tm__model_train_full(loaded));
    assert_ok(tm__model_rounding_loss(loaded, TM_BF16, &share));
    assert_true(share == 0);
    float *x = loaded->blocks[0].q.weight.value.data; /* bf16 keeps 8 bits: half a step is 2^-9 of the value */
    for (int i = 0; i < 3; i++) x[i] *= 1 + 0x1p-11f;
    x[3] *= 1.5f;
    assert_ok(tm__model_rounding_loss(loaded, TM_BF16, &share));
    assert_true(share == 0.75);
    assert_ok(tm__model_rounding_loss(loaded, TM_F32, &share));
    assert_true(share == 0);
    tm_model_free(made);
    tm_model_free(loaded);
    tm_device_close(dev);
    free(path);
}

/* ---- malformed directories --------------------------------------------------------------------------------------- */

static const char small_config[] =
    "{\"model_type\": \"llama\", \"hidden_size\": 4, \"intermediate_size\": 6, \"num_hidden_layers\": 1,"
    "\"num_attention_heads\": 2, \"vocab_size\": 5, \"tie_word_embeddings\": true}";

enum { SMALL_TENSORS = 13 };

/* A good small checkpoint as entries that a test spoils. */
typedef struct small {
    tm__safetensors_entry entries[SMALL_TENSORS];
    size_t count;
    float data[SMALL_TENSORS][64];
    char names[SMALL_TENSORS][64];
} small;

static tm__safetensors_entry *add_tensor(small *s, const char *name, int64_t rows, int64_t columns) {
    size_t i = s->count++;
    snprintf(s->names[i], sizeof s->names[i], "%s", name);
    for (int k = 0; k < 64; k++) s->data[i][k] = 0.01f * (float)(k + 1);
    s->entries[i] = (tm__safetensors_entry){
        .name = s->names[i],
        .dtype = TM_F32,
        .source = {TM_F32, columns ? 2 : 1, {rows, columns}, s->data[i]},
    };
    return &s->entries[i];
}

static void small_fill(small *s) {
    memset(s, 0, sizeof *s);
    add_tensor(s, "model.embed_tokens.weight", 5, 4);
    add_tensor(s, "model.layers.0.input_layernorm.weight", 4, 0);
    add_tensor(s, "model.layers.0.self_attn.q_proj.weight", 4, 4);
    add_tensor(s, "model.layers.0.self_attn.k_proj.weight", 4, 4);
    add_tensor(s, "model.layers.0.self_attn.v_proj.weight", 4, 4);
    add_tensor(s, "model.layers.0.self_attn.o_proj.weight", 4, 4);
    add_tensor(s, "model.layers.0.post_attention_layernorm.weight", 4, 0);
    add_tensor(s, "model.layers.0.mlp.gate_proj.weight", 6, 4);
    add_tensor(s, "model.layers.0.mlp.up_proj.weight", 6, 4);
    add_tensor(s, "model.layers.0.mlp.down_proj.weight", 4, 6);
    add_tensor(s, "model.norm.weight", 4, 0);
}

static tm__safetensors_entry *entry_named(small *s, const char *name) {
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->entries[i].name, name) == 0) return &s->entries[i];
    fail_msg("no entry %s", name);
    return NULL;
}

static const char *small_write(const small *s, const char *config) {
    const char *root = test_scratch();
    write_file(root, "config.json", config);
    assert_ok(tm__checkpoint_write(root, "model", s->entries, s->count, 0));
    return root;
}

static void expect(tm_device *dev, const char *directory, tm_status status, const char *file, const char *field) {
    tm_model *model = NULL;
    tm_status found = tm_model_load(dev, directory, NULL, &model);
    const tm_error *e = tm_error_last();
    if (found != status || !strstr(e->file, directory) || !strstr(e->file, file) || strcmp(e->field, field) != 0)
        fail_msg("%s, expected %s in %s: %s", tm_status_name(found), tm_status_name(status), file, e->line);
    assert_null(model);
    assert_int_equal(dev->bytes_in_use, 0);
}

static void malformed_directories(void **state) {
    (void)state;
    static small s;
    const char q[] = "model.layers.0.self_attn.q_proj.weight";
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model;

    small_fill(&s);
    assert_ok(tm_model_load(dev, small_write(&s, small_config), NULL, &model)); /* the good one */
    tm_model_free(model);

    const char *root = test_scratch();
    expect(dev, root, TM_NOT_FOUND, "config.json", "");
    write_file(root, "config.json", small_config);
    expect(dev, root, TM_NOT_FOUND, "", "");
    expect(dev, "/tmp/there/is/no/such/model", TM_NOT_FOUND, "", "");

    expect(dev, small_write(&s, "{\"model_type\": \"llama\"}"), TM_FORMAT, "config.json", "hidden_size");

    small_fill(&s);
    s.entries[2] = s.entries[--s.count];
    expect(dev, small_write(&s, small_config), TM_NOT_FOUND, "", q);

    small_fill(&s);
    entry_named(&s, q)->source.shape[0] = 3;
    expect(dev, small_write(&s, small_config), TM_MISMATCH, "model.safetensors", q);
    assert_non_null(strstr(tm_error_last()->message, "(3, 4)"));

    small_fill(&s);
    entry_named(&s, "model.norm.weight")->source.ndim = 2;
    entry_named(&s, "model.norm.weight")->source.shape[1] = 1;
    expect(dev, small_write(&s, small_config), TM_MISMATCH, "model.safetensors", "model.norm.weight");

    small_fill(&s);
    entry_named(&s, q)->dtype = entry_named(&s, q)->source.dtype = TM_I32;
    expect(dev, small_write(&s, small_config), TM_UNSUPPORTED, "model.safetensors", q);

    small_fill(&s);
    add_tensor(&s, "model.layers.1.mlp.up_proj.weight", 6, 4);
    expect(dev, small_write(&s, small_config), TM_MISMATCH, "model.safetensors", "model.layers.1.mlp.up_proj.weight");

    small_fill(&s);
    ((float *)entry_named(&s, q)->source.data)[7] = NAN;
    expect(dev, small_write(&s, small_config), TM_NUMERIC, "model.safetensors", q);
    ((float *)entry_named(&s, q)->source.data)[7] = INFINITY;
    ((float *)entry_named(&s, "model.norm.weight")->source.data)[0] = NAN;
    expect(dev, small_write(&s, small_config), TM_NUMERIC, "model.safetensors", q); /* the first in name order */

    small_fill(&s);
    root = small_write(&s, small_config);
    char *weights = path_in(root, "model.safetensors");
    struct stat info;
    assert_int_equal(stat(weights, &info), 0);
    assert_int_equal(truncate(weights, info.st_size - 5), 0);
    tm_status status = tm_model_load(dev, root, NULL, &model);
    assert_int_equal(status, TM_FORMAT);
    assert_string_equal(tm_error_last()->file, weights);
    free(weights);

    root = small_write(&s, small_config);
    write_file(root, "generation_config.json", "{\"eos_token_id\": 99}");
    expect(dev, root, TM_FORMAT, "generation_config.json", "eos_token_id");
    tm_device_close(dev);
}

/* A tied checkpoint may repeat the embedding as its head, and old ones hold a rotary buffer. */
static void tolerated_tensors(void **state) {
    (void)state;
    static small s;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model;
    small_fill(&s);
    add_tensor(&s, "lm_head.weight", 5, 4);
    add_tensor(&s, "model.layers.0.self_attn.rotary_emb.inv_freq", 1, 0);
    const char *root = small_write(&s, small_config);
    assert_ok(tm_model_load(dev, root, NULL, &model));
    assert_null(model->head.value.data);
    assert_ptr_equal(tm__model_head(model).weight, &model->embed);
    tm_model_free(model);
    ((float *)entry_named(&s, "lm_head.weight")->source.data)[3] += 1;
    expect(dev, small_write(&s, small_config), TM_MISMATCH, "model.safetensors", "lm_head.weight");
    tm_device_close(dev);
}

static void fp64_weights_are_converted(void **state) {
    (void)state;
    static small s;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model;
    small_fill(&s);
    entry_named(&s, "model.norm.weight")->dtype = TM_F64;
    assert_ok(tm_model_load(dev, small_write(&s, small_config), NULL, &model));
    assert_int_equal(model->final_norm.weight.value.dtype, TM_F32);
    assert_int_equal(model->final_norm.weight.stored, TM_F64);
    assert_true(((float *)model->final_norm.weight.value.data)[1] == 0.02f);
    tm_model_free(model);
    tm_device_close(dev);
}

/* ---- memory that runs out ---------------------------------------------------------------------------------------- */

/* Every allocation of `call` fails once, alone and with all that follow, until it succeeds. */
#define EVERY_ALLOCATION_FAILS(dev, call, undo)                                       \
    for (int sticky = 0; sticky < 2; sticky++)                                        \
        for (long n = 1;; n++) {                                                      \
            size_t before = (dev)->bytes_in_use;                                      \
            tm__alloc_fail_at(n, sticky);                                             \
            tm_status status = (call);                                                \
            tm__alloc_fail_at(0, false);                                              \
            if (status == TM_OK) {                                                    \
                undo;                                                                 \
                break;                                                                \
            }                                                                         \
            assert_int_equal(status, TM_NO_MEMORY);                                   \
            assert_int_equal((dev)->bytes_in_use, before);                            \
            tm__pool_trim(dev); /* so that what was pooled must be allocated again */ \
            assert_true(n < 100000);                                                  \
        }

static void survives_failing_allocations(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = NULL, *made = NULL;
    static small s;
    char hex[65];
    small_fill(&s);
    const char *root = small_write(&s, small_config);
    char *saved = path_in(test_scratch(), "m");
    const tm_save_options replace = {.overwrite = true};
    EVERY_ALLOCATION_FAILS(dev, tm_model_load(dev, root, NULL, &model), tm_model_free(model));
    EVERY_ALLOCATION_FAILS(dev, tm_model_create(dev, small_config, 1, &made), tm_model_free(made));
    assert_ok(tm_model_load(dev, root, NULL, &model));
    EVERY_ALLOCATION_FAILS(dev, tm_model_save(model, saved, &replace), (void)0);
    EVERY_ALLOCATION_FAILS(dev, tm_model_hash(model, hex), (void)0);
    EVERY_ALLOCATION_FAILS(dev, tm_model_visit(model, true, look, &(seen){.last = ""}), (void)0);
    double share;
    assert_ok(tm__model_train_full(model));
    EVERY_ALLOCATION_FAILS(dev, tm__model_rounding_loss(model, TM_BF16, &share), (void)0);
    tm_model_free(model);
    assert_int_equal(dev->bytes_in_use, 0);
    free(saved);
    tm_device_close(dev);
}

/* A run that diverged must not replace a good checkpoint with one that the next load refuses. */
static void a_diverged_model_is_not_saved(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, FIXTURE_CONFIG(""), 3);
    char path[256];
    snprintf(path, sizeof path, "%s/model", test_scratch());
    ((float *)model->final_norm.weight.value.data)[5] = NAN;
    assert_int_equal(tm_model_save(model, path, NULL), TM_NUMERIC);
    assert_string_equal(tm_error_last()->file, path);
    assert_string_equal(tm_error_last()->field, "model.norm.weight");
    assert_false(tm__path_exists(path));
    tm_model_free(model);
    tm_device_close(dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(saves_and_loads),
        cmocka_unit_test(saved_model_computes_the_same),
        cmocka_unit_test(config_is_carried_through),
        cmocka_unit_test(creation_depends_on_the_seed_alone),
        cmocka_unit_test(visits_in_name_order),
        cmocka_unit_test(rounding_loss_counts),
        cmocka_unit_test(malformed_directories),
        cmocka_unit_test(tolerated_tensors),
        cmocka_unit_test(a_diverged_model_is_not_saved),
        cmocka_unit_test(fp64_weights_are_converted),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
