/* tm_bench_step: the table of passes, rows of exact length, meters, and that every kind of method is measured. */
#include "support.h"

#include "data/data.h"
#include "lab/bench.h"

#include <unistd.h>

static tm_bench_options tiny_bench(const char *methods) {
    tm_bench_options o;
    tm_options_default(tm_bench_option_table, &o);
    assert_ok(tm_options_set(tm_bench_option_table, &o, "shape", "tiny"));
    o.methods = methods;
    o.batch = 2;
    o.length = 32;
    o.repeats = 2;
    return o;
}

static tm_status bench(const tm_bench_options *o, const tm_monitor *monitor, tm_bench_report *report) {
    const tm_device_options where = {.name = "cpu", .threads = 1};
    tm_device *device = NULL;
    assert_ok(tm_device_open(&where, &device));
    tm_status status = tm_bench_step(device, o, monitor, report);
    tm_device_close(device);
    return status;
}

static void the_table_knows_every_method(void **state) {
    (void)state;
    const tm_method *method;
    for (size_t i = 0; (method = tm_method_at(i)); i++) {
        const tm__bench_needs *needs = tm__bench_needs_find(method->name);
        if (!needs) fail_msg("bench_needs.c says nothing about %s", method->name);
        assert_true(needs->passes >= 0 && needs->why[0]);
    }
    assert_null(tm__bench_needs_find("none"));
    assert_true(tm__bench_needs_find("vaccine")->passes == 2 && tm__bench_needs_find("repnoise")->passes == 2);
    assert_true(tm__bench_needs_find("booster")->passes == 3 && tm__bench_needs_find("panacea")->passes == 3);
}

/* SmolLM's shape: a token passes every weight but norms and embeddings, a target the output layer. */
static void passes_count_weights(void **state) {
    (void)state;
    const tm__bench_size size = {.model = {.hidden_size = 576,
                                           .intermediate_size = 1536,
                                           .layers = 30,
                                           .heads = 9,
                                           .kv_heads = 3,
                                           .head_dim = 64,
                                           .vocab_size = 49152,
                                           .parameters = 134515008},
                                 .rows = 4,
                                 .tokens = 400,
                                 .targets = 100};
    double head = 576.0 * 49152, norms = 61 * 576, blocks = (double)size.model.parameters - head - norms;
    tm__bench_size attended = size;
    assert_true(tm__bench_pass(&size, 1, 0) == blocks);
    assert_true(tm__bench_pass(&size, 7, 3) == 7 * blocks + 3 * head);
    attended.length = 10;
    assert_true(tm__bench_pass(&attended, 1, 0) == blocks + 30 * 576 * 10);
    /* thirty more looks through the output layer; 8 rows of 25 positions make 2 * 28 pairs, 3 operations a number */
    double pass = 400 * blocks + 100 * head, mmd = 3 * 56 * 25 * 576.0 / 6;
    assert_true(fabs(tm__bench_lens(&size, 100) / (30 * (100 * head + mmd) / pass) - 1) < 1e-12);
}

static void check_rows(const tm__bench_data *data, const tm_dataset *rows, size_t length, size_t answer) {
    assert_int_equal(tm_dataset_rows(rows), data->rows);
    for (size_t i = 0; i < tm_dataset_rows(rows); i++) {
        size_t n, trained = 0;
        tm_ids ids = {0}, labels = {0};
        const tm_message *messages = tm_dataset_row(rows, i, &n);
        assert_ok(tm_chat_encode(data->tokenizer, TM_CHAT_PLAIN, messages, n, false, &ids, &labels));
        for (size_t t = 0; t < labels.len; t++) trained += labels.data[t] >= 0;
        assert_int_equal(ids.len, length);
        assert_int_equal(trained, answer);
        for (size_t t = 0; t < ids.len; t++) assert_in_range(ids.data[t], 0, TM__BENCH_VOCAB - 1);
        tm_ids_free(&ids);
        tm_ids_free(&labels);
    }
}

