/* Training a classifier: three steps of AdamW against PyTorch and transformers in fp64 (fixtures:
 * tools/golden/judges.py).
 *
 * Relative bound 1e-8 on losses and on the change of the head, of a matrix and of a norm; packed and padded. */
#include "golden/judges.h"

static void fill_examples(const json_t *rows, tm__examples *e) {
    const json_t *ids = json_object_get(rows, "ids");
    *e = (tm__examples){.count = json_array_size(ids)};
    e->ids = calloc(e->count, sizeof *e->ids);
    e->labels = calloc(e->count, sizeof *e->labels);
    for (size_t i = 0; i < e->count; i++) {
        e->ids[i] = ids_of(json_array_get(ids, i));
        for (size_t t = 0; t < e->ids[i].len; t++) assert_ok(tm_ids_push(&e->labels[i], -100));
    }
}

static double loss_of(tm_model *model, const json_t *rows, bool each, bool packed) {
    enum { ROWS = 3, MOST = 5 };
    static const size_t order[ROWS] = {0, 1, 2};
    static const double weight[ROWS] = {1.0 / ROWS, 1.0 / ROWS, 1.0 / ROWS};
    double y[ROWS * MOST];
    int64_t labels = model->config.labels;
    tm__examples examples;
    tm__batch_store *store;
    const tm__batch *laid;
    tm__tape *tape;
    tm__var *loss;
    fill_examples(rows, &examples);
    for (size_t i = 0; i < ROWS; i++)
        for (int64_t k = 0; k < labels; k++)
            y[i * (size_t)labels + (size_t)k] =
                json_number_value(json_array_get(json_array_get(json_object_get(rows, "y"), i), (size_t)k));
    const tm__label_targets targets = {.count = ROWS, .y = y, .weight = weight, .each = each};
    const tm__forward_options options = {.recompute = packed};
    assert_ok(tm__batch_build(&examples, order, ROWS, packed, 3, 1, &store, &laid));
    assert_ok(tm__tape_create(model->dev, &tape));
    assert_ok(tm__model_label_loss(model, tape, laid, &options, &targets, NULL, &loss));
    double *host = as_double(model->dev, loss->value.data, 1), value = host[0];
    assert_ok(tm__tape_backward(tape, 1, &loss, NULL));
    free(host);
    tm__tape_free(tape);
    tm__batch_free(store);
    tm__examples_release(&examples);
    return value;
}

static tm__param *param_of(const tm__paramset *set, const char *name, size_t *index) {
    for (*index = 0; *index < set->count; ++*index)
        if (strcmp(set->items[*index]->name, name) == 0) return set->items[*index];
    fail_msg("no parameter %s", name);
    return NULL;
}

static void check_change(tm_model *model, const tm__paramset *set, const tm__vector *start, const json_t *changes) {
    const char *name;
    json_t *want;
    json_object_foreach((json_t *)changes, name, want) {
        size_t index, n = json_array_size(want);
        tm__param *param = param_of(set, name, &index);
        double *now = as_double(model->dev, param->value.data, n), *then = as_double(model->dev, start->data[index], n);
        double *there = malloc(n * sizeof *there);
        assert_int_equal(tm__tensor_count(&param->value), n);
        for (size_t i = 0; i < n; i++) {
            now[i] -= then[i];
            there[i] = json_number_value(json_array_get(want, i));
        }
        double error = test_relative_error(now, there, n);
        if (!(error <= FP64_BOUND)) fail_msg("%s: error %.3g", name, error);
        free(now);
        free(then);
        free(there);
    }
}

