/* plan_data.c: opens what a plan takes from files, and finds rows by name: in `data`, else in the world.
 *
 * A file counts by what it holds: a model by tm_model_hash and its config, rows by the SHA-256 of their file and which
 * of them, a suite's data by the suite's own hash. Hashing a large checkpoint takes long, so that hashes are remembered
 * in DIR/hashes under sizes and times of change of the files they are of.
 */
#include "lab/plan.h"

#include "eval/suite.h"
#include "lab/key.h"

#include <stdlib.h>
#include <sys/stat.h>

/* ---- hashes that are remembered ---------------------------------------------------------------------------------- */

enum { LINE = 64 + 1 + 64 + 1 }; /* "STAMP HASH\n" */

struct tm__plan_memo {
    char *text; /* lines */
    size_t len;
    tm__string fresh;
};

static tm_status stamp_file(void *user, const char *name, const char *path) {
    struct stat info;
    tm__sha256 *hash = user;
    if (stat(path, &info) != 0) return tm__fail_errno(path, "cannot be read");
    tm__sha256_update(hash, name, strlen(name) + 1);
    if (S_ISDIR(info.st_mode)) return tm__place_list(path, stamp_file, hash);
    const int64_t facts[] = {(int64_t)info.st_size, (int64_t)info.st_mtim.tv_sec, (int64_t)info.st_mtim.tv_nsec,
                             (int64_t)info.st_ino, (int64_t)info.st_dev};
    tm__sha256_update(hash, facts, sizeof facts);
    return TM_OK;
}

/* What the files look like from outside. `kind` keeps hashes of different things apart. */
static tm_status stamp(const char *path, const char *kind, char hex[65]) {
    tm__sha256 hash;
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, kind, strlen(kind) + 1);
    TM__TRY(stamp_file(&hash, "", path));
    tm__sha256_hex(&hash, hex);
    return TM_OK;
}

static char *memo_path(const tm_plan *plan) {
    return tm__path_join(plan->directory, "hashes");
}

/* A file that is missing or damaged remembers nothing. */
static tm_status open_memo(tm_plan *plan) {
    char *path = memo_path(plan);
    plan->memo = tm__zalloc(1, sizeof *plan->memo);
    tm_status status = path && plan->memo ? TM_OK : tm__fail_memory();
    if (status == TM_OK && tm__path_exists(path) &&
        tm__file_read(path, (size_t)1 << 20, &plan->memo->text, &plan->memo->len) != TM_OK)
        tm_error_clear();
    free(path);
    return status;
}

static bool find_line(const char *text, size_t len, const char *mark, char hex[65]) {
    for (size_t at = 0; at + LINE <= len; at += LINE) {
        const char *line = text + at;
        if (memcmp(line, mark, 64) != 0 || line[64] != ' ' || line[LINE - 1] != '\n') continue;
        snprintf(hex, 65, "%.64s", line + 65);
        return strspn(hex, "0123456789abcdef") == 64;
    }
    return false;
}

static bool remembered(const tm_plan *plan, const char *mark, char hex[65]) {
    const struct tm__plan_memo *m = plan->memo;
    return find_line(m->text, m->len, mark, hex) || find_line(m->fresh.data, m->fresh.len, mark, hex);
}

static tm_status remember(tm_plan *plan, const char *mark, const char *hex) {
    return tm__string_printf(&plan->memo->fresh, "%s %s\n", mark, hex) ? TM_OK : tm__fail_memory();
}

tm_status tm__plan_sources_note(const tm_plan *plan) {
    const struct tm__plan_memo *m = plan->memo;
    tm__string all = {0};
    if (!m->fresh.len) return TM_OK;
    bool ok = tm__string_append(&all, m->text ? m->text : "", m->len - m->len % LINE) &&
              tm__string_append(&all, m->fresh.data, m->fresh.len);
    char *path = ok ? memo_path(plan) : NULL;
    tm_status status = path ? tm__file_write(path, all.data, all.len) : tm__fail_memory();
    free(path);
    tm__string_free(&all);
    return status;
}

/* ---- bases ------------------------------------------------------------------------------------------------------- */

static tm_status hash_file(tm__sha256 *hash, const char *directory, const char *name) {
    char hex[65], *path = tm__path_join(directory, name);
    tm_status status = path ? TM_OK : tm__fail_memory();
    if (status == TM_OK && tm__path_exists(path)) {
        status = tm__place_hash(path, hex);
        if (status == TM_OK) tm__key_text(hash, name, hex);
    }
    free(path);
    return status;
}

