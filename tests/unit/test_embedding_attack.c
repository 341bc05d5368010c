/* The embedding attack: a model that refuses until it is attacked while every weight stays, answers and what ends them,
 * files, batches, and what is refused. Its vectors are in test_soft_prompt.c.
 */
#include <sys/stat.h>

#include "methods.h"

#include "data/data.h"
#include "method/soft_prompt.h"
#include "model/safetensors.h"

enum { ROWS = 3 };

static tm_dataset *prompts;
static tm_method_data data;
static double embed_scale = 1; /* of the models that are attacked */

static int setup(void **state) {
    prompts = tiny_rows("harmful", ROWS);
    data = (tm_method_data){.harmful = prompts};
    return tiny_setup(state);
}

static int teardown(void **state) {
    tm_dataset_free(prompts);
    return tiny_teardown(state);
}

typedef struct outcome {
    tm_train_result result;
    tm_dataset *answers;
    float *vectors;
    int64_t shape[3];
    char note[256];
} outcome;

static void keep_note(void *user, const char *line) {
    snprintf((char *)user, 256, "%s", line);
}

/* A model that answers "No" to harmful prompts and "Go" to others: one that never said the target could not be brought
 * to it. */
static void teach(tm_model *model) {
    tm_train_options train = tiny_options();
    tm_dataset *rows = NULL, *others = tiny_rows("kind", 12), *harmful = tiny_rows("harmful", 12);
    train.steps = 120;
    train.batch = 8;
    assert_ok(tm_dataset_create(&rows));
    for (size_t i = 0; i < 24; i++) {
        const tm_message *from = tm_dataset_row(i % 2 ? harmful : others, i / 2, NULL);
        const tm_message row[] = {from[0], {"assistant", i % 2 ? "No" : "Go"}};
        assert_ok(tm_dataset_add(rows, row, 2));
    }
    assert_ok(tm_train(model, tokenizer, rows, &train, NULL, NULL));
    tm_dataset_free(rows);
    tm_dataset_free(others);
    tm_dataset_free(harmful);
}

static void attack(tm_embedding_options o, int64_t batch, bool taught, outcome *out) {
    char *answers = tm__path_join(test_scratch(), "answers.jsonl");
    char *vectors = tm__path_join(test_scratch(), "soft.safetensors");
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_train_options train = tiny_options();
    const tm_monitor monitor = {.note = keep_note, .user = out->note};
    char before[65], after[65];
    tm__safetensors *file;
    tm_tensor found;
    model->config.embed_scale = embed_scale;
    if (taught) teach(model);
    train.batch = batch;
    o.answers_out = answers;
    o.soft_prompt_out = vectors;
    tiny_hash(model, before);
    assert_ok(tm__method_embedding.run(model, tokenizer, &data, &o, &train, &monitor, &out->result));
    tiny_hash(model, after);
    assert_string_equal(before, after); /* not a byte of a weight */
    assert_ok(tm_dataset_load_prompts(answers, &out->answers));
    assert_ok(tm__safetensors_open(vectors, &file));
    assert_ok(tm__safetensors_find(file, "soft_prompt", &found));
    assert_int_equal(found.ndim, 3);
    memcpy(out->shape, found.shape, sizeof out->shape);
    out->vectors = malloc(tm__tensor_bytes(&found));
    memcpy(out->vectors, found.data, tm__tensor_bytes(&found));
    tm__safetensors_close(file);
    methods_free(model);
    free(answers);
    free(vectors);
}

static void outcome_free(outcome *out) {
    tm_dataset_free(out->answers);
    free(out->vectors);
}

/* A model that refuses is brought to answer: with vectors for each prompt, and with one set for all. A step too small
 * to move anything leaves the refusals, so the vectors' beginning is not what does it. */
static void test_attack(void **state) {
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        const tm_embedding_options o = {
            .steps = 200, .lr = .01, .tokens = 4, .shared = shared, .target = "Go", .max_new_tokens = 6};
        tm_embedding_options still = o;
        outcome out = {0}, none = {0};
        still.lr = 1e-9;
        attack(still, 2, true, &none);
        assert_non_null(strstr(none.note, "0 of 3 answers begin with the target"));
        attack(o, 2, true, &out);
        assert_true(out.result.first_loss > 1 && out.result.last_loss < (shared ? .4 : .05));
        assert_true(fabs(out.result.first_loss - none.result.first_loss) < 1e-5);
        assert_int_equal(out.result.steps, shared ? 200 : 400); /* two groups of prompts */
        assert_int_equal(tm_dataset_rows(out.answers), ROWS);
        const int64_t want[] = {shared ? 1 : ROWS, 4, 32};
        assert_memory_equal(out.shape, want, sizeof want);
        assert_non_null(strstr(out.note, "3 of 3 answers begin with the target"));
        for (size_t i = 0; i < ROWS; i++) {
            size_t n;
            const tm_message *row = tm_dataset_row(out.answers, i, &n);
            assert_string_equal(row[0].content, tm_dataset_row(prompts, i, NULL)[0].content);
            assert_int_equal(strncmp(row[n - 1].content, "Go", 2), 0);
        }
        outcome_free(&out);
        outcome_free(&none);
    }
}

