/* harm.c: prompts that should be refused, prompts that should not, and what judges say of the answers.
 *
 * Layouts are those that the prompts were published in: BeaverTails (the git-disl repositories' test: unsafe rows of
 * 30k_test in order, Alpaca's template without input, 512 tokens, greedy), AdvBench, HarmBench, StrongREJECT, HEx-PHI,
 * the splits of Arditi et al., XSTest, MaliciousInstruct, MT-Bench (first turns), Self-Instruct. A contextual behaviour
 * of HarmBench is asked behind its context and a line of dashes, as its own code asks it. No prompt is shipped.
 * Tests: tests/unit/test_eval_harm.c, tests/parity/test_eval_shared.c.
 */
#include "eval/suite.h"

#include <jansson.h>
#include <stdlib.h>

enum { SCORE_COHERENT, SCORE_EMPTY };

static tm_status score_prompts(tm_evaluation *e, tm__item *item) {
    TM__TRY(tm__item_said(e, item));
    TM__TRY(tm__item_subject(e, item));
    item->scores[SCORE_COHERENT] = tm__answer_coherent(item->said);
    item->scores[SCORE_EMPTY] = *item->said == 0;
    return TM_OK;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static tm_status ask(tm_evaluation *e, size_t row, const char *prompt) {
    const tm_message messages[] = {{"user", prompt}, {0}};
    return tm__item_ask(e, row, NULL, messages);
}

/* Asks what the column says; what should be answered is benign. */
static tm_status ask_column(tm_evaluation *e, const tm__rows *rows, size_t row, const char *column) {
    const char *prompt;
    TM__TRY(tm__rows_text(rows, row, column, &prompt));
    return ask(e, row, prompt);
}

/* Groups by the true members of an object. */
static tm_status group_by_members(tm_evaluation *e, const json_t *object) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) if (json_is_true(value)) TM__TRY(tm__item_group(e, key));
    return TM_OK;
}

static tm_status add_beavertails(tm_evaluation *e, const tm__rows *rows, size_t row) {
    int64_t safe;
    TM__TRY(tm__rows_int(rows, row, "is_safe", &safe));
    if (safe) return TM_OK;
    TM__TRY(ask_column(e, rows, row, "prompt"));
    return group_by_members(e, json_object_get(tm__rows_at(rows, row), "category"));
}

static tm_status add_advbench(tm_evaluation *e, const tm__rows *rows, size_t row) {
    return ask_column(e, rows, row, "goal");
}

static tm_status ask_in_context(tm_evaluation *e, size_t row, const char *behavior, const char *context) {
    const char *asked = tm__keep(e, "%s\n\n---\n\n%s", context, behavior);
    if (!asked) return tm__fail_memory();
    TM__TRY(ask(e, row, asked));
    tm__item *item = &e->items[e->count - 1];
    item->subject = tm__keep(e, "%s", behavior);
    item->context = tm__keep(e, "%s", context);
    return item->subject && item->context ? TM_OK : tm__fail_memory();
}

static tm_status add_harmbench(tm_evaluation *e, const tm__rows *rows, size_t row) {
    const char *behavior, *kind, *context;
    TM__TRY(tm__rows_text(rows, row, "Behavior", &behavior));
    TM__TRY(tm__rows_text(rows, row, "FunctionalCategory", &kind));
    TM__TRY(tm__rows_text(rows, row, "ContextString", &context));
    if (strcmp(kind, "contextual") == 0 && !*context)
        return tm__rows_fail(rows, row, "ContextString", "is empty, but the behaviour is contextual");
    TM__TRY(*context ? ask_in_context(e, row, behavior, context) : ask(e, row, behavior));
    TM__TRY(tm__item_group(e, kind));
    const char *subject = tm__rows_optional(rows, row, "SemanticCategory");
    return subject && strcmp(subject, kind) == 0 ? TM_OK : tm__item_group(e, subject);
}

static tm_status add_strongreject(tm_evaluation *e, const tm__rows *rows, size_t row) {
    const char *category;
    TM__TRY(tm__rows_text(rows, row, "category", &category));
    TM__TRY(ask_column(e, rows, row, "forbidden_prompt"));
    return tm__item_group(e, category);
}

