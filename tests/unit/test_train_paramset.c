/* Parameter sets and the optimiser: exact restore (C2 of the method specification), sums, clipping, decay. */
#include "tiny.h"

typedef struct fixture {
    tm_device *device;
    tm_model *model;
    tm__paramset set;
} fixture;

static void *read_back(const fixture *f, const void *from, size_t i) {
    size_t bytes = tm__tensor_bytes(&f->set.items[i]->value);
    void *host = tm__alloc(bytes, 1);
    assert_ok(f->device->download(f->device, host, from, bytes));
    return host;
}

static double element(const fixture *f, const void *host, int64_t i) {
    return f->device->act == TM_F64 ? ((const double *)host)[i] : (double)((const float *)host)[i];
}

static int open_fixture(void **state, const char *device) {
    fixture *f = tm__zalloc(1, sizeof *f);
    f->device = tiny_device(device);
    f->model = tiny_model(f->device);
    assert_ok(tm__model_train_full(f->model));
    assert_ok(tm__paramset_collect(f->model, &f->set));
    *state = f;
    return 0;
}

static int open_cpu(void **state) {
    return open_fixture(state, "cpu");
}

static int open_ref(void **state) {
    return open_fixture(state, "ref64");
}

static int close_fixture(void **state) {
    fixture *f = *state;
    tm__paramset_release(&f->set);
    tm_model_free(f->model);
    tm_device_close(f->device);
    free(f);
    return 0;
}

/* A vector of pseudo-random numbers, and the same numbers as gradients. */
static void fill_grads(const fixture *f, uint32_t index, double scale) {
    tm__rng rng = tm__rng_make(1, tm__stream(TM__STREAM_TEST, index));
    for (size_t i = 0; i < f->set.count; i++) {
        int64_t n = tm__tensor_count(&f->set.items[i]->value);
        size_t bytes = tm__tensor_bytes(&f->set.items[i]->value);
        void *host = tm__alloc(bytes, 1);
        for (int64_t k = 0; k < n; k++) {
            double value = scale * tm__rng_normal(&rng);
            if (f->device->act == TM_F64)
                ((double *)host)[k] = value;
            else
                ((float *)host)[k] = (float)value;
        }
        void *grad = NULL;
        assert_ok(tm__param_grad(f->device, f->set.items[i], &grad));
        assert_ok(f->device->upload(f->device, grad, host, bytes));
        free(host);
    }
}

static void test_restore_is_bitwise(void **state) {
    fixture *f = *state;
    tm__vector saved, step;
    char before[65], moved[65], after[65];
    fill_grads(f, 0, .1);
    assert_ok(tm__vector_create(&f->set, &saved));
    assert_ok(tm__vector_create(&f->set, &step));
    assert_ok(tm__grads_save(&f->set, &step));
    tiny_hash(f->model, before);
    assert_ok(tm__paramset_save(&f->set, &saved));
    assert_ok(tm__paramset_axpy(&f->set, .37, &step));
    tiny_hash(f->model, moved);
    assert_ok(tm__paramset_restore(&f->set, &saved));
    tiny_hash(f->model, after);
    assert_string_not_equal(before, moved);
    assert_string_equal(before, after);
    tm__vector_release(&f->set, &saved);
    tm__vector_release(&f->set, &step);
}

static void test_sums(void **state) {
    fixture *f = *state;
    tm__vector a, b;
    double norm, dot, expected = 0, scalars = 0, square = 0, single = f->device->act == TM_F64 ? 1e-13 : 1e-6;
    assert_ok(tm__vector_create(&f->set, &a));
    assert_ok(tm__vector_create(&f->set, &b));
    fill_grads(f, 1, 1);
    assert_ok(tm__grads_save(&f->set, &a));
    fill_grads(f, 2, 1);
    assert_ok(tm__grads_save(&f->set, &b));
    for (size_t i = 0; i < f->set.count; i++) {
        void *x = read_back(f, a.data[i], i), *y = read_back(f, b.data[i], i);
        for (int64_t k = 0; k < tm__tensor_count(&f->set.items[i]->value); k++, scalars++) {
            expected += element(f, x, k) * element(f, y, k);
            square += element(f, y, k) * element(f, y, k);
        }
        free(x);
        free(y);
    }
    assert_true(scalars == (double)f->set.scalars);
    assert_ok(tm__vector_dot(&f->set, &a, &b, &dot));
    assert_ok(tm__grads_norm(&f->set, &norm));
    assert_true(fabs(dot - expected) < 1e-9 * square && fabs(norm - sqrt(square)) < 1e-9 * norm);

    double doubled, none;
    assert_ok(tm__grads_axpy(&f->set, 1, &b));
    assert_ok(tm__grads_norm(&f->set, &doubled));
    assert_true(fabs(doubled - 2 * norm) < single * norm);
    assert_ok(tm__grads_scale(&f->set, -.5));
    assert_ok(tm__grads_axpy(&f->set, 1, &b)); /* b - b */
    assert_ok(tm__grads_norm(&f->set, &none));
    assert_true(none < single * norm);
    tm__grads_zero(&f->set);
    assert_ok(tm__grads_norm(&f->set, &none));
    assert_true(none == 0);
    tm__vector_release(&f->set, &a);
    tm__vector_release(&f->set, &b);
}