static tm_status hash_model(const tm__plan_base *base, char hex[65]) {
    tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    tm_device *device = NULL;
    tm_model *model = NULL;
    tm__sha256 hash;
    char weights[65];
    tm__sha256_init(&hash);
    tm_status status = tm_device_open(&where, &device);
    if (status == TM_OK) status = tm_model_load(device, base->path, NULL, &model);
    if (status == TM_OK) status = tm_model_hash(model, weights);
    if (status == TM_OK) {
        tm__key_text(&hash, "weights", weights);
        status = hash_file(&hash, base->path, "config.json");
    }
    if (status == TM_OK) status = hash_file(&hash, base->path, "generation_config.json");
    tm__sha256_hex(&hash, hex);
    tm_model_free(model);
    tm_device_close(device);
    return status;
}

static tm_status hash_tokenizer(const tm__plan_base *base, char hex[65]) {
    static const char *const files[] = {"tokenizer.json",    "tokenizer.model",    "tokenizer_config.json",
                                        "vocab.json",        "merges.txt",         "special_tokens_map.json",
                                        "added_tokens.json", "chat_template.jinja"};
    tm__sha256 hash;
    char number[16];
    tm__sha256_init(&hash);
    for (size_t i = 0; i < TM__COUNT(files); i++) TM__TRY(hash_file(&hash, base->path, files[i]));
    if (base->template && tm__path_exists(base->template)) {
        char text[65];
        TM__TRY(tm__place_hash(base->template, text));
        tm__key_text(&hash, "template file", text);
    } else if (base->template) {
        tm__key_text(&hash, "template", base->template);
    }
    if (base->variables) tm__key_text(&hash, "variables", base->variables);
    snprintf(number, sizeof number, "%d", base->chat);
    tm__key_text(&hash, "chat", number);
    tm__sha256_hex(&hash, hex);
    return TM_OK;
}

tm_status tm__plan_tokenizer(const tm_plan *plan, int base, tm_tokenizer **tokenizer) {
    const tm__plan_base *b = &plan->bases[base];
    TM__TRY(tm_tokenizer_load(b->path, tokenizer));
    tm_status status =
        b->template || b->variables ? tm_tokenizer_use_template(*tokenizer, b->template, b->variables) : TM_OK;
    if (status != TM_OK) {
        tm_tokenizer_free(*tokenizer);
        *tokenizer = NULL;
    }
    return status;
}

static tm_status open_base(tm_plan *plan, int index) {
    tm__plan_base *base = &plan->bases[index];
    tm_tokenizer *tokenizer = NULL;
    char mark[65], option[80];
    if (!tm__path_is_directory(base->path)) {
        snprintf(option, sizeof option, "--set bases.%s.path=DIR names another", base->name);
        return tm__fail(TM_NOT_FOUND, base->path, NULL, option, "there is no such checkpoint directory");
    }
    TM__TRY(stamp(base->path, "model", mark));
    if (!remembered(plan, mark, base->hash)) {
        TM__TRY(hash_model(base, base->hash));
        TM__TRY(remember(plan, mark, base->hash));
    }
    TM__TRY(hash_tokenizer(base, base->tokenizer_hash));
    TM__TRY(tm__plan_tokenizer(plan, index, &tokenizer));
    tm_tokenizer_free(tokenizer);
    base->train = tm__plan_train(plan, index, &plan->train);
    return TM_OK;
}

