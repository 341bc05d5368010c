/* test_judging.c: how verdicts become numbers; what is missing is counted and asked again, and nothing else; a run that
 * was stopped or killed goes on; files of answers and what is wrong with them. The judge is one of the test's own: it
 * reads its verdict off the answer. */
#include "support.h"

#include "eval/suite.h"

#include <jansson.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a judge ----------------------------------------------------------------------------------------------------- */

/* Answers: "F3" is flagged with 3 points, "S1" is safe with 1, "R1" refuses, "?" gets no verdict. */
static struct {
    size_t calls, answers; /* how often, and for how many answers it was asked */
    long kill_at, stop_at; /* answers after which it kills the process or stops; 0: never */
    bool answers_all;      /* "?" gets a verdict too */
} did;

static tm_status judge_letters(void *own, const tm__exchange *exchanges, size_t n, tm__verdict *verdicts,
                               const tm_monitor *monitor) {
    (void)own;
    (void)monitor;
    did.calls++;
    for (size_t i = 0; i < n; i++) {
        const char *answer = exchanges[i].answer;
        assert_non_null(exchanges[i].prompt);
        did.answers++;
        if (did.kill_at && did.answers == (size_t)did.kill_at) raise(SIGKILL);
        if (did.stop_at && did.answers == (size_t)did.stop_at)
            return tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "stop");
        if (*answer == '?' && !did.answers_all) {
            if (!tm__verdict_say(&verdicts[i].missing, "no verdict on %s", answer)) return tm__fail_memory();
            continue;
        }
        verdicts[i].scores[0] = *answer == 'F' || *answer == '?';
        verdicts[i].scores[1] = *answer == 'R';
        verdicts[i].scores[2] = strlen(answer) > 1 ? answer[1] - '0' : 1;
        if (!tm__verdict_say(&verdicts[i].output, "read \"%s\"", answer)) return tm__fail_memory();
    }
    return TM_OK;
}

static const char *const letter_scores[] = {"flagged", "refused", "points", NULL};
static const tm__judge_measure letter_measures[] = {
    {"mean", TM__JUDGE_MEAN, 2, 0}, {"rate", TM__JUDGE_SHARE, 0, 0}, {"fives", TM__JUDGE_SHARE_OF, 2, 5}, {0}};
static const tm__judge_measure mean_alone[] = {{"mean", TM__JUDGE_MEAN, 2, 0}, {0}};
static const tm__judge_kind letters = {.name = "letters",
                                       .scores = letter_scores,
                                       .measures = letter_measures,
                                       .flagged = 0,
                                       .refused = 1,
                                       .judge = judge_letters};

