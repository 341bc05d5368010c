/* The forward pass: batches laid end to end and padded, grouped heads, taps, recomputation, the cache, scores,
 * embeddings. */
#include "model_fixture.h"

static const char config_text[] = FIXTURE_CONFIG("");

/* Loss and gradients of every parameter, one after the other. */
typedef struct outcome {
    double loss;
    double *grads;
    size_t len;
} outcome;

static tm_status append_grad(void *user, tm__param *param, bool is_adapter) {
    outcome *o = ((void **)user)[0];
    tm_model *model = ((void **)user)[1];
    (void)is_adapter;
    if (!param->grad) return TM_OK;
    size_t n = (size_t)tm__tensor_count(&param->value);
    double *values = fixture_values(model->dev, param->grad, n);
    o->grads = realloc(o->grads, (o->len + n) * sizeof *o->grads);
    memcpy(o->grads + o->len, values, n * sizeof *values);
    o->len += n;
    free(values);
    return TM_OK;
}

static outcome run(tm_model *model, const tm__batch *batch, const tm__forward_options *options, uint64_t stream) {
    outcome o = {0};
    tm__tape *tape;
    tm__var *loss;
    if (model->adapter_count)
        assert_ok(tm__model_train_adapters(model, 0));
    else
        assert_ok(tm__model_train_full(model));
    assert_ok(tm__tape_create(model->dev, &tape));
    tape->training = true;
    tape->dropout_seed = 5;
    tape->dropout_stream = stream;
    assert_ok(tm__model_loss(model, tape, batch, options, NULL, &loss));
    double *value = fixture_values(model->dev, loss->value.data, 1);
    o.loss = value[0];
    free(value);
    assert_ok(tm__tape_backward(tape, 1, &loss, NULL));
    void *user[] = {&o, model};
    assert_ok(tm__model_params(model, append_grad, user));
    tm__tape_free(tape);
    assert_ok(tm__model_freeze(model)); /* gradients go, and begin at zero again */
    return o;
}

static void assert_same_bits(const outcome *a, const outcome *b) {
    assert_true(a->loss == b->loss);
    assert_int_equal(a->len, b->len);
    assert_memory_equal(a->grads, b->grads, a->len * sizeof *a->grads);
}

static void packed_equals_padded(void **state) {
    (void)state;
    static const int64_t lengths[] = {9, 4, 12};
    tm_device *dev = fixture_device("ref", TM_PRECISION_F64);
    tm_model *model = fixture_model(dev, config_text, 3);
    static fixture_batch packed, padded, other;
    fixture_fill(&packed, lengths, 3, false, 0);
    fixture_fill(&padded, lengths, 3, true, 0);
    fixture_fill(&other, lengths, 3, true, 36);
    outcome a = run(model, &packed.batch, NULL, 0), b = run(model, &padded.batch, NULL, 0);
    outcome c = run(model, &other.batch, NULL, 0);
    assert_true(a.loss > 1);
    assert_true(fabs(a.loss - b.loss) < 1e-12 * a.loss);
    assert_int_equal(a.len, b.len);
    assert_true(test_relative_error(a.grads, b.grads, a.len) < 1e-12);
    assert_same_bits(&b, &c); /* what stands in the padding never matters */
    free(a.grads);
    free(b.grads);
    free(c.grads);
    tm_model_free(model);
    tm_device_close(dev);
}

/* A document's loss does not change when another stands before it. */
static void documents_do_not_see_each_other(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F64);
    tm_model *model = fixture_model(dev, config_text, 3);
    static fixture_batch f;
    static const int64_t lengths[] = {6, 8};
    double sums[2];
    for (int i = 0; i < 2; i++) {
        fixture_fill(&f, lengths, 2, false, 0);
        if (i == 1) f.ids[2] = 30; /* changes the first document only */
        double rows[256];
        tm__tape *tape;
        tm__var *loss;
        assert_ok(tm__tape_create(dev, &tape));
        tape->recording = false;
        assert_ok(tm__model_loss(model, tape, &f.batch, NULL, rows, &loss));
        tm__tape_free(tape);
        sums[i] = 0;
        for (int64_t k = 5; k < f.batch.targets.count; k++) sums[i] += rows[k];
    }
    assert_true(sums[0] == sums[1]);
    tm_model_free(model);
    tm_device_close(dev);
}

