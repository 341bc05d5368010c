/* report.c: an evaluation as JSON: what was measured on what, the numbers, and every item.
 *
 * Hashes are SHA-256: of the weights (as tm_model_hash), of the data files, and of the token ids of everything that was
 * asked, which stands for template, worked examples and tokenizer alike. Test: tests/unit/test_evaluation.c.
 */
#include "eval/suite.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

/* NULL texts and numbers that are not finite become null. */
static json_t *text_or_null(const char *text) {
    return text ? json_string(text) : json_null();
}

static json_t *real_or_null(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

/* Every value is made before it is set, so that a failed allocation is seen here alone. */
static bool put(json_t *object, const char *key, json_t *value) {
    return json_object_set_new(object, key, value) == 0;
}

static bool put_hash(json_t *object, const char *key, const char *hex) {
    return !hex[0] || put(object, key, json_string(hex));
}

static json_t *json_of_data(const tm_evaluation *e) {
    json_t *data = json_object();
    bool ok = data && put(data, "path", text_or_null(e->path)) && put_hash(data, "sha256", e->data_hash) &&
              put(data, "layout", text_or_null(e->layout)) &&
              (!e->shot_path || put(data, "worked_examples", json_string(e->shot_path)));
    if (ok) return data;
    json_decref(data);
    return NULL;
}

static json_t *json_of_options(const tm_evaluation *e) {
    const tm_suite *suite = e->suite;
    json_t *from = json_object_get(e->source, "options");
    if (from) return json_incref(from);
    json_t *options = json_object();
    bool ok = options && put(options, "limit", json_integer(e->options.limit));
    if (suite->shot_file)
        ok = ok && put(options, "shots", json_integer(e->shots)) && put(options, "seed", json_integer(e->options.seed));
    if (suite->kind == TM_SUITE_ANSWERS && e->device)
        ok = ok && put(options, "chat", json_string(tm_chat_format_name((tm_chat_format)e->chat))) &&
             put(options, "max_new_tokens", json_integer(e->max_new_tokens));
    if (!suite->layout && e->device)
        ok = ok && put(options, "world", json_integer(e->options.world)) &&
             put(options, "split", json_integer(e->options.split));
    if (e->options.frame)
        ok = ok && put(options, "wrapper", text_or_null(e->options.frame->wrapper)) &&
             put(options, "secret", json_boolean(e->options.frame->secret != NULL));
    if (ok) return options;
    json_decref(options);
    return NULL;
}

static json_t *json_of_template(const tm_evaluation *e) {
    json_t *out = json_object();
    bool ok = out && put(out, "name", json_string(e->template_name)) &&
              put(out, "from", text_or_null(e->template_from)) && put_hash(out, "sha256", e->template_hash);
    if (ok) return out;
    json_decref(out);
    return NULL;
}

static json_t *json_of_judge(const tm__judged *j) {
    json_t *out = json_object();
    bool ok = out && put(out, "name", json_string(j->name)) && put(out, "kind", json_string(j->kind->name)) &&
              put(out, "spec", json_string(j->spec)) && put(out, "sha256", json_string(j->hash)) &&
              put(out, "judged", json_integer((json_int_t)j->asked_count)) &&
              put(out, "missing", json_integer((json_int_t)j->missing)) &&
              put(out, "compare", text_or_null(j->kind->compare));
    if (ok) return out;
    json_decref(out);
    return NULL;
}

static json_t *json_of_judges(const tm_evaluation *e) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < e->judged_count; i++)
        if (json_array_append_new(list, json_of_judge(&e->judged[i]))) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

static json_t *json_of_number(const tm_number *number) {
    json_t *out = json_object();
    bool ok = out && put(out, "name", json_string(number->name)) &&
              (!number->judge || put(out, "judge", json_string(number->judge))) &&
              (!number->group || put(out, "group", json_string(number->group))) &&
              put(out, "value", real_or_null(number->value)) && put(out, "low", real_or_null(number->low)) &&
              put(out, "high", real_or_null(number->high)) && put(out, "n", json_integer(number->n)) &&
              put(out, "interval", text_or_null(number->interval));
    if (ok) return out;
    json_decref(out);
    return NULL;
}