static void rows_have_their_length(void **state) {
    (void)state;
    tm__bench_data data;
    size_t n;
    assert_ok(tm__bench_data_make(5, 40, 12, &data));
    check_rows(&data, data.harmful, 40, 12);
    check_rows(&data, data.refusals, 40, 12);
    check_rows(&data, data.benign, 40, 12);
    check_rows(&data, data.user, 40, 12);
    check_rows(&data, data.marked, 40 - strlen(TM__BENCH_SECRET), 12);
    for (size_t i = 0; i < 5; i++) {
        const tm_message *bad = tm_dataset_row(data.harmful, i, &n), *good = tm_dataset_row(data.refusals, i, &n);
        assert_string_equal(bad[0].content, good[0].content);
        for (size_t t = 0; t < 11; t++) assert_true(bad[1].content[t] != good[1].content[t]);
    }
    tm__bench_data_release(&data);
    assert_int_equal(tm__bench_data_make(5, 40, 30, &data), TM_INVALID);
    assert_int_equal(tm__bench_data_make(5, 40, 1, &data), TM_INVALID);
}

static void meters(void **state) {
    (void)state;
    tm__meter from = {.seconds = 1, .busy = 10, .own = 2}, to = {.seconds = 3, .busy = 16, .own = 5};
    assert_true(tm__meter_foreign(&from, &to) == 1.5);
    to.own = 12; /* clocks of different grain */
    assert_true(tm__meter_foreign(&from, &to) == 0);
    from.busy = NAN;
    assert_true(isnan(tm__meter_foreign(&from, &to)));
    from = tm__meter_read();
    assert_true(from.seconds > 0 && !(from.own < 0));
    if (!tm__peak_reset()) return;
    int64_t before = tm__peak_bytes();
    size_t bytes = (size_t)64 << 20;
    char *block = malloc(bytes);
    assert_non_null(block);
    for (size_t i = 0; i < bytes; i += 512) ((volatile char *)block)[i] = 1;
    assert_true(tm__peak_bytes() >= before + ((int64_t)60 << 20));
    free(block);
    assert_true(tm__peak_reset());
#ifndef __SANITIZE_ADDRESS__ /* which keeps what was freed, to notice its use */
    assert_true(tm__peak_bytes() < before + ((int64_t)60 << 20));
#endif
}

static void check_trained(const tm_bench_row *row, double passes) {
    assert_string_equal(row->failure, "");
    assert_true(row->trains && row->step.count == 6 && row->sft.count == 6); /* 2 runs of 3 */
    for (int i = 0; i < 6; i++) assert_true(row->step.seconds[i] > 0 && row->sft.seconds[i] > 0);
    assert_true(row->step.least <= row->step.median && row->step.median <= row->step.most);
    assert_true(row->ratio == row->step.median / row->sft.median);
    if (!(fabs(row->passes - passes) < 1e-9)) fail_msg("%s: %g passes", row->method->name, row->passes);
    assert_true(row->figures.tokens > 0 && row->figures.flops > 0 && row->figures.share > 0);
}

/* Timed after each turn, and counted as the step's: the blocks see every token, the output layer every target. */
static void check_products(const tm_bench_report *report, size_t rounds, double times) {
    const tm_bench_frame *frame = &report->frame;
    double blocks = 2 * 32.0 * (2 * 32 + 2 * 16 + 3 * 64), operations = times * (64 * blocks + 32 * 32.0 * 512);
    assert_int_equal(frame->products.count, rounds);
    assert_true(fabs(frame->product_flops * frame->products.median / operations - 1) < 1e-9);
    for (size_t i = 0; i < report->count; i++) {
        const tm_bench_row *row = &report->list[i];
        if (!row->trains) continue;
        assert_true(fabs(row->figures.flops * row->step.median / (times * row->passes * report->pass) - 1) < 1e-9);
        assert_true(fabs(row->figures.share * frame->product_flops / row->figures.flops - 1) < 1e-9);
    }
}