/* Grouped heads are full heads whose keys and values repeat. */
static void grouped_heads(void **state) {
    (void)state;
    static const char full[] = "{\"model_type\": \"llama\", \"hidden_size\": 24, \"intermediate_size\": 40,"
                               "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"vocab_size\": 37}";
    tm_device *dev = fixture_device("ref", TM_PRECISION_F64);
    tm_model *grouped = fixture_model(dev, config_text, 3), *wide = fixture_model(dev, full, 4);
    tm__param_item *from, *to;
    size_t n, m;
    assert_ok(tm__model_sorted(grouped, false, &from, &n));
    assert_ok(tm__model_sorted(wide, false, &to, &m));
    assert_int_equal(n, m);
    for (size_t i = 0; i < n; i++) {
        const tm_tensor *a = &from[i].param->value, *b = &to[i].param->value;
        double *x = a->data, *y = b->data;
        int64_t head = 6 * a->shape[1]; /* elements of one head's rows */
        if (tm__tensor_same_shape(a, b))
            memcpy(y, x, tm__tensor_bytes(a));
        else
            for (int64_t h = 0; h < 4; h++) memcpy(y + h * head, x + h / 2 * head, (size_t)head * sizeof *x);
    }
    free(from);
    free(to);
    static const int64_t lengths[] = {11, 5};
    static fixture_batch f;
    fixture_fill(&f, lengths, 2, false, 0);
    outcome a = run(grouped, &f.batch, NULL, 0), b = run(wide, &f.batch, NULL, 0);
    assert_true(a.loss == b.loss);
    assert_true(a.len < b.len);
    free(a.grads);
    free(b.grads);
    tm_model_free(grouped);
    tm_model_free(wide);
    tm_device_close(dev);
}

static void recompute_is_bitwise_equal(void **state) {
    (void)state;
    static const int64_t lengths[] = {9, 4, 12};
    static const tm__forward_options again = {.recompute = true};
    const char *names[] = {"ref", "cpu"};
    for (int d = 0; d < 2; d++) {
        tm_device *dev = fixture_device(names[d], TM_PRECISION_F32);
        tm_model *model = fixture_model(dev, config_text, 3);
        static fixture_batch f;
        fixture_fill(&f, lengths, 3, false, 0);
        outcome a = run(model, &f.batch, NULL, 7), b = run(model, &f.batch, &again, 7);
        assert_same_bits(&a, &b);
        free(a.grads);
        free(b.grads);
        const tm_lora_options lora = {.rank = 3, .alpha = 6, .dropout = 0.3, .targets = "all-linear"};
        assert_ok(tm_model_add_lora(model, &lora, 1));
        a = run(model, &f.batch, NULL, 7);
        b = run(model, &f.batch, &again, 7);
        outcome c = run(model, &f.batch, NULL, 8);
        assert_same_bits(&a, &b);
        assert_true(memcmp(a.grads, c.grads, a.len * sizeof *a.grads) != 0); /* dropout was on */
        free(a.grads);
        free(b.grads);
        free(c.grads);
        tm_model_free(model);
        tm_device_close(dev);
    }
}

/* ---- taps -------------------------------------------------------------------------------------------------------- */

enum { TAP_TOKENS = 7, TAP_WIDTH = 24, TAP_SIZE = TAP_TOKENS * TAP_WIDTH };

static double tapped_loss(tm_model *model, const tm__batch *batch, const tm__tap *tap, bool recompute, bool backward) {
    const tm__forward_options options = {.taps = tap, .tap_count = 1, .recompute = recompute};
    tm__tape *tape;
    tm__var *loss;
    if (backward) assert_ok(tm__model_train_full(model));
    assert_ok(tm__tape_create(model->dev, &tape));
    tape->recording = backward;
    assert_ok(tm__model_loss(model, tape, batch, &options, NULL, &loss));
    double value = *(double *)loss->value.data;
    if (backward) assert_ok(tm__tape_backward(tape, 1, &loss, NULL));
    tm__tape_free(tape);
    if (backward) assert_ok(tm__model_freeze(model));
    return value;
}

/* At every site: the gradient read there is the loss's derivative along a perturbation applied there. */
static void taps_at_every_site(void **state) {
    (void)state;
    static const int64_t lengths[] = {TAP_TOKENS};
    static double grad[TAP_SIZE], value[TAP_SIZE], step[TAP_SIZE], back[TAP_SIZE], direction[TAP_SIZE];
    static fixture_batch f;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F64);
    tm_model *model = fixture_model(dev, config_text, 3);
    fixture_fill(&f, lengths, 1, false, 0);
    const double h = 1e-6;
    tm__rng rng = tm__rng_make(1, TM__STREAM_TEST);
    for (int site = TM__TAP_EMBEDDING; site <= TM__TAP_HIDDEN; site++)
        for (int layer = 0; layer < (site == TM__TAP_EMBEDDING ? 1 : 2); layer++)
            for (int recompute = 0; recompute < 2; recompute++) {
                for (int i = 0; i < TAP_SIZE; i++) {
                    direction[i] = tm__rng_normal(&rng);
                    step[i] = h * direction[i];
                    back[i] = -h * direction[i];
                    grad[i] = value[i] = NAN;
                }
                tm__tap tap = {.layer = layer, .site = site, .grad = grad, .value = value};
                tapped_loss(model, &f.batch, &tap, recompute, true);
                double along = 0, size = 0;
                for (int i = 0; i < TAP_SIZE; i++) {
                    along += grad[i] * direction[i];
                    size += value[i] * value[i];
                }
                tm__tap up = {.layer = layer, .site = site, .perturb = step};
                tm__tap down = {.layer = layer, .site = site, .perturb = back};
                double difference = (tapped_loss(model, &f.batch, &up, false, false) -
                                     tapped_loss(model, &f.batch, &down, false, false)) /
                                    (2 * h);
                assert_true(size > 0);
                assert_true(fabs(difference) > 1e-6);
                assert_true(fabs(along - difference) < 1e-7 * fabs(difference) + 1e-9);
            }
    tm_model_free(model);
    tm_device_close(dev);
}