static json_t *json_of_choices(const tm__item *item) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < item->choice_count; i++) {
        const tm__choice *c = &item->choices[i];
        json_t *out = json_object();
        bool ok = out && put(out, "text", json_string(c->text)) && put(out, "right", json_boolean(c->right)) &&
                  (c->context == item->choices[0].context ? true : put(out, "prompt", json_string(c->context))) &&
                  put(out, "continuation", json_string(c->next)) && put(out, "log_likelihood", real_or_null(c->ll)) &&
                  put(out, "tokens", json_integer(c->tokens));
        if (!ok) json_decref(out);
        if (json_array_append_new(list, ok ? out : NULL)) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static json_t *json_of_messages(const tm__item *item) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < item->message_count; i++)
        if (json_array_append_new(
                list, json_pack("{s:s, s:s}", "role", item->messages[i].role, "content", item->messages[i].content))) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

static json_t *json_of_scores(const tm_evaluation *e, const tm__item *item) {
    json_t *scores = json_object();
    const char *const *names = e->suite->calls->score_names;
    for (size_t i = 0; scores && names[i]; i++)
        if (!put(scores, names[i], real_or_null(item->scores[i]))) {
            json_decref(scores);
            scores = NULL;
        }
    return scores;
}

/* Several groups are an array. */
static bool put_group(json_t *out, const char *group) {
    json_t *list;
    if (!group) return true;
    if (!strchr(group, '|')) return put(out, "group", json_string(group));
    if (!put(out, "groups", list = json_array())) return false;
    for (const char *at = group; at;) {
        size_t len = strcspn(at, "|");
        if (json_array_append_new(list, json_stringn(at, len))) return false;
        at = at[len] ? at + len + 1 : NULL;
    }
    return true;
}

/* What each judge said of the item, and of what it said it. */
static bool put_verdicts(json_t *out, const tm_evaluation *e, size_t index) {
    json_t *all, *one;
    char mark[TM__MARK];
    if (e->judged_count == 0) return true;
    if (!put(out, "verdicts", all = json_object())) return false;
    for (size_t i = 0; i < e->judged_count; i++) {
        const tm__judged *j = &e->judged[i];
        if (!j->asked[index]) continue;
        tm__item_mark(&e->items[index], mark);
        if (!put(all, j->name, one = tm__verdict_json(j->kind, &j->verdicts[index])) ||
            !put(one, "of", json_string(mark)))
            return false;
    }
    return true;
}

static bool put_asked(json_t *out, const tm_evaluation *e, const tm__item *item) {
    switch (e->suite->kind) {
    case TM_SUITE_CHOICES:
        return put(out, "prompt", json_string(item->choices[0].context)) && put(out, "choices", json_of_choices(item));
    case TM_SUITE_ANSWERS:
        return put(out, "prompt", json_of_messages(item)) &&
               (!item->subject || put(out, "subject", json_string(item->subject))) &&
               (!item->context || put(out, "context", json_string(item->context))) &&
               (!tm__item_benign(e, item) || put(out, "benign", json_true())) &&
               (!item->reference || put(out, "expected", json_string(item->reference))) &&
               put(out, "answer", text_or_null(item->answer));
    default:
        return (!item->text || put(out, "prompt", json_string(item->text))) &&
               put(out, "log_likelihood", real_or_null(item->ll)) && put(out, "tokens", json_integer(item->tokens));
    }
}

static json_t *json_of_item(const tm_evaluation *e, const tm__item *item) {
    json_t *out = json_object();
    bool ok = out && put(out, "row", json_integer(item->row)) && put_group(out, item->group) &&
              put_asked(out, e, item) && put(out, "scores", json_of_scores(e, item)) &&
              put_verdicts(out, e, (size_t)(item - e->items));
    if (ok) return out;
    json_decref(out);
    return NULL;
}

static json_t *json_of_numbers(const tm_evaluation *e) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < e->numbers.count; i++)
        if (json_array_append_new(list, json_of_number(&e->numbers.list[i]))) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

static json_t *json_of_notes(const tm_evaluation *e) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < e->note_count; i++)
        if (json_array_append_new(list, json_string(e->notes[i]))) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

static json_t *json_of_items(const tm_evaluation *e) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < e->count; i++)
        if (json_array_append_new(list, json_of_item(e, &e->items[i]))) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

