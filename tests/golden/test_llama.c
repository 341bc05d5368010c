/* Tiny Llama checkpoints against transformers and PEFT in float64 (fixtures: tools/golden/llama.py).
 *
 * Bounds, as ||a - b|| / ||b|| per tensor:
 *   ref fp64   1e-8   logits, gradients, weight change after ten AdamW steps: the requirement
 *   cpu fp32   see below: fp32 products of at most 40 terms, two blocks, peaked attention that amplifies score errors
 *   cpu bf16   1.5 times the error that PyTorch's own bf16 autocast makes on the same case
 */
#include "support.h"

#include <jansson.h>

#include "model/model.h"
#include "model/safetensors.h"
#include "train/train.h"

#define FP64_BOUND 1e-8
#define CPU_LOGITS_BOUND 1e-5
#define CPU_GRADIENT_BOUND 2e-5
/* Adam divides by the size of the gradient, so an entry whose gradient is near fp32 rounding may step either way. */
#define CPU_DELTA_BOUND 3e-4
#define BF16_FACTOR 1.5

typedef struct fixture {
    const char *name;
    json_t *json;
    tm__safetensors *expected;
} fixture;

static fixture fixtures[2];

static void load_fixtures(void) {
    static const char *const names[2] = {"llama-tied", "llama-untied"};
    for (int i = 0; i < 2; i++) {
        char path[64];
        fixtures[i].name = names[i];
        snprintf(path, sizeof path, "golden/%s/case.json", names[i]);
        assert_ok(tm__json_load(test_path(path), (struct json_t **)&fixtures[i].json));
        snprintf(path, sizeof path, "golden/%s/expected.safetensors", names[i]);
        assert_ok(tm__safetensors_open(test_path(path), &fixtures[i].expected));
    }
}

static const char *model_path(const fixture *f, const char *part) {
    char path[64];
    snprintf(path, sizeof path, "golden/%s%s", f->name, part);
    return test_path(path);
}

/* Rows of one step as examples, so that the product's own batching is what is tested. */
static tm__examples step_examples(const fixture *f, size_t step) {
    json_t *rows = json_array_get(json_object_get(f->json, "batches"), step);
    tm__examples e = {.count = json_array_size(rows)};
    e.ids = calloc(e.count, sizeof *e.ids);
    e.labels = calloc(e.count, sizeof *e.labels);
    for (size_t r = 0; r < e.count; r++) {
        json_t *row = json_array_get(rows, r), *ids = json_object_get(row, "ids"),
               *labels = json_object_get(row, "labels");
        for (size_t t = 0; t < json_array_size(ids); t++) {
            assert_ok(tm_ids_push(&e.ids[r], (int32_t)json_integer_value(json_array_get(ids, t))));
            assert_ok(tm_ids_push(&e.labels[r], (int32_t)json_integer_value(json_array_get(labels, t))));
        }
    }
    return e;
}

static int64_t count_targets(const tm__examples *e) {
    int64_t n = 0;
    for (size_t r = 0; r < e->count; r++)
        for (size_t t = 1; t < e->labels[r].len; t++) n += e->labels[r].data[t] != -100;
    return n;
}

/* A device buffer or host tensor of act type, as doubles. */
static double *as_double(tm_device *dev, const void *data, size_t n) {
    double *out = malloc(n * sizeof *out);
    void *host = malloc(n * tm__dtype_size(dev->act));
    assert_ok(dev->download(dev, host, data, n * tm__dtype_size(dev->act)));
    tm__convert(out, TM_F64, host, dev->act, n);
    free(host);
    return out;
}

/* Adapter names carry the adapter's number here (lora_A.0.weight) and a prefix there. */
static double error_of(tm_device *dev, const void *data, const fixture *f, const char *kind, const char *name) {
    char key[256];
    tm_tensor want;
    const char *number = strstr(name, ".0.weight");
    if (strncmp(kind, "lora", 4) == 0 && number)
        snprintf(key, sizeof key, "%s.base_model.model.%.*s.weight", kind, (int)(number - name), name);
    else
        snprintf(key, sizeof key, "%s.%s", kind, name);
    assert_ok(tm__safetensors_find(f->expected, key, &want));
    size_t n = (size_t)tm__tensor_count(&want);
    double *got = as_double(dev, data, n);
    double error = test_relative_error(got, want.data, n);
    free(got);
    return error;
}

static tm_device *open_device(const char *name, int precision) {
    tm_device *dev = NULL;
    tm_device_options options = {.name = name, .threads = 2, .precision = precision};
    assert_ok(tm_device_open(&options, &dev));
    return dev;
}

