/* checkpoint.c: resumable checkpoints: a directory that holds all that a run needs to go on as if never stopped.
 *
 *   state.json             version, tag, step, counters, random stream, device
 *   state.safetensors      "w.<i>.<name>" master weights, "m.<i>.<name>", "v.<i>.<name>" the optimiser's moments,
 *                          "0.<i>.<name>", "1.<i>.<name>" a method's own vectors, all in the device's own type, and
 *                          "losses" (steps) and "numbers", a method's own, in fp64
 *
 * The directory is replaced as a whole (outdir.c), so that it never mixes two steps. Resuming checks everything before
 * the first weight is changed. Row order and dropout need no more than the step and the stream: they are counters.
 */
#include "model/safetensors.h"
#include "train/train.h"

#include <jansson.h>
#include <stdlib.h>

static const char state_name[] = "state.json", tensors_name[] = "state.safetensors", losses_name[] = "losses",
                  numbers_name[] = "numbers";
enum { VERSION = 1 };

/* ---- saving ------------------------------------------------------------------------------------------------------ */

typedef struct source {
    tm_device *dev;
    const void *data;
} source;

static tm_status download(void *user, size_t first, size_t n, void *out) {
    const source *from = user;
    size_t size = tm__dtype_size(from->dev->act);
    return from->dev->download(from->dev, out, (const char *)from->data + first * size, n * size);
}

typedef struct listing {
    tm__safetensors_entry *entries;
    source *sources;
    size_t count;
    tm__arena names;
} listing;

static const char *tensor_name(tm__arena *arena, char kind, size_t i, const tm__param *param) {
    char number[40];
    int len = snprintf(number, sizeof number, "%c.%zu.", kind, i);
    const char *name = param->name ? param->name : "";
    char *text = tm__arena_alloc(arena, (size_t)len + strlen(name) + 1, 1);
    if (!text) return NULL;
    memcpy(text, number, (size_t)len);
    memcpy(text + len, name, strlen(name));
    return text;
}

static bool list_tensor(listing *list, const tm__trainer *trainer, char kind, size_t i, const void *data) {
    const tm__param *param = trainer->set.items[i];
    tm__safetensors_entry *entry = &list->entries[list->count];
    list->sources[list->count] = (source){trainer->set.dev, data};
    *entry = (tm__safetensors_entry){
        .name = tensor_name(&list->names, kind, i, param),
        .dtype = trainer->set.dev->act,
        .source = param->value,
        .produce = download,
        .user = &list->sources[list->count],
    };
    entry->source.dtype = trainer->set.dev->act;
    entry->source.data = NULL;
    list->count++;
    return entry->name != NULL;
}

static tm_status write_tensors(const tm__trainer *trainer, const char *directory) {
    size_t most = trainer->set.count * (3 + TM__EXTRAS) + 2;
    listing list = {.entries = tm__zalloc(most, sizeof *list.entries),
                    .sources = tm__zalloc(most, sizeof *list.sources)};
    bool ok = list.entries && list.sources;
    for (size_t i = 0; ok && i < trainer->set.count; i++) {
        ok = list_tensor(&list, trainer, 'w', i, trainer->set.items[i]->value.data);
        if (ok && trainer->optimiser.m.data) ok = list_tensor(&list, trainer, 'm', i, trainer->optimiser.m.data[i]);
        if (ok && trainer->optimiser.v.data) ok = list_tensor(&list, trainer, 'v', i, trainer->optimiser.v.data[i]);
        for (size_t k = 0; ok && k < trainer->extra_count; k++)
            ok = list_tensor(&list, trainer, (char)('0' + k), i, trainer->extra[k]->data[i]);
    }
    tm_status status = ok ? TM_OK : tm__fail_memory();
    if (ok) {
        list.entries[list.count++] = (tm__safetensors_entry){
            .name = losses_name,
            .dtype = TM_F64,
            .source = {.dtype = TM_F64, .ndim = 1, .shape = {trainer->step}, .data = trainer->losses},
        };
        if (trainer->number_count)
            list.entries[list.count++] = (tm__safetensors_entry){
                .name = numbers_name,
                .dtype = TM_F64,
                .source = {.dtype = TM_F64, .ndim = 1, .shape = {trainer->number_count}, .data = trainer->numbers},
            };
        status = tm__safetensors_write(directory, tensors_name, list.entries, list.count);
    }
    tm__arena_release(&list.names);
    free(list.entries);
    free(list.sources);
    return status;
}