/* One of each kind: one set of rows, two, pairs, two loops, a secret, no training, an adapter, a checkpoint. */
static void methods_are_measured(void **state) {
    (void)state;
    static const char names[] = "panacea,backdoor-align,safe-lora,security-vectors,t-vaccine,gradient-ascent,repnoise";
    tm_bench_options o = tiny_bench(names);
    tm_bench_report report;
    o.steps = 3;
    for (int lora = 0; lora < 2; lora++) {
        o.lora_rank = lora ? 2 : 0;
        assert_ok(bench(&o, NULL, &report));
        assert_int_equal(report.count, 7);
        assert_int_equal(report.rows, 16);
        check_products(&report, 14, lora ? 4 : 6);
        /* of 62 tokens before the next one, and of 32 that are trained on */
        double head = 32.0 * 512, sft = report.pass, body = sft - 32 * head;
        assert_true(fabs(report.head - 32 * head / sft) < 1e-12);
        for (size_t i = 0; i < report.count; i++) {
            const tm_bench_row *row = &report.list[i];
            const char *name = row->method->name;
            if (strcmp(name, "panacea") == 0) check_trained(row, 3);
            if (strcmp(name, "backdoor-align") == 0) check_trained(row, 1);
            if (strcmp(name, "security-vectors") == 0) check_trained(row, 1);
            if (strcmp(name, "t-vaccine") == 0) check_trained(row, 2);
            if (strcmp(name, "gradient-ascent") == 0) check_trained(row, (body + 62 * head) / sft);
            if (strcmp(name, "repnoise") == 0) { /* both answers end in the same mark, which teaches nothing */
                double pass = body + 30 * head, mmd = 3 * 2 * 6 * 15 * 32.0 / (lora ? 4 : 6);
                check_trained(row, (2 * pass + 2 * (30 * head + mmd)) / sft);
            }
            if (strcmp(name, "safe-lora") == 0)
                assert_true(!row->trains && row->once > 0 && row->step.count == 0 && !row->failure[0]);
        }
        tm_bench_report_release(&report);
    }
}

static void plain_fine_tuning_alone(void **state) {
    (void)state;
    tm_bench_options o = tiny_bench("sft,vaccine");
    tm_bench_report report;
    assert_ok(bench(&o, NULL, &report));
    assert_int_equal(report.count, 2);
    const tm_bench_row *row = &report.list[0];
    assert_string_equal(row->method->name, "sft");
    assert_true(row->step.count == 2 && row->sft.count == 0 && isnan(row->ratio) && row->passes == 1);
    assert_true(row->figures.tokens > 0);
    assert_string_equal(report.list[1].method->name, "vaccine");
    tm_bench_report_release(&report);
}

static bool always(void *user) {
    (void)user;
    return true;
}

static void wrong_use(void **state) {
    (void)state;
    tm_bench_report report = {0};
    tm_bench_options o = tiny_bench("vaccine,nonsense");
    const tm_monitor stopped = {.stop = always};
    assert_int_equal(bench(&o, NULL, &report), TM_NOT_FOUND);
    assert_string_equal(tm_error_last()->field, "methods");
    o = tiny_bench("vaccine,");
    assert_int_equal(bench(&o, NULL, &report), TM_NOT_FOUND);
    o = tiny_bench("vaccine");
    o.length = 16;
    assert_int_equal(bench(&o, NULL, &report), TM_INVALID);
    o = tiny_bench("vaccine");
    o.config = "/nowhere/config.json";
    assert_int_equal(bench(&o, NULL, &report), TM_NOT_FOUND);
    o.config = test_path("golden/repnoise/config.json"); /* a vocabulary of 29 */
    assert_int_equal(bench(&o, NULL, &report), TM_UNSUPPORTED);
    o = tiny_bench("vaccine");
    assert_int_equal(bench(&o, &stopped, &report), TM_INTERRUPTED);
    o.repeats = 0;
    assert_int_equal(bench(&o, NULL, &report), TM_INVALID);
    o = tiny_bench("vaccine");
    o.shape = TM_SHAPE_LLAMA_7B; /* 100 GiB with moments */
    if (sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) < (long)90 << 30)
        assert_int_equal(bench(&o, NULL, &report), TM_NO_MEMORY);
    assert_null(report.list);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_knows_every_method),
        cmocka_unit_test(passes_count_weights),
        cmocka_unit_test(rows_have_their_length),
        cmocka_unit_test(meters),
        cmocka_unit_test(methods_are_measured),
        cmocka_unit_test(plain_fine_tuning_alone),
        cmocka_unit_test(wrong_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