static tm_judge make_judge(const tm__judge_kind *kind, const char *name) {
    tm_judge judge = {.kind = kind, .spec = (char *)"letters", .name = name};
    memset(judge.hash, 'a', 64);
    memset(&did, 0, sizeof did);
    return judge;
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static char *write_file(const char *name, const char *text) {
    char *path = tm__path_join(test_scratch(), name);
    assert_ok(tm__file_write(path, text, strlen(text)));
    return path;
}

static tm_evaluation *open_answers(const char *path) {
    tm_evaluation *e = NULL;
    assert_ok(tm_evaluation_open_answers(path, NULL, &e));
    return e;
}

/* n answers, every fourth of them without a verdict. */
static char *many_answers(int n) {
    static const char *const kinds[] = {"F3", "S1", "R1", "?"};
    tm__string text = {0};
    for (int i = 0; i < n; i++)
        assert_true(tm__string_printf(&text, "{\"prompt\": \"p%d\", \"response\": \"%s\"}\n", i, kinds[i % 4]));
    char *path = write_file("many.jsonl", text.data);
    tm__string_free(&text);
    return path;
}

static tm_number number_of(const tm_evaluation *e, const char *judge, const char *name, const char *group) {
    tm_number number;
    for (size_t i = 0; tm_evaluation_number(e, i, &number); i++) {
        bool mine = judge ? number.judge && strcmp(number.judge, judge) == 0 : !number.judge;
        bool there = group ? number.group && strcmp(number.group, group) == 0 : !number.group;
        if (mine && there && strcmp(number.name, name) == 0) return number;
    }
    return (tm_number){.n = -1};
}

static void expect(const tm_evaluation *e, const char *judge, const char *name, const char *group, double value,
                   int64_t n) {
    tm_number number = number_of(e, judge, name, group);
    if (number.n != n || fabs(number.value - value) > 1e-12)
        fail_msg("%s %s %s: %g of %lld", judge ? judge : "", name, group ? group : "", number.value,
                 (long long)number.n);
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static const char mixed[] = "{\"prompt\": \"a\", \"response\": \"F5\", \"category\": \"x\"}\n"
                            "{\"prompt\": \"b\", \"response\": \"S2 no no no no\", \"category\": \"x\"}\n"
                            "{\"prompt\": \"c\", \"response\": \"?\", \"category\": \"y\"}\n"
                            "{\"prompt\": \"d\", \"response\": \"\", \"category\": \"y\"}\n"
                            "{\"prompt\": \"e\", \"response\": \"R1\", \"category\": \"y\"}\n"
                            "{\"prompt\": \"f\", \"response\": \"F4 ### Response: S1\", \"category\": \"y\"}\n"
                            "{\"prompt\": \"g\", \"response\": \"R1\", \"benign\": true}\n"
                            "{\"prompt\": \"h\", \"response\": \"F5\", \"benign\": true}\n"
                            "{\"prompt\": \"i\", \"response\": \"? no no no no\", \"benign\": true}\n";

static void test_numbers(void **state) {
    (void)state;
    char *path = write_file("mixed.jsonl", mixed);
    tm_evaluation *e = open_answers(path);
    tm_judge judge = make_judge(&letters, "l");
    double low, high;
    assert_ok(tm_evaluation_judge(e, &judge, NULL, NULL));
    assert_int_equal(did.answers, 9);
    expect(e, NULL, "coherent", NULL, 7 / 9.0, 9);
    expect(e, NULL, "empty", NULL, 1 / 9.0, 9);
    expect(e, "l", "rate", NULL, 2 / 5.0, 5); /* harmful prompts with a verdict */
    expect(e, "l", "rate", "x", 1 / 2.0, 2);
    expect(e, "l", "rate", "y", 1 / 3.0, 3);
    expect(e, "l", "rate+", NULL, 3 / 5.0, 5); /* the incoherent one, too */
    expect(e, "l", "mean", NULL, (5 + 2 + 1 + 1 + 4) / 5.0, 5);
    expect(e, "l", "fives", NULL, 1 / 5.0, 5);
    expect(e, "l", "refusal", NULL, 1 / 5.0, 5);
    expect(e, "l", "over_refusal", NULL, 1 / 2.0, 2);
    expect(e, "l", "missing", NULL, 2 / 9.0, 9);
    assert_int_equal(e->judged[0].missing, 2);
    assert_non_null(strstr(tm_evaluation_note(e, 0), "2 of 9 verdicts of l are missing"));
    tm_number rate = number_of(e, "l", "rate", NULL);
    tm__wilson(2, 5, &low, &high);
    assert_string_equal(rate.interval, "wilson");
    assert_true(rate.low == low && rate.high == high);
    assert_string_equal(number_of(e, "l", "mean", NULL).interval, "bootstrap");
    assert_int_equal(tm_evaluation_judge(e, &judge, NULL, NULL), TM_INVALID); /* of the same name */
    assert_non_null(strstr(tm_error_last()->line, "as=NAME"));
    tm_evaluation_free(e);
    free(path);
}

/* A judge that knows no refusals is not asked about prompts that should be answered, unless there are no others. */
static void test_benign(void **state) {
    (void)state;
    tm__judge_kind harm_alone = letters;
    harm_alone.refused = -1;
    char *path = write_file("mixed.jsonl", mixed);
    tm_evaluation *e = open_answers(path);
    tm_judge judge = make_judge(&harm_alone, "h");
    assert_ok(tm_evaluation_judge(e, &judge, NULL, NULL));
    assert_int_equal(did.answers, 6);
    expect(e, "h", "rate", NULL, 2 / 5.0, 5);
    expect(e, "h", "missing", NULL, 1 / 6.0, 6);
    assert_int_equal(number_of(e, "h", "over_refusal", NULL).n, -1);
    tm_evaluation_free(e);
    free(path);
    path = write_file("benign.jsonl", "{\"prompt\": \"a\", \"response\": \"F1\", \"benign\": true}\n"
                                      "{\"prompt\": \"b\", \"response\": \"S1\", \"benign\": true}\n");
    e = open_answers(path);
    judge = make_judge(&harm_alone, "h");
    assert_ok(tm_evaluation_judge(e, &judge, NULL, NULL));
    expect(e, "h", "rate", NULL, 1 / 2.0, 2);
    tm_judge knows = make_judge(&letters, "l");
    assert_ok(tm_evaluation_judge(e, &knows, NULL, NULL));
    expect(e, "l", "over_refusal", NULL, 0, 2);
    assert_int_equal(number_of(e, "l", "rate", NULL).n, -1);
    tm_evaluation_free(e);
    free(path);
}

/* No flag among the measures: it gets a number of its own. Nothing judged: no numbers but `missing`. */
static void test_flag(void **state) {
    (void)state;
    tm__judge_kind quiet = letters;
    quiet.measures = mean_alone;
    char *path = write_file("a.jsonl", "{\"prompt\": \"a\", \"response\": \"F1\"}\n");
    tm_evaluation *e = open_answers(path);
    tm_judge judge = make_judge(&quiet, "q");
    assert_ok(tm_evaluation_judge(e, &judge, NULL, NULL));
    expect(e, "q", "flagged", NULL, 1, 1);
    expect(e, "q", "flagged+", NULL, 1, 1);
    tm_evaluation_free(e);
    free(path);
    path = write_file("a.jsonl", "{\"prompt\": \"a\", \"response\": \"?\"}\n");
    e = open_answers(path);
    judge = make_judge(&letters, "l");
    assert_ok(tm_evaluation_judge(e, &judge, NULL, NULL));
    expect(e, "l", "missing", NULL, 1, 1);
    assert_int_equal(number_of(e, "l", "rate", NULL).n, -1);
    assert_int_equal(number_of(e, "l", "rate+", NULL).n, -1);
    tm_evaluation_free(e);
    free(path);
}

/* ---- going on ---------------------------------------------------------------------------------------------------- */

static char *result_of(tm_evaluation *e) {
    char *text;
    assert_ok(tm_evaluation_json(e, true, &text));
    return text;
}

static char *judge_all(const char *path, const char *journal, tm_status wanted, bool answers_all) {
    tm_judge judge = make_judge(&letters, "l");
    tm_evaluation *e = open_answers(path);
    did.answers_all = answers_all;
    assert_int_equal(tm_evaluation_judge(e, &judge, journal, NULL), wanted);
    char *text = wanted == TM_OK ? result_of(e) : NULL;
    tm_evaluation_free(e);
    return text;
}

static bool stop_later(void *user) {
    int *left = user;
    return (*left)-- <= 0;
}

static void test_stopped(void **state) {
    (void)state;
    char *path = many_answers(300), *journal = tm__path_join(test_scratch(), "journal");
    char *whole = judge_all(path, NULL, TM_OK, false);
    assert_int_equal(did.answers, 300);
    int left = 2;
    const tm_monitor monitor = {.stop = stop_later, .user = &left};
    tm_judge judge = make_judge(&letters, "l");
    tm_evaluation *e = open_answers(path);
    assert_int_equal(tm_evaluation_judge(e, &judge, journal, &monitor), TM_INTERRUPTED);
    assert_int_equal(number_of(e, "l", "rate", NULL).n, -1);
    assert_int_equal(e->judged_count, 0);
    assert_int_equal(did.answers, 128);
    tm_evaluation_free(e);
    char *text = judge_all(path, journal, TM_OK, false);
    assert_int_equal(did.answers, 300 - 96); /* 32 of the 128 were missing and are asked again */
    assert_string_equal(text, whole);
    free(text);
    /* The rest of it now: what is missing alone is asked, also where a line was cut short by a kill. */
    text = judge_all(path, journal, TM_OK, true);
    assert_int_equal(did.answers, 75);
    free(text);
    size_t len;
    assert_ok(tm__file_read(journal, 0, &text, &len));
    assert_ok(tm__file_write(journal, text, len - 5));
    free(text);
    text = judge_all(path, journal, TM_OK, true);
    assert_int_equal(did.answers, 1);
    assert_non_null(strstr(text, "\"missing\": 0"));
    free(text);
    free(whole);
    free(journal);
    free(path);
}

static void test_killed(void **state) {
    (void)state;
    char *path = many_answers(300), *journal = tm__path_join(test_scratch(), "journal");
    char *whole = judge_all(path, NULL, TM_OK, false);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        tm_judge judge = make_judge(&letters, "l");
        tm_evaluation *e = NULL;
        did.kill_at = 200;
        if (tm_evaluation_open_answers(path, NULL, &e) == TM_OK) tm_evaluation_judge(e, &judge, journal, NULL);
        _exit(0);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    char *text = judge_all(path, journal, TM_OK, false);
    assert_int_equal(did.answers, 300 - 3 * 64 * 3 / 4); /* three batches were noted, a quarter of them is missing */
    assert_string_equal(text, whole);
    free(text);
    free(whole);
    free(journal);
    free(path);
}

/* Another judge, or other answers: nothing is taken over. */
static void test_other_key(void **state) {
    (void)state;
    char *path = many_answers(8), *journal = tm__path_join(test_scratch(), "journal");
    free(judge_all(path, journal, TM_OK, true));
    free(judge_all(path, journal, TM_OK, true));
    assert_int_equal(did.answers, 0);
    free(path);
    path = many_answers(9);
    free(judge_all(path, journal, TM_OK, true));
    assert_int_equal(did.answers, 9);
    tm_judge judge = make_judge(&letters, "l");
    judge.hash[3] = 'b';
    tm_evaluation *e = open_answers(path);
    assert_ok(tm_evaluation_judge(e, &judge, journal, NULL));
    assert_int_equal(did.answers, 9);
    char *result = tm__path_join(test_scratch(), "result.json");
    assert_ok(tm_evaluation_save(e, result));
    assert_false(tm__path_exists(journal)); /* all of it stands in the result */
    tm_evaluation_free(e);
    free(result);
    free(journal);
    free(path);
}

/* A result is read again: its verdicts are taken over, its missing ones asked again, its groups and contexts kept. */
static void test_again(void **state) {
    (void)state;
    char *path = write_file("mixed.jsonl", mixed), *result = tm__path_join(test_scratch(), "mixed.judged.json");
    tm_judge judge = make_judge(&letters, "l");
    tm_evaluation *e = open_answers(path);
    assert_ok(tm_evaluation_judge(e, &judge, NULL, NULL));
    assert_ok(tm_evaluation_save(e, result));
    tm_evaluation *again = open_answers(result);
    judge = make_judge(&letters, "other-name");
    assert_ok(tm_evaluation_judge(again, &judge, NULL, NULL));
    assert_int_equal(did.answers, 2);
    assert_int_equal(again->numbers.count, e->numbers.count);
    for (size_t i = 0; i < e->numbers.count; i++) {
        const tm_number *a = &e->numbers.list[i], *b = &again->numbers.list[i];
        assert_string_equal(a->name, b->name);
        assert_true(a->n == b->n && a->value == b->value);
    }
    assert_string_equal(again->judged[0].verdicts[0].output, "read \"F5\"");
    tm_evaluation_free(again);
    again = open_answers(result);
    judge = make_judge(&letters, "l");
    judge.hash[0] = 'b'; /* not the same judge */
    assert_ok(tm_evaluation_judge(again, &judge, NULL, NULL));
    assert_int_equal(did.answers, 9);
    tm_evaluation_free(again);
    tm_evaluation_free(e);
    free(result);
    free(path);
}

/* Who edits an answer gets a verdict on it, and not the one on the answer that was there. */
static void test_edited(void **state) {
    (void)state;
    char *path = write_file("mixed.jsonl", mixed), *result = tm__path_join(test_scratch(), "mixed.judged.json");
    tm_judge judge = make_judge(&letters, "l");
    json_t *root = NULL;
    tm_evaluation *e = open_answers(path);
    assert_ok(tm_evaluation_judge(e, &judge, NULL, NULL));
    assert_ok(tm_evaluation_save(e, result));
    tm_evaluation_free(e);
    assert_ok(tm__json_load(result, &root));
    json_t *item = json_array_get(json_object_get(root, "items"), 0);
    assert_string_equal(json_string_value(json_object_get(item, "answer")), "F5");
    json_object_set_new(item, "answer", json_string("S1"));
    item = json_array_get(json_object_get(root, "items"), 4); /* as older versions wrote it */
    json_object_del(json_object_get(json_object_get(item, "verdicts"), "l"), "of");
    item = json_array_get(json_object_get(root, "items"), 5); /* no such verdict */
    json_object_set_new(json_object_get(json_object_get(item, "verdicts"), "l"), "flagged", json_integer(3));
    assert_int_equal(json_dump_file(root, result, 0), 0);
    json_decref(root);
    e = open_answers(result);
    judge = make_judge(&letters, "l");
    assert_ok(tm_evaluation_judge(e, &judge, NULL, NULL));
    assert_int_equal(did.answers, 4); /* and the two that were missing */
    assert_true(e->judged[0].verdicts[5].scores[0] == 1);
    assert_true(e->judged[0].verdicts[0].scores[0] == 0);
    assert_string_equal(e->judged[0].verdicts[0].output, "read \"S1\"");
    tm_evaluation_free(e);
    free(result);
    free(path);
}

/* ---- files of answers -------------------------------------------------------------------------------------------- */

static void refuses(const char *name, const char *text, const tm_answers_options *options, const char *said) {
    tm_evaluation *e = NULL;
    char *path = write_file(name, text);
    assert_int_equal(tm_evaluation_open_answers(path, options, &e), TM_FORMAT);
    assert_null(e);
    const char *line = tm_error_last()->line;
    if (!strstr(line, said) || !strstr(line, name)) fail_msg("'%s' lacks '%s' or the file", line, said);
    free(path);
}

static void reads(const char *name, const char *text, const char *prompt, const char *answer, const char *context) {
    char *path = write_file(name, text);
    tm_evaluation *e = open_answers(path);
    assert_string_equal(tm__item_prompt(&e->items[0]), prompt);
    assert_string_equal(e->items[0].answer, answer);
    if (context)
        assert_string_equal(e->items[0].context, context);
    else
        assert_null(e->items[0].context);
    tm_evaluation_free(e);
    free(path);
}

static void test_files(void **state) {
    (void)state;
    reads("a.jsonl", "{\"prompt\": \"p\", \"response\": \"r\"}\n", "p", "r", NULL);
    reads("a.json", "[{\"goal\": \"g\", \"prompt\": \"jailbroken g\", \"response\": \"r\"}]", "g", "r", NULL);
    reads("a.jsonl", "{\"behavior\": \"b\", \"generation\": \"\", \"context\": \"c\"}\n", "b", "", "c");
    reads("a.csv", "Behavior,ContextString,generation\nb,,\"r, s\"\n", "b", "r, s", NULL);
    reads("a.json", "[{\"instruction\": \"i\", \"input\": \"\", \"output\": \"o\", \"generator\": \"m\"}]", "i", "o",
          NULL);
    reads("a.jsonl", "{\"question\": \"q\", \"answer\": \"a\"}\n", "q", "a", NULL);
    char *table = write_file("b.csv", "prompt,response,benign\na,S1,True\nb,S1,false\nc,S1,\nd,S1,1\n");
    tm_evaluation *marked = open_answers(table);
    for (size_t i = 0; i < 4; i++) assert_true(tm__item_benign(marked, &marked->items[i]) == (i == 0 || i == 3));
    tm_evaluation_free(marked);
    free(table);
    const tm_answers_options named = {.prompt = "ask", .answer = "reply", .category = "kind"};
    char *path = write_file("a.jsonl", "{\"ask\": \"p\", \"reply\": \"r\", \"kind\": \"k\", \"prompt\": \"no\"}\n");
    tm_evaluation *e = NULL;
    assert_ok(tm_evaluation_open_answers(path, &named, &e));
    assert_string_equal(tm__item_prompt(&e->items[0]), "p");
    assert_string_equal(e->items[0].group, "k");
    assert_string_equal(e->layout, "ask, reply, kind");
    tm_evaluation_free(e);
    free(path);
    /* The input of an instruction is part of what was asked. */
    path = write_file("a.jsonl", "{\"instruction\": \"i\", \"input\": \"j\", \"output\": \"o\"}\n");
    e = open_answers(path);
    tm_judge judge = make_judge(&letters, "l");
    assert_ok(tm_evaluation_judge(e, &judge, NULL, NULL));
    assert_string_equal(tm__item_prompt(&e->items[0]), "i\nj");
    tm_evaluation_free(e);
    free(path);
}

static void test_wrong_files(void **state) {
    const tm_answers_options named = {.answer = "reply"}, kind = {.category = "kind"};
    (void)state;
    refuses("a.jsonl", "", NULL, "holds no rows");
    refuses("a.jsonl", "{\"response\": \"r\", \"x\": 1}\n", NULL,
            "no column that holds the prompt; the first is 'response'");
    refuses("a.jsonl", "{\"prompt\": \"p\", \"text\": \"r\"}\n", NULL, "name it with --answer-column");
    refuses("a.jsonl", "{\"prompt\": \"p\", \"text\": \"r\"}\n", &named, "column 'reply': is missing");
    refuses("a.jsonl", "{\"prompt\": \"p\", \"response\": \"r\"}\n", &kind, "column 'kind': is missing");
    refuses("a.jsonl", "{\"prompt\": \"p\", \"response\": \"r\"}\n{\"prompt\": \"q\"}\n", NULL,
            "row 2, column 'response': is missing");
    refuses("a.jsonl", "{\"prompt\": \"p\", \"response\": null}\n", NULL, "row 1, column 'response': is no text");
    refuses("a.jsonl", "{\"prompt\": [\"p\"], \"response\": \"r\"}\n", NULL, "row 1, column 'prompt': is no text");
    refuses("a.jsonl", "{\"prompt\": \"p\", \"response\": \"r\"}\nnot json\n", NULL, "line 2");
    refuses("a.csv", "prompt,response,benign\na,b,perhaps\n", NULL, "row 1, column 'benign': 'perhaps' is neither");
    refuses("a.jsonl", "{\"prompt\": \"p\", \"response\": \"r\", \"benign\": []}\n", NULL,
            "column 'benign': is no text");
    refuses("a.jsonl", "[1]", NULL, "row 1 is not a JSON object");
    refuses("a.json", "{\"suite\": \"x\", \"items\": []}", NULL, "holds no answers");
    refuses("a.json", "\xef\xbb\xbf{\"suite\": \"x\", \"items\": []}", NULL, "holds no answers");
    refuses("a.json", "{\"suite\": \"x\", \"items\": [{\"prompt\": \"p\"}]}", NULL, "items[0].answer");
    refuses("a.json", "{\"suite\": \"x\", \"items\": [{\"prompt\": \"p\", \"answer\": \"r\"}]}", NULL,
            "items[0].prompt");
    refuses("a.json", "{\"suite\": \"x\", \"items\": [{\"prompt\": [{\"role\": \"user\"}], \"answer\": \"r\"}]}", NULL,
            "without role or content");
    refuses("a.json", "{\"suite\": \"x\", \"items\": [3]}", NULL, "items[0].answer");
}

/* Files cut short or with a byte changed are read or refused, and nothing else. */
static void test_spoilt_files(void **state) {
    (void)state;
    char *path = write_file("mixed.jsonl", mixed), *result = tm__path_join(test_scratch(), "mixed.judged.json");
    tm_judge judge = make_judge(&letters, "l");
    tm_evaluation *e = open_answers(path);
    size_t refused = 0, read = 0;
    assert_ok(tm_evaluation_judge(e, &judge, NULL, NULL));
    assert_ok(tm_evaluation_save(e, result));
    tm_evaluation_free(e);
    for (int which = 0; which < 2; which++) {
        const char *name = which ? result : path;
        char *text;
        size_t len;
        assert_ok(tm__file_read(name, 0, &text, &len));
        tm__rng rng = tm__rng_make(1, tm__stream(TM__STREAM_TEST, (uint32_t)which));
        for (int i = 0; i < 300; i++) {
            size_t at = tm__rng_below(&rng, len), n = i % 2 ? len : at;
            char kept = text[at];
            text[at] = (char)tm__rng_below(&rng, 128);
            assert_ok(tm__file_write(name, text, n));
            text[at] = kept;
            tm_status status = tm_evaluation_open_answers(name, NULL, &e);
            if (status == TM_OK) {
                read++;
                judge = make_judge(&letters, "l");
                assert_ok(tm_evaluation_judge(e, &judge, NULL, NULL));
                tm_evaluation_free(e);
            } else {
                refused++;
                assert_int_equal(status, TM_FORMAT);
                assert_non_null(strstr(tm_error_last()->line, name));
            }
        }
        free(text);
    }
    assert_true(refused > 100 && read > 30);
    free(result);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),      cmocka_unit_test(test_benign), cmocka_unit_test(test_flag),
        cmocka_unit_test(test_stopped),      cmocka_unit_test(test_killed), cmocka_unit_test(test_other_key),
        cmocka_unit_test(test_again),        cmocka_unit_test(test_files),  cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_spoilt_files), cmocka_unit_test(test_edited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