/* One forward-backward over a step; gradients land in the parameters. */
static double gradient(tm_model *model, const fixture *f, size_t step, bool packed,
                       const tm__forward_options *options) {
    tm__examples e = step_examples(f, step);
    size_t rows[2] = {0, 1};
    tm__batch_store *store = NULL;
    const tm__batch *batch = NULL;
    tm__tape *tape = NULL;
    tm__var *loss = NULL;
    double value = 0;
    assert_ok(tm__batch_build(&e, rows, 2, packed, 0, count_targets(&e), &store, &batch));
    assert_ok(tm__tape_create(model->dev, &tape));
    assert_ok(tm__model_loss(model, tape, batch, options, NULL, &loss));
    double *host = as_double(model->dev, loss->value.data, 1);
    value = host[0];
    free(host);
    assert_ok(tm__tape_backward(tape, 1, &loss, NULL));
    tm__tape_free(tape);
    tm__batch_free(store);
    tm__examples_release(&e);
    return value;
}

static double logits_error(tm_model *model, const fixture *f, bool packed) {
    tm__examples e = step_examples(f, 0);
    size_t order[2] = {0, 1};
    tm__batch_store *store = NULL;
    const tm__batch *batch = NULL;
    tm__tape *tape = NULL;
    tm__var *hidden = NULL;
    int32_t rows[256];
    int64_t count = 0;
    assert_ok(tm__batch_build(&e, order, 2, packed, 0, count_targets(&e), &store, &batch));
    for (int64_t s = 0; s < batch->segments; s++)
        for (int64_t t = 0; t < batch->length[s]; t++) rows[count++] = (int32_t)(batch->start[s] + t);
    assert_ok(tm__tape_create(model->dev, &tape));
    tape->recording = false;
    assert_ok(tm__model_forward(model, tape, batch, NULL, &hidden));
    size_t n = (size_t)(count * model->config.vocab), width = tm__dtype_size(model->dev->act);
    void *logits = malloc(n * width);
    double *wide = malloc(n * sizeof *wide);
    assert_ok(tm__model_logits(model, tape, hidden, rows, count, logits));
    tm__convert(wide, TM_F64, logits, model->dev->act, n);
    tm_tensor want;
    assert_ok(tm__safetensors_find(f->expected, "logits", &want));
    assert_int_equal(tm__tensor_count(&want), n);
    double error = test_relative_error(wide, want.data, n);
    free(wide);
    free(logits);
    tm__tape_free(tape);
    tm__batch_free(store);
    tm__examples_release(&e);
    return error;
}

typedef struct bounds {
    double gradient, delta, loss;
} bounds;

static void check_set(tm_model *model, const fixture *f, const tm__paramset *set, const char *kind, const char *what,
                      double bound, const tm__vector *values) {
    double worst = 0;
    for (size_t i = 0; i < set->count; i++) {
        const void *data = values ? values->data[i] : set->items[i]->grad;
        double error = error_of(model->dev, data, f, kind, set->items[i]->name);
        worst = TM__MAX(worst, error);
        if (!(error <= bound))
            fail_msg("%s %s: %s of %s: error %.3g > %.3g", f->name, what, kind, set->items[i]->name, error, bound);
    }
    print_message("%s %s %s: worst error %.2g\n", f->name, tm_device_name(model->dev), kind, worst);
}

/* First-step gradients, then ten AdamW steps, against the fixture. */
static void check_training(const fixture *f, tm_device *dev, bool lora, bool packed, bool recompute, bounds b) {
    tm_model *model = NULL;
    tm_train_options options;
    tm__paramset set;
    tm__optimiser optimiser;
    tm__vector start;
    tm__forward_options forward = {.recompute = recompute};
    assert_ok(tm_model_load(dev, model_path(f, ""), lora ? model_path(f, "/adapter") : NULL, &model));
    assert_ok(lora ? tm__model_train_adapters(model, 0) : tm__model_train_full(model));
    assert_ok(tm__paramset_collect(model, &set));
    tm_options_default(tm_train_option_table, &options);
    options.lr = json_number_value(json_object_get(f->json, "lr"));
    options.weight_decay = json_number_value(json_object_get(f->json, "weight_decay"));
    options.clip = json_number_value(json_object_get(f->json, "clip"));
    assert_ok(tm__optimiser_create(&set, &options, &optimiser));
    assert_ok(tm__vector_create(&set, &start));
    assert_ok(tm__paramset_save(&set, &start));
    json_t *losses = json_object_get(f->json, lora ? "lora_losses" : "losses");
    for (size_t step = 0; step < json_array_size(losses); step++) {
        tm__grads_zero(&set);
        double loss = gradient(model, f, step, packed, &forward),
               want = json_number_value(json_array_get(losses, step));
        if (!(fabs(loss - want) <= b.loss * want))
            fail_msg("%s step %zu: loss %.12g, want %.12g", f->name, step, loss, want);
        if (step == 0) check_set(model, f, &set, lora ? "lora.grad" : "grad", "step 0", b.gradient, NULL);
        assert_ok(tm__optimiser_step(&set, &optimiser, &options, options.lr, NULL));
    }
    /* start <- w - start */
    for (size_t i = 0; i < set.count; i++) {
        int64_t n = tm__tensor_count(&set.items[i]->value);
        assert_ok(dev->k->scale(dev, start.data[i], -1, start.data[i], n));
        assert_ok(dev->k->axpy(dev, start.data[i], 1, set.items[i]->value.data, n));
    }
    check_set(model, f, &set, lora ? "lora.delta" : "delta", "ten steps", b.delta, &start);
    tm__vector_release(&set, &start);
    tm__optimiser_release(&set, &optimiser);
    tm__paramset_release(&set);
    tm_model_free(model);
}

