/* Panacea's perturbation by block and module: shares by hand, adapters' names, files that say nothing. */
#include "support.h"

#include "lab/affinity.h"

#include <stdlib.h>

typedef struct shares {
    char names[16][64];
    double values[16];
    size_t count;
} shares;

static tm_status keep(void *user, const char *name, double share) {
    shares *s = user;
    assert_true(s->count < TM__COUNT(s->values));
    snprintf(s->names[s->count], sizeof s->names[0], "%s", name);
    s->values[s->count++] = share;
    return TM_OK;
}

static tm_status read_text(const char *text, shares *s) {
    char *path = tm__path_join(test_scratch(), "affinity.json");
    assert_ok(tm__file_write(path, text, strlen(text)));
    *s = (shares){0};
    tm_status status = tm__affinity_read(path, keep, s);
    free(path);
    return status;
}

static void assert_share(const shares *s, size_t i, const char *name, double value) {
    assert_string_equal(s->names[i], name);
    if (fabs(s->values[i] - value) > 1e-12) fail_msg("%s is %.15g", name, s->values[i]);
}

/* Norms 1, 2, 2, 4: the whole norm is 5. */
static void test_shares(void **state) {
    (void)state;
    shares s;
    assert_ok(read_text("{\"rho\":5,\"parameters\":["
                        "{\"name\":\"model.embed_tokens.weight\",\"epsilon_norm\":1,\"weight_norm\":9},"
                        "{\"name\":\"model.layers.0.self_attn.q_proj.weight\",\"epsilon_norm\":2,\"weight_norm\":9},"
                        "{\"name\":\"model.layers.1.self_attn.q_proj.lora_A.weight\",\"epsilon_norm\":2},"
                        "{\"name\":\"model.layers.1.mlp.up_proj.weight\",\"epsilon_norm\":4}]}",
                        &s));
    assert_int_equal(s.count, 5);
    assert_share(&s, 0, "epsilon_block_0", .4);
    assert_share(&s, 1, "epsilon_block_1", sqrt(20) / 5);
    assert_share(&s, 2, "epsilon_q_proj", sqrt(8) / 5);
    assert_share(&s, 3, "epsilon_up_proj", .8);
    assert_share(&s, 4, "epsilon_outside", .2);
}

static void test_nothing(void **state) {
    (void)state;
    shares s;
    assert_ok(read_text("{\"rho\":0,\"parameters\":[{\"name\":\"model.layers.0.a.weight\",\"epsilon_norm\":0}]}", &s));
    assert_int_equal(s.count, 0);
    assert_int_equal(read_text("{\"rho\":", &s), TM_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shares), cmocka_unit_test(test_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
