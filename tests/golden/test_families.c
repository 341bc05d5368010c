/* Tiny checkpoints of every family against transformers and PEFT in float64 (fixtures: tools/golden/families.py).
 *
 * Bounds, as ||a - b|| / ||b|| per tensor:
 *   ref fp64   1e-8   logits, hidden states, gradients, change of LoRA weights; greedy text is equal
 *   cpu fp32   those of test_llama.c
 *   cpu bf16   1.5 times the error that PyTorch's own bf16 autocast makes on the same case
 * Weights are a formula of their name (weight_values in families.py). Every model is saved and loaded before it is
 * used.
 */
#include "families.h"

#define CPU_LOGITS_BOUND 1e-5
#define CPU_GRADIENT_BOUND 2e-5
#define BF16_FACTOR 1.5

static double gradient(tm_model *model, const fixture *f, size_t step, bool packed, bool recompute) {
    const tm__forward_options options = {.recompute = recompute};
    batch b;
    tm__tape *tape;
    tm__var *loss;
    batch_make(f, step, packed, &b);
    assert_ok(tm__tape_create(model->dev, &tape));
    assert_ok(tm__model_loss(model, tape, b.batch, &options, NULL, &loss));
    double *host = as_double(model->dev, loss->value.data, 1), value = host[0];
    free(host);
    assert_ok(tm__tape_backward(tape, 1, &loss, NULL));
    tm__tape_free(tape);
    batch_release(&b);
    return value;
}

static void check_gradients(tm_model *model, const fixture *f, bool packed, bool recompute, double bound) {
    tm__paramset set;
    assert_ok(tm__model_train_full(model));
    assert_ok(tm__paramset_collect(model, &set));
    tm__grads_zero(&set);
    double loss = gradient(model, f, 0, packed, recompute);
    assert_true(fabs(loss / json_number_value(json_object_get(f->json, "loss")) - 1) <= bound);
    for (size_t i = 0; i < set.count; i++) {
        size_t n = (size_t)tm__tensor_count(&set.items[i]->value);
        double *grad = as_double(model->dev, set.items[i]->grad, n);
        compare(f, "grad.", set.items[i]->name, grad, n, bound);
        free(grad);
    }
    tm__paramset_release(&set);
}

/* ---- tests ---- */

/* Errors of our bf16 against fp64, beside PyTorch's own on the same case. */
static void bf16_is_no_worse_than_pytorch(void **state) {
    (void)state;
    tm_device *dev = open_device("cpu", TM_PRECISION_BF16);
    for (int i = 0; i < FULL; i++) {
        double bound = json_number_value(json_object_get(fixtures[i].json, "bf16"));
        double error = moved(dev, &fixtures[i], json_object_get(fixtures[i].json, "config"));
        print_message("%s logits in bf16: ours %.4g, PyTorch's %.4g\n", fixtures[i].name, error, bound);
        assert_true(error > 0 && error <= BF16_FACTOR * bound);
    }
    tm_device_close(dev);
}

static void logits_and_states(void **state) {
    (void)state;
    tm_device *dev = open_device("ref", TM_PRECISION_F64), *cpu = open_device("cpu", TM_PRECISION_F32);
    for (int i = 0; i < CASES; i++) {
        tm_model *model = fixture_model(dev, &fixtures[i]), *narrow = fixture_model(cpu, &fixtures[i]);
        size_t n = logits_count(model, &fixtures[i]);
        for (int packed = 0; packed < 2; packed++) {
            double *got = logits_of(model, &fixtures[i], packed, i < FULL);
            compare(&fixtures[i], "logits", "", got, n, FP64_BOUND);
            free(got);
            got = logits_of(narrow, &fixtures[i], packed, false);
            compare(&fixtures[i], "logits", "", got, n, CPU_LOGITS_BOUND);
            free(got);
        }
        tm_model_free(model);
        tm_model_free(narrow);
    }
    tm_device_close(dev);
    tm_device_close(cpu);
}