/* One step moves every entry by lr or not at all, from the embedding of the first word as the first block reads it. */
static void test_one_step(void **state) {
    (void)state;
    const tm_embedding_options o = {
        .steps = 1, .lr = .25, .tokens = 2, .target = "Go", .init = "#", .max_new_tokens = 1};
    outcome out = {0};
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    const float *start = (const float *)model->embed.value.data + (size_t)'#' * 32;
    embed_scale = 3;
    attack(o, 8, false, &out);
    embed_scale = 1;
    for (size_t k = 0; k < ROWS * 2 * 32; k++) {
        double moved = fabs((double)out.vectors[k] - 3 * (double)start[k % 32]);
        assert_true(fabs(moved - .25) < 1e-6);
    }
    outcome_free(&out);
    methods_free(model);
}

/* The size of a batch decides about memory, not about what is found. */
static void test_batches(void **state) {
    (void)state;
    const tm_embedding_options o = {.steps = 5, .lr = .01, .tokens = 2, .target = "Go", .max_new_tokens = 3};
    outcome one = {0}, all = {0};
    attack(o, 1, false, &one);
    attack(o, 8, false, &all);
    assert_memory_equal(one.vectors, all.vectors, ROWS * 2 * 32 * sizeof(float));
    assert_true(fabs(one.result.last_loss - all.result.last_loss) < 1e-6);
    outcome_free(&one);
    outcome_free(&all);
}

/* What the taught model answers, hardly attacked, as the file says it. */
static char *said(tm_model *model, const tm_embedding_options *o) {
    char *answers = tm__path_join(test_scratch(), "answers.jsonl"), *text;
    tm_embedding_options with = *o;
    const tm_train_options train = tiny_options();
    with.answers_out = answers;
    assert_ok(tm__method_embedding.run(model, tokenizer, &data, &with, &train, NULL, NULL));
    assert_ok(tm__file_read(answers, 0, &text, NULL));
    free(answers);
    return text;
}

static void assert_said(tm_model *model, const tm_embedding_options *o, const char *answer, size_t count) {
    char *text = said(model, o), *want = tm__format("\"%s\"}]}", answer);
    size_t found = 0;
    for (const char *at = text; (at = strstr(at, want)) != NULL; at++) found++;
    if (found != count) fail_msg("%s ends %zu answers of: %s", want, found, text);
    free(text);
    free(want);
}

static tm_tokenizer *with_eos(const char *eos) {
    tm_tokenizer *made;
    const char *directory = tiny_tokenizer_directory();
    tiny_write(directory, "tokenizer_config.json", json_pack("{s:s}", "eos_token", eos));
    assert_ok(tm_tokenizer_load(directory, &made));
    return made;
}

/* The chat format's end, the tokenizer's and the model's: each ends an answer. Special tokens are not said. */
static void test_ends_of_answers(void **state) {
    (void)state;
    const tm_embedding_options o = {.steps = 1, .lr = 1e-9, .tokens = 4, .target = "Go", .max_new_tokens = 6},
                               one = {.steps = 1, .lr = 1e-9, .tokens = 4, .target = "Go", .max_new_tokens = 1};
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_tokenizer *usual = tokenizer, *other = with_eos("<|endoftext|>"), *letter = with_eos("o");
    teach(model);
    model->config.eos[0] = TINY_END;
    tokenizer = other;
    assert_said(model, &o, "No", ROWS);
    tokenizer = letter;
    assert_said(model, &o, "N", ROWS);
    tokenizer = other;
    model->config.eos[0] = 'o';
    assert_said(model, &o, "N", ROWS);
    float *table = (float *)model->embed.value.data;
    for (size_t k = 0; k < 32; k++) table[TINY_START * 32 + k] = 4 * table['N' * 32 + k];
    assert_said(model, &one, "", ROWS);
    tokenizer = usual;
    tm_tokenizer_free(other);
    tm_tokenizer_free(letter);
    methods_free(model);
}

/* All three, each once where it is known. */
static void test_stop_ids(void **state) {
    (void)state;
    int32_t stop[TM__STOP_IDS];
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    tm_tokenizer *letter = with_eos("o");
    model->config.eos[0] = TINY_END;
    assert_int_equal(tm__model_stop_ids(model, letter, TM_CHAT_CHATML, stop), 3);
    assert_true(stop[0] == TINY_STOP && stop[1] == 'o' && stop[2] == TINY_END);
    model->config.eos_count = 0;
    assert_int_equal(tm__model_stop_ids(model, letter, TM_CHAT_PLAIN, stop), 2);
    assert_true(stop[0] == 'o' && stop[1] == 'o');
    tm_tokenizer_free(letter);
    methods_free(model);
}

