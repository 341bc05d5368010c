/* Several processes train as one does. Every rank first trains alone, then with the others, twice: the two are equal to
 * the byte, and differ from the one process by the rounding of sums whose order is another.
 *
 * What rounding is: in fp64 a gradient's sum is off by about 1e-16, AdamW divides by its size + 1e-8, so that a step of
 * lr is off by at most 1e-8 lr. In fp32 SGD's step is off by a few 6e-8 of lr times a gradient of norm 1, and of the
 * weight; AdamW's, where a gradient is nearly zero, by anything up to lr, so that there the losses are compared. A row
 * that is lost, counted twice or weighed wrongly moves weights by about lr, which is 1e-2.
 */
#include "methods.h"

#include <unistd.h>

typedef struct trained {
    double *weights, losses[64];
    size_t count, loss_count;
} trained;

typedef struct gathered {
    tm_device *device;
    double *values;
    size_t count, cap;
} gathered;

static tm_status gather(void *user, tm__param *param, bool is_adapter) {
    (void)is_adapter;
    gathered *g = user;
    size_t n = (size_t)tm__tensor_count(&param->value), size = tm__dtype_size(param->value.dtype);
    void *raw = malloc(n * size);
    if (param->owned)
        assert_ok(g->device->download(g->device, raw, param->value.data, n * size));
    else
        memcpy(raw, param->value.data, n * size);
    assert_true(tm__grow((void **)&g->values, &g->cap, g->count + n, sizeof *g->values));
    tm__convert(g->values + g->count, TM_F64, raw, param->value.dtype, (int64_t)n);
    g->count += n;
    free(raw);
    return TM_OK;
}

/* Asked once before every step, on every rank. */
static bool countdown_asked(void *user) {
    countdown *c = user;
    return c->steps_left-- <= 0;
}

static void countdown_record(void *user, const tm_progress *progress) {
    countdown *c = user;
    if (c->count < TM__COUNT(c->losses)) c->losses[c->count++] = progress->loss;
}

typedef struct setting {
    const char *name, *device;
    const tm_method *method; /* NULL: fine-tuning */
    const void *own;
    int64_t batch, micro;
    bool lora, packed, sgd, recompute;
} setting;

static const tm_panacea_options panacea = {.lambda = .1, .rho = .5, .batches = 2};
static const tm_booster_options booster = {.lambda = .5, .alpha = .1, .rho = 2};
static const tm_lisa_options lisa = {.k1 = 2, .k2 = 2, .rho = .1};
static const tm_harmful_sft_options attack = {.poison_ratio = 1};
static const tm_security_vectors_options vectors = {
    .lora = {.rank = 2, .alpha = 4, .targets = "q_proj,v_proj"}, .lr = 1e-2, .epochs = 1};

static const setting settings[] = {
    {.name = "full", .device = "ref64", .batch = 4},
    {.name = "uneven", .device = "ref64", .batch = 5},
    {.name = "a row for all", .device = "ref64", .batch = 1},
    {.name = "accumulated", .device = "ref64", .batch = 6, .micro = 1},
    {.name = "accumulated unevenly, packed", .device = "ref64", .batch = 7, .micro = 2, .packed = true},
    {.name = "adapter", .device = "ref64", .batch = 5, .lora = true},
    {.name = "recomputed", .device = "ref64", .batch = 5, .lora = true, .recompute = true},
    {.name = "sgd", .device = "ref64", .batch = 5, .sgd = true},
    {.name = "harmful-sft", .device = "ref64", .method = &tm__method_harmful_sft, .own = &attack, .batch = 3},
    {.name = "sdd", .device = "ref64", .method = &tm__method_sdd, .batch = 3},
    {.name = "panacea", .device = "ref64", .method = &tm__method_panacea, .own = &panacea, .batch = 3},
    {.name = "booster", .device = "ref64", .method = &tm__method_booster, .own = &booster, .batch = 3},
    {.name = "lisa", .device = "ref64", .method = &tm__method_lisa, .own = &lisa, .batch = 3},
    {.name = "gradient-ascent", .device = "ref64", .method = &tm__method_gradient_ascent, .batch = 3},
    {.name = "safety-training", .device = "ref64", .method = &tm__method_safety_training, .batch = 3},
    {.name = "identity-shift", .device = "ref64", .method = &tm__method_identity_shift, .batch = 3},
    {.name = "security-vectors",
     .device = "ref64",
     .method = &tm__method_security_vectors,
     .own = &vectors,
     .batch = 3},
    {.name = "full, fp32", .device = "cpu", .batch = 6},
    {.name = "sgd, fp32", .device = "cpu", .batch = 6, .sgd = true},
    {.name = "adapter, fp32", .device = "cpu", .batch = 6, .lora = true, .sgd = true},
};

static trained alone[TM__COUNT(settings)];
static tm_dataset *user, *harmful, *refusals, *benign;