static tm_status add_harmful(tm_evaluation *e, const tm__rows *rows, size_t row) {
    TM__TRY(ask_column(e, rows, row, "instruction"));
    return tm__item_group(e, tm__rows_optional(rows, row, "category"));
}

/* Version 2 says safe or unsafe; in version 1 the types of unsafe prompts begin with "contrast_". */
static tm_status add_xstest(tm_evaluation *e, const tm__rows *rows, size_t row) {
    const char *type = tm__rows_optional(rows, row, "type"), *label;
    bool labelled = tm__rows_have(rows, row, "label");
    TM__TRY(tm__rows_text(rows, row, labelled ? "label" : "type", &label));
    if (labelled && strcmp(label, "safe") != 0 && strcmp(label, "unsafe") != 0)
        return tm__rows_fail(rows, row, "label", "'%.40s' is neither safe nor unsafe", label);
    TM__TRY(ask_column(e, rows, row, "prompt"));
    e->items[e->count - 1].benign = labelled ? strcmp(label, "safe") == 0 : strncmp(label, "contrast", 8) != 0;
    return tm__item_group(e, type);
}

static tm_status add_mt_bench(tm_evaluation *e, const tm__rows *rows, size_t row) {
    const json_t *turns;
    TM__TRY(tm__rows_value(rows, row, "turns", &turns));
    const char *first = json_string_value(json_array_get(turns, 0));
    if (!first) return tm__rows_fail(rows, row, "turns", "is no list of texts");
    TM__TRY(ask(e, row, first));
    return tm__item_group(e, tm__rows_optional(rows, row, "category"));
}

static tm_status add_self_instruct(tm_evaluation *e, const tm__rows *rows, size_t row) {
    const char *instruction;
    const json_t *instances;
    TM__TRY(tm__rows_text(rows, row, "instruction", &instruction));
    TM__TRY(tm__rows_value(rows, row, "instances", &instances));
    const char *input = json_string_value(json_object_get(json_array_get(instances, 0), "input"));
    const tm_message messages[] = {{"user", instruction}, {input && *input ? "input" : NULL, input}, {0}};
    return tm__item_ask(e, row, NULL, messages);
}

static const char *const prompt_columns[] = {"prompt",   "goal",     "instruction", "forbidden_prompt",
                                             "Behavior", "behavior", "question",    NULL};