static tm_status write_state(const tm__trainer *trainer, const char *directory) {
    tm_status status = TM_OK;
    json_t *state =
        json_pack("{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:s, s:s, s:s}", "version", (int)VERSION, "tag",
                  trainer->tag, "step", (json_int_t)trainer->step, "optimiser_step",
                  (json_int_t)trainer->optimiser.step, "dropout_stream", (json_int_t)trainer->tape->dropout_stream,
                  "tokens", (json_int_t)trainer->tokens, "targets", (json_int_t)trainer->targets, "seconds",
                  trainer->seconds, "device", tm_device_name(trainer->set.dev), "instruction_set",
                  tm_device_instruction_set(trainer->set.dev), "precision", tm_device_precision(trainer->set.dev));
    char *text = NULL, *path = tm__path_join(directory, state_name);
    size_t len;
    status = state && path ? tm__json_dump(state, JSON_INDENT(2), &text, &len) : tm__fail_memory();
    if (status == TM_OK) status = tm__file_write(path, text, len);
    json_decref(state);
    free(text);
    free(path);
    return status;
}

tm_status tm__trainer_save(const tm__trainer *trainer, const char *directory) {
    tm__outdir out = {0};
    TM__TRY(tm__outdir_begin(&out, directory, true));
    tm_status status = write_tensors(trainer, out.aside);
    if (status == TM_OK) status = write_state(trainer, out.aside);
    if (status == TM_OK) return tm__outdir_commit(&out);
    tm__outdir_abandon(&out);
    return status;
}

/* ---- resuming ---------------------------------------------------------------------------------------------------- */

typedef struct state {
    int64_t step, optimiser_step, dropout_stream, tokens, targets;
    double seconds;
} state;

static tm_status same_text(const json_t *json, const char *path, const char *key, const char *here, const char *hint) {
    const char *there;
    TM__TRY(tm__json_text(json, path, key, NULL, &there));
    if (strcmp(there, here) == 0) return TM_OK;
    return tm__fail(TM_MISMATCH, path, key, hint, "the checkpoint was made with '%.80s', this run has '%.80s'", there,
                    here);
}

static tm_status check_origin(const tm__trainer *trainer, const json_t *json, const char *path) {
    static const char hint[] = "continue where it began, or with force, which gives up bit-equality";
    const tm_device *dev = trainer->set.dev;
    const char *tag;
    int64_t version;
    TM__TRY(tm__json_int(json, path, "version", VERSION, VERSION, NULL, &version));
    TM__TRY(tm__json_text(json, path, "tag", NULL, &tag));
    if (strcmp(tag, trainer->tag) != 0)
        return tm__fail(TM_MISMATCH, path, "tag", "name another directory to resume from, or remove this one",
                        "the checkpoint belongs to another model, data set, method or set of options");
    if (trainer->options->force_resume) return TM_OK;
    TM__TRY(same_text(json, path, "device", tm_device_name(dev), hint));
    TM__TRY(same_text(json, path, "instruction_set", tm_device_instruction_set(dev), hint));
    return same_text(json, path, "precision", tm_device_precision(dev), hint);
}

static tm_status read_state(const tm__trainer *trainer, const char *path, state *s) {
    json_t *json;
    TM__TRY(tm__json_load(path, &json));
    tm_status status = check_origin(trainer, json, path);
    if (status == TM_OK) status = tm__json_int(json, path, "step", 0, trainer->total_steps, NULL, &s->step);
    if (status == TM_OK)
        status = tm__json_int(json, path, "optimiser_step", 0, trainer->total_steps, NULL, &s->optimiser_step);
    if (status == TM_OK) status = tm__json_int(json, path, "dropout_stream", 0, INT64_MAX, NULL, &s->dropout_stream);
    if (status == TM_OK) status = tm__json_int(json, path, "tokens", 0, INT64_MAX, NULL, &s->tokens);
    if (status == TM_OK) status = tm__json_int(json, path, "targets", 0, INT64_MAX, NULL, &s->targets);
    if (status == TM_OK) status = tm__json_real(json, path, "seconds", NULL, &s->seconds);
    json_decref(json);
    return status;
}

/* Finds a tensor that must have this shape and floating type. */
static tm_status find(tm__safetensors *file, const char *name, tm_dtype dtype, int ndim, const int64_t *shape,
                      tm_tensor *tensor) {
    TM__TRY(tm__safetensors_find(file, name, tensor));
    bool same = tensor->dtype == dtype && tensor->ndim == ndim;
    for (int d = 0; same && d < ndim; d++) same = tensor->shape[d] == shape[d];
    if (same) return TM_OK;
    return tm__fail(TM_MISMATCH, tm__safetensors_path(file), name, NULL, "type or shape does not fit this run");
}