static tm_train_options options_of(const setting *s) {
    tm_train_options o = methods_options(s->lora);
    o.batch = s->batch;
    o.micro = s->micro;
    o.packed = s->packed;
    o.recompute = s->recompute;
    o.optimiser = s->sgd;
    o.lora.dropout = 0;
    return o;
}

static trained train(const setting *s, const tm_train_options *o) {
    tm_device *device = tiny_device(s->device);
    tm_model *model = tiny_model(device);
    countdown c = {.steps_left = 1000};
    const tm_monitor monitor = {.progress = countdown_progress, .user = &c};
    const tm_method_data data = {.harmful = harmful, .refusals = refusals, .benign = benign, .user = user};
    trained t = {0};
    if (s->method)
        assert_ok(s->method->run(model, tokenizer, &data, s->own, o, &monitor, NULL));
    else
        assert_ok(tm_train(model, tokenizer, user, o, &monitor, NULL));
    gathered g = {.device = device};
    assert_ok(tm__model_params(model, gather, &g));
    t.weights = g.values;
    t.count = g.count;
    memcpy(t.losses, c.losses, sizeof t.losses);
    t.loss_count = c.count;
    tm_model_free(model);
    tm_device_close(device);
    return t;
}

/* Root of the mean square, and the largest. */
static double distance(const trained *a, const trained *b, double *largest) {
    double sum = 0;
    *largest = 0;
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        double d = fabs(a->weights[i] - b->weights[i]);
        sum += d * d;
        *largest = fmax(*largest, d);
    }
    return sqrt(sum / (double)a->count);
}

static void compare(const setting *s, const trained *t, const trained *one) {
    double largest, far = distance(t, one, &largest), loss = 0;
    for (size_t i = 0; i < t->loss_count; i++) loss = fmax(loss, fabs(t->losses[i] / one->losses[i] - 1));
    if (tm_ranks_rank() == 0) {
        assert_int_equal(t->loss_count, one->loss_count);
        assert_true(t->loss_count >= 6);
        print_message("%-30s weights %.1e, at most %.1e; loss %.1e\n", s->name, far, largest, loss);
    }
    if (strcmp(s->device, "ref64") == 0) {
        assert_true(largest < 1e-9);
        assert_true(loss < 1e-10);
        return;
    }
    if (s->sgd) assert_true(largest < 2e-7);
    assert_true(loss < 1e-6);
}

static tm_status same_everywhere(const trained *t) {
    tm__sha256 hash;
    char hex[65];
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, t->weights, t->count * sizeof *t->weights);
    tm__sha256_hex(&hash, hex);
    return tm__ranks_same(hex, "result", NULL);
}

static void trains_as_one(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(settings); i++) {
        const setting *s = &settings[i];
        const tm_train_options o = options_of(s);
        trained first = train(s, &o), second = train(s, &o);
        assert_int_equal(first.count, second.count);
        assert_memory_equal(first.weights, second.weights, first.count * sizeof *first.weights);
        assert_ok(same_everywhere(&first));
        compare(s, &first, &alone[i]);
        free(first.weights);
        free(second.weights);
    }
}

/* ---- stopping and resuming --------------------------------------------------------------------------------------- */

/* The launcher's id tells one run of this test from another, and is the same for all ranks. */
static const char *state_directory(const char *name) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/temper-ranks-%ld-%s", (long)getppid(), name);
    return path;
}

static tm_status train_until(const setting *s, const char *directory, countdown *c, trained *t) {
    tm_train_options o = options_of(s);
    o.resume_dir = directory;
    tm_device *device = tiny_device(s->device);
    tm_model *model = tiny_model(device);
    const tm_monitor monitor = {.progress = countdown_record, .stop = countdown_asked, .user = c};
    tm_status status = tm_train(model, tokenizer, user, &o, &monitor, NULL);
    gathered g = {.device = device};
    if (status == TM_OK) assert_ok(tm__model_params(model, gather, &g));
    t->weights = g.values;
    t->count = g.count;
    tm_model_free(model);
    tm_device_close(device);
    return status;
}

/* The last rank alone is asked to stop, and all stop after the same step; then they go on. */
static void stops_and_resumes(void **state) {
    (void)state;
    const setting *s = &settings[1];
    const tm_train_options o = options_of(s);
    trained whole = train(s, &o), parts = {0};
    int stops = 0;
    tm_status status = TM_INTERRUPTED;
    for (; status == TM_INTERRUPTED; stops++) {
        countdown c = {.steps_left = tm_ranks_rank() == tm_ranks_count() - 1 ? 2 : 1000};
        free(parts.weights);
        status = train_until(s, state_directory("all"), &c, &parts);
    }
    assert_ok(status);
    assert_int_equal(stops, 3); /* after 2 and 4 of 6 steps; the third ends */
    assert_memory_equal(parts.weights, whole.weights, whole.count * sizeof *whole.weights);
    free(whole.weights);
    free(parts.weights);
}