static void gradients(void **state) {
    (void)state;
    tm_device *dev = open_device("ref", TM_PRECISION_F64), *cpu = open_device("cpu", TM_PRECISION_F32);
    for (int i = 0; i < FULL; i++) {
        tm_model *model = fixture_model(dev, &fixtures[i]), *narrow = fixture_model(cpu, &fixtures[i]);
        for (int packed = 0; packed < 2; packed++) {
            check_gradients(model, &fixtures[i], packed, packed, FP64_BOUND);
            check_gradients(narrow, &fixtures[i], packed, packed, CPU_GRADIENT_BOUND);
        }
        tm_model_free(model);
        tm_model_free(narrow);
    }
    tm_device_close(dev);
    tm_device_close(cpu);
}

/* Steps of AdamW on an adapter of the family's own modules. */
static void train_adapter(const fixture *f, tm_device *dev) {
    char targets[128] = "";
    size_t i;
    json_t *target;
    tm__paramset set;
    tm__optimiser optimiser;
    tm__vector start;
    tm_train_options options;
    tm_model *model = fixture_model(dev, f);
    json_array_foreach(json_object_get(f->json, "targets"), i, target) {
        size_t used = strlen(targets);
        snprintf(targets + used, sizeof targets - used, "%s%s", i ? "," : "", json_string_value(target));
    }
    assert_ok(tm_model_add_lora(model, &(const tm_lora_options){.rank = 2, .alpha = 3, .targets = targets}, 1));
    assert_ok(tm__model_params(model, fill_param, model));
    assert_ok(tm__model_train_adapters(model, 0));
    assert_ok(tm__paramset_collect(model, &set));
    tm_options_default(tm_train_option_table, &options);
    options.lr = json_number_value(json_object_get(f->json, "lr"));
    options.weight_decay = json_number_value(json_object_get(f->json, "weight_decay"));
    options.clip = json_number_value(json_object_get(f->json, "clip"));
    assert_ok(tm__optimiser_create(&set, &options, &optimiser));
    assert_ok(tm__vector_create(&set, &start));
    assert_ok(tm__paramset_save(&set, &start));
    json_t *losses = json_object_get(f->json, "lora_losses");
    for (size_t step = 0; step < json_array_size(losses); step++) {
        tm__grads_zero(&set);
        double loss = gradient(model, f, step, step % 2, step % 2);
        assert_true(fabs(loss / json_number_value(json_array_get(losses, step)) - 1) <= FP64_BOUND);
        assert_ok(tm__optimiser_step(&set, &optimiser, &options, options.lr, NULL));
    }
    for (i = 0; i < set.count; i++) {
        size_t n = (size_t)tm__tensor_count(&set.items[i]->value);
        double *now = as_double(dev, set.items[i]->value.data, n), *then = as_double(dev, start.data[i], n);
        for (size_t k = 0; k < n; k++) now[k] -= then[k];
        compare(f, "delta.", plain_name(set.items[i]->name), now, n, FP64_BOUND);
        free(now);
        free(then);
    }
    tm__vector_release(&set, &start);
    tm__optimiser_release(&set, &optimiser);
    tm__paramset_release(&set);
    tm_model_free(model);
}

static void adapters(void **state) {
    (void)state;
    tm_device *dev = open_device("ref", TM_PRECISION_F64);
    for (int i = 0; i < FULL; i++) train_adapter(&fixtures[i], dev);
    tm_device_close(dev);
}

static void generate(tm_model *model, const tm_ids *prompts, size_t n, int64_t tokens, int64_t rows, tm_ids *out) {
    const tm_generate_options options = {.max_new_tokens = tokens, .batch = rows, .ignore_stop = true};
    assert_ok(tm_generate(model, prompts, n, NULL, 0, &options, NULL, out));
}