static void test_defaults(void **state) {
    (void)state;
    tm_embedding_options o;
    tm_options_default(tm__method_embedding.options, &o);
    assert_true(o.steps == 200 && o.lr == .001 && o.tokens == 20 && !o.shared && o.max_new_tokens == 64);
    const tm_embedding_options none = {.steps = 1, .lr = .01, .tokens = 2, .max_new_tokens = 1},
                               said_so = {.steps = 1,
                                          .lr = .01,
                                          .tokens = 2,
                                          .max_new_tokens = 1,
                                          .target = "Sure, here is",
                                          .init = "!"};
    outcome a = {0}, b = {0};
    attack(none, 4, false, &a);
    attack(said_so, 4, false, &b);
    assert_memory_equal(a.vectors, b.vectors, ROWS * 2 * 32 * sizeof(float));
    assert_true(a.result.first_loss == b.result.first_loss && a.result.target_tokens == b.result.target_tokens);
    outcome_free(&a);
    outcome_free(&b);
}

/* Between steps, or before an answer. */
static void test_interrupted(void **state) {
    (void)state;
    char *answers = tm__path_join(test_scratch(), "answers.jsonl");
    for (int64_t steps = 3; steps <= 50; steps += 47) {
        const tm_embedding_options o = {
            .steps = steps, .lr = .01, .tokens = 2, .target = "Go", .max_new_tokens = 3, .answers_out = answers};
        const tm_train_options train = tiny_options();
        countdown c = {.steps_left = 3};
        char hex[65];
        assert_int_equal(methods_run(&tm__method_embedding, &data, &o, &train, &c, hex, NULL), TM_INTERRUPTED);
        assert_int_equal(c.count, 3);
        assert_false(tm__path_exists(answers));
    }
    free(answers);
}

static void test_not_finite(void **state) {
    (void)state;
    const tm_embedding_options o = {.steps = 2, .lr = .01, .tokens = 2, .target = "Go", .max_new_tokens = 1};
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    const tm_train_options train = tiny_options();
    ((float *)model->embed.value.data)['h' * 32] = NAN;
    assert_int_equal(tm__method_embedding.run(model, tokenizer, &data, &o, &train, NULL, NULL), TM_NUMERIC);
    assert_string_equal(tm_error_last()->field, "loss");
    methods_free(model);
}

/* Vectors that cannot take their name leave nothing behind. */
static void test_unwritable(void **state) {
    (void)state;
    const char *directory = test_scratch();
    char *taken = tm__path_join(directory, "taken"), *part = tm__path_join(directory, "taken.part");
    const tm_embedding_options o = {
        .steps = 1, .lr = .01, .tokens = 2, .target = "Go", .max_new_tokens = 1, .soft_prompt_out = taken};
    const tm_train_options train = tiny_options();
    char *inside = tm__path_join(taken, "file"), hex[65];
    assert_int_equal(mkdir(taken, 0755), 0);
    assert_ok(tm__file_write(inside, "x", 1));
    assert_int_equal(methods_run(&tm__method_embedding, &data, &o, &train, NULL, hex, NULL), TM_IO);
    assert_string_equal(tm_error_last()->file, taken);
    assert_false(tm__path_exists(part));
    free(taken);
    free(part);
    free(inside);
}

static void test_refuses(void **state) {
    (void)state;
    const tm_embedding_options good = {.steps = 1, .lr = .01, .tokens = 2, .max_new_tokens = 1};
    tm_train_options lora = tiny_options(), resume = tiny_options(), train = tiny_options();
    tm_embedding_options bad[] = {good, good, good, good};
    static const char *const fields[] = {"target", "init", "steps", "soft-tokens"};
    char hex[65];
    lora.lora.rank = 2;
    resume.resume_dir = "somewhere";
    assert_int_equal(methods_run(&tm__method_embedding, &data, &good, &lora, NULL, hex, NULL), TM_INVALID);
    assert_int_equal(methods_run(&tm__method_embedding, &data, &good, &resume, NULL, hex, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "resume");
    bad[0].target = " ";
    bad[1].init = "";
    bad[2].steps = 0;
    bad[3].tokens = 0;
    for (size_t i = 0; i < TM__COUNT(bad); i++) {
        assert_int_equal(methods_run(&tm__method_embedding, &data, &bad[i], &train, NULL, hex, NULL), TM_INVALID);
        assert_string_equal(tm_error_last()->field, fields[i]);
    }
    const tm_message nothing[] = {{"system", "be kind"}};
    tm_dataset *mute = NULL;
    assert_ok(tm_dataset_create(&mute));
    assert_ok(tm__dataset_add(mute, nothing, 1, NULL));
    const tm_method_data none = {0}, asks_nothing = {.harmful = mute};
    assert_int_equal(methods_run(&tm__method_embedding, &none, &good, &train, NULL, hex, NULL), TM_INVALID);
    assert_int_equal(methods_run(&tm__method_embedding, &asks_nothing, &good, &train, NULL, hex, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->message, "a row asks nothing");
    tm_dataset_free(mute);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attack),      cmocka_unit_test(test_one_step), cmocka_unit_test(test_batches),
        cmocka_unit_test(test_interrupted), cmocka_unit_test(test_refuses),  cmocka_unit_test(test_ends_of_answers),
        cmocka_unit_test(test_stop_ids),    cmocka_unit_test(test_defaults), cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_unwritable),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
