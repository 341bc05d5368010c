/* evaluation.c: an evaluation: a suite, its options, its data. What is asked stands in ask.c, who judges in judging.c.
 *
 * Reading comes first and needs no model, so that a wrong file is an error before hours of work.
 * Tests: tests/unit/test_evaluation.c, tests/cli/cases/suites.sh.
 */
#include "eval/suite.h"

#include <jansson.h>
#include <stdlib.h>

const tm_option tm_eval_option_table[] = {
    {"data-dir", TM_OPTION_TEXT, offsetof(tm_eval_options, data_dir), NULL, 1, 0, NULL, "DIR",
     "directory that holds the suites' data under the names that temper eval --list shows"},
    {"limit", TM_OPTION_INT, offsetof(tm_eval_options, limit), "0", 0, 1e9, NULL, "items",
     "first items of the data alone (of every subject of mmlu, every file of hex_phi); 0: all"},
    {"shots", TM_OPTION_INT, offsetof(tm_eval_options, shots), "-1", -1, 64, NULL, "examples",
     "worked examples before each question; -1: as the suite says"},
    {"seed", TM_OPTION_INT, offsetof(tm_eval_options, seed), "1234", 0, 9007199254740992.0, NULL, NULL,
     "seed of the draw of worked examples; 1234 is lm-evaluation-harness's"},
    {"batch", TM_OPTION_INT, offsetof(tm_eval_options, batch), "64", 1, 4096, NULL, "rows",
     "sequences at a time; changes no number"},
    {"max-new-tokens", TM_OPTION_INT, offsetof(tm_eval_options, max_new_tokens), "0", 0, 1e6, NULL, "tokens",
     "longest answer; 0: as the suite says"},
    {"chat", TM_OPTION_CHOICE, offsetof(tm_eval_options, chat), "suite", 1, 0,
     "suite|auto|chatml|llama2|alpaca|plain|question|template", NULL,
     "format of prompts that are answered; suite: as it was published"},
    {"preamble", TM_OPTION_TEXT, offsetof(tm_eval_options, preamble), NULL, 1, 0, NULL, "FILE",
     "truthfulqa: the six question-answer pairs that go before every question"},
    {0},
};

const char *tm_suite_kind_name(tm_suite_kind kind) {
    static const char *const names[] = {"choices", "texts", "answers", "rows"};
    return names[kind];
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static void resolve(tm_evaluation *e, const tm_eval_options *options) {
    const tm_suite *suite = e->suite;
    e->options = (tm_eval_options){.world = 1, .split = TM_WORLD_TEST};
    tm_options_default(tm_eval_option_table, &e->options);
    if (options) e->options = *options;
    if (e->options.batch < 1) e->options.batch = 64;
    e->shots = e->options.shots < 0 || !suite->shot_file ? suite->shots : e->options.shots;
    e->chat = e->options.chat ? e->options.chat - 1 : suite->chat;
    e->max_new_tokens = e->options.max_new_tokens ? e->options.max_new_tokens : suite->max_new_tokens;
}

static tm_status hash_data(tm_evaluation *e) {
    char shots[65];
    if (!e->path) return TM_OK;
    TM__TRY(tm__place_hash(e->path, e->data_hash));
    if (!e->shot_path) return TM_OK;
    tm__sha256 both;
    TM__TRY(tm__place_hash(e->shot_path, shots));
    tm__sha256_init(&both);
    tm__sha256_update(&both, e->data_hash, 64);
    tm__sha256_update(&both, shots, 64);
    tm__sha256_hex(&both, e->data_hash);
    return TM_OK;
}

tm_status tm_evaluation_open(const tm_suite *suite, const char *data, const tm_eval_options *options,
                             tm_evaluation **evaluation) {
    if (!suite) return tm__fail(TM_NOT_FOUND, NULL, "suite", "temper eval --list", "there is no such suite");
    tm_evaluation *e = tm__zalloc(1, sizeof *e);
    if (!e) return tm__fail_memory();
    e->suite = suite;
    resolve(e, options);
    tm_status status = TM_OK;
    if (e->shots > 64) status = tm__fail(TM_INVALID, NULL, "shots", NULL, "%lld is more than 64", (long long)e->shots);
    if (status == TM_OK && e->options.shots > 0 && !suite->shot_file)
        status = tm__evaluation_note(e, "takes no worked examples: --shots does not count");
    if (status == TM_OK && e->options.frame && suite->kind != TM_SUITE_ANSWERS && suite->kind != TM_SUITE_ROWS)
        status = tm__fail(TM_INVALID, NULL, suite->name, "leave --secret and --wrapper out",
                          "asks for no answers that a frame could go around");
    if (status == TM_OK) status = tm__place_find(e, data);
    if (status == TM_OK) status = hash_data(e);
    if (status == TM_OK) status = suite->calls->prepare(e);
    if (status == TM_OK && e->count == 0)
        status = tm__fail(TM_INVALID, e->path, suite->name, NULL, "there is nothing to ask");
    if (status != TM_OK) {
        tm_evaluation_free(e);
        return status;
    }
    *evaluation = e;
    return TM_OK;
}

void tm_evaluation_free(tm_evaluation *e) {
    if (!e) return;
    tm__judged_drop(e);
    free(e->judged);
    json_decref(e->source);
    if (e->own_free) e->own_free(e->own);
    tm__numbers_free(&e->numbers);
    tm__arena_release(&e->arena);
    free(e->items);
    free(e->notes);
    free(e->path);
    free(e->shot_path);
    free(e->model_directory);
    free(e->journal);
    free(e);
}

size_t tm_evaluation_items(const tm_evaluation *e) {
    return e->count;
}

const tm_suite *tm_evaluation_suite(const tm_evaluation *e) {
    return e->suite;
}

bool tm_evaluation_number(const tm_evaluation *e, size_t index, tm_number *number) {
    if (index >= e->numbers.count) return false;
    *number = e->numbers.list[index];
    return true;
}

const char *tm_evaluation_note(const tm_evaluation *e, size_t index) {
    return index < e->note_count ? e->notes[index] : NULL;
}
