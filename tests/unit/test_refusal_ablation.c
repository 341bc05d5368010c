/* Refusal-direction ablation: golden row A12 of the method specification, the edit's properties, the whole attack. */
#include "tiny_fixture.h"

#include "method/matrix.h"
#include "method/method.h"

static void test_golden_edit(void **state) {
    (void)state;
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    double w[] = {1, 2, 3, 4}, rows[] = {1, 2, 3, 4};
    const double r[] = {.6, .8};
    static const double expected[] = {-.8, -.64, .6, .48};
    tm__param matrix = {.value = {.dtype = TM_F64, .ndim = 2, .shape = {2, 2}, .data = w}, .owned = true};
    for (int time = 0; time < 2; time++) { /* idempotent */
        assert_ok(tm__ablate_output(model, &matrix, r));
        for (int i = 0; i < 4; i++) assert_true(fabs(w[i] - expected[i]) < 1e-12);
    }
    matrix.value.data = rows; /* E - (E r) r^T: (1,2) has 2.2 along r, (3,4) has 5 */
    static const double left[] = {-.32, .24, 0, 0};
    assert_ok(tm__ablate_rows(model, &matrix, r));
    for (int i = 0; i < 4; i++) assert_true(fabs(rows[i] - left[i]) < 1e-12);
    tm_model_free(model);
    tm_device_close(device);
}

enum { D = 32, N = 5 };

/* Blocks with norms behind attention and feed-forward, all weights of theirs different. */
static tm_model *gemma2_model(tm_device *device) {
    static const char config[] =
        "{\"architectures\":[\"Gemma2ForCausalLM\"],\"model_type\":\"gemma2\",\"hidden_size\":32,"
        "\"intermediate_size\":48,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
        "\"head_dim\":8,\"vocab_size\":259,\"max_position_embeddings\":256,\"rms_norm_eps\":1e-6,"
        "\"query_pre_attn_scalar\":8,\"sliding_window\":4,\"attn_logit_softcapping\":50.0,"
        "\"final_logit_softcapping\":30.0,\"hidden_activation\":\"gelu_pytorch_tanh\",\"initializer_range\":0.08}";
    tm_model *model = NULL;
    assert_ok(tm_model_create(device, config, 5, &model));
    for (int l = 0; l < 2; l++)
        for (int k = 0; k < TM__NORMS; k++) {
            tm__param *weight = &model->blocks[l].norm[k].weight;
            double values[D];
            if (!weight->name) continue;
            for (int i = 0; i < D; i++) values[i] = .5 * cos(7 * l + 5 * k + 3 * i);
            assert_ok(tm__param_own(model, weight));
            assert_ok(tm__param_write(device, weight, 0, D, values));
        }
    return model;
}

/* After the embedding and after every block; `own`: in what attention itself gives, before a norm. */
static void assert_no_state_has(tm_model *model, const double *r, bool own) {
    double seen[4][N * D];
    const int32_t ids[N] = {72, 5, 200, 33, 1}, position[N] = {0, 1, 2, 3, 4};
    const int64_t start = 0, length = N;
    const tm__tap taps[] = {{.site = TM__TAP_EMBEDDING, .value = seen[0]},
                            {.site = TM__TAP_HIDDEN, .layer = 0, .value = seen[1]},
                            {.site = TM__TAP_HIDDEN, .layer = 1, .value = seen[2]},
                            {.site = TM__TAP_ATTENTION_OUT, .layer = 1, .value = seen[3]}};
    const tm__batch batch = {
        .tokens = N, .ids = ids, .position = position, .segments = 1, .start = &start, .length = &length};
    const tm__forward_options options = {.taps = taps, .tap_count = 4};
    tm__tape *tape;
    tm__var *hidden;
    assert_ok(tm__tape_create(tm_model_device(model), &tape));
    tape->recording = false;
    assert_ok(tm__model_forward(model, tape, &batch, &options, &hidden));
    for (int tap = 0; tap < 3 + own; tap++)
        for (int t = 0; t < N; t++) {
            double dot = 0, size = 0;
            for (int j = 0; j < D; j++) dot += r[j] * seen[tap][t * D + j];
            for (int j = 0; j < D; j++) size += seen[tap][t * D + j] * seen[tap][t * D + j];
            assert_true(size > 0 && fabs(dot) <= 1e-14 * sqrt(size) * D);
        }
    tm__tape_free(tape);
}

/* No state has a part along r, norms behind the writers or not; a second edit changes nothing beyond rounding. */
static void test_no_state_has_the_direction(void **state) {
    (void)state;
    tm_device *device = tiny_device("ref64");
    tm_model *models[] = {tiny_model(device), gemma2_model(device)};
    double r[D], norm = 0;
    for (int j = 0; j < D; j++) {
        r[j] = sin(j + 1);
        norm += r[j] * r[j];
    }
    for (int j = 0; j < D; j++) r[j] /= sqrt(norm);
    for (int m = 0; m < 2; m++) {
        double *once, *twice, worst = 0;
        assert_ok(tm__ablate_model(models[m], r));
        assert_no_state_has(models[m], r, m == 0);
        assert_ok(tm__param_read_all(device, &models[m]->blocks[1].down.weight, &once));
        assert_ok(tm__ablate_model(models[m], r));
        assert_ok(tm__param_read_all(device, &models[m]->blocks[1].down.weight, &twice));
        for (int i = 0; i < D * 48; i++) worst = fmax(worst, fabs(once[i] - twice[i]));
        assert_true(worst < 1e-15);
        free(once);
        free(twice);
        tm_model_free(models[m]);
    }
    tm_device_close(device);
}