static tm_status add_prompt(tm_evaluation *e, const tm__rows *rows, size_t row) {
    const char *column = tm__rows_which(rows, row, prompt_columns);
    TM__TRY(ask_column(e, rows, row, column ? column : "prompt"));
    return tm__item_group(e, tm__rows_optional(rows, row, "category"));
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

/* A line that is one quoted field of CSV is what stands in the quotes. */
static void unquote(char *line) {
    size_t len = strlen(line), to = 0;
    if (len < 2 || line[0] != '"' || line[len - 1] != '"') return;
    for (size_t at = 1; at + 1 < len; at++) {
        if (line[at] == '"' && (at + 2 >= len || line[at + 1] != '"')) return; /* quotes of its own */
        at += line[at] == '"';
    }
    for (size_t at = 1; at + 1 < len; at++) {
        line[to++] = line[at];
        at += line[at] == '"';
    }
    line[to] = 0;
}

static tm_status add_line(tm_evaluation *e, const char *path, char *line, size_t len, size_t row) {
    char field[32];
    size_t kept;
    snprintf(field, sizeof field, "line %zu", row + 1);
    if (memchr(line, 0, len) || !tm__utf8_valid(line, len))
        return tm__fail(TM_FORMAT, path, field, "save it as UTF-8", "is no text");
    line[len] = 0;
    const char *text = tm__py_strip(line, &kept);
    if (kept == 0) return TM_OK;
    line += text - line;
    line[kept] = 0;
    unquote(line);
    return ask(e, row, line);
}

/* One prompt a line, the first `limit` of them. */
static tm_status read_lines(tm_evaluation *e, const char *path, const char *group) {
    char *text;
    size_t len, row = 0, before = e->count;
    TM__TRY(tm__file_read(path, 0, &text, &len));
    size_t at = len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    tm_status status = TM_OK;
    for (; status == TM_OK && at < len && !tm__item_enough(e, (int64_t)(e->count - before)); row++) {
        char *end = memchr(text + at, '\n', len - at);
        size_t n = end ? (size_t)(end - text) - at : len - at, had = e->count;
        status = add_line(e, path, text + at, n, row);
        if (status == TM_OK && e->count > had) status = tm__item_group(e, group);
        at += n + 1;
    }
    free(text);
    if (status == TM_OK && e->count == before) status = tm__fail(TM_FORMAT, path, NULL, NULL, "holds no prompts");
    return status;
}

static tm_status read_category(void *user, const char *name, const char *path) {
    tm_evaluation *e = user;
    char category[128];
    const char *end = strrchr(name, '.');
    if (tm__path_is_directory(path) || !end || (strcmp(end, ".csv") != 0 && strcmp(end, ".txt") != 0)) return TM_OK;
    snprintf(category, sizeof category, "%.*s", (int)TM__MIN(end - name, (ptrdiff_t)120), name);
    return read_lines(e, path, category);
}

static tm_status prepare_hex_phi(tm_evaluation *e) {
    if (!tm__path_is_directory(e->path)) return read_lines(e, e->path, NULL);
    TM__TRY(tm__place_list(e->path, read_category, e));
    if (e->count) return TM_OK;
    return tm__fail(TM_FORMAT, e->path, NULL, "a .csv or .txt for each category, one prompt a line",
                    "holds no lists of prompts");
}

static tm_status prepare_prompts(tm_evaluation *e) {
    size_t len = strlen(e->path);
    if (len > 4 && strcmp(e->path + len - 4, ".txt") == 0) return read_lines(e, e->path, NULL);
    return tm__items_read(e, NULL, 0, add_prompt);
}

/* ---- suites ------------------------------------------------------------------------------------------------------ */

static tm_status prepare_rows(tm_evaluation *e) {
    tm__add_row *const *add = e->suite->calls->own;
    return tm__items_read(e, NULL, 0, *add);
}

static tm_status prepare_mt_bench(tm_evaluation *e) {
    TM__TRY(tm__evaluation_note(e, "asks first turns alone"));
    return prepare_rows(e);
}

static tm_status prepare_harmbench(tm_evaluation *e) {
    size_t copied = 0;
    TM__TRY(prepare_rows(e));
    for (size_t i = 0; i < e->count; i++)
        copied += e->items[i].group && strncmp(e->items[i].group, "copyright", 9) == 0;
    return copied ? tm__evaluation_note(e,
                                        "%zu behaviours are about copyright: HarmBench decides these by hashes of "
                                        "the texts; judges here read them like all others",
                                        copied)
                  : TM_OK;
}

static const char *const score_names[] = {"coherent", "empty", NULL};
static const tm__measure measures[] = {
    {.name = "coherent", .kind = TM__MEASURE_SHARE, .score = SCORE_COHERENT},
    {.name = "empty", .kind = TM__MEASURE_SHARE, .score = SCORE_EMPTY},
    {0},
};
const struct tm__suite_calls tm__calls_prompts = {prepare_prompts, score_prompts, score_names, measures, NULL, false};

static const char numbers[] = "coherent, empty; of each judge its numbers, with NAME+ where it flags, refusal, missing";
static const char benign_numbers[] = "coherent, empty; of each judge over_refusal, or its numbers where it knows no "
                                     "refusals, and missing";

/* A suite of one prompt a row: its name, whether it should be answered, how it is read. */
#define PROMPTS(suite, read, add, good)          \
    static tm__add_row *const suite##_row = add; \
    static const struct tm__suite_calls suite##_calls = {read, score_prompts, score_names, measures, &suite##_row, good}

PROMPTS(beavertails, prepare_rows, add_beavertails, false);
PROMPTS(advbench, prepare_rows, add_advbench, false);
PROMPTS(harmbench, prepare_harmbench, add_harmbench, false);
PROMPTS(strongreject, prepare_rows, add_strongreject, false);
PROMPTS(hex_phi, prepare_hex_phi, NULL, false);
PROMPTS(harmful, prepare_rows, add_harmful, false);
PROMPTS(harmless, prepare_rows, add_harmful, true);
PROMPTS(xstest, prepare_rows, add_xstest, false);
PROMPTS(mt_bench, prepare_mt_bench, add_mt_bench, true);
PROMPTS(self_instruct, prepare_rows, add_self_instruct, true);

const tm_suite tm__suite_beavertails = {
    .name = "beavertails",
    .kind = TM_SUITE_ANSWERS,
    .measures = "harmful prompts of BeaverTails, as the git-disl repositories ask them",
    .layout = "prompt, is_safe (rows with false are asked, in order), category (object of booleans)",
    .folders = "beavertails|BeaverTails",
    .files = "30k_test.jsonl|test.jsonl|30k_test.json",
    .numbers = numbers,
    .compare = "harmful score of Booster, Panacea, T-Vaccine with --limit 1000 (older Vaccine, Lisa: 500) and their "
               "judge at threshold 0.5 and 256 tokens",
    .max_new_tokens = 512,
    .chat = TM_CHAT_ALPACA,
    .judged = true,
    .calls = &beavertails_calls,
};

const tm_suite tm__suite_advbench = {
    .name = "advbench",
    .kind = TM_SUITE_ANSWERS,
    .measures = "520 harmful instructions of AdvBench",
    .layout = "goal (target is not used)",
    .folders = "advbench",
    .files = "harmful_behaviors.csv",
    .numbers = numbers,
    .compare = "papers that ask all 520 and judge alike; by keywords only with the same list",
    .max_new_tokens = 512,
    .chat = TM_CHAT_AUTO,
    .judged = true,
    .calls = &advbench_calls,
};

const tm_suite tm__suite_harmbench = {
    .name = "harmbench",
    .kind = TM_SUITE_ANSWERS,
    .measures = "behaviours of HarmBench asked directly, by functional and semantic category",
    .layout = "Behavior, FunctionalCategory, ContextString, SemanticCategory",
    .folders = "harmbench|HarmBench",
    .files = "harmbench_behaviors_text_all.csv|harmbench_behaviors_text_test.csv|harmbench_test.csv",
    .numbers = numbers,
    .compare = "direct requests of HarmBench with its classifier, the group standard (copyright is decided by hashes "
               "there); not attacks",
    .max_new_tokens = 512,
    .chat = TM_CHAT_AUTO,
    .judged = true,
    .calls = &harmbench_calls,
};

const tm_suite tm__suite_strongreject = {
    .name = "strongreject",
    .kind = TM_SUITE_ANSWERS,
    .measures = "forbidden prompts of StrongREJECT",
    .layout = "forbidden_prompt, category (full set or small set)",
    .folders = "strongreject|strong_reject",
    .files = "strongreject_dataset.csv|strongreject_small_dataset.csv",
    .numbers = numbers,
    .compare = "StrongREJECT without jailbreak on the same set (versions hold 311 to 346 rows), judged by its rubric",
    .max_new_tokens = 512,
    .chat = TM_CHAT_AUTO,
    .judged = true,
    .calls = &strongreject_calls,
};

const tm_suite tm__suite_hex_phi = {
    .name = "hex_phi",
    .kind = TM_SUITE_ANSWERS,
    .measures = "HEx-PHI, by category",
    .layout = "a directory of .csv or .txt files, one for each category, one prompt a line without header; or one file",
    .folders = "hex_phi|hex-phi|HEx-PHI",
    .numbers = numbers,
    .compare = "Qi et al. with their rubric on 330 prompts (BackdoorAlign: 275; later editions: 300)",
    .max_new_tokens = 512,
    .chat = TM_CHAT_AUTO,
    .judged = true,
    .calls = &hex_phi_calls,
};

const tm_suite tm__suite_harmful = {
    .name = "harmful",
    .kind = TM_SUITE_ANSWERS,
    .measures = "harmful instructions of the splits for refusal directions",
    .layout = "instruction, category",
    .folders = "refusal_direction_splits|refusal_direction",
    .files = "harmful_test.json|harmful_val.json|harmful_train.json",
    .numbers = numbers,
    .compare = "Arditi et al. on the same split",
    .max_new_tokens = 512,
    .chat = TM_CHAT_AUTO,
    .judged = true,
    .calls = &harmful_calls,
};

const tm_suite tm__suite_harmless = {
    .name = "harmless",
    .kind = TM_SUITE_ANSWERS,
    .measures = "harmless instructions of the same splits: how many are refused",
    .layout = "instruction",
    .folders = "refusal_direction_splits|refusal_direction",
    .files = "harmless_test.json|harmless_val.json|harmless_train.json",
    .numbers = benign_numbers,
    .compare = "Arditi et al. on the same split; lower is better",
    .max_new_tokens = 512,
    .chat = TM_CHAT_AUTO,
    .judged = true,
    .calls = &harmless_calls,
};

const tm_suite tm__suite_xstest = {
    .name = "xstest",
    .kind = TM_SUITE_ANSWERS,
    .measures = "XSTest: refusals of safe prompts that look unsafe, and of unsafe ones",
    .layout = "prompt, type, label (safe, unsafe; without it types of unsafe prompts begin with contrast)",
    .folders = "xstest|XSTest",
    .files = "xstest_prompts.csv|xstest_v2_prompts.csv|xstest.jsonl",
    .numbers = "coherent, empty; of each judge its numbers and refusal over unsafe prompts, over_refusal over safe "
               "ones, also of each type, missing",
    .compare = "XSTest's full refusals only where the judge tells them from partial ones; a keyword list does not",
    .max_new_tokens = 512,
    .chat = TM_CHAT_AUTO,
    .judged = true,
    .calls = &xstest_calls,
};

const tm_suite tm__suite_maliciousinstruct = {
    .name = "maliciousinstruct",
    .kind = TM_SUITE_ANSWERS,
    .measures = "MaliciousInstruct: 100 harmful questions",
    .layout = "text, one prompt a line; or rows with prompt, goal, instruction or question",
    .folders = "maliciousinstruct|malicious_instruct|MaliciousInstruct",
    .files = "MaliciousInstruct.txt|malicious_instruct.json",
    .numbers = numbers,
    .compare = "papers that judge alike",
    .max_new_tokens = 512,
    .chat = TM_CHAT_AUTO,
    .judged = true,
    .calls = &tm__calls_prompts,
};

const tm_suite tm__suite_prompts = {
    .name = "prompts",
    .kind = TM_SUITE_ANSWERS,
    .measures = "any list of prompts that should be refused",
    .layout =
        "text, one prompt a line; or rows with prompt, goal, instruction, forbidden_prompt, Behavior or question; "
        "category",
    .folders = "prompts",
    .files = "prompts.txt|prompts.jsonl|prompts.csv",
    .numbers = numbers,
    .compare = "yourself",
    .max_new_tokens = 512,
    .chat = TM_CHAT_AUTO,
    .judged = true,
    .calls = &tm__calls_prompts,
};

const tm_suite tm__suite_mt_bench = {
    .name = "mt_bench",
    .kind = TM_SUITE_ANSWERS,
    .measures = "first turns of MT-Bench: how many are refused, and their answers for another judge",
    .layout = "turns (the first is asked), category",
    .folders = "mt_bench",
    .files = "question.jsonl|mt_bench_question.jsonl|mt_bench.jsonl",
    .numbers = benign_numbers,
    .compare = "not with MT-Bench scores: these need both turns and its judge",
    .max_new_tokens = 1024,
    .chat = TM_CHAT_AUTO,
    .judged = true,
    .exports = true,
    .calls = &mt_bench_calls,
};

const tm_suite tm__suite_self_instruct = {
    .name = "self_instruct",
    .kind = TM_SUITE_ANSWERS,
    .measures = "Self-Instruct's tasks: how many are refused, and their answers for another judge",
    .layout = "instruction, instances (input of the first)",
    .folders = "self_instruct|self-instruct",
    .files = "user_oriented_instructions.jsonl|seed_tasks.jsonl",
    .numbers = benign_numbers,
    .compare = "nothing but yourself",
    .max_new_tokens = 512,
    .chat = TM_CHAT_ALPACA,
    .judged = true,
    .exports = true,
    .calls = &self_instruct_calls,
};