/* mlp_out + (hidden before it) = hidden; attn_out likewise: the sites are the modules' own outputs before the residual.
 */
static void taps_are_before_the_residual(void **state) {
    (void)state;
    static const int64_t lengths[] = {TAP_TOKENS};
    static double embedding[TAP_SIZE], attn[TAP_SIZE], mlp[TAP_SIZE], hidden[TAP_SIZE];
    static fixture_batch f;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F64);
    tm_model *model = fixture_model(dev, config_text, 3);
    const tm__tap taps[] = {{.site = TM__TAP_EMBEDDING, .value = embedding},
                            {.site = TM__TAP_ATTENTION_OUT, .value = attn},
                            {.site = TM__TAP_MLP_OUT, .value = mlp},
                            {.site = TM__TAP_HIDDEN, .value = hidden}};
    const tm__forward_options options = {.taps = taps, .tap_count = 4};
    tm__tape *tape;
    tm__var *final;
    fixture_fill(&f, lengths, 1, false, 0);
    assert_ok(tm__tape_create(dev, &tape));
    tape->recording = false;
    assert_ok(tm__model_forward(model, tape, &f.batch, &options, &final));
    tm__tape_free(tape);
    for (int i = 0; i < TAP_SIZE; i++) assert_true(fabs(embedding[i] + attn[i] + mlp[i] - hidden[i]) < 1e-14);
    tm_model_free(model);
    tm_device_close(dev);
}

/* ---- cache ------------------------------------------------------------------------------------------------------- */

/* Logits of every token of one document, from the whole-document forward pass. */
static void full_logits(tm_model *model, const tm__batch *batch, void *logits) {
    tm__tape *tape;
    tm__var *hidden;
    int32_t rows[256];
    for (int32_t i = 0; i < batch->tokens; i++) rows[i] = i;
    assert_ok(tm__tape_create(model->dev, &tape));
    tape->recording = false;
    assert_ok(tm__model_forward(model, tape, batch, NULL, &hidden));
    assert_ok(tm__model_logits(model, tape, hidden, rows, batch->tokens, logits));
    tm__tape_free(tape);
}

static void cache_agrees_with_full_pass(void **state) {
    (void)state;
    enum { T = 13, V = 37 };
    static const int64_t lengths[] = {T};
    static double whole[T * V], stepwise[T * V];
    static const int sizes[] = {4, 1, 1, 5, 2}; /* tokens per call */
    static fixture_batch f;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F64);
    tm_model *model = fixture_model(dev, config_text, 3);
    fixture_fill(&f, lengths, 1, false, 0);
    full_logits(model, &f.batch, whole);
    tm__cache *cache;
    tm__tape *tape;
    assert_ok(tm__cache_create(model, 3, 6, NULL, 0, &cache));
    assert_ok(tm__tape_create(dev, &tape));
    tape->recording = false;
    tape->row_invariant = true;
    int at = 0;
    for (size_t i = 0; i < TM__COUNT(sizes); i++) {
        static const int32_t rows[] = {0, 1, 2, 3, 4};
        const int32_t slot[] = {2, 2, 2, 2, 2};
        tm__var *hidden;
        if (at + sizes[i] > 6) assert_ok(tm__cache_grow(model, cache, T)); /* contents move along */
        assert_ok(tm__model_decode(model, tape, cache, sizes[i], f.ids + at, slot, f.position + at, NULL, &hidden));
        assert_ok(tm__model_logits(model, tape, hidden, rows, sizes[i], stepwise + at * V));
        tm__tape_reset(tape);
        at += sizes[i];
    }
    assert_int_equal(at, T);
    assert_true(test_relative_error(stepwise, whole, T * V) < 1e-10);
    const int32_t outside = T, id = 1, slot = 0;
    tm__var *hidden;
    assert_int_equal(tm__model_decode(model, tape, cache, 1, &id, &slot, &outside, NULL, &hidden), TM_INVALID);
    tm__tape_free(tape);
    tm__cache_free(model, cache);
    tm_model_free(model);
    tm_device_close(dev);
}

