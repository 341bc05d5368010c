/* provenance.c: temper.json, what was done to a model and with which rows.
 *
 *   {"format": 1, "stages": [{"kind": "defence", "method": "sdd", "seed": 42, "options": {"steps": "150"},
 *     "data": [{"role": "harmful", "party": "defender", "file": "harmful.jsonl", "sha256": HEX, "rows": 96,
 *               "prompts": [16 hex digits, ...]}]}]}
 *
 * `prompts` are the distinct hashes of overlap.c in rising order. `file` and `sha256` are null where the rows come from
 * no file. Nothing in it depends on when, where or in how many parts the run was made. A checkpoint of somebody else
 * has no such file; one that is there is checked field by field, because a check against damaged hashes would pass.
 * Pinned by tests/unit/test_provenance.c and tests/cli/cases/overlap.sh.
 */
#include "data/data.h"

#include <jansson.h>
#include <stdlib.h>

enum { FORMAT = 1 };
static const char file_name[] = "temper.json";
static const char *const parties[] = {"defender", "user"};

struct tm_provenance {
    json_t *stages;
};

tm_status tm_provenance_create(tm_provenance **provenance) {
    tm_provenance *made = tm__zalloc(1, sizeof *made);
    tm__json_watch();
    if (made) made->stages = json_array();
    if (!made || !made->stages) {
        free(made);
        return tm__fail_memory();
    }
    *provenance = made;
    return TM_OK;
}

void tm_provenance_free(tm_provenance *provenance) {
    if (!provenance) return;
    json_decref(provenance->stages);
    free(provenance);
}

