/* golden.h: fixtures that PyTorch computed: rows of text, options, and flat vectors over named parameters; the same for
 * several model families. Fixtures of other families than Llama hold a sketch of each tensor (tools/golden/tiny.py):
 * its norm and its products with vectors of signs. */
#ifndef TM_TEST_GOLDEN_H
#define TM_TEST_GOLDEN_H

#include "support.h"

#include <jansson.h>

#include "data/data.h"
#include "method/method.h"
#include "model/safetensors.h"
#include "model/weights.h"

#define BOUND 1e-8

static json_t *json;
static tm__safetensors *expected;
static const char *home; /* the fixture's directory below tests/ */

static inline bool golden_open(const char *directory) {
    static char opened[64];
    char path[256];
    snprintf(opened, sizeof opened, "%s", directory);
    home = opened;
    snprintf(path, sizeof path, "%s/case.json", directory);
    bool ok = tm__json_load(test_path(path), (struct json_t **)&json) == TM_OK;
    snprintf(path, sizeof path, "%s/expected.safetensors", directory);
    ok = ok && tm__safetensors_open(test_path(path), &expected) == TM_OK;
    if (!ok) fprintf(stderr, "%s\n", tm_error_last()->line);
    return ok;
}

static inline void golden_close(void) {
    json_decref(json);
    tm__safetensors_close(expected);
}

/* Value at a path of keys separated by dots. */
static inline const json_t *golden_at(const char *path) {
    const json_t *at = json;
    char key[64];
    for (const char *from = path; *from;) {
        size_t len = strcspn(from, ".");
        snprintf(key, sizeof key, "%.*s", (int)len, from);
        at = json_object_get(at, key);
        if (!at) fail_msg("%s is not in the fixture", path);
        from += len + (from[len] == '.');
    }
    return at;
}

static inline double golden_number(const char *path) {
    const json_t *value = golden_at(path);
    return json_is_boolean(value) ? json_is_true(value) : json_number_value(value);
}

static inline const char *golden_text(const char *path) {
    return json_string_value(golden_at(path));
}

/* Of GROUP.NAME.LEAF, or of GROUP.NAME where leaf is "". */
static inline const json_t *golden_of(const char *group, const char *name, const char *leaf) {
    char path[128];
    snprintf(path, sizeof path, "%s.%s.%s", group, name, leaf);
    return golden_at(path);
}

static inline int64_t golden_whole(const char *group, const char *name, const char *leaf) {
    return (int64_t)json_integer_value(golden_of(group, name, leaf));
}

static inline tm_dataset *golden_rows(const char *path) {
    tm_dataset *rows;
    size_t i, k;
    json_t *row, *message;
    assert_ok(tm_dataset_create(&rows));
    json_array_foreach(golden_at(path), i, row) {
        tm_message messages[8];
        json_array_foreach(json_object_get(row, "messages"), k, message) {
            assert_true(k < TM__COUNT(messages));
            messages[k] = (tm_message){json_string_value(json_object_get(message, "role")),
                                       json_string_value(json_object_get(message, "content"))};
        }
        assert_ok(tm__dataset_add(rows, messages, k, json_string_value(json_object_get(row, "category"))));
    }
    return rows;
}

static inline tm_tokenizer *golden_tokenizer(void) {
    tm_tokenizer *tokenizer;
    assert_ok(tm_tokenizer_load(test_path(home), &tokenizer));
    return tokenizer;
}

static inline tm_device *golden_device(void) {
    tm_device *device;
    const tm_device_options ref64 = {.name = "ref", .threads = 1, .precision = TM_PRECISION_F64};
    assert_ok(tm_device_open(&ref64, &device));
    return device;
}

/* ---- parameters by name ---- */

typedef struct named {
    char *name;
    double *values;
    size_t count;
} named;

typedef struct weights {
    named items[128];
    size_t count;
    tm_device *device;
    bool adapters;
} weights;

static inline tm_status weights_add(void *user, tm__param *param, bool is_adapter) {
    weights *w = user;
    if (is_adapter != w->adapters) return TM_OK;
    assert_true(w->count < TM__COUNT(w->items));
    named *item = &w->items[w->count++];
    size_t n = (size_t)tm__tensor_count(&param->value);
    *item = (named){strdup(param->name), malloc(n * sizeof(double)), n};
    char *number = strstr(item->name, ".lora_"); /* an adapter keeps its first number in its name; fixtures say 0 */
    if (number) number[strlen(".lora_A.")] = '0';
    void *host = malloc(n * sizeof(double));
    if (param->owned)
        assert_ok(w->device->download(w->device, host, param->value.data, n * tm__dtype_size(param->value.dtype)));
    tm__convert(item->values, TM_F64, param->owned ? host : param->value.data, param->value.dtype, n);
    free(host);
    return TM_OK;
}