static void ref_fp64_equals_transformers(void **state) {
    (void)state;
    tm_device *dev = open_device("ref", TM_PRECISION_F64);
    const bounds b = {FP64_BOUND, FP64_BOUND, FP64_BOUND};
    for (int i = 0; i < 2; i++) {
        tm_model *model = NULL;
        assert_ok(tm_model_load(dev, model_path(&fixtures[i], ""), NULL, &model));
        for (int packed = 0; packed < 2; packed++) {
            double error = logits_error(model, &fixtures[i], packed);
            if (!(error <= FP64_BOUND)) fail_msg("%s logits: %.3g", fixtures[i].name, error);
        }
        tm_model_free(model);
        for (int lora = 0; lora < 2; lora++) {
            check_training(&fixtures[i], dev, lora, false, false, b);
            check_training(&fixtures[i], dev, lora, true, true, b);
        }
    }
    tm_device_close(dev);
}

static void cpu_fp32_is_close(void **state) {
    (void)state;
    tm_device *dev = open_device("cpu", TM_PRECISION_F32);
    const bounds b = {CPU_GRADIENT_BOUND, CPU_DELTA_BOUND, 1e-5};
    for (int i = 0; i < 2; i++) {
        tm_model *model = NULL;
        assert_ok(tm_model_load(dev, model_path(&fixtures[i], ""), NULL, &model));
        double error = logits_error(model, &fixtures[i], true);
        if (!(error <= CPU_LOGITS_BOUND)) fail_msg("%s logits: %.3g", fixtures[i].name, error);
        tm_model_free(model);
        for (int lora = 0; lora < 2; lora++) check_training(&fixtures[i], dev, lora, true, false, b);
    }
    tm_device_close(dev);
}

/* Errors of our bf16 against fp64, beside PyTorch's own on the same case. */
static void cpu_bf16_is_no_worse_than_pytorch(void **state) {
    (void)state;
    tm_device *dev = open_device("cpu", TM_PRECISION_BF16);
    for (int i = 0; i < 2; i++) {
        const fixture *f = &fixtures[i];
        json_t *theirs = json_object_get(json_object_get(f->json, "bf16"), "autocast");
        tm_model *model = NULL;
        tm__paramset set;
        assert_ok(tm_model_load(dev, model_path(f, ""), NULL, &model));
        double error = logits_error(model, f, true), bound = json_number_value(json_object_get(theirs, "logits"));
        print_message("%s logits: ours %.4g, PyTorch's %.4g\n", f->name, error, bound);
        if (!(error > 0 && error <= BF16_FACTOR * bound))
            fail_msg("%s logits: %.3g > 1.5 * %.3g", f->name, error, bound);
        assert_ok(tm__model_train_full(model));
        assert_ok(tm__paramset_collect(model, &set));
        tm__grads_zero(&set);
        gradient(model, f, 0, true, NULL);
        double worst = 0;
        for (size_t p = 0; p < set.count; p++) {
            const char *name = set.items[p]->name;
            error = error_of(dev, set.items[p]->grad, f, "grad", name);
            bound = json_number_value(json_object_get(json_object_get(theirs, "grads"), name));
            worst = TM__MAX(worst, error / bound);
            if (!(error <= BF16_FACTOR * bound))
                fail_msg("%s gradient of %s: %.3g > 1.5 * %.3g", f->name, name, error, bound);
        }
        print_message("%s gradients: worst ratio to PyTorch's error %.3g\n", f->name, worst);
        tm__paramset_release(&set);
        tm_model_free(model);
    }
    tm_device_close(dev);
}

/* The comparison itself must be able to fail: a wrong gradient is seen. */
static void a_wrong_gradient_is_seen(void **state) {
    (void)state;
    tm_device *dev = open_device("ref", TM_PRECISION_F64);
    tm_model *model = NULL;
    tm__paramset set;
    assert_ok(tm_model_load(dev, model_path(&fixtures[0], ""), NULL, &model));
    assert_ok(tm__model_train_full(model));
    assert_ok(tm__paramset_collect(model, &set));
    tm__grads_zero(&set);
    gradient(model, &fixtures[0], 1, true, NULL); /* another batch's gradient */
    for (size_t p = 0; p < set.count; p++)
        assert_true(error_of(dev, set.items[p]->grad, &fixtures[0], "grad", set.items[p]->name) > 1e-3);
    tm__paramset_release(&set);
    tm_model_free(model);
    tm_device_close(dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ref_fp64_equals_transformers),
        cmocka_unit_test(cpu_fp32_is_close),
        cmocka_unit_test(cpu_bf16_is_no_worse_than_pytorch),
        cmocka_unit_test(a_wrong_gradient_is_seen),
    };
    load_fixtures();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < 2; i++) {
        json_decref(fixtures[i].json);
        tm__safetensors_close(fixtures[i].expected);
    }
    return failed;
}