static void greedy_text(void **state) {
    (void)state;
    tm_device *dev = open_device("ref", TM_PRECISION_F64);
    for (int i = 0; i < CASES; i++) {
        const fixture *f = &fixtures[i];
        tm_model *model = fixture_model(dev, f);
        tm_ids prompts[2], out[2] = {{0}};
        int64_t tokens = json_integer_value(json_object_get(f->json, "new_tokens"));
        for (size_t k = 0; k < 2; k++) prompts[k] = ids_of(json_array_get(json_object_get(f->json, "prompts"), k));
        generate(model, prompts, 2, tokens, 2, out);
        for (size_t k = 0; k < 2; k++) {
            tm_ids want = ids_of(json_array_get(json_object_get(f->json, "texts"), k));
            assert_int_equal(out[k].len, want.len);
            if (memcmp(out[k].data, want.data, want.len * sizeof *want.data) != 0)
                fail_msg("%s: text %zu differs from transformers'", f->name, k);
            tm_ids_free(&want);
        }
        free_all(prompts, 2);
        free_all(out, 2);
        tm_model_free(model);
    }
    tm_device_close(dev);
}

/* Prompts that begin alike, together and each by itself. */
static void shared_prefix(void **state) {
    (void)state;
    tm_device *dev = open_device("cpu", TM_PRECISION_F32);
    for (int i = 0; i < CASES; i++) {
        const fixture *f = &fixtures[i];
        tm_model *model = fixture_model(dev, f);
        tm_ids prompts[3], out[3] = {{0}}, alone[3] = {{0}};
        for (int k = 0; k < 3; k++) {
            prompts[k] = ids_of(json_array_get(json_object_get(f->json, "prompts"), 0));
            prompts[k].data[prompts[k].len - 1] = 5 + k;
            assert_ok(tm_ids_push(&prompts[k], 4 + k % 2));
        }
        generate(model, prompts, 3, 12, 2, out);
        for (int k = 0; k < 3; k++) {
            generate(model, &prompts[k], 1, 12, 1, &alone[k]);
            assert_int_equal(out[k].len, 12);
            assert_memory_equal(out[k].data, alone[k].data, 12 * sizeof *out[k].data);
        }
        free_all(prompts, 3);
        free_all(out, 3);
        free_all(alone, 3);
        tm_model_free(model);
    }
    tm_device_close(dev);
}

static void classifiers(void **state) {
    (void)state;
    tm_device *dev = open_device("ref", TM_PRECISION_F64);
    for (int i = 0; i < FULL; i++) {
        const fixture *f = &fixtures[i];
        tm_model *model = make_model(dev, json_object_get(f->json, "classifier_config"));
        tm_ids texts[3], none[3] = {{0}};
        double logits[9];
        tm_model_info info;
        tm_model_describe(model, &info);
        assert_int_equal(info.labels, 3);
        assert_non_null(strstr(info.architecture, "ForSequenceClassification"));
        for (size_t k = 0; k < 3; k++) texts[k] = ids_of(json_array_get(json_object_get(f->json, "classified"), k));
        assert_ok(tm_model_classify(model, texts, 3, logits));
        compare(f, "labels", "", logits, 9, FP64_BOUND);
        const tm_generate_options options = {.max_new_tokens = 1};
        assert_int_equal(tm_generate(model, texts, 1, NULL, 0, &options, NULL, none), TM_UNSUPPORTED);
        double score;
        assert_int_equal(tm_model_score(model, texts[0].data, texts[0].len, &score), TM_UNSUPPORTED);
        free_all(texts, 3);
        tm_model_free(model);
    }
    tm_model *model = fixture_model(dev, &fixtures[0]);
    assert_int_equal(tm_model_classify(model, NULL, 0, NULL), TM_UNSUPPORTED);
    tm_model_free(model);
    tm_device_close(dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_and_states),
        cmocka_unit_test(gradients),
        cmocka_unit_test(bf16_is_no_worse_than_pytorch),
        cmocka_unit_test(adapters),
        cmocka_unit_test(greedy_text),
        cmocka_unit_test(shared_prefix),
        cmocka_unit_test(classifiers),
    };
    return run_families("families", tests, TM__COUNT(tests));
}