/* fp64 copies of a model's weights, or of its adapters'. */
static inline weights *weights_of(tm_model *model, bool adapters) {
    weights *w = calloc(1, sizeof *w);
    w->device = model->dev;
    w->adapters = adapters;
    assert_ok(tm__model_params(model, weights_add, w));
    return w;
}

static inline void weights_free(weights *w) {
    for (size_t i = 0; i < w->count; i++) {
        free(w->items[i].name);
        free(w->items[i].values);
    }
    free(w);
}

/* now <- sign (now - then) */
static inline void weights_subtract(weights *now, const weights *then, double sign) {
    assert_int_equal(now->count, then->count);
    for (size_t i = 0; i < now->count; i++) {
        assert_string_equal(now->items[i].name, then->items[i].name);
        assert_int_equal(now->items[i].count, then->items[i].count);
        for (size_t j = 0; j < now->items[i].count; j++)
            now->items[i].values[j] = sign * (now->items[i].values[j] - then->items[i].values[j]);
    }
}

/* ---- comparing ---- */

/* Product of x with sign vector k, whose signs are bits k of splitmix64. */
static inline double sketch_product(const double *x, size_t n, size_t k) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t z = (i + 1) * 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        sum += (z >> k & 1) ? -x[i] : x[i];
    }
    return sum;
}

/* The length of got - want over want's, where `want` is a sketch with `products` products: these of a difference have
 * its length squared as their mean square. */
static inline double sketch_error(const double *got, size_t n, const double *want, size_t products) {
    double norm = 0, squares = 0;
    for (size_t i = 0; i < n; i++) norm += got[i] * got[i];
    for (size_t k = 0; k < products; k++) {
        double off = sketch_product(got, n, k) - want[1 + k];
        squares += off * off;
    }
    double error = fmax(fabs(sqrt(norm) - want[0]), sqrt(squares / (double)products));
    return want[0] > 0 ? error / want[0] : error;
}

/* The error of a tensor against the fixture's flat vector `key` in the order of names.`names`. */
static inline double golden_compare(const char *key, const char *names, const char *name, const double *got, size_t n) {
    tm_tensor want;
    const json_t *list = json_object_get(json_object_get(json, "names"), names);
    size_t products = (size_t)json_integer_value(json_object_get(json, "sketch")), at = 0, found = SIZE_MAX, k;
    json_t *pair;
    assert_ok(tm__safetensors_find(expected, key, &want));
    json_array_foreach((json_t *)list, k, pair) {
        size_t count = (size_t)json_integer_value(json_array_get(pair, 1));
        if (strcmp(json_string_value(json_array_get(pair, 0)), name) == 0) {
            found = at;
            assert_int_equal(n, count);
        }
        at += products ? 1 + products : count;
    }
    if (found == SIZE_MAX) fail_msg("%s: no weight %s", key, name);
    assert_int_equal(at, tm__tensor_count(&want));
    const double *values = (const double *)want.data + found;
    double error = products ? sketch_error(got, n, values, products) : test_relative_error(got, values, n);
    if (!(error <= BOUND)) fail_msg("%s, %s of %s: error %.3g", home, key, name, error);
    return error;
}

static inline size_t golden_names(const char *names) {
    return json_array_size(json_object_get(json_object_get(json, "names"), names));
}

/* Per tensor; the worst error. */
static inline double weights_compare(const weights *w, const char *key, const char *names) {
    double worst = 0;
    assert_int_equal(w->count, golden_names(names));
    for (size_t i = 0; i < w->count; i++) {
        double error = golden_compare(key, names, w->items[i].name, w->items[i].values, w->items[i].count);
        worst = TM__MAX(worst, error);
    }
    return worst;
}

/* ---- families ---- */

/* All tests on tests/golden/NAME and on the same for each other family. `open` reads what the tests want of a fixture,
 * `close` frees it. */
static inline int golden_run(const char *name, const struct CMUnitTest *tests, size_t count, void (*open)(void),
                             void (*close)(void)) {
    static const char *const families[] = {"", "-qwen2", "-gemma2"};
    int failed = 0;
    for (size_t i = 0; i < TM__COUNT(families); i++) {
        char directory[64], group[64];
        snprintf(directory, sizeof directory, "golden/%s%s", name, families[i]);
        snprintf(group, sizeof group, "%s%s", name, families[i]);
        if (!golden_open(directory)) return 1;
        if (open) open();
        failed += _cmocka_run_group_tests(group, tests, count, NULL, NULL);
        if (close) close();
        golden_close();
    }
    return failed;
}

#endif
