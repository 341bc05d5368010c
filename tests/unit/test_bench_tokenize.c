/* tm_bench_tokenize: what it counts and refuses. tm_bench_load: the files it makes up, one process of its own. */
#include "support.h"

#include "data/data.h"
#include "lab/bench.h"
#include "lab/bench_files.h"

#include <stdlib.h>
#include <unistd.h>

static char directory[] = "/tmp/test-bench-files-XXXXXX";

static const char *path_of(const char *name) {
    static char path[2][128];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", directory, name);
    return path[turn];
}

/* As many tokens as asked for, of which a text uses long ones; every byte has one. */
static void a_tokenizer_is_made_up(void **state) {
    (void)state;
    tm_tokenizer *tokenizer = NULL;
    tm_ids ids = {0};
    char bytes[256], *text = NULL;
    size_t len;
    for (int i = 0; i < 255; i++) bytes[i] = (char)(1 + i % 127);
    for (int64_t vocab = 257; vocab <= 4000; vocab += 3743) {
        assert_ok(tm__bench_write_tokenizer(vocab, directory));
        assert_ok(tm_tokenizer_load(directory, &tokenizer));
        assert_int_equal(tm_tokenizer_vocab_size(tokenizer), vocab);
        assert_int_equal(tm_tokenizer_id(tokenizer, "<|end|>"), vocab - 1);
        assert_ok(tm_tokenizer_encode(tokenizer, bytes, 255, 0, &ids));
        assert_ok(tm_tokenizer_decode(tokenizer, ids.data, ids.len, 0, &text, &len));
        assert_int_equal(len, 255);
        assert_memory_equal(text, bytes, len);
        assert_true(vocab == 257 ? ids.len == 255 : ids.len < 255);
        free(text);
        tm_ids_free(&ids);
        tm_tokenizer_free(tokenizer);
    }
    assert_int_equal(tm__bench_write_tokenizer(256, directory), TM_UNSUPPORTED);
    assert_int_equal(tm__bench_write_tokenizer(300, "/nowhere"), TM_IO);
}

static void rows_are_made_up(void **state) {
    (void)state;
    tm_dataset *rows = NULL;
    size_t n;
    assert_ok(tm__bench_write_rows(7, 64, path_of("rows.jsonl")));
    assert_ok(tm_dataset_load(path_of("rows.jsonl"), &rows));
    assert_int_equal(tm_dataset_rows(rows), 7);
    const tm_message *row = tm_dataset_row(rows, 6, &n);
    assert_int_equal(n, 2);
    assert_true(strlen(row[0].content) + strlen(row[1].content) >= 80);
    tm_dataset_free(rows);
}

static void counts(void **state) {
    (void)state;
    const tm_bench_tokenize_options o = {.model = directory, .file = path_of("rows.jsonl"), .repeats = 3};
    tm_bench_tokenize_report r;
    tm_tokenizer *tokenizer = NULL;
    tm_ids ids = {0};
    char *text;
    size_t len;
    assert_ok(tm_bench_tokenize(&o, NULL, &r));
    assert_ok(tm__file_read(o.file, 1 << 20, &text, &len));
    assert_ok(tm_tokenizer_load(directory, &tokenizer));
    assert_ok(tm_tokenizer_encode(tokenizer, text, len, 0, &ids));
    assert_true(r.bytes == (int64_t)len && r.tokens == (int64_t)ids.len);
    assert_string_equal(r.kind, "byte-level BPE");
    assert_true(r.load.count == 3 && r.encode.count == 3 && r.processor.count == 3);
    assert_true(fabs(r.byte_rate * r.processor.median / (double)len - 1) < 1e-9);
    assert_true(fabs(r.figures.tokens * r.encode.median / (double)ids.len - 1) < 1e-9);
    assert_true(r.load_share > 0 && r.load_share < 1 && isnan(r.figures.flops) && isnan(r.frame.product_flops));
    tm_bench_tokenize_report_release(&r);
    free(text);
    tm_ids_free(&ids);
    tm_tokenizer_free(tokenizer);
}

static bool always(void *user) {
    (void)user;
    return true;
}