/* AdamW's mean of squares: its root is taken, so a damaged one would turn weights into NaN a step later. */
static tm_status check_squares(const tm_tensor *tensor, const char *file, const char *name) {
    double value;
    for (int64_t i = 0, n = tm__tensor_count(tensor); i < n; i++) {
        const char *at = (const char *)tensor->data + (size_t)i * tm__dtype_size(tensor->dtype);
        tm__convert(&value, TM_F64, at, tensor->dtype, 1);
        if (value < 0)
            return tm__fail(TM_FORMAT, file, name, "the checkpoint is damaged", "element %lld is negative",
                            (long long)i);
    }
    return TM_OK;
}

/* Checks the tensors of one kind, or, with `apply`, stores them. */
static tm_status take(tm__trainer *trainer, tm__safetensors *file, char kind, bool apply) {
    tm_device *dev = trainer->set.dev;
    tm__arena names = {0};
    tm_status status = TM_OK;
    for (size_t i = 0; i < trainer->set.count && status == TM_OK; i++) {
        tm__param *param = trainer->set.items[i];
        const char *name = tensor_name(&names, kind, i, param);
        void *to = kind == 'w'   ? param->value.data
                   : kind == 'm' ? trainer->optimiser.m.data[i]
                   : kind == 'v' ? trainer->optimiser.v.data[i]
                                 : trainer->extra[kind - '0']->data[i];
        tm_tensor tensor;
        status = name ? find(file, name, dev->act, param->value.ndim, param->value.shape, &tensor) : tm__fail_memory();
        if (status == TM_OK && apply)
            status = dev->upload(dev, to, tensor.data, tm__tensor_bytes(&tensor));
        else if (status == TM_OK)
            status = tm__tensor_check_finite(&tensor, tm__safetensors_path(file), name);
        if (status == TM_OK && !apply && kind == 'v') status = check_squares(&tensor, tm__safetensors_path(file), name);
    }
    tm__arena_release(&names);
    return status;
}

static tm_status take_all(tm__trainer *trainer, tm__safetensors *file, bool apply) {
    TM__TRY(take(trainer, file, 'w', apply));
    if (trainer->optimiser.m.data) TM__TRY(take(trainer, file, 'm', apply));
    if (trainer->optimiser.v.data) TM__TRY(take(trainer, file, 'v', apply));
    for (size_t k = 0; k < trainer->extra_count; k++) TM__TRY(take(trainer, file, (char)('0' + k), apply));
    return TM_OK;
}

tm_status tm__trainer_resume(tm__trainer *trainer, const char *directory, bool *resumed) {
    *resumed = false;
    char *path = tm__path_join(directory, state_name), *data = tm__path_join(directory, tensors_name);
    tm_status status = TM_OK;
    tm__safetensors *file = NULL;
    tm_tensor losses = {0}, numbers = {0};
    state s;
    if (!path || !data) TM__TRY_GOTO(status, tm__fail_memory(), done);
    if (!tm__path_exists(directory) || tm__path_is_empty_directory(directory)) goto done;
    if (!tm__path_exists(path))
        TM__TRY_GOTO(status,
                     tm__fail(TM_EXISTS, directory, NULL, "name a directory that is new or holds a checkpoint",
                              "exists and holds no resumable checkpoint"),
                     done);
    TM__TRY_GOTO(status, read_state(trainer, path, &s), done);
    TM__TRY_GOTO(status, tm__safetensors_open(data, &file), done);
    TM__TRY_GOTO(status, find(file, losses_name, TM_F64, 1, &s.step, &losses), done);
    TM__TRY_GOTO(status, tm__tensor_check_finite(&losses, data, losses_name), done);
    if (trainer->number_count)
        TM__TRY_GOTO(status, find(file, numbers_name, TM_F64, 1, &trainer->number_count, &numbers), done);
    if (trainer->number_count) TM__TRY_GOTO(status, tm__tensor_check_finite(&numbers, data, numbers_name), done);
    TM__TRY_GOTO(status, take_all(trainer, file, false), done);
    TM__TRY_GOTO(status, take_all(trainer, file, true), done);
    if (s.step) memcpy(trainer->losses, losses.data, (size_t)s.step * sizeof(double));
    if (trainer->number_count) memcpy(trainer->numbers, numbers.data, (size_t)trainer->number_count * sizeof(double));
    trainer->step = s.step;
    trainer->optimiser.step = s.optimiser_step;
    trainer->tape->dropout_stream = (uint64_t)s.dropout_stream;
    trainer->tokens = s.tokens;
    trainer->targets = s.targets;
    trainer->seconds = s.seconds;
    *resumed = true;
done:
    tm__safetensors_close(file);
    free(path);
    free(data);
    return status;
}
