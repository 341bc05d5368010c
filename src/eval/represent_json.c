/* represent_json.c: a comparison of hidden states as JSON: how it was made, hashes of models and ids, rows by their
 * numbers and never by their text, numbers per model and layer.
 */
#include "eval/represent.h"

#include <jansson.h>
#include <stdlib.h>

/* Takes `value`, which may be NULL. */
static bool put(json_t *object, const char *key, json_t *value) {
    return value && json_object_set_new(object, key, value) == 0;
}

static json_t *json_of_reals(const double *values, int64_t n) {
    json_t *list = json_array();
    for (int64_t i = 0; list && i < n; i++)
        if (json_array_append_new(list, json_real(values[i]))) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

static json_t *json_of_points(const double *points, size_t n, int64_t k) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++)
        if (json_array_append_new(list, json_of_reals(points + (int64_t)i * k, k))) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

static bool fill_probe(json_t *out, const tm_represent_layer *l) {
    return put(out, "accuracy", json_real(l->accuracy.value)) && put(out, "low", json_real(l->accuracy.low)) &&
           put(out, "high", json_real(l->accuracy.high)) && put(out, "auc", json_real(l->auc)) &&
           put(out, "train_accuracy", json_real(l->train_accuracy)) && put(out, "control", json_real(l->control)) &&
           put(out, "control_train", json_real(l->control_train));
}

static bool fill_layer(json_t *out, const tm_representation *r, const tm_represent_layer *l) {
    json_t *probe;
    return put(out, "layer", json_integer(l->layer)) &&
           put(out, "explained", json_of_reals(l->explained, r->options.components)) &&
           put(out, "own", json_of_reals(l->own, r->options.components)) && put(out, "probe", probe = json_object()) &&
           fill_probe(probe, l) && put(out, "points", json_of_points(l->points, r->count, r->options.components));
}

static bool fill_model(json_t *out, const tm_representation *r, const tm__represent_model *m) {
    json_t *layers;
    bool ok = put(out, "name", json_string(m->name)) && put(out, "sha256", json_string(m->hash)) &&
              put(out, "layers", layers = json_array());
    for (int64_t l = 0; ok && l < r->layer_count; l++) {
        json_t *layer = json_object();
        ok = layer && json_array_append_new(layers, layer) == 0 && fill_layer(layer, r, &m->layers[l]);
    }
    return ok;
}

static bool fill_rows(json_t *list, const tm_representation *r) {
    bool ok = true;
    for (size_t i = 0; ok && i < r->count; i++) {
        json_t *row = json_object();
        ok = row && json_array_append_new(list, row) == 0 &&
             put(row, "kind", json_string(r->rows[i].harmful ? "harmful" : "harmless")) &&
             put(row, "row", json_integer((json_int_t)r->rows[i].row + 1)) &&
             put(row, "half", json_string(r->rows[i].train ? "train" : "test"));
    }
    return ok;
}

/* Choices by their words. */
static bool put_option(json_t *out, const tm_representation *r, const char *name) {
    char text[64];
    tm_options_text(tm_options_find(tm_represent_option_table, name), &r->options, text, sizeof text);
    return put(out, name, json_string(text));
}

static void hash_ids(const tm_representation *r, char hex[65]) {
    tm__sha256 hash;
    tm__sha256_init(&hash);
    for (size_t i = 0; i < r->count; i++) {
        int32_t len = (int32_t)r->rows[i].ids.len;
        tm__sha256_update(&hash, &len, sizeof len);
        tm__sha256_update(&hash, r->rows[i].ids.data, r->rows[i].ids.len * sizeof *r->rows[i].ids.data);
    }
    tm__sha256_hex(&hash, hex);
}

static bool fill(json_t *out, const tm_representation *r) {
    char hex[65];
    json_t *rows, *models;
    hash_ids(r, hex);
    bool ok =
        put(out, "temper", json_string(TM_VERSION)) && put_option(out, r, "position") && put_option(out, r, "fit") &&
        put(out, "chat", json_string(r->format)) && put(out, "seed", json_integer(r->options.seed)) &&
        put(out, "c", json_real(r->options.c)) && put(out, "harmful", json_integer((json_int_t)r->of[1])) &&
        put(out, "harmless", json_integer((json_int_t)r->of[0])) &&
        put(out, "train", json_integer((json_int_t)r->train)) &&
        put(out, "test", json_integer((json_int_t)(r->count - r->train))) && put(out, "ids_sha256", json_string(hex)) &&
        put(out, "rows", rows = json_array()) && fill_rows(rows, r) && put(out, "models", models = json_array());
    for (size_t m = 0; ok && m < r->model_count; m++) {
        json_t *model = json_object();
        ok = model && json_array_append_new(models, model) == 0 && fill_model(model, r, &r->models[m]);
    }
    return ok;
}

tm_status tm__represent_json(const tm_representation *r, size_t flags, char **text) {
    if (!r->finished) return tm__fail(TM_INVALID, NULL, NULL, NULL, "the result is not finished yet");
    tm__json_watch();
    json_t *out = json_object();
    tm_status status = out && fill(out, r) ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = tm__json_dump(out, flags | JSON_REAL_PRECISION(10), text, NULL);
    json_decref(out);
    return status;
}

tm_status tm_representation_json(const tm_representation *r, char **text) {
    return tm__represent_json(r, JSON_COMPACT, text);
}