tm_train_options tm__plan_train(const tm_plan *plan, int base, const tm_train_options *train) {
    tm_train_options made = *train;
    if (base >= 0 && made.chat == TM_CHAT_AUTO) made.chat = plan->bases[base].chat;
    return made;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

const tm__plan_data *tm__plan_find_data(const tm_plan *plan, const char *name) {
    for (size_t i = 0; i < plan->data_count; i++)
        if (strcmp(plan->data[i].name, name) == 0) return &plan->data[i];
    return NULL;
}

static tm_status slice(const tm__plan_data *data, tm_dataset *all, tm_dataset **rows) {
    size_t n = tm_dataset_rows(all), first = (size_t)data->first;
    size_t count = data->rows ? (size_t)data->rows : n - TM__MIN(first, n);
    if (first >= n || count > n - first)
        return tm__fail(TM_INVALID, data->path, data->name, NULL, "rows %zu to %zu are wanted and there are %zu", first,
                        first + TM__MAX(count, (size_t)1) - 1, n);
    if (data->shuffle >= 0) tm_dataset_shuffle(all, (uint64_t)data->shuffle);
    TM__TRY(tm_dataset_create(rows));
    tm_status status = tm_dataset_append(*rows, all, first, count);
    if (status != TM_OK) {
        tm_dataset_free(*rows);
        *rows = NULL;
    }
    return status;
}

static tm_status open_data(tm__plan_data *data, bool prompts) {
    tm_dataset *all = NULL;
    tm__sha256 hash;
    char file[65], text[96];
    if (data->read[prompts]) return TM_OK;
    TM__TRY(tm__place_hash(data->path, file));
    snprintf(text, sizeof text, "%lld %lld %lld", (long long)data->first, (long long)data->rows,
             (long long)data->shuffle);
    tm__sha256_init(&hash);
    tm__key_text(&hash, file, text);
    tm__sha256_hex(&hash, data->hash);
    TM__TRY(prompts ? tm_dataset_load_prompts(data->path, &all) : tm_dataset_load(data->path, &all));
    tm_status status = slice(data, all, &data->read[prompts]);
    tm_dataset_free(all);
    return status;
}

/* Whether the step reads no answers of this role. */
static bool wants_prompts(const tm__plan_step *step, int role) {
    return role == TM__ROLE_HARMFUL && step->method && (step->method->required & TM_DATA_HARMFUL_PROMPTS);
}

static tm_status open_step(tm_plan *plan, const tm__plan_step *step) {
    char name[64];
    for (int role = 0; step->given && role < TM__ROLES; role++)
        for (const char *at = step->sets[role]; at && tm__next_item(&at, name);) {
            tm__plan_data *data = (tm__plan_data *)tm__plan_find_data(plan, name);
            if (data && open_data(data, wants_prompts(step, role)) != TM_OK) return tm__plan_failed_at(plan, data->at);
        }
    return TM_OK;
}

tm_status tm__plan_set(const tm_plan *plan, int world, const char *name, bool prompts, tm_dataset **rows) {
    const tm__plan_data *data = tm__plan_find_data(plan, name);
    if (!data) return tm_world_set(plan->made[world], name, rows);
    const tm_dataset *read = data->read[prompts] ? data->read[prompts] : data->read[!prompts];
    TM__TRY(tm_dataset_create(rows));
    tm_status status = tm_dataset_append(*rows, read, 0, tm_dataset_rows(read));
    if (status != TM_OK) {
        tm_dataset_free(*rows);
        *rows = NULL;
    }
    return status;
}

const char *tm__plan_set_hash(const tm_plan *plan, int world, const char *name) {
    const tm__plan_data *data = tm__plan_find_data(plan, name);
    const char *known;
    if (data) return data->hash;
    for (size_t i = 0; world >= 0 && (known = tm_world_set_name(i)); i++)
        if (strcmp(known, name) == 0) return plan->set_hash[(size_t)world * plan->set_count + i];
    return NULL;
}

/* Sets named in an expression, interleaved row by row until the longest ends. */
static tm_status interleave(tm_dataset *const *sets, size_t count, tm_dataset *all) {
    bool more = true;
    for (size_t row = 0; more; row++) {
        more = false;
        for (size_t i = 0; i < count; i++) {
            if (row >= tm_dataset_rows(sets[i])) continue;
            TM__TRY(tm_dataset_append(all, sets[i], row, 1));
            more = true;
        }
    }
    return TM_OK;
}

tm_status tm__plan_rows(const tm_plan *plan, int world, const tm__plan_step *step, int role, tm_dataset **rows) {
    tm_dataset *sets[TM__PLAN_SETS] = {0}, *all = NULL;
    const char *expression = step->sets[role];
    size_t count = 0;
    tm_status status = TM_OK;
    *rows = NULL;
    if (!expression) return TM_OK;
    char name[64];
    for (const char *at = expression; status == TM_OK && tm__next_item(&at, name);) {
        assert(count < TM__COUNT(sets));
        status = tm__plan_set(plan, world, name, wants_prompts(step, role), &sets[count]);
        if (status == TM_OK) count++;
    }
    if (status == TM_OK) status = tm_dataset_create(&all);
    if (status == TM_OK) status = interleave(sets, count, all);
    for (size_t i = 0; i < count; i++) tm_dataset_free(sets[i]);
    if (status == TM_OK)
        *rows = all;
    else
        tm_dataset_free(all);
    return status;
}

/* ---- what options name ------------------------------------------------------------------------------------------- */

const char *tm__plan_place_hash(const tm_plan *plan, const char *path) {
    for (size_t i = 0; i < plan->place_count; i++)
        if (strcmp(plan->places[i].path, path) == 0) return plan->places[i].hash;
    return NULL;
}

static tm_status open_place(tm_plan *plan, const char *path) {
    char mark[65];
    tm__plan_place place = {.path = path};
    if (tm__plan_place_hash(plan, path)) return TM_OK;
    if (!tm__path_exists(path)) return tm__fail(TM_NOT_FOUND, path, NULL, NULL, "is not there");
    TM__TRY(stamp(path, "place", mark));
    if (!remembered(plan, mark, place.hash)) {
        TM__TRY(tm__place_hash(path, place.hash));
        TM__TRY(remember(plan, mark, place.hash));
    }
    if (!tm__grow((void **)&plan->places, &plan->place_cap, plan->place_count + 1, sizeof *plan->places))
        return tm__fail_memory();
    plan->places[plan->place_count++] = place;
    return TM_OK;
}

static tm_status open_places(tm_plan *plan, const tm__plan_step *step) {
    const tm_option *table = step->given && step->method ? step->method->options : NULL;
    for (const tm_option *o = table; o && o->name; o++) {
        const char *value;
        if (o->type != TM_OPTION_TEXT || !tm__option_is_path(o)) continue;
        memcpy(&value, (const char *)step->own + o->offset, sizeof value);
        if (value && strncmp(value, "stage:", 6) != 0 && open_place(plan, value) != TM_OK)
            return tm__error_within(plan->path, o->name);
    }
    return TM_OK;
}

/* ---- evaluations ------------------------------------------------------------------------------------------------- */

tm_status tm__plan_evaluation_open(const tm_plan *plan, size_t index, int world, int base, const tm_frame *frame,
                                   tm_evaluation **evaluation) {
    const tm__plan_evaluation *e = &plan->evaluations[index];
    const tm__plan_base *b = base >= 0 ? &plan->bases[base] : NULL;
    tm_eval_options options = e->options;
    options.frame = frame;
    options.train = b ? &b->train : &plan->train;
    if (!options.world) options.world = world >= 0 ? (int64_t)plan->worlds[world] : 1;
    if (e->chat_of_base) options.chat = 1 + (b->template ? TM_CHAT_AUTO : b->chat);
    return tm_evaluation_open(e->suite, e->data, &options, evaluation);
}

/* "KIND=PATH,OPTION=PATH,...": what all files look like that the spec names. mark[0] is 0 where the first is none: what
 * such a judge is, is not known from outside. */
static tm_status stamp_judge(const char *spec, char mark[65]) {
    tm__sha256 hash;
    bool first = true;
    mark[0] = 0;
    tm__sha256_init(&hash);
    tm__key_text(&hash, "judge", spec);
    for (const char *at = spec; *at; at += strcspn(at, ","), at += *at == ',') {
        size_t key = strcspn(at, "=,");
        char place[65], *path = at[key] == '=' ? tm__strndup(at + key + 1, strcspn(at + key + 1, ",")) : tm__strdup("");
        if (!path) return tm__fail_memory();
        bool there = *path && tm__path_exists(path);
        tm_status status = there ? stamp(path, "judge", place) : TM_OK;
        free(path);
        TM__TRY(status);
        if (first && !there) return TM_OK;
        if (there) tm__key_text(&hash, "file", place);
        first = false;
    }
    tm__sha256_hex(&hash, mark);
    return TM_OK;
}

/* What decides a judge's verdicts; a heavy judge is opened only where nobody remembers. */
static tm_status hash_judge(tm_plan *plan, const char *spec, char hex[65]) {
    const tm_device_options where = {.name = "cpu", .threads = 1, .precision = TM_PRECISION_F32};
    tm_judge *judge;
    char mark[65];
    TM__TRY(stamp_judge(spec, mark));
    if (mark[0] && remembered(plan, mark, hex)) return TM_OK;
    TM__TRY(tm_judge_open(spec, &where, NULL, &judge));
    snprintf(hex, 65, "%s", tm_judge_hash(judge));
    tm_judge_close(judge);
    return mark[0] ? remember(plan, mark, hex) : TM_OK;
}

/* What decides its numbers beside the model; of options those that do not stand at their default. */
static tm_status hash_evaluation(tm_plan *plan, const tm__plan_evaluation *e, const char *data, char hex[65]) {
    static const char *const apart[] = {"batch", "data-dir", "preamble"};
    tm_eval_options initial;
    tm__sha256 hash;
    char text[256], other[256];
    tm__sha256_init(&hash);
    tm__key_text(&hash, "suite", e->suite->name);
    tm__key_text(&hash, "data", data);
    tm__key_text(&hash, "chat", e->chat_of_base ? "base" : "");
    tm_options_default(tm_eval_option_table, &initial);
    for (const tm_option *o = tm_eval_option_table; o->name; o++) {
        bool skip = false;
        for (size_t i = 0; i < TM__COUNT(apart); i++) skip |= strcmp(o->name, apart[i]) == 0;
        const char *value = tm__key_value(o, &e->options, text);
        if (!skip && strcmp(value, tm__key_value(o, &initial, other)) != 0) tm__key_text(&hash, o->name, value);
    }
    if (e->options.preamble) tm__key_text(&hash, "preamble", tm__plan_place_hash(plan, e->options.preamble));
    snprintf(text, sizeof text, "%lld %d", (long long)e->options.world, e->options.split);
    if (e->suite == &tm__suite_world) tm__key_text(&hash, "world", text);
    if (e->suite->kind == TM_SUITE_ROWS) tm__key_options(&hash, tm_train_option_table, &plan->train);
    for (size_t i = 0; i < e->judge_count; i++) {
        char judge[65];
        TM__TRY(hash_judge(plan, e->judges[i], judge));
        tm__key_text(&hash, "judge", judge);
        const char *as = strstr(e->judges[i], ",as=");
        if (as) tm__key_text(&hash, "as", as);
    }
    tm__sha256_hex(&hash, hex);
    return TM_OK;
}

/* Reads its data, so that what is wrong with it is said before anything is done. */
static tm_status open_evaluation(tm_plan *plan, size_t index) {
    tm__plan_evaluation *e = &plan->evaluations[index];
    tm_evaluation *opened = NULL;
    if (e->options.preamble) TM__TRY(open_place(plan, e->options.preamble));
    TM__TRY(
        tm__plan_evaluation_open(plan, index, plan->world_count ? 0 : -1, plan->base_count ? 0 : -1, NULL, &opened));
    tm_status status = hash_evaluation(plan, e, opened->data_hash, e->hash);
    tm_evaluation_free(opened);
    return status;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

typedef tm_status see_step(tm_plan *plan, const tm__plan_step *step);

static tm_status each_step(tm_plan *plan, see_step *see) {
    for (size_t i = 0; i < plan->stage_count; i++) TM__TRY(see(plan, &plan->stages[i].step));
    for (size_t i = 0; i < plan->attack_count; i++) TM__TRY(see(plan, &plan->attacks[i].step));
    for (size_t i = 0; i < plan->arm_count; i++) {
        const tm__plan_arm *arm = &plan->arms[i];
        for (size_t k = 0; k < arm->before_count; k++) TM__TRY(see(plan, &arm->before[k]));
        for (size_t k = 0; k < arm->after_count; k++) TM__TRY(see(plan, &arm->after[k]));
        TM__TRY(see(plan, &arm->during));
        for (size_t k = 0; k < plan->attack_count; k++)
            if (arm->met[k]) TM__TRY(see(plan, arm->met[k]));
    }
    return TM_OK;
}

tm_status tm__plan_sources_open(tm_plan *plan) {
    TM__TRY(open_memo(plan));
    for (size_t i = 0; i < plan->base_count; i++)
        if (open_base(plan, (int)i) != TM_OK) return tm__plan_failed_at(plan, plan->bases[i].at);
    TM__TRY(each_step(plan, open_step));
    TM__TRY(each_step(plan, open_places));
    for (size_t i = 0; i < plan->evaluation_count; i++)
        if (open_evaluation(plan, i) != TM_OK) return tm__plan_failed_at(plan, plan->evaluations[i].at);
    return TM_OK;
}

void tm__plan_sources_free(tm_plan *plan) {
    for (size_t i = 0; i < plan->data_count; i++) {
        tm_dataset_free(plan->data[i].read[0]);
        tm_dataset_free(plan->data[i].read[1]);
    }
    if (plan->memo) {
        free(plan->memo->text);
        tm__string_free(&plan->memo->fresh);
    }
    free(plan->memo);
    free(plan->bases);
    free(plan->data);
    free(plan->evaluations);
    free(plan->places);
}