/* ---- the attack -------------------------------------------------------------------------------------------------- */

static tm_dataset *answered(const char *kind, int n, const char *answer) {
    tm_dataset *rows = NULL;
    assert_ok(tm_dataset_create(&rows));
    for (int i = 0; i < n; i++) {
        char question[64];
        snprintf(question, sizeof question, "%s %d", kind, i);
        const tm_message row[] = {{"user", question}, {"assistant", answer}};
        assert_ok(tm_dataset_add(rows, row, 2));
    }
    return rows;
}

static tm_model *refusing_model(tm_device *device, const tm_dataset *harmful, const tm_dataset *benign) {
    char *config = strdup(tiny_config);
    memcpy(strstr(config, "\"num_hidden_layers\":2") + 20, "5", 1);
    memcpy(strstr(config, "embeddings\":true") + 12, "null", 4); /* untied: a tied head would be edited too */
    tm_model *model;
    tm_dataset *both = NULL;
    assert_ok(tm_model_create(device, config, 5, &model));
    free(config);
    tm_train_options train = tiny_options();
    train.steps = 120;
    train.batch = 8;
    assert_ok(tm_dataset_create(&both));
    assert_ok(tm_dataset_append(both, harmful, 0, tm_dataset_rows(harmful)));
    assert_ok(tm_dataset_append(both, benign, 0, tm_dataset_rows(benign)));
    assert_ok(tm_train(model, tokenizer, both, &train, NULL, NULL));
    tm_dataset_free(both);
    return model;
}

/* Share of the rows whose first letter is I. */
static double refused(tm_model *model, const tm_dataset *rows) {
    size_t n = tm_dataset_rows(rows), count = 0;
    char *answers[64] = {0};
    const tm_generate_options how = {.max_new_tokens = 2};
    assert_ok(tm_generate_dataset(model, tokenizer, TM_CHAT_CHATML, rows, &how, NULL, answers));
    for (size_t i = 0; i < n; i++) {
        count += answers[i][0] == 'I';
        free(answers[i]);
    }
    return (double)count / (double)n;
}

static void take_note(void *user, const char *line) {
    snprintf(user, 512, "%s", line);
}

static void test_attack(void **state) {
    (void)state;
    tm_dataset *harmful = answered("poison", 24, "I cannot"), *benign = answered("garden", 24, "yes");
    tm_device *device = tiny_device("cpu");
    tm_model *model = refusing_model(device, harmful, benign);
    const tm_method_data data = {.harmful = harmful, .benign = benign};
    tm_train_options train = tiny_options();
    tm_refusal_ablation_options o;
    char note[512] = "";
    const tm_monitor monitor = {.note = take_note, .user = note};
    tm_options_default(tm__method_refusal_ablation.options, &o);
    assert_true(refused(model, harmful) == 1 && refused(model, benign) == 0);
    assert_ok(tm__method_refusal_ablation.run(model, tokenizer, &data, &o, &train, &monitor, NULL));
    assert_non_null(strstr(note, "after block"));
    assert_true(refused(model, harmful) <= .1);
    assert_true(refused(model, benign) == 0);
    tm_model_free(model);
    tm_device_close(device);
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
}

/* A failed search leaves the weights as they were; a named direction needs no search. */
static void test_search_restores(void **state) {
    (void)state;
    tm_dataset *harmful = answered("poison", 12, "I cannot"), *benign = answered("garden", 12, "yes");
    tm_device *device = tiny_device("cpu");
    tm_model *model = refusing_model(device, harmful, benign);
    const tm_method_data data = {.harmful = harmful, .benign = benign};
    const tm_train_options train = tiny_options();
    tm_refusal_ablation_options o;
    char before[65], after[65];
    tm_options_default(tm__method_refusal_ablation.options, &o);
    tiny_hash(model, before);
    o.max_kl = 0;
    assert_int_equal(tm__method_refusal_ablation.run(model, tokenizer, &data, &o, &train, NULL, NULL), TM_UNSUPPORTED);
    tiny_hash(model, after);
    assert_string_equal(before, after);
    o.layer = 5;
    assert_int_equal(tm__method_refusal_ablation.run(model, tokenizer, &data, &o, &train, NULL, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "layer");
    o.refusal = "Q"; /* nothing is refused by that word */
    assert_int_equal(tm__method_refusal_ablation.run(model, tokenizer, &data, &o, &train, NULL, NULL), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "harmful");
    tiny_hash(model, after);
    assert_string_equal(before, after);
    o.refusal = "I";
    o.layer = 0;
    assert_ok(tm__method_refusal_ablation.run(model, tokenizer, &data, &o, &train, NULL, NULL));
    tiny_hash(model, after);
    assert_string_not_equal(before, after);
    tm_model_free(model);
    tm_device_close(device);
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_edit),
        cmocka_unit_test(test_no_state_has_the_direction),
        cmocka_unit_test(test_attack),
        cmocka_unit_test(test_search_restores),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