/* What one process began goes on with all. */
static void resumes_another_number(void **state) {
    (void)state;
    const setting *s = &settings[1];
    trained t;
    countdown c = {.steps_left = 1000};
    double largest;
    assert_ok(train_until(s, state_directory("one"), &c, &t));
    if (tm_ranks_rank() == 0) assert_int_equal(c.count, 4);
    distance(&t, &alone[1], &largest);
    assert_true(largest < 1e-9);
    free(t.weights);
}

static void begin_alone(void) {
    countdown c = {.steps_left = 2};
    trained t;
    assert_int_equal(train_until(&settings[1], state_directory("one"), &c, &t), TM_INTERRUPTED);
}

/* Sums are those of a loop over the ranks, to the bit, whatever their number of elements. */
static void adds_in_order(void **state) {
    (void)state;
    tm__adder adder;
    for (int wide = 0; wide < 2; wide++) {
        assert_ok(tm__adder_create(wide ? TM_F64 : TM_F32, &adder));
        const size_t sizes[] = {1, 2, 7, 1000, adder.elements - 1, adder.elements};
        for (size_t k = 0; k < TM__COUNT(sizes); k++) {
            for (size_t i = 0; i < sizes[k]; i++) {
                double mine = sin((double)i + 7.0 * tm_ranks_rank());
                if (wide)
                    ((double *)adder.mine)[i] = mine;
                else
                    ((float *)adder.mine)[i] = (float)mine;
            }
            assert_ok(tm_ranks_agree(TM_OK));
            assert_ok(tm__adder_sum(&adder, sizes[k]));
            for (size_t i = 0; i < sizes[k]; i++) {
                double sum = sin((double)i);
                float narrow = (float)sum;
                for (int r = 1; r < tm_ranks_count(); r++) {
                    sum += sin((double)i + 7.0 * r);
                    narrow += (float)sin((double)i + 7.0 * r);
                }
                if (wide ? ((double *)adder.mine)[i] != sum : ((float *)adder.mine)[i] != narrow)
                    fail_msg("element %zu of %zu", i, sizes[k]);
            }
        }
        tm__adder_release(&adder);
    }
}

static void meets(void **state) {
    (void)state;
    int count = tm_ranks_count(), rank = tm_ranks_rank();
    tm__meeting m = {.sum = rank + 1, .most = -rank, .stop = rank == count - 1};
    assert_ok(tm__ranks_meet(&m));
    assert_true(m.stop && m.sum == count * (count + 1) / 2 && m.most == 0);
    m = (tm__meeting){0};
    assert_ok(tm__ranks_meet(&m));
    assert_false(m.stop);
    assert_ok(tm__ranks_same("the same", "text", NULL));
}

/* The last: afterwards there are no meetings. */
static void parts(void **state) {
    (void)state;
    tm_status own = tm_ranks_rank() == 1 ? tm__fail(TM_NUMERIC, "a file", NULL, NULL, "of no avail") : TM_OK;
    assert_int_equal(tm_ranks_agree(own), TM_NUMERIC);
    assert_non_null(strstr(tm_error_last()->line, tm_ranks_rank() == 1 ? "a file: of no avail" : "rank 1: a file: of"));
    assert_int_equal(tm_ranks_agree(TM_OK), TM_INVALID);
    assert_int_equal(tm_ranks_fail(TM_NUMERIC, NULL), tm_ranks_rank() == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(meets),
                                       cmocka_unit_test(adds_in_order),
                                       cmocka_unit_test(trains_as_one),
                                       cmocka_unit_test(stops_and_resumes),
                                       cmocka_unit_test(resumes_another_number),
                                       cmocka_unit_test(parts)};
    int rank;
    tm_ranks_launched(&rank);
    if (rank != 0 && !freopen("/dev/null", "w", stdout)) return 1;
    tiny_setup(NULL);
    user = tiny_rows("user", 7);
    harmful = tiny_rows("harmful", 8);
    refusals = tiny_rows("refusal", 9);
    benign = tiny_rows("benign", 8);
    for (size_t i = 0; i < TM__COUNT(settings); i++) {
        tm_train_options o = options_of(&settings[i]);
        alone[i] = train(&settings[i], &o);
    }
    if (rank == 0) begin_alone();
    if (tm_ranks_open() != TM_OK || tm_ranks_count() < 2) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, tiny_teardown);
    for (size_t i = 0; i < TM__COUNT(settings); i++) free(alone[i].weights);
    if (rank == 0) tm__remove_tree(state_directory("all"));
    if (rank == 0) tm__remove_tree(state_directory("one"));
    tm_dataset_free(user);
    tm_dataset_free(harmful);
    tm_dataset_free(refusals);
    tm_dataset_free(benign);
    return tm_ranks_close(failed);
}
