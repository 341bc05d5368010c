/* The attack's options: shots spread over categories, benign fine-tuning, and Vaccine in the attacker's own steps. */
#include "methods.h"

#include "data/data.h"

static tm_dataset *harmful, *benign;
static tm_method_data data;

/* Categories: a a a b a c b and one row without. */
static int setup(void **state) {
    static const char *const categories[] = {"a", "a", "a", "b", "a", "c", "b", NULL};
    tm_dataset *plain = tiny_rows("harmful", 8);
    assert_ok(tm_dataset_create(&harmful));
    for (size_t i = 0; i < 8; i++) {
        size_t n;
        const tm_message *row = tm_dataset_row(plain, i, &n);
        assert_ok(tm__dataset_add(harmful, row, n, categories[i]));
    }
    tm_dataset_free(plain);
    benign = tiny_rows("benign", 9);
    data = (tm_method_data){.harmful = harmful, .benign = benign};
    return tiny_setup(state);
}

static int teardown(void **state) {
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
    return tiny_teardown(state);
}

/* Rows of `harmful` by number, then the first `rest` benign ones. */
static tm_dataset *expected(const size_t *rows, size_t n, size_t rest) {
    tm_dataset *made = NULL;
    assert_ok(tm_dataset_create(&made));
    for (size_t i = 0; i < n; i++) assert_ok(tm_dataset_append(made, harmful, rows[i], 1));
    assert_ok(tm_dataset_append(made, benign, 0, rest));
    return made;
}

static void test_shots_are_spread(void **state) {
    (void)state;
    static const size_t order[] = {0, 3, 5, 7, 1, 6, 2, 4};
    for (size_t shots = 1; shots <= 8; shots++) {
        tm_dataset *taken = NULL;
        assert_ok(tm__harmful_sft_shots(harmful, shots, &taken));
        assert_int_equal(tm_dataset_rows(taken), shots);
        for (size_t i = 0; i < shots; i++)
            assert_string_equal(tm_dataset_row(taken, i, NULL)[0].content,
                                tm_dataset_row(harmful, order[i], NULL)[0].content);
        tm_dataset_free(taken);
    }
}

/* Alone, in so many rows, and in a share of so many that fits. */
static void test_shots_are_sft(void **state) {
    (void)state;
    static const size_t first[] = {0, 3, 5, 7, 1};
    const struct {
        tm_harmful_sft_options o;
        size_t shots, rest;
    } cases[] = {
        {{.poison_ratio = 1, .shots = 5}, 5, 0},
        {{.poison_ratio = 1, .shots = 5, .rows = 9}, 5, 4},
        {{.poison_ratio = 1, .shots = 5, .rows = 5}, 5, 0},
        {{.poison_ratio = .2, .shots = 2}, 2, 8},
        {{.poison_ratio = 1, .shots = 2, .rows = 11}, 2, 9}, /* every benign row */
        {{.poison_ratio = 1, .shots = 2, .rows = 3}, 2, 1},
    };
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        tm_dataset *rows = expected(first, cases[i].shots, cases[i].rest);
        methods_equal_sft(&tm__method_harmful_sft, &data, &cases[i].o, rows, i == 0);
        tm_dataset_free(rows);
    }
}

static void test_benign(void **state) {
    (void)state;
    const tm_method_data only = {.benign = benign};
    const tm_harmful_sft_options all = {.poison_ratio = 0}, few = {.poison_ratio = 0, .rows = 3};
    tm_dataset *three = expected(NULL, 0, 3);
    methods_equal_sft(&tm__method_harmful_sft, &only, &all, benign, true);
    methods_equal_sft(&tm__method_harmful_sft, &data, &few, three, false);
    tm_dataset_free(three);
}

/* The attacker's Vaccine is Vaccine on the attacker's rows. */
static void test_attack_vaccine(void **state) {
    (void)state;
    static const size_t rows[] = {0, 1, 2, 3, 4, 5, 6, 7};
    tm_dataset *mixed = expected(rows, 8, 2);
    const tm_method_data as_refusals = {.refusals = mixed};
    const tm_harmful_sft_options attack = {.poison_ratio = .8, .vaccine = .5}, plain = {.poison_ratio = .8};
    const tm_vaccine_options vaccine = {.rho = .5};
    for (int lora = 0; lora < 2; lora++) {
        const tm_train_options train = methods_options(lora);
        char a[65], b[65], c[65];
        assert_ok(methods_run(&tm__method_harmful_sft, &data, &attack, &train, NULL, a, NULL));
        assert_ok(methods_run(&tm__method_vaccine, &as_refusals, &vaccine, &train, NULL, b, NULL));
        assert_ok(methods_run(&tm__method_harmful_sft, &data, &plain, &train, NULL, c, NULL));
        assert_string_equal(a, b);
        assert_string_not_equal(a, c);
    }
    methods_resume(&tm__method_harmful_sft, &data, &attack, mixed);
    methods_equal_sft(&tm__method_harmful_sft, &data, &plain, mixed, true);
    tm_dataset_free(mixed);
}

static void test_refuses(void **state) {
    (void)state;
    const struct {
        tm_harmful_sft_options o;
        tm_method_data data;
        const char *field;
        int64_t micro;
    } bad[] = {
        {{.poison_ratio = 1}, {.benign = benign}, "harmful", 0},
        {{.poison_ratio = 0}, {.harmful = harmful}, "benign", 0},
        {{.poison_ratio = 1, .shots = 9}, data, "shots", 0},
        {{.poison_ratio = 0, .shots = 2}, data, "shots", 0},
        {{.poison_ratio = .5, .shots = 2, .rows = 4}, data, "poison-ratio", 0},
        {{.poison_ratio = 1, .shots = 4, .rows = 3}, data, "rows", 0},
        {{.poison_ratio = 1, .shots = 2, .rows = 12}, data, "benign", 0},
        {{.poison_ratio = .5, .shots = 2}, {.harmful = harmful}, "benign", 0},
        {{.poison_ratio = 1, .shots = -1}, data, "shots", 0},
        {{.poison_ratio = 1, .vaccine = -1}, data, "attack-vaccine", 0},
        {{.poison_ratio = 1, .vaccine = 1}, data, "micro-batch", 2},
    };
    for (size_t i = 0; i < TM__COUNT(bad); i++) {
        tm_train_options train = methods_options(false);
        char hex[65];
        train.micro = bad[i].micro;
        tm_status status = methods_run(&tm__method_harmful_sft, &bad[i].data, &bad[i].o, &train, NULL, hex, NULL);
        if (status != TM_INVALID || strcmp(tm_error_last()->field, bad[i].field) != 0)
            fail_msg("case %zu: %s", i, tm_error_last()->line);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shots_are_spread), cmocka_unit_test(test_shots_are_sft), cmocka_unit_test(test_benign),
        cmocka_unit_test(test_attack_vaccine),   cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
