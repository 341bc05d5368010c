/* test_eval_data.c: rows of every kind of file, errors that name file, row and column, and layouts of one suite that
 * ask the same. */
#include "support.h"

#include "eval/suite.h"

static char *write_file(const char *directory, const char *name, const char *text) {
    char *path = tm__path_join(directory, name);
    assert_ok(tm__file_write(path, text, strlen(text)));
    return path;
}

static void holds(const tm__rows *rows, size_t row, const char *column, const char *wanted) {
    const char *text;
    assert_ok(tm__rows_text(rows, row, column, &text));
    assert_string_equal(text, wanted);
}

static void test_csv(void **state) {
    char *path = write_file(test_scratch(), "a.csv",
                            "\xef\xbb\xbfname,text\r\nplain,one\r\n\"quo\"\"ted\",\"two, and\nthree\"\n\nlast,\n");
    tm__rows rows;
    (void)state;
    assert_ok(tm__rows_read(path, NULL, &rows));
    assert_int_equal(rows.count, 3);
    holds(&rows, 0, "name", "plain");
    holds(&rows, 1, "name", "quo\"ted");
    holds(&rows, 1, "text", "two, and\nthree");
    holds(&rows, 2, "text", "");
    tm__rows_free(&rows);
    free(path);
}

static void test_tsv(void **state) {
    static const char *const two[] = {"text", "label", NULL};
    static const char *const *const columns[] = {two, NULL};
    char *path = write_file(test_scratch(), "a.tsv", "He said \"no\tWorld\n\"Yes\", she said\tSports\n");
    tm__rows rows;
    (void)state;
    assert_ok(tm__rows_read(path, columns, &rows));
    assert_int_equal(rows.count, 2);
    holds(&rows, 0, "text", "He said \"no");
    holds(&rows, 1, "text", "\"Yes\", she said");
    tm__rows_free(&rows);
    free(path);
}

static void test_json(void **state) {
    char *lines =
        write_file(test_scratch(), "a.jsonl", "\xef\xbb\xbf{\"n\": 3, \"b\": true}\n\n{\"n\": \"4\", \"b\": 0}");
    char *array = write_file(test_scratch(), "a.json", "\xef\xbb\xbf [ {\"n\": 3}, {\"n\": 4} ] ");
    tm__rows rows;
    int64_t value;
    (void)state;
    assert_ok(tm__rows_read(lines, NULL, &rows));
    assert_int_equal(rows.count, 2);
    holds(&rows, 0, "n", "3");
    assert_ok(tm__rows_int(&rows, 1, "n", &value));
    assert_int_equal(value, 4);
    assert_ok(tm__rows_int(&rows, 0, "b", &value));
    assert_int_equal(value, 1);
    tm__rows_free(&rows);
    assert_ok(tm__rows_read(array, NULL, &rows));
    assert_int_equal(rows.count, 2);
    tm__rows_free(&rows);
    free(lines);
    free(array);
}

static void refused(const char *name, const char *text, tm_status wanted, const char *said) {
    char *path = write_file(test_scratch(), name, text);
    tm__rows rows;
    assert_int_equal(tm__rows_read(path, NULL, &rows), wanted);
    if (!strstr(tm_error_last()->line, said)) fail_msg("'%s' does not say '%s'", tm_error_last()->line, said);
    free(path);
}

static void test_malformed(void **state) {
    (void)state;
    refused("a.csv", "a,b\n1,2,3\n", TM_FORMAT, "line 2 has 3 columns instead of 2");
    refused("b.csv", "a,b\n\"1,2\n", TM_FORMAT, "the quote opened in line 2 never ends");
    refused("c.csv", "a,b\n\xff,2\n", TM_FORMAT, "line 2 is not UTF-8");
    refused("a.jsonl", "{\"a\": 1}\n{\"a\": \n", TM_FORMAT, "line 2");
    refused("b.jsonl", "{\"a\": 1}\n[1]\n", TM_FORMAT, "row 2 is not a JSON object");
    refused("a.json", "[{\"a\": 1}, 7]", TM_FORMAT, "row 2 is not a JSON object");
    refused("d.jsonl", "\n \n", TM_FORMAT, "holds no rows");
    refused("e.csv", "a,b\n", TM_FORMAT, "holds no rows");
    refused("a.parquet", "PAR1", TM_UNSUPPORTED, "JSON Lines");
}

static void test_columns(void **state) {
    char *path = write_file(test_scratch(), "a.jsonl", "{\"a\": 1, \"c\": [2]}\n");
    tm__rows rows;
    const char *text;
    int64_t value;
    (void)state;
    assert_ok(tm__rows_read(path, NULL, &rows));
    assert_int_equal(tm__rows_text(&rows, 0, "b", &text), TM_FORMAT);
    assert_non_null(strstr(tm_error_last()->line, "row 1, column 'b': is missing; the row has: a, c"));
    assert_int_equal(tm__rows_text(&rows, 0, "c", &text), TM_FORMAT);
    assert_int_equal(tm__rows_int(&rows, 0, "c", &value), TM_FORMAT);
    tm__rows_free(&rows);
    free(path);
}

/* ---- layouts ----------------------------------------------------------------------------------------------------- */

static tm_evaluation *open_data(const char *suite, const char *path, int64_t shots) {
    tm_evaluation *e = NULL;
    tm_eval_options options = {0};
    tm_options_default(tm_eval_option_table, &options);
    options.shots = shots;
    options.preamble = test_path("golden/mcq/data/truthfulqa/truthfulqa_preamble.txt");
    assert_ok(tm_evaluation_open(tm_suite_find(suite), path, &options, &e));
    return e;
}