size_t tm_provenance_stages(const tm_provenance *provenance) {
    return json_array_size(provenance->stages);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static tm_status damaged(const char *file, const char *field, const char *what) {
    return tm__fail(TM_FORMAT, file, field, "remove the file if nothing need be known of the model's past", "%s", what);
}

/* The 16 digits of a hash. */
static bool read_hash(const json_t *text, uint64_t *hash) {
    const char *hex = json_string_value(text);
    if (!hex || json_string_length(text) != 16 || strspn(hex, "0123456789abcdef") != 16) return false;
    *hash = strtoull(hex, NULL, 16);
    return true;
}

static tm_status check_prompts(const json_t *data, const char *file, int64_t rows) {
    const json_t *prompts = json_object_get(data, "prompts"), *item;
    size_t i;
    uint64_t hash, before = 0;
    if (!json_is_array(prompts)) return damaged(file, "prompts", "must be a list of hashes");
    json_array_foreach(prompts, i, item) {
        if (!read_hash(item, &hash)) return damaged(file, "prompts", "holds something else than 16 hexadecimal digits");
        if (i > 0 && hash <= before) return damaged(file, "prompts", "is not in rising order");
        before = hash;
    }
    if (json_array_size(prompts) > (size_t)rows) return damaged(file, "prompts", "is longer than there are rows");
    return TM_OK;
}

static tm_status check_data(const json_t *data, const char *file) {
    const char *role, *party;
    int64_t rows;
    const json_t *name = json_object_get(data, "file"), *hash = json_object_get(data, "sha256");
    if (!json_is_object(data)) return damaged(file, "data", "must be a list of objects");
    TM__TRY(tm__json_text(data, file, "role", NULL, &role));
    TM__TRY(tm__json_text(data, file, "party", NULL, &party));
    if (strcmp(party, parties[0]) != 0 && strcmp(party, parties[1]) != 0)
        return damaged(file, "party", "is neither defender nor user");
    if (!json_is_null(name) && !json_is_string(name)) return damaged(file, "file", "must be a name or null");
    bool hex = json_string_length(hash) == 64 && strspn(json_string_value(hash), "0123456789abcdef") == 64;
    if (!json_is_null(hash) && !hex) return damaged(file, "sha256", "is not a SHA-256");
    TM__TRY(tm__json_int(data, file, "rows", 0, INT64_MAX, NULL, &rows));
    return check_prompts(data, file, rows);
}

static tm_status check_stage(const json_t *stage, const char *file) {
    const char *text, *name;
    int64_t seed;
    size_t i;
    const json_t *data, *item;
    json_t *options, *value;
    if (!json_is_object(stage)) return damaged(file, NULL, "must be an object");
    TM__TRY(tm__json_text(stage, file, "kind", NULL, &text));
    TM__TRY(tm__json_text(stage, file, "method", NULL, &text));
    TM__TRY(tm__json_int(stage, file, "seed", 0, INT64_MAX, NULL, &seed));
    options = json_object_get(stage, "options");
    if (!json_is_object(options)) return damaged(file, "options", "must be an object");
    json_object_foreach(options, name, value) if (!json_is_string(value)) return damaged(file, "options",
                                                                                         "must hold texts");
    data = json_object_get(stage, "data");
    if (!json_is_array(data)) return damaged(file, "data", "must be a list");
    json_array_foreach(data, i, item) TM__TRY(check_data(item, file));
    return TM_OK;
}

/* Puts the number of the stage before the field of the last error. */
static tm_status in_stage(tm_status status, const char *file, size_t stage) {
    char field[160];
    if (status == TM_OK || status == TM_NO_MEMORY) return status;
    tm_error e = *tm_error_last();
    snprintf(field, sizeof field, "stages[%zu]%s%s", stage, e.field[0] ? "." : "", e.field);
    return tm__fail(TM_FORMAT, file, field, e.hint, "%s", e.message);
}

static tm_status check_all(const json_t *root, const char *file) {
    int64_t format;
    size_t i;
    const json_t *stages, *stage;
    if (!json_is_object(root)) return damaged(file, NULL, "must be a JSON object");
    TM__TRY(tm__json_int(root, file, "format", 1, INT64_MAX, NULL, &format));
    if (format != FORMAT)
        return tm__fail(TM_UNSUPPORTED, file, "format", "use the version that wrote it", "%lld is not known",
                        (long long)format);
    stages = json_object_get(root, "stages");
    if (!json_is_array(stages)) return damaged(file, "stages", "must be a list");
    json_array_foreach(stages, i, stage) TM__TRY(in_stage(check_stage(stage, file), file, i));
    return TM_OK;
}

static tm_status load_file(const char *path, tm_provenance *to) {
    json_t *root = NULL;
    TM__TRY(tm__json_load(path, &root));
    tm_status status = check_all(root, path);
    if (status == TM_OK) {
        json_decref(to->stages);
        to->stages = json_incref(json_object_get(root, "stages"));
    }
    json_decref(root);
    return status;
}

tm_status tm_provenance_load(const char *directory, tm_provenance **provenance) {
    tm_provenance *made;
    TM__TRY(tm_provenance_create(&made));
    char *path = tm__path_join(directory, file_name);
    tm_status status = path ? TM_OK : tm__fail_memory();
    if (status == TM_OK && tm__path_exists(path)) status = load_file(path, made);
    free(path);
    if (status == TM_OK)
        *provenance = made;
    else
        tm_provenance_free(made);
    return status;
}

tm_status tm_provenance_join(tm_provenance *provenance, const tm_provenance *more, bool *extends) {
    json_t *a = provenance->stages, *b = more->stages;
    size_t had = json_array_size(a), same = 0;
    while (same < had && same < json_array_size(b) && json_equal(json_array_get(a, same), json_array_get(b, same)))
        same++;
    for (size_t i = same; i < json_array_size(b); i++)
        if (json_array_append(a, json_array_get(b, i)) != 0) return tm__fail_memory();
    if (extends) *extends = same == had;
    return TM_OK;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

tm_status tm__provenance_write(const tm_provenance *provenance, const char *directory) {
    char *text = NULL, *path;
    size_t len;
    if (!provenance) return TM_OK;
    json_t *root = json_pack("{s:i, s:O}", "format", FORMAT, "stages", provenance->stages);
    path = tm__path_join(directory, file_name);
    tm_status status = root && path ? tm__json_dump(root, JSON_INDENT(1), &text, &len) : tm__fail_memory();
    if (status == TM_OK) status = tm__file_write(path, text, len);
    json_decref(root);
    free(text);
    free(path);
    return status;
}

tm_status tm_provenance_begin(tm_provenance *provenance, const char *kind, const char *method, int64_t seed) {
    json_t *stage = json_pack("{s:s, s:s, s:I, s:{}, s:[]}", "kind", kind, "method", method, "seed", (json_int_t)seed,
                              "options", "data");
    return json_array_append_new(provenance->stages, stage) == 0 ? TM_OK : tm__fail_memory();
}

static json_t *last_stage(const tm_provenance *provenance) {
    size_t n = json_array_size(provenance->stages);
    assert(n > 0);
    return json_array_get(provenance->stages, n - 1);
}

static const char *last_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

tm_status tm_provenance_note(tm_provenance *provenance, const char *option, const char *value) {
    json_t *options = json_object_get(last_stage(provenance), "options");
    if (!tm__utf8_valid(value, strlen(value))) return tm__fail(TM_INVALID, NULL, option, NULL, "is not valid UTF-8");
    return json_object_set_new(options, option, json_string(value)) == 0 ? TM_OK : tm__fail_memory();
}

/* About saving or memory alone, or about BackdoorAlign's secret, or noted beside the options. */
static bool left_out(const char *name) {
    static const char *const names[] = {"resume", "save-every", "force", "memory", "seed"};
    for (size_t i = 0; i < TM__COUNT(names); i++)
        if (strcmp(name, names[i]) == 0) return true;
    return strncmp(name, "secret", 6) == 0;
}

static tm_status note_option(tm_provenance *provenance, const tm_option *option, const void *options) {
    union {
        int64_t integer;
        double real;
        const char *text;
    } first;
    tm_option one[] = {*option, {0}};
    char value[64], initial[64];
    one[0].offset = 0;
    tm_options_default(one, &first);
    if (option->type == TM_OPTION_TEXT) {
        const char *text;
        memcpy(&text, (const char *)options + option->offset, sizeof text);
        if (!text || (first.text && strcmp(text, first.text) == 0)) return TM_OK;
        return tm_provenance_note(provenance, option->name, tm__option_is_path(option) ? last_name(text) : text);
    }
    tm_options_text(option, options, value, sizeof value);
    tm_options_text(one, &first, initial, sizeof initial);
    return strcmp(value, initial) == 0 ? TM_OK : tm_provenance_note(provenance, option->name, value);
}

tm_status tm_provenance_options(tm_provenance *provenance, const tm_option *table, const void *options) {
    for (; table && table->name; table++)
        if (!left_out(table->name)) TM__TRY(note_option(provenance, table, options));
    return TM_OK;
}

static tm_status hash_file(const char *path, char hex[65]) {
    tm__mapping mapping;
    tm__sha256 hash;
    TM__TRY(tm__file_map(path, &mapping));
    tm__sha256_init(&hash);
    if (mapping.len) tm__sha256_update(&hash, mapping.data, mapping.len);
    tm__sha256_hex(&hash, hex);
    tm__file_unmap(&mapping);
    return TM_OK;
}

static json_t *prompt_list(const tm__prompt *prompts, size_t count) {
    json_t *list = json_array();
    bool ok = list != NULL;
    for (size_t i = 0; ok && i < count; i++) {
        char hex[17];
        snprintf(hex, sizeof hex, "%016llx", (unsigned long long)prompts[i].hash);
        ok = json_array_append_new(list, json_string(hex)) == 0;
    }
    if (ok) return list;
    json_decref(list);
    return NULL;
}

tm_status tm_provenance_rows(tm_provenance *provenance, const char *role, tm_party party, const char *path,
                             const tm_dataset *rows) {
    char hex[65];
    tm__prompt *prompts;
    size_t count;
    const char *name = path ? last_name(path) : NULL;
    if (path) TM__TRY(hash_file(path, hex));
    if (name && !tm__utf8_valid(name, strlen(name))) name = NULL;
    TM__TRY(tm__prompts_make(rows, &prompts, &count));
    json_t *list = prompt_list(prompts, count), *data = json_object_get(last_stage(provenance), "data");
    free(prompts);
    json_t *entry =
        list ? json_pack("{s:s, s:s, s:s?, s:s?, s:I, s:O}", "role", role, "party", parties[party], "file", name,
                         "sha256", path ? hex : NULL, "rows", (json_int_t)tm_dataset_rows(rows), "prompts", list)
             : NULL;
    json_decref(list);
    return entry && json_array_append_new(data, entry) == 0 ? TM_OK : tm__fail_memory();
}

/* ---- checking ---------------------------------------------------------------------------------------------------- */

/* Kind of a stage of tm_train whose rows are said to be the user's. */
static const char tuning[] = "fine-tuning";

/* Prompts that stand in `data` too; *row: the least row of them. */
static size_t count_shared(const tm__prompt *prompts, size_t count, const json_t *data, size_t *row) {
    const json_t *list = json_object_get(data, "prompts");
    size_t shared = 0;
    for (size_t i = 0, j = 0; i < count && j < json_array_size(list);) {
        uint64_t hash = 0;
        if (!read_hash(json_array_get(list, j), &hash) || hash < prompts[i].hash) {
            j++;
        } else {
            if (hash == prompts[i].hash) {
                if (shared == 0 || prompts[i].row < *row) *row = prompts[i].row;
                shared++;
            }
            i++;
        }
    }
    return shared;
}

tm_status tm_provenance_check(const tm_provenance *provenance, const char *role, tm_party party,
                              const tm_dataset *rows) {
    tm__prompt *prompts;
    size_t count, s, d, row = 0;
    const json_t *stage, *data;
    tm_status status = TM_OK;
    TM__TRY(tm__prompts_make(rows, &prompts, &count));
    json_array_foreach(provenance->stages, s, stage) json_array_foreach(json_object_get(stage, "data"), d, data) {
        bool own = strcmp(json_string_value(json_object_get(data, "party")), parties[party]) == 0;
        size_t shared = own || status != TM_OK ? 0 : count_shared(prompts, count, data, &row);
        if (shared == 0) continue;
        char hint[224];
        bool tuned =
            party == TM_PARTY_DEFENDER && strcmp(json_string_value(json_object_get(stage, "kind")), tuning) == 0;
        snprintf(hint, sizeof hint, "%sgive rows that the model has not seen there, or --allow-overlap %.60s",
                 tuned ? "alignment of your own is made with temper finetune --alignment; else " : "", role);
        status = tm__fail(TM_MISMATCH, NULL, role, hint,
                          "%zu of its prompts stand in the %.40s rows of stage %zu (%.40s, %.40s); row %zu is one",
                          shared, json_string_value(json_object_get(data, "role")), s + 1,
                          json_string_value(json_object_get(stage, "method")),
                          json_string_value(json_object_get(stage, "kind")), row + 1);
    }
    free(prompts);
    return status;
}

/* ---- telling ----------------------------------------------------------------------------------------------------- */

tm_status tm_provenance_describe(const tm_provenance *provenance, size_t stage, char **line) {
    json_t *s = json_array_get(provenance->stages, stage), *value;
    tm__string text = {0};
    const json_t *data;
    const char *name;
    size_t i;
    if (!s) return tm__fail(TM_NOT_FOUND, NULL, NULL, NULL, "there is no stage %zu", stage + 1);
    bool ok = tm__string_printf(&text, "%s (%s, seed %lld)", json_string_value(json_object_get(s, "method")),
                                json_string_value(json_object_get(s, "kind")),
                                (long long)json_integer_value(json_object_get(s, "seed")));
    json_object_foreach(json_object_get(s, "options"), name, value) ok =
        ok && tm__string_printf(&text, " %s=%s", name, json_string_value(value));
    json_array_foreach(json_object_get(s, "data"), i, data) {
        const char *file = json_string_value(json_object_get(data, "file"));
        ok = ok &&
             tm__string_printf(&text, "; %s: %s, %lld rows", json_string_value(json_object_get(data, "role")),
                               file ? file : "no file", (long long)json_integer_value(json_object_get(data, "rows")));
    }
    if (ok) {
        *line = text.data;
        return TM_OK;
    }
    tm__string_free(&text);
    return tm__fail_memory();
}
