/* Learning-rate schedules (golden values A16 of the method specification), and the options of training. */
#include "support.h"

#include "train/train.h"

enum { CONSTANT, LINEAR, COSINE };

static void assert_near(double value, double expected) {
    if (fabs(value - expected) > 1e-10) fail_msg("%.12f is not %.12f", value, expected);
}

static void test_cosine(void **state) {
    (void)state;
    assert_near(tm__schedule_factor(COSINE, 0, 0, 100), 1);
    assert_near(tm__schedule_factor(COSINE, 0, 25, 100), 0.8535533906);
    assert_near(tm__schedule_factor(COSINE, 0, 50, 100), 0.5);
    assert_near(tm__schedule_factor(COSINE, 0, 100, 100), 0);
    assert_near(tm__schedule_factor(COSINE, .2, 40, 100), 0.8535533906); /* progress counts from the end of warm-up */
}

static void test_linear(void **state) {
    (void)state;
    assert_near(tm__schedule_factor(LINEAR, 0, 0, 4), 1);
    assert_near(tm__schedule_factor(LINEAR, 0, 3, 4), .25);
    assert_near(tm__schedule_factor(LINEAR, .5, 1, 4), .5);
    assert_near(tm__schedule_factor(LINEAR, .5, 3, 4), .5);
}

static void test_warmup(void **state) {
    (void)state;
    for (int schedule = LINEAR; schedule <= COSINE; schedule++) {
        assert_near(tm__schedule_factor(schedule, .03, 0, 50), 0); /* ceil(1.5) = 2 steps, the first at 0 */
        assert_near(tm__schedule_factor(schedule, .03, 1, 50), .5);
        assert_near(tm__schedule_factor(schedule, .03, 2, 50), 1);
        assert_near(tm__schedule_factor(schedule, 1, 5, 10), .5);
    }
    assert_near(tm__schedule_factor(CONSTANT, .5, 0, 50), 1);
    assert_near(tm__schedule_factor(CONSTANT, .5, 49, 50), 1);
}

static void test_defaults(void **state) {
    (void)state;
    tm_train_options o;
    assert_ok(tm__train_options_resolve(NULL, &o));
    assert_true(o.lr == 2e-5 && o.beta1 == .9 && o.beta2 == .999 && o.epsilon == 1e-8 && o.weight_decay == 0);
    assert_true(o.clip == 1 && o.max_length == 512 && o.seed == 42 && o.schedule == CONSTANT && o.lora.rank == 0);
    assert_string_equal(o.lora.targets, "q_proj,v_proj");
}

static void test_ranges(void **state) {
    (void)state;
    static const struct {
        const char *field;
        double value;
    } bad[] = {{"lr", 0},    {"lr", -1},      {"lr", NAN},       {"lr", INFINITY}, {"batch", 0},      {"steps", -1},
               {"clip", -1}, {"warmup", 1.5}, {"max-length", 1}, {"beta2", 1},     {"lora-rank", -1}, {"schedule", 3}};
    for (size_t i = 0; i < TM__COUNT(bad); i++) {
        tm_train_options o, checked;
        tm_options_default(tm_train_option_table, &o);
        const tm_option *option = tm_options_find(tm_train_option_table, bad[i].field);
        void *field = (char *)&o + option->offset;
        if (option->type == TM_OPTION_INT) *(int64_t *)field = (int64_t)bad[i].value;
        if (option->type == TM_OPTION_REAL) *(double *)field = bad[i].value;
        if (option->type == TM_OPTION_CHOICE) *(int *)field = (int)bad[i].value;
        assert_int_equal(tm__train_options_resolve(&o, &checked), TM_INVALID);
        assert_string_equal(tm_error_last()->field, bad[i].field);
    }
    tm_train_options o, checked;
    tm_options_default(tm_train_option_table, &o);
    o.save_every = 3;
    assert_int_equal(tm__train_options_resolve(&o, &checked), TM_INVALID);
    o.save_every = 0;
    o.epochs = 0;
    assert_int_equal(tm__train_options_resolve(&o, &checked), TM_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cosine),   cmocka_unit_test(test_linear), cmocka_unit_test(test_warmup),
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