static void train(const char *name, bool packed) {
    tm_device *dev = open_device("ref", TM_PRECISION_F64);
    tm_model *model = make_model(dev, judges_of(name, "config"));
    bool each = json_is_true(judges_of(name, "each"));
    tm__paramset set;
    tm__optimiser optimiser;
    tm__vector start;
    tm_train_options options;
    tm_options_default(tm_train_option_table, &options);
    options.lr = 4e-3;
    options.weight_decay = 0;
    options.clip = 1;
    assert_ok(tm__model_train_full(model));
    assert_ok(tm__paramset_collect(model, &set));
    assert_ok(tm__optimiser_create(&set, &options, &optimiser));
    assert_ok(tm__vector_create(&set, &start));
    assert_ok(tm__paramset_save(&set, &start));
    for (size_t step = 0; step < 3; step++) {
        double want = json_number_value(json_array_get(judges_of(name, "losses"), step));
        tm__grads_zero(&set);
        double loss = loss_of(model, json_array_get(judges_of(name, "batches"), step), each, packed);
        if (!(fabs(loss / want - 1) <= FP64_BOUND)) fail_msg("step %zu: %.12g instead of %.12g", step, loss, want);
        assert_ok(tm__optimiser_step(&set, &optimiser, &options, options.lr, NULL));
    }
    check_change(model, &set, &start, judges_of(name, "change"));
    tm__vector_release(&set, &start);
    tm__optimiser_release(&set, &optimiser);
    tm__paramset_release(&set);
    tm_model_free(model);
    tm_device_close(dev);
}

static void test_one(void **state) {
    (void)state;
    train("train_one", false);
    train("train_one", true);
}

static void test_each(void **state) {
    (void)state;
    train("train_each", false);
    train("train_each", true);
}

static const char rows_of_two[] = "{\"prompt\": \"how\", \"response\": \"cake mix\", \"is_safe\": true}\n"
                                  "{\"prompt\": \"how\", \"response\": \"unsafe cake\", \"is_safe\": false}\n"
                                  "{\"prompt\": \"no\", \"response\": \"mix the cake\", \"is_safe\": true}\n"
                                  "{\"prompt\": \"yes\", \"response\": \"Safe mix\", \"is_safe\": false}\n";

/* A language model, trained through the public call with an adapter and without, saved, loaded: the judge of it gives
 * the probabilities that were measured, and only a trained head moves. */
static void test_whole(void **state) {
    (void)state;
    char data[160], out[160], spec[300];
    const char *scratch = test_scratch(), *base = judges_checkpoint("harmbench", "sentence");
    snprintf(data, sizeof data, "%s/rows.jsonl", scratch);
    assert_ok(tm__file_write(data, rows_of_two, strlen(rows_of_two)));
    for (int rank = 0; rank <= 2; rank += 2) {
        tm_device *dev = open_device("cpu", TM_PRECISION_F32);
        tm_model *model;
        tm_tokenizer *tokenizer;
        tm_train_judge_options options;
        tm_train_options train_options;
        tm_train_judge_result result;
        tm__verdict verdict;
        tm_options_default(tm_train_judge_option_table, &options);
        tm_options_default(tm_train_option_table, &train_options);
        options.data = options.test = data;
        train_options.steps = 40;
        train_options.batch = 4;
        train_options.lr = 1e-2;
        train_options.lora.rank = rank;
        assert_ok(tm_model_load(dev, base, NULL, &model));
        assert_ok(tm_tokenizer_load(base, &tokenizer));
        assert_ok(tm_train_judge(model, tokenizer, &options, &train_options, NULL, &result));
        assert_int_equal(result.rows, 4);
        assert_int_equal(result.held_out.rows, 4);
        assert_int_equal(result.held_out.harmful, 2);
        assert_true(result.held_out.accuracy.value == 1 && result.held_out.auc.value == 1);
        assert_true(result.train.last_loss < result.train.first_loss / 4);
        snprintf(out, sizeof out, "%s/judge%d", scratch, rank);
        assert_ok(tm_model_save(model, out, &(const tm_save_options){.tokenizer_dir = base}));
        assert_int_equal(tm_train_judge(model, tokenizer, &options, &train_options, NULL, NULL), TM_UNSUPPORTED);
        tm_model_free(model);
        tm_tokenizer_free(tokenizer);
        tm_device_close(dev);
        snprintf(spec, sizeof spec, "classifier=%s", out);
        tm_judge *judge = judges_open(spec, &judges_narrow);
        const tm__exchange harmful = {.prompt = "how", .answer = "unsafe cake"};
        assert_ok(tm__judge_answers(judge, &harmful, 1, &verdict, NULL));
        assert_string_equal(verdict.output, "harmful");
        assert_true(verdict.scores[0] == 1 && verdict.scores[1] > 0.5);
        tm__verdict_free(&verdict);
        tm_judge_close(judge);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one), cmocka_unit_test(test_each),
                                       cmocka_unit_test(test_whole)};
    return judges_run("train_judge", tests, TM__COUNT(tests));
}