static void wrong_use(void **state) {
    (void)state;
    const tm_monitor stop = {.stop = always};
    tm_bench_tokenize_options o = {.model = directory, .file = path_of("rows.jsonl"), .repeats = 1};
    tm_bench_tokenize_report r;
    assert_int_equal(tm_bench_tokenize(&o, &stop, &r), TM_INTERRUPTED);
    o.file = "/nowhere.txt";
    assert_int_equal(tm_bench_tokenize(&o, NULL, &r), TM_NOT_FOUND);
    o.file = NULL;
    assert_int_equal(tm_bench_tokenize(&o, NULL, &r), TM_INVALID);
    o = (tm_bench_tokenize_options){.model = "/nowhere", .file = path_of("rows.jsonl"), .repeats = 1};
    assert_int_not_equal(tm_bench_tokenize(&o, NULL, &r), TM_OK);
    o.model = NULL;
    assert_int_equal(tm_bench_tokenize(&o, NULL, &r), TM_INVALID);
    o.repeats = 0;
    assert_int_equal(tm_bench_tokenize(&o, NULL, &r), TM_INVALID);
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static const tm_device_options where = {.name = "cpu", .threads = 1};

static tm_bench_load_options one_process(int first) {
    tm_bench_load_options o;
    tm_options_default(tm_bench_load_option_table, &o);
    o.model = directory;
    o.data = path_of("rows.jsonl");
    o.first = first;
    o.repeats = 1;
    o.since = tm__now();
    return o;
}

static void one_process_tells_its_phases(void **state) {
    (void)state;
    const tm__bench_source source = {.shape = TM_SHAPE_TINY, .weights = 1};
    char *model = tm__path_join(directory, "model");
    assert_ok(tm__bench_write(&source, model));
    assert_ok(tm__bench_write_tokenizer(512, model));
    for (int first = TM_FIRST_STEP; first <= TM_FIRST_TOKEN; first++)
        for (int lora = 0; lora < 2; lora++) {
            tm_bench_load_options o = one_process(first);
            tm_bench_load_report r;
            double sum = 0;
            o.model = model;
            o.lora_rank = lora ? 2 : 0;
            assert_ok(tm_bench_load(NULL, &where, &o, NULL, &r));
            double taken = first == TM_FIRST_STEP ? r.first_step.median : r.first_token.median;
            assert_int_equal(r.first_step.count, first == TM_FIRST_STEP);
            assert_int_equal(r.first_token.count, first == TM_FIRST_TOKEN);
            for (int i = 0; i < TM_BENCH_PHASES; i++) {
                assert_int_equal(r.phases[i].count, 1);
                sum += r.phases[i].median;
            }
            assert_true(taken > 0 && fabs(sum - taken) < 1e-9);
            assert_string_equal(r.dtype, "bf16");
            assert_int_equal(r.frame.model.layers, 2);
            tm_bench_load_report_release(&r);
        }
    free(model);
    assert_string_equal(tm_bench_phase_name(0), "process");
    assert_null(tm_bench_phase_name(TM_BENCH_PHASES));
}

static void what_cannot_be_started_is_told(void **state) {
    (void)state;
    tm_bench_load_options o = one_process(TM_FIRST_BOTH);
    tm_bench_load_report r;
    assert_int_equal(tm_bench_load(NULL, &where, &o, NULL, &r), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "since");
    tm_options_default(tm_bench_load_option_table, &o);
    assert_ok(tm_options_set(tm_bench_load_option_table, &o, "shape", "tiny"));
    o.rows = 4;
    assert_int_equal(tm_bench_load("/nowhere/temper", &where, &o, NULL, &r), TM_IO);
    assert_int_equal(tm_bench_load("/bin/false", &where, &o, NULL, &r), TM_INVALID);
    assert_int_equal(tm_bench_load("/bin/true", &where, &o, NULL, &r), TM_FORMAT); /* says nothing */
    o.model = "nowhere";
    assert_int_equal(tm_bench_load("/bin/true", &where, &o, NULL, &r), TM_NOT_FOUND);
    o.config = "nowhere.json";
    assert_int_equal(tm_bench_load("/bin/true", &where, &o, NULL, &r), TM_INVALID);
}

static int make(void **state) {
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_all(void **state) {
    (void)state;
    return tm__remove_tree(directory) == TM_OK ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tokenizer_is_made_up),
        cmocka_unit_test(rows_are_made_up),
        cmocka_unit_test(counts),
        cmocka_unit_test(wrong_use),
        cmocka_unit_test(one_process_tells_its_phases),
        cmocka_unit_test(what_cannot_be_started_is_told),
    };
    return cmocka_run_group_tests(tests, make, remove_all);
}
