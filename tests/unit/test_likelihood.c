/* test_likelihood.c: ln p(continuation | context) over the cache equals the difference of two whole scores, for shared
 * and different contexts, long ones, many continuations and few slots, and with dynamic rotary frequencies. */
#include "tiny.h"

#include "eval/suite.h"

#include <math.h>

static const char dynamic_config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":48,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":259,"
    "\"max_position_embeddings\":24,\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"initializer_range\":0.08,"
    "\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2.0},"
    "\"tie_word_embeddings\":true,\"torch_dtype\":\"float32\",\"eos_token_id\":258}";

enum { QUERIES = 40, LONGEST = 96 };
static int32_t contexts[QUERIES][LONGEST], nexts[QUERIES][16];

/* A header of 20 tokens before most contexts, of which groups of three are the same; some have nothing in common. */
static void make_queries(tm__query *queries) {
    tm__rng rng = tm__rng_make(1, tm__stream(TM__STREAM_TEST, 1));
    for (int i = 0; i < QUERIES; i++) {
        bool apart = i >= 30 && i < 34;
        size_t len = apart ? 1 + (size_t)i % 5 : 24 + (size_t)(i / 3) * 3;
        for (size_t t = 0; t < len; t++)
            contexts[i][t] = (int32_t)((t < 20 && !apart) ? 7 * t % 250 : (size_t)(31 * (i / 3) + 3 * t) % 250);
        size_t n = 1 + (size_t)tm__rng_below(&rng, 12);
        for (size_t t = 0; t < n; t++) nexts[i][t] = (int32_t)tm__rng_below(&rng, 250);
        queries[i] = (tm__query){contexts[i], nexts[i], len, n, NAN};
    }
}

static double by_scores(tm_model *model, const tm__query *q) {
    int32_t ids[LONGEST + 16];
    double whole, context;
    memcpy(ids, q->context, q->context_len * sizeof *ids);
    memcpy(ids + q->context_len, q->next, q->next_len * sizeof *ids);
    assert_ok(tm_model_score(model, ids, q->context_len + q->next_len, &whole));
    assert_ok(tm_model_score(model, ids, q->context_len, &context));
    return whole - context;
}

static void test_against_scores(void **state) {
    tm__query queries[QUERIES];
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    (void)state;
    make_queries(queries);
    assert_ok(tm__likelihood(model, queries, QUERIES, 8, NULL, NULL));
    for (int i = 0; i < QUERIES; i++) {
        double wanted = by_scores(model, &queries[i]);
        if (!(fabs(queries[i].ll - wanted) < 1e-9)) fail_msg("query %d: %.12g, not %.12g", i, queries[i].ll, wanted);
    }
    tm_model_free(model);
    tm_device_close(device);
}

/* A sequence of dynamic frequencies is rotated by its whole length, without the last token, which is never fed. */
static void test_dynamic_rope(void **state) {
    tm__query queries[QUERIES], single;
    tm_device *device = tiny_device("ref64");
    tm_model *model = NULL;
    (void)state;
    assert_ok(tm_model_create(device, dynamic_config, 5, &model));
    make_queries(queries);
    assert_ok(tm__likelihood(model, queries, QUERIES, 16, NULL, NULL));
    for (int i = 0; i < QUERIES; i++) {
        single = queries[i];
        assert_ok(tm__likelihood(model, &single, 1, 1, NULL, NULL));
        if (!(fabs(queries[i].ll - single.ll) < 1e-12)) fail_msg("query %d depends on its company", i);
    }
    for (int i = 0; i < QUERIES; i += 7) { /* the last token of a longer one is rotated by the length without it */
        int32_t ids[LONGEST + 16];
        double with, without;
        const tm__query *q = &queries[i];
        size_t len = q->context_len + q->next_len - 1;
        memcpy(ids, q->context, q->context_len * sizeof *ids);
        memcpy(ids + q->context_len, q->next, (q->next_len - 1) * sizeof *ids);
        tm__query first = {ids, ids + 1, 1, len - 1, 0}, last = {ids, &nexts[i][q->next_len - 1], len, 1, 0};
        assert_ok(tm__likelihood(model, &first, 1, 1, NULL, NULL));
        assert_ok(tm_model_score(model, ids, len, &with));
        assert_ok(tm__likelihood(model, &last, 1, 1, NULL, NULL));
        without = first.ll;
        /* score() feeds the last token too, so its frequencies are those of one token more */
        if (len <= 24) assert_true(fabs(with - without) < 1e-9);
        assert_true(isfinite(last.ll));
    }
    tm_model_free(model);
    tm_device_close(device);
}

static void test_batch(void **state) {
    tm__query many[QUERIES], few[QUERIES];
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    (void)state;
    make_queries(many);
    assert_ok(tm__likelihood(model, many, QUERIES, 64, NULL, NULL));
    for (int64_t batch = 1; batch < 9; batch += 3) {
        make_queries(few);
        assert_ok(tm__likelihood(model, few, QUERIES, batch, NULL, NULL));
        for (int i = 0; i < QUERIES; i++) assert_memory_equal(&many[i].ll, &few[i].ll, sizeof(double));
    }
    tm_model_free(model);
    tm_device_close(device);
}

static void test_refusals(void **state) {
    int32_t beyond[] = {4000};
    tm__query query = {contexts[0], beyond, 3, 1, 0};
    tm_device *device = tiny_device("cpu");
    tm_model *model = tiny_model(device);
    (void)state;
    assert_int_equal(tm__likelihood(model, &query, 1, 4, NULL, NULL), TM_MISMATCH);
    assert_ok(tm__likelihood(model, &query, 0, 4, NULL, NULL));
    tm_model_free(model);
    tm_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_scores),
        cmocka_unit_test(test_dynamic_rope),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