/* Three steps of either optimiser against the formulas, clipping and decay included. */
static void run_formula(fixture *f, int kind) {
    tm_train_options o = tiny_options();
    o.optimiser = kind;
    o.weight_decay = .1;
    o.momentum = .9;
    o.clip = 1;
    tm__optimiser optimiser;
    assert_ok(tm__optimiser_create(&f->set, &o, &optimiser));
    size_t matrix = 0, vector = 0;
    while (f->set.items[matrix]->value.ndim < 2) matrix++;
    while (f->set.items[vector]->value.ndim >= 2) vector++;
    const size_t watched[] = {matrix, vector};
    double w[2], m[2] = {0}, v[2] = {0}, tolerance = f->device->act == TM_F64 ? 1e-12 : 1e-5;
    for (int i = 0; i < 2; i++) {
        void *host = read_back(f, f->set.items[watched[i]]->value.data, watched[i]);
        w[i] = element(f, host, 5);
        free(host);
    }
    for (int step = 1; step <= 3; step++) {
        double norm, reported, lr = .01 * step;
        fill_grads(f, 10 + (uint32_t)step, step == 2 ? 1e-5 : 1); /* the second is too small to be clipped */
        assert_ok(tm__grads_norm(&f->set, &norm));
        double scale = fmin(1, 1 / (norm + 1e-6));
        assert_true(step == 2 ? scale == 1 : scale < 1);
        for (int i = 0; i < 2; i++) {
            void *host = read_back(f, f->set.items[watched[i]]->grad, watched[i]);
            double g = scale * element(f, host, 5), decay = i == 0 ? .1 : 0;
            if (kind == 1) {
                m[i] = .9 * m[i] + g + decay * w[i];
                w[i] -= lr * m[i];
            } else {
                m[i] = .9 * m[i] + .1 * g;
                v[i] = .999 * v[i] + .001 * g * g;
                w[i] -= lr * decay * w[i];
                w[i] -= lr * m[i] / (1 - pow(.9, step)) / (sqrt(v[i] / (1 - pow(.999, step))) + 1e-8);
            }
            free(host);
        }
        assert_ok(tm__optimiser_step(&f->set, &optimiser, &o, lr, &reported));
        assert_true(fabs(reported - norm) < 1e-12 * norm);
    }
    for (int i = 0; i < 2; i++) {
        void *host = read_back(f, f->set.items[watched[i]]->value.data, watched[i]);
        double found = element(f, host, 5);
        if (fabs(found - w[i]) > tolerance * fmax(fabs(w[i]), .01)) fail_msg("%.15f is not %.15f", found, w[i]);
        free(host);
    }
    tm__optimiser_release(&f->set, &optimiser);
}

static void test_adamw(void **state) {
    run_formula(*state, 0);
}

static void test_sgd(void **state) {
    run_formula(*state, 1);
}

static void test_infinite_gradient_changes_nothing(void **state) {
    fixture *f = *state;
    tm_train_options o = tiny_options();
    tm__optimiser optimiser;
    char before[65], after[65];
    assert_ok(tm__optimiser_create(&f->set, &o, &optimiser));
    fill_grads(f, 3, INFINITY);
    tiny_hash(f->model, before);
    assert_int_equal(tm__optimiser_step(&f->set, &optimiser, &o, .1, NULL), TM_NUMERIC);
    assert_string_equal(tm_error_last()->field, "step 1");
    tiny_hash(f->model, after);
    assert_string_equal(before, after);
    assert_int_equal(optimiser.step, 0);
    tm__optimiser_release(&f->set, &optimiser);
}

static void test_nothing_to_train(void **state) {
    fixture *f = *state;
    tm__paramset set;
    assert_ok(tm__model_freeze(f->model));
    assert_int_equal(tm__paramset_collect(f->model, &set), TM_INVALID);
}

static void test_memory(void **state) {
    fixture *f = *state;
    size_t before = f->device->bytes_in_use;
    tm_train_options o = tiny_options();
    tm_status status = TM_NO_MEMORY;
    long n;
    for (n = 1; status != TM_OK; n++) {
        tm__optimiser optimiser = {0};
        assert_true(n < 1000);
        tm__alloc_fail_at(n, false);
        status = tm__optimiser_create(&f->set, &o, &optimiser);
        tm__alloc_fail_at(0, false);
        tm__optimiser_release(&f->set, &optimiser);
        assert_int_equal(f->device->bytes_in_use, before);
    }
    assert_true(n > 2);
}

#define ON_BOTH(test)                                               \
    cmocka_unit_test_setup_teardown(test, open_ref, close_fixture), \
        cmocka_unit_test_setup_teardown(test, open_cpu, close_fixture)

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_BOTH(test_restore_is_bitwise),
        ON_BOTH(test_sums),
        ON_BOTH(test_adamw),
        ON_BOTH(test_sgd),
        ON_BOTH(test_infinite_gradient_changes_nothing),
        ON_BOTH(test_nothing_to_train),
        ON_BOTH(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
