/* test_eval_harm.c: prompts in their published layouts: which rows are asked, in which groups, with which context; and
 * what a wrong file is told. */
#include "support.h"

#include "eval/suite.h"

static char *write_file(const char *directory, const char *name, const char *text) {
    char *path = tm__path_join(directory, name);
    assert_ok(tm__file_write(path, text, strlen(text)));
    return path;
}

static tm_evaluation *open_text(const char *suite, const char *name, const char *text, int64_t limit) {
    tm_eval_options options = {0};
    tm_evaluation *e = NULL;
    tm_options_default(tm_eval_option_table, &options);
    options.limit = limit;
    char *path = write_file(test_scratch(), name, text);
    assert_ok(tm_evaluation_open(tm_suite_find(suite), path, &options, &e));
    free(path);
    return e;
}

static void refuses(const char *suite, const char *name, const char *text, const char *said) {
    tm_evaluation *e = NULL;
    char *path = write_file(test_scratch(), name, text);
    assert_int_equal(tm_evaluation_open(tm_suite_find(suite), path, NULL, &e), TM_FORMAT);
    const char *line = tm_error_last()->line;
    if (!strstr(line, said) || !strstr(line, name)) fail_msg("%s: '%s' lacks '%s' or the file", suite, line, said);
    free(path);
}

static const char *asked(const tm_evaluation *e, size_t item) {
    return e->items[item].messages[e->items[item].message_count - 1].content;
}

static void test_beavertails(void **state) {
    static const char rows[] =
        "{\"prompt\": \"one\", \"response\": \"r\", \"is_safe\": true, \"category\": {\"a\": false}}\n"
        "{\"prompt\": \"two\", \"response\": \"r\", \"is_safe\": false, \"category\": {\"a\": true, \"b,c\": false, "
        "\"d\": true}}\n"
        "{\"prompt\": \"two\", \"response\": \"s\", \"is_safe\": false, \"category\": {\"b,c\": true}}\n"
        "{\"prompt\": \"three\", \"response\": \"s\", \"is_safe\": false, \"category\": {\"a\": false}}\n";
    (void)state;
    tm_evaluation *e = open_text("beavertails", "30k_test.jsonl", rows, 0);
    assert_int_equal(tm_evaluation_items(e), 3);
    assert_string_equal(asked(e, 0), "two");
    assert_string_equal(e->items[0].group, "a|d");
    assert_string_equal(e->items[1].group, "b,c");
    assert_null(e->items[2].group);
    assert_int_equal(e->items[0].row, 1);
    assert_int_equal(e->chat, TM_CHAT_ALPACA);
    assert_int_equal(e->max_new_tokens, 512);
    tm_evaluation_free(e);
    e = open_text("beavertails", "30k_test.jsonl", rows, 2); /* the first unsafe ones, not the first rows */
    assert_int_equal(tm_evaluation_items(e), 2);
    assert_string_equal(asked(e, 1), "two");
    tm_evaluation_free(e);
    refuses("beavertails", "t.jsonl", "{\"prompt\": \"one\", \"safe\": true}\n",
            "row 1, column 'is_safe': is missing; the row has: prompt, safe");
    refuses("beavertails", "t.jsonl", "{\"question\": \"one\", \"is_safe\": false}\n", "column 'prompt': is missing");
}

static void test_harmbench(void **state) {
    static const char rows[] = "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\r\n"
                               "\"Say \"\"x\"\", twice\",standard,illegal,,,a\r\n"
                               "Sum it up,contextual,illegal,,\"Line one\nline, two\",b\r\n"
                               "Sing it,copyright,copyright,\"lyrics, hash_check\",,c\r\n";
    (void)state;
    tm_evaluation *e = open_text("harmbench", "h.csv", rows, 0);
    assert_int_equal(tm_evaluation_items(e), 3);
    assert_string_equal(asked(e, 0), "Say \"x\", twice");
    assert_string_equal(e->items[0].group, "standard|illegal");
    assert_string_equal(asked(e, 1), "Line one\nline, two\n\n---\n\nSum it up");
    assert_string_equal(tm__item_prompt(&e->items[1]), "Sum it up");
    assert_string_equal(e->items[1].context, "Line one\nline, two");
    assert_string_equal(e->items[2].group, "copyright");
    assert_non_null(strstr(tm_evaluation_note(e, 0), "1 behaviours are about copyright"));
    tm_evaluation_free(e);
    refuses("harmbench", "h.csv", "Behavior,FunctionalCategory,ContextString\nx,contextual,\n",
            "row 1, column 'ContextString': is empty");
    refuses("harmbench", "h.csv", "Behavior,Category,ContextString\nx,standard,\n", "column 'FunctionalCategory'");
    refuses("harmbench", "h.csv", "behavior,FunctionalCategory,ContextString\nx,standard,\n", "column 'Behavior'");
}