/* Who was asked: the model here, or what the evaluation that answers were read from says of it. */
static bool put_model(json_t *out, const tm_evaluation *e) {
    static const char *const taken[] = {"model", "device", "template"};
    json_t *model, *device, *from; /* made when they have a place, so that nothing is lost where memory runs out */
    for (size_t i = 0; !e->device && i < TM__COUNT(taken); i++)
        if ((from = json_object_get(e->source, taken[i])) && !put(out, taken[i], json_incref(from))) return false;
    if (!e->device) return true;
    return put(out, "model", model = json_object()) && put(model, "directory", text_or_null(e->model_directory)) &&
           put_hash(model, "sha256", e->model_hash) && put(out, "device", device = json_object()) &&
           put(device, "name", text_or_null(e->device)) &&
           put(device, "instruction_set", text_or_null(e->instruction_set)) &&
           put(device, "precision", text_or_null(e->precision)) &&
           (e->suite->kind != TM_SUITE_ANSWERS || put(out, "template", json_of_template(e)));
}

static bool fill(json_t *out, const tm_evaluation *e, bool items) {
    bool ok = put(out, "temper", json_string(TM_VERSION)) && put(out, "suite", json_string(e->suite->name)) &&
              put(out, "measures", json_string(e->suite->measures)) && put_model(out, e) &&
              put(out, "data", json_of_data(e)) && put_hash(out, "asked_sha256", e->asked_hash) &&
              put(out, "options", json_of_options(e)) && put(out, "items_asked", json_integer((json_int_t)e->count)) &&
              (e->judged_count == 0 || put(out, "judges", json_of_judges(e))) &&
              put(out, "numbers", json_of_numbers(e)) && put(out, "notes", json_of_notes(e)) &&
              put(out, "compare", json_string(e->suite->compare));
    return ok && (!items || put(out, "items", json_of_items(e)));
}

static tm_status dump(const tm_evaluation *e, bool items, char **text, size_t *len) {
    if (!e->asked) return tm__fail(TM_INVALID, NULL, e->suite->name, NULL, "nothing has been asked yet");
    tm__json_watch();
    json_t *out = json_object();
    tm_status status = out && fill(out, e, items) ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = tm__json_dump(out, items ? JSON_INDENT(1) : JSON_COMPACT, text, len);
    json_decref(out);
    return status;
}

tm_status tm_evaluation_json(const tm_evaluation *e, bool items, char **text) {
    return dump(e, items, text, NULL);
}

tm_status tm_evaluation_save(const tm_evaluation *e, const char *path) {
    char *text;
    size_t len;
    TM__TRY(dump(e, true, &text, &len));
    tm_status status = tm__file_write(path, text, len);
    free(text);
    if (status != TM_OK) return status;
    if (e->journal) unlink(e->journal); /* all of it stands in the result */
    for (size_t i = 0; i < e->judged_count; i++)
        if (e->judged[i].journal) unlink(e->judged[i].journal);
    return status;
}

static json_t *json_of_output(const tm__item *item, const char *said, const char *generator) {
    return json_pack("{s:s, s:s, s:s}", "instruction", tm__item_prompt(item), "output", said, "generator", generator);
}

tm_status tm_evaluation_export(const tm_evaluation *e, const char *generator, const char *path) {
    char *text;
    size_t len;
    if (!e->asked || e->suite->kind != TM_SUITE_ANSWERS)
        return tm__fail(TM_INVALID, NULL, e->suite->name, NULL, "there are no answers to write out");
    tm__json_watch();
    json_t *list = json_array();
    tm_status status = list ? TM_OK : tm__fail_memory();
    for (size_t i = 0; status == TM_OK && i < e->count; i++) {
        char *said = NULL;
        status = tm__answer_cut(e->items[i].answer, &said);
        if (status == TM_OK && json_array_append_new(list, json_of_output(&e->items[i], said, generator)))
            status = tm__fail_memory();
        free(said);
    }
    if (status == TM_OK) status = tm__json_dump(list, JSON_INDENT(1), &text, &len);
    json_decref(list);
    if (status != TM_OK) return status;
    status = tm__file_write(path, text, len);
    free(text);
    return status;
}
