/* judges.c: the one table of judges, and how NAME[=PATH][,OPTION=VALUE]... becomes one of them.
 *
 * A new kind is one file and one line here. A comma inside a path or a value is written twice. The option `as` is
 * everybody's: the judge's name in results, which is also part of a file's name. Test: tests/unit/test_judges.c.
 */
#include "judge/judge.h"

#include <stdlib.h>

static const tm__judge_kind *const kinds[] = {
    &tm__judge_keywords,        &tm__judge_classifier, &tm__judge_harmbench,    &tm__judge_llama_guard,
    &tm__judge_strongreject_ft, &tm__judge_rubric,     &tm__judge_strongreject,
};

static const tm_option no_options[] = {{0}};

static const tm__judge_kind *find_kind(const char *name) {
    for (size_t i = 0; i < TM__COUNT(kinds); i++)
        if (strcmp(kinds[i]->name, name) == 0) return kinds[i];
    return NULL;
}

bool tm_judge_kind_at(size_t index, tm_judge_about *about) {
    if (index >= TM__COUNT(kinds)) return false;
    const tm__judge_kind *k = kinds[index];
    *about = (tm_judge_about){.name = k->name,
                              .summary = k->summary,
                              .argument = k->argument,
                              .needs_argument = k->needs_argument,
                              .compare = k->compare,
                              .options = k->options ? k->options : no_options};
    for (size_t i = 0; k->measures[i].name && i + 1 < TM__COUNT(about->numbers); i++)
        about->numbers[i] = k->measures[i].name;
    return true;
}

/* ---- specs ------------------------------------------------------------------------------------------------------- */

/* Ends the part that begins at `at` and halves its doubled commas; the next part, NULL: none. */
static char *cut_part(char *at) {
    char *to = at;
    for (; *at; at++) {
        if (*at == ',' && at[1] != ',') {
            *to = 0;
            return at + 1;
        }
        at += *at == ',';
        *to++ = *at;
    }
    *to = 0;
    return NULL;
}

static tm_status no_kind(const char *name) {
    char all[256] = "", hint[96];
    tm__nearest best = {0};
    size_t used = 0;
    for (size_t i = 0; i < TM__COUNT(kinds); i++) {
        tm__nearest_consider(&best, name, kinds[i]->name, strlen(kinds[i]->name));
        if (used < sizeof all)
            used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", kinds[i]->name);
    }
    tm__nearest_hint(&best, name, hint);
    return tm__fail(TM_NOT_FOUND, NULL, "judge", hint, "there is no judge '%.60s'; there are %s", name, all);
}

/* Names go into names of files and columns. */
static tm_status check_name(const char *name) {
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    size_t len = strlen(name);
    if (len == 0 || len > 40 || strspn(name, good) != len)
        return tm__fail(TM_INVALID, NULL, "as", NULL, "'%.60s' is not 1 to 40 letters, digits, '-' and '_'", name);
    return TM_OK;
}

static tm_status set_option(tm_judge *j, char *part) {
    char *equals = strchr(part, '=');
    if (equals) *equals = 0;
    const char *value = equals ? equals + 1 : NULL;
    if (strcmp(part, "as") == 0) {
        j->name = value ? value : "";
        return check_name(j->name);
    }
    tm_status status = tm_options_set(j->kind->options ? j->kind->options : no_options, j->options, part, value);
    return status == TM_OK ? TM_OK : tm__error_within(j->kind->name, NULL);
}

static tm_status read_spec(tm_judge *j) {
    char *part = j->words, *next = cut_part(part), *equals = strchr(part, '=');
    if (equals) *equals = 0;
    j->kind = find_kind(part);
    if (!j->kind) return no_kind(part);
    j->name = j->kind->name;
    if (equals && equals[1]) j->path = equals + 1;
    if (j->path && !j->kind->argument)
        return tm__fail(TM_INVALID, j->kind->name, NULL, NULL, "takes no file, but '%.80s' was given", j->path);
    if (!j->path && j->kind->needs_argument)
        return tm__fail(TM_INVALID, j->kind->name, NULL, NULL, "needs what it judges with: %s=%s", j->kind->name,
                        j->kind->argument);
    if (j->kind->options) {
        j->options = tm__zalloc(1, j->kind->options_size);
        if (!j->options) return tm__fail_memory();
        tm_options_default(j->kind->options, j->options);
    }
    while ((part = next) != NULL) {
        next = cut_part(part);
        TM__TRY(set_option(j, part));
    }
    return TM_OK;
}