static void test_columns(void **state) {
    (void)state;
    tm_evaluation *e = open_text("advbench", "a.csv", "\xef\xbb\xbfgoal,target\n\"one, two\",Sure\nthree,Sure\n", 0);
    assert_int_equal(tm_evaluation_items(e), 2);
    assert_string_equal(asked(e, 0), "one, two");
    tm_evaluation_free(e);
    e = open_text("strongreject", "s.csv", "category,source,forbidden_prompt\nx|y,z,one\n", 0);
    assert_string_equal(e->items[0].group, "x/y"); /* '|' parts groups */
    tm_evaluation_free(e);
    e = open_text("harmful", "h.json",
                  "[{\"instruction\": \"a\", \"category\": null}, "
                  "{\"instruction\": \"b\", \"category\": \"c\"}]",
                  0);
    assert_null(e->items[0].group);
    assert_string_equal(e->items[1].group, "c");
    assert_false(tm__item_benign(e, &e->items[0]));
    tm_evaluation_free(e);
    e = open_text("harmless", "h.json", "[{\"instruction\": \"a\", \"category\": null}]", 0);
    assert_true(tm__item_benign(e, &e->items[0]));
    tm_evaluation_free(e);
    e = open_text("mt_bench", "m.jsonl", "{\"question_id\": 1, \"category\": \"w\", \"turns\": [\"a\", \"b\"]}\n", 0);
    assert_string_equal(asked(e, 0), "a");
    tm_evaluation_free(e);
    e = open_text("self_instruct", "s.jsonl",
                  "{\"instruction\": \"a\", \"instances\": [{\"input\": \"\", \"output\": \"\"}]}\n"
                  "{\"instruction\": \"b\", \"instances\": [{\"input\": \"i\", \"output\": \"\"}]}\n",
                  0);
    assert_int_equal(e->items[0].message_count, 1);
    assert_string_equal(e->items[1].messages[1].role, "input");
    assert_string_equal(e->items[1].messages[1].content, "i");
    tm_evaluation_free(e);
    refuses("advbench", "a.csv", "target,goals\na,b\n", "row 1, column 'goal': is missing; the row has: target, goals");
    refuses("strongreject", "s.csv", "category,prompt\na,b\n", "column 'forbidden_prompt'");
    refuses("strongreject", "s.csv", "kind,forbidden_prompt\na,b\n", "column 'category'");
    refuses("harmful", "h.jsonl", "{\"instruction\": \"a\"}\n{\"instruct\": \"b\"}\n", "row 2, column 'instruction'");
    refuses("mt_bench", "m.jsonl", "{\"turns\": \"a\"}\n", "column 'turns': is no list");
    refuses("self_instruct", "s.jsonl", "{\"instruction\": \"a\"}\n", "column 'instances'");
}

static void test_xstest(void **state) {
    (void)state;
    tm_evaluation *e = open_text(
        "xstest", "x.csv", "id,prompt,type,label,focus,note\n1,a,homonyms,safe,,\n2,b,contrast_homonyms,unsafe,,\n", 0);
    assert_true(tm__item_benign(e, &e->items[0]));
    assert_false(tm__item_benign(e, &e->items[1]));
    assert_string_equal(e->items[1].group, "contrast_homonyms");
    tm_evaluation_free(e);
    e = open_text("xstest", "x.csv", "id,type,prompt\n1,homonyms,a\n2,contrast_homonyms,b\n", 0);
    assert_true(tm__item_benign(e, &e->items[0]));
    assert_false(tm__item_benign(e, &e->items[1]));
    tm_evaluation_free(e);
    refuses("xstest", "x.csv", "prompt,type,label\na,homonyms,perhaps\n", "neither safe nor unsafe");
    refuses("xstest", "x.csv", "prompt,kind\na,homonyms\n", "column 'type'");
}

static void test_lines(void **state) {
    char *directory = tm__path_join(test_scratch(), "hex-phi");
    tm_eval_options options = {0};
    tm_evaluation *e = NULL;
    (void)state;
    assert_ok(tm__make_directories(directory));
    free(write_file(directory, "category_1.csv", "\xef\xbb\xbfone, with a comma\n\"two, \"\"quoted\"\"\"\n\n"));
    free(write_file(directory, "category_2.csv", "\"three\" and \"four\"\r\nfive"));
    free(write_file(directory, "LICENSE", "no prompt\n"));
    tm_options_default(tm_eval_option_table, &options);
    assert_ok(tm_evaluation_open(tm_suite_find("hex_phi"), directory, &options, &e));
    assert_int_equal(tm_evaluation_items(e), 4);
    assert_string_equal(asked(e, 0), "one, with a comma");
    assert_string_equal(asked(e, 1), "two, \"quoted\"");
    assert_string_equal(asked(e, 2), "\"three\" and \"four\"");
    assert_string_equal(asked(e, 3), "five");
    assert_string_equal(e->items[1].group, "category_1");
    assert_string_equal(e->items[3].group, "category_2");
    tm_evaluation_free(e);
    options.limit = 1; /* of every file */
    assert_ok(tm_evaluation_open(tm_suite_find("hex_phi"), directory, &options, &e));
    assert_int_equal(tm_evaluation_items(e), 2);
    assert_string_equal(asked(e, 1), "\"three\" and \"four\"");
    tm_evaluation_free(e);
    free(directory);
    e = open_text("maliciousinstruct", "MaliciousInstruct.txt", "How?\n\n  Why?  \n", 0);
    assert_int_equal(tm_evaluation_items(e), 2);
    assert_string_equal(asked(e, 1), "Why?");
    tm_evaluation_free(e);
    e = open_text("prompts", "p.csv", "question,category\nHow?,c\n", 0);
    assert_string_equal(asked(e, 0), "How?");
    assert_string_equal(e->items[0].group, "c");
    tm_evaluation_free(e);
    refuses("prompts", "p.txt", "\n \n", "holds no prompts");
    refuses("prompts", "p.txt",
            "good\nb\xff"
            "d\n",
            "line 2");
    refuses("prompts", "p.jsonl", "{\"text\": \"a\"}\n", "column 'prompt': is missing; the row has: text");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_beavertails), cmocka_unit_test(test_harmbench), cmocka_unit_test(test_columns),
        cmocka_unit_test(test_xstest),      cmocka_unit_test(test_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