/* ---- scores, embeddings, ids ------------------------------------------------------------------------------------- */

static void score_is_the_sum_of_log_probabilities(void **state) {
    (void)state;
    enum { T = 9, V = 37 };
    static const int64_t lengths[] = {T};
    static double logits[T * V];
    static fixture_batch f;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F64);
    tm_model *model = fixture_model(dev, config_text, 3);
    fixture_fill(&f, lengths, 1, false, 0);
    full_logits(model, &f.batch, logits);
    double expected = 0, sum = 0;
    for (int t = 0; t + 1 < T; t++) {
        double total = 0;
        for (int v = 0; v < V; v++) total += exp(logits[t * V + v]);
        expected += logits[t * V + f.ids[t + 1]] - log(total);
    }
    assert_ok(tm_model_score(model, f.ids, T, &sum));
    assert_true(fabs(sum - expected) < 1e-10);
    assert_ok(tm_model_score(model, f.ids, 1, &sum));
    assert_true(sum == 0);
    f.ids[3] = 37;
    assert_int_equal(tm_model_score(model, f.ids, T, &sum), TM_INVALID);
    assert_non_null(strstr(tm_error_last()->line, "37"));
    tm_model_free(model);
    tm_device_close(dev);
}

static void embeddings_are_unit_means(void **state) {
    (void)state;
    enum { D = 24 };
    static int32_t first[] = {3, 4, 5}, second[] = {6, 7, 8, 9, 10};
    tm_ids texts[] = {{first, 3, 3}, {second, 5, 5}, {first, 3, 3}};
    const char *names[] = {"ref", "cpu"};
    for (int d = 0; d < 2; d++) {
        double out[3 * D], alone[D];
        tm_device *dev = fixture_device(names[d], TM_PRECISION_F32);
        tm_model *model = fixture_model(dev, config_text, 3);
        assert_ok(tm__model_embed_texts(model, texts, 3, out));
        assert_ok(tm__model_embed_texts(model, texts + 1, 1, alone));
        assert_memory_equal(out + D, alone, sizeof alone); /* whoever else is in the batch */
        assert_memory_equal(out, out + 2 * D, sizeof alone);
        double norm = 0, cosine = 0;
        for (int i = 0; i < D; i++) {
            norm += out[i] * out[i];
            cosine += out[i] * out[D + i];
        }
        assert_true(fabs(norm - 1) < 1e-12);
        assert_true(cosine < 0.999);
        texts[1].len = 0;
        assert_int_equal(tm__model_embed_texts(model, texts, 3, out), TM_INVALID);
        texts[1].len = 5;
        tm_model_free(model);
        tm_device_close(dev);
    }
}

/* Training gives masters, and gradients when they are asked for; freezing takes those back; nothing leaks. */
static void training_state(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 3);
    size_t before = dev->bytes_in_use;
    assert_ok(tm__model_train_full(model));
    void *grad;
    assert_true(model->embed.trainable && !model->embed.grad);
    assert_ok(tm__param_grad(dev, &model->embed, &grad));
    assert_ptr_equal(model->embed.grad, grad);
    assert_true(dev->bytes_in_use > before);
    assert_ok(tm__model_freeze(model));
    assert_true(!model->embed.trainable && !model->embed.grad);
    assert_int_equal(dev->bytes_in_use, before);
    const tm_lora_options lora = {.rank = 2, .alpha = 4, .targets = "q_proj"};
    assert_ok(tm_model_add_lora(model, &lora, 1));
    assert_ok(tm_model_add_lora(model, &lora, 1));
    assert_ok(tm__model_train_adapters(model, 1));
    const tm__linear *q = &model->blocks[0].q;
    assert_true(!q->weight.trainable && !q->adapters[0].a.trainable);
    assert_true(q->adapters[1].a.trainable && q->adapters[1].b.trainable);
    tm_model_free(model);
    assert_int_equal(dev->bytes_in_use, 0);
    tm_device_close(dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_equals_padded),
        cmocka_unit_test(documents_do_not_see_each_other),
        cmocka_unit_test(grouped_heads),
        cmocka_unit_test(recompute_is_bitwise_equal),
        cmocka_unit_test(taps_at_every_site),
        cmocka_unit_test(taps_are_before_the_residual),
        cmocka_unit_test(cache_agrees_with_full_pass),
        cmocka_unit_test(score_is_the_sum_of_log_probabilities),
        cmocka_unit_test(embeddings_are_unit_means),
        cmocka_unit_test(training_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