static void make_hash(tm_judge *j) {
    tm__sha256 hash;
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, j->kind->name, strlen(j->kind->name) + 1);
    j->kind->identity(j->own, &hash);
    tm__sha256_hex(&hash, j->hash);
}

tm_status tm_judge_open(const char *spec, const tm_device_options *device, const tm_monitor *monitor,
                        tm_judge **judge) {
    static const tm_device_options anywhere = {0};
    const struct tm__judge_place place = {device ? device : &anywhere, monitor};
    tm_judge *j = tm__zalloc(1, sizeof *j);
    if (!j) return tm__fail_memory();
    j->spec = tm__strdup(spec);
    j->words = tm__strdup(spec);
    tm_status status = j->spec && j->words ? read_spec(j) : tm__fail_memory();
    if (status == TM_OK) status = j->kind->open(j->path, j->options, &place, &j->own);
    if (status != TM_OK) {
        j->own = NULL;
        tm_judge_close(j);
        return status;
    }
    make_hash(j);
    *judge = j;
    return TM_OK;
}

void tm_judge_close(tm_judge *j) {
    if (!j) return;
    if (j->own) j->kind->close(j->own);
    free(j->options);
    free(j->words);
    free(j->spec);
    free(j);
}

const char *tm_judge_name(const tm_judge *j) {
    return j->name;
}

const char *tm_judge_kind(const tm_judge *j) {
    return j->kind->name;
}

const char *tm_judge_hash(const tm_judge *j) {
    return j->hash;
}

/* ---- verdicts ---------------------------------------------------------------------------------------------------- */

void tm__verdict_free(tm__verdict *v) {
    free(v->output);
    free(v->missing);
    *v = (tm__verdict){0};
    for (int i = 0; i < TM__VERDICT_SCORES; i++) v->scores[i] = NAN;
}

bool tm__verdict_say(char **field, const char *format, ...) {
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    int len = vsnprintf(NULL, 0, format, again);
    va_end(again);
    free(*field);
    *field = len < 0 ? NULL : tm__alloc((size_t)len + 1, 1);
    if (*field) vsnprintf(*field, (size_t)len + 1, format, list);
    va_end(list);
    return *field != NULL;
}

/* What is not UTF-8 becomes '?'. */
static void clean(char *text) {
    size_t len = text ? strlen(text) : 0;
    for (size_t at = 0; at < len;) {
        uint32_t code;
        int n = tm__utf8_decode(text + at, len - at, &code);
        if (n == 0) text[at] = '?';
        at += n ? (size_t)n : 1;
    }
}

/* A verdict without the score that all hangs on is none; one that is missing has no scores. */
static tm_status check_verdict(const tm__judge_kind *kind, tm__verdict *v) {
    int main_score = kind->flagged >= 0 ? kind->flagged : 0;
    if (!v->missing && !isfinite(v->scores[main_score]) && !tm__verdict_say(&v->missing, "gave no score"))
        return tm__fail_memory();
    for (int i = 0; v->missing && i < TM__VERDICT_SCORES; i++) v->scores[i] = NAN;
    clean(v->output);
    clean(v->missing);
    return TM_OK;
}

tm_status tm__judge_answers(tm_judge *j, const tm__exchange *exchanges, size_t n, tm__verdict *verdicts,
                            const tm_monitor *monitor) {
    for (size_t i = 0; i < n; i++) {
        verdicts[i] = (tm__verdict){0};
        tm__verdict_free(&verdicts[i]);
    }
    tm_status status = j->kind->judge(j->own, exchanges, n, verdicts, monitor);
    for (size_t i = 0; status == TM_OK && i < n; i++) status = check_verdict(j->kind, &verdicts[i]);
    for (size_t i = 0; status != TM_OK && i < n; i++) tm__verdict_free(&verdicts[i]);
    return status;
}