/* Both ask the same, and know the same answers. */
static void same_items(tm_evaluation *a, tm_evaluation *b) {
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        assert_int_equal(a->items[i].choice_count, b->items[i].choice_count);
        for (size_t k = 0; k < a->items[i].choice_count; k++) {
            const tm__choice *x = &a->items[i].choices[k], *y = &b->items[i].choices[k];
            assert_string_equal(x->context, y->context);
            assert_string_equal(x->next, y->next);
            assert_int_equal(x->right, y->right);
        }
    }
    tm_evaluation_free(a);
    tm_evaluation_free(b);
}

static void same_layouts(const char *suite, const char *one, const char *other) {
    const char *directory = test_scratch();
    char *a = write_file(directory, "one.jsonl", one), *b = write_file(directory, "other.jsonl", other);
    same_items(open_data(suite, a, 0), open_data(suite, b, 0));
    free(a);
    free(b);
}

static void test_layouts(void **state) {
    (void)state;
    same_layouts("arc_easy",
                 "{\"question\": \"Q?\", \"choices\": {\"text\": [\"a\", \"b\"], \"label\": [\"A\", \"B\"]}, "
                 "\"answerKey\": \"B\"}",
                 "{\"question\": {\"stem\": \"Q?\", \"choices\": [{\"text\": \"a\", \"label\": \"A\"}, {\"text\": "
                 "\"b\", \"label\": \"B\"}]}, \"answerKey\": \"B\"}");
    same_layouts("arc_challenge",
                 "{\"question\": \"Q?\", \"choices\": {\"text\": [\"a b\", \"Answer\"], \"label\": [\"1\", \"2\"]}, "
                 "\"answerKey\": \"1\"}",
                 "{\"instruction\": \"Please choose the correct answer to the question: Q?\\n\\nAnswer1: a b Answer2: "
                 "Answer\\n\\nAnswer format: answer1/answer2\", \"answer\": \"answer1\"}");
    same_layouts("boolq", "{\"passage\": \"p\", \"question\": \"q\", \"label\": 1}",
                 "{\"passage\": \"p\", \"question\": \"q\", \"answer\": true}");
    same_layouts("truthfulqa_mc2",
                 "{\"question\": \"Q\", \"mc2_targets\": {\"choices\": [\"a\", \"b\"], \"labels\": [1, 0]}}",
                 "{\"question\": \"Q\", \"mc2_targets\": {\"a\": 1, \"b\": 0}}");
}

static void test_piqa_labels(void **state) {
    const char *directory = test_scratch();
    char *data = write_file(directory, "valid.jsonl",
                            "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\"}\n{\"goal\": \"h\", \"sol1\": \"c\", "
                            "\"sol2\": \"d\"}\n");
    char *labels = write_file(directory, "valid-labels.lst", "1\n0\n");
    (void)state;
    tm_evaluation *e = open_data("piqa", directory, 0);
    assert_true(e->items[0].choices[1].right && e->items[1].choices[0].right);
    tm_evaluation_free(e);
    free(data);
    free(labels);
}

static void test_mmlu_layouts(void **state) {
    const char *directory = test_scratch();
    char *test = tm__path_join(directory, "test"), *dev = tm__path_join(directory, "dev");
    (void)state;
    assert_ok(tm__make_directories(test));
    assert_ok(tm__make_directories(dev));
    free(write_file(test, "mill_law_test.csv", "\"Who, then?\",a,b,c,d,B\n"));
    free(write_file(dev, "mill_law_dev.csv", "Why?,e,f,g,h,C\nWhen?,i,j,k,l,A\n"));
    tm_evaluation *csv = open_data("mmlu", directory, 1);
    assert_string_equal(
        csv->items[0].choices[0].context,
        "The following are multiple choice questions (with answers) about mill law.\n\nWhy?\nA. e\nB. f\n"
        "C. g\nD. h\nAnswer: C\n\nWho, then?\nA. a\nB. b\nC. c\nD. d\nAnswer:");
    const char *other = test_scratch();
    free(write_file(other, "test.jsonl",
                    "{\"question\": \"Who, then?\", \"subject\": \"mill_law\", \"choices\": [\"a\", "
                    "\"b\", \"c\", \"d\"], \"answer\": 1}\n"));
    free(write_file(other, "dev.jsonl",
                    "{\"question\": \"Why?\", \"subject\": \"mill_law\", \"choices\": {\"A\": \"e\", "
                    "\"B\": \"f\", \"C\": \"g\", \"D\": \"h\"}, \"answer\": \"C\"}\n"));
    same_items(csv, open_data("mmlu", other, 1));
    free(test);
    free(dev);
}

static void test_agnews_layouts(void **state) {
    const char *directory = test_scratch();
    char *csv = write_file(directory, "test.csv", "\"3\",\"Up\",\"Shares, again\"\n");
    char *tsv = write_file(directory, "other.tsv", "Up Shares, again\tBusiness\n");
    (void)state;
    tm_evaluation *a = open_data("agnews", csv, 0), *b = open_data("agnews", tsv, 0);
    assert_string_equal(a->items[0].messages[1].content, b->items[0].messages[1].content);
    assert_string_equal(a->items[0].reference, "Business");
    assert_string_equal(b->items[0].reference, "Business");
    tm_evaluation_free(a);
    tm_evaluation_free(b);
    free(csv);
    free(tsv);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_csv),         cmocka_unit_test(test_tsv),          cmocka_unit_test(test_json),
        cmocka_unit_test(test_malformed),   cmocka_unit_test(test_columns),      cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_piqa_labels), cmocka_unit_test(test_mmlu_layouts), cmocka_unit_test(test_agnews_layouts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
