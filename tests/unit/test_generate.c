/* Generation: greedy against the whole-document pass, sampling against its definition, batches, stops, interruption. */
#include "model_fixture.h"

#include "device/cpu/cpu.h"

enum { V = 37 };

/* Positions end at 16, so that longer texts run past them. */
static const char config_text[] = FIXTURE_CONFIG("\"max_position_embeddings\": 16, ");

/* ---- sampling ---------------------------------------------------------------------------------------------------- */

static tm__sampler *sampler_of(int64_t vocab, double temperature, int64_t top_k, double top_p) {
    tm__sampler *sampler;
    const tm_generate_options options = {.temperature = temperature, .top_k = top_k, .top_p = top_p};
    assert_ok(tm__sampler_create(vocab, &options, &sampler));
    return sampler;
}

static void check_probs(double temperature, int64_t top_k, double top_p, const double *logits, const double *expected) {
    tm__sampler *sampler = sampler_of(5, temperature, top_k, top_p);
    const double *probs;
    tm__sampler_probs(sampler, logits, TM_F64, &probs);
    for (int i = 0; i < 5; i++)
        if (fabs(probs[i] - expected[i]) > 1e-14)
            fail_msg("T %g k %lld p %g: %d is %g, not %g", temperature, (long long)top_k, top_p, i, probs[i],
                     expected[i]);
    tm__sampler_free(sampler);
}

/* Logits are logarithms of 1, 4, 2, 4, 5 sixteenths. */
static void probabilities_by_hand(void **state) {
    (void)state;
    const double logits[] = {log(1), log(4), log(2), log(4), log(5)};
    check_probs(1, 0, 1, logits, (double[]){1 / 16., 4 / 16., 2 / 16., 4 / 16., 5 / 16.});
    check_probs(0.5, 0, 1, logits, (double[]){1 / 62., 16 / 62., 4 / 62., 16 / 62., 25 / 62.}); /* squares */
    check_probs(1, 1, 1, logits, (double[]){0, 0, 0, 0, 1});
    check_probs(1, 2, 1, logits, (double[]){0, 4 / 13., 0, 4 / 13., 5 / 13.}); /* ties with the second stay */
    check_probs(1, 99, 1, logits, (double[]){1 / 16., 4 / 16., 2 / 16., 4 / 16., 5 / 16.});
    check_probs(1, 0, 0.8, logits,
                (double[]){0, 4 / 13., 0, 4 / 13., 5 / 13.}); /* 1 + 2 sixteenths are below a fifth */
    check_probs(1, 0, 0.85, logits, (double[]){0, 4 / 15., 2 / 15., 4 / 15., 5 / 15.});
    check_probs(1, 0, 0.5, logits, (double[]){0, 4 / 9., 0, 0, 5 / 9.}); /* of equals the lower id stays */
    check_probs(1, 0, 1e-9, logits, (double[]){0, 0, 0, 0, 1});          /* one always stays */
    check_probs(1, 2, 0.5, logits, (double[]){0, 4 / 9., 0, 0, 5 / 9.});
}

/* The drawn id is the one whose share of the cumulative distribution holds the drawn number. */
static void draws_invert_the_cumulative_distribution(void **state) {
    (void)state;
    float logits[V];
    tm__rng values = tm__rng_make(3, TM__STREAM_TEST);
    for (int i = 0; i < V; i++) logits[i] = (float)(2 * tm__rng_normal(&values));
    tm__sampler *sampler = sampler_of(V, 0.8, 20, 0.9);
    const double *probs;
    double p[V];
    int seen = 0;
    bool drawn[V] = {false};
    tm__sampler_probs(sampler, logits, TM_F32, &probs);
    memcpy(p, probs, sizeof p);
    for (uint32_t row = 0; row < 2000; row++) {
        tm__rng rng = tm__rng_make(9, tm__stream(TM__STREAM_SAMPLE, row)), same = rng;
        int32_t id = tm__sampler_pick(sampler, logits, TM_F32, &rng);
        double u = tm__rng_uniform(&same), below = 0;
        for (int32_t i = 0; i < id; i++) below += p[i];
        assert_true(p[id] > 0 && below <= u && u < below + p[id]);
        seen += !drawn[id];
        drawn[id] = true;
    }
    int possible = 0;
    for (int i = 0; i < V; i++) possible += p[i] > 0.005;
    assert_true(possible > 4 && seen >= possible);
    tm__sampler_free(sampler);
}

static void greedy_takes_the_lowest_of_equals(void **state) {
    (void)state;
    const float logits[] = {-1, 3, 2, 3, 3};
    const double wide[] = {-1, -1, -2, -1.5, -0.5};
    tm__sampler *sampler = sampler_of(5, 0, 0, 1);
    tm__rng rng = tm__rng_make(1, 1), same = rng;
    assert_int_equal(tm__sampler_pick(sampler, logits, TM_F32, &rng), 1);
    assert_int_equal(tm__sampler_pick(sampler, wide, TM_F64, &rng), 4);
    assert_memory_equal(&rng, &same, sizeof rng); /* nothing was drawn */
    tm__sampler_free(sampler);
}

/* ---- generation -------------------------------------------------------------------------------------------------- */

enum { ROWS = 7 };

typedef struct prompts {
    int32_t data[ROWS][24];
    tm_ids ids[ROWS];
} prompts;

static void prompts_fill(prompts *p) {
    for (int r = 0; r < ROWS; r++) {
        int n = 1 + (5 * r) % 19; /* 1, 6, 11, 16, 2, 7, 12 */
        for (int t = 0; t < n; t++) p->data[r][t] = (3 + 11 * r + 7 * t + t * t) % V;
        p->ids[r] = (tm_ids){p->data[r], (size_t)n, 24};
    }
}

static void generate(tm_model *model, const prompts *p, const tm_generate_options *options, const int32_t *stop,
                     size_t stops, tm_ids *out) {
    memset(out, 0, ROWS * sizeof *out);
    assert_ok(tm_generate(model, p->ids, ROWS, stop, stops, options, NULL, out));
}

static void release(tm_ids *out) {
    for (int r = 0; r < ROWS; r++) tm_ids_free(&out[r]);
}

static void assert_same(const tm_ids *a, const tm_ids *b) {
    for (int r = 0; r < ROWS; r++) {
        assert_int_equal(a[r].len, b[r].len);
        assert_memory_equal(a[r].data, b[r].data, a[r].len * sizeof *a[r].data);
    }
}

/* The next token by the whole-document pass. */
static int32_t next_token(tm_model *model, const int32_t *ids, int n) {
    double logits[V];
    int32_t position[64], last = n - 1;
    const int64_t start = 0, length = n;
    for (int i = 0; i < n; i++) position[i] = i;
    const tm__batch batch = {
        .tokens = n, .ids = ids, .position = position, .segments = 1, .start = &start, .length = &length};
    tm__tape *tape;
    tm__var *hidden;
    assert_ok(tm__tape_create(model->dev, &tape));
    tape->recording = false;
    assert_ok(tm__model_forward(model, tape, &batch, NULL, &hidden));
    assert_ok(tm__model_logits(model, tape, hidden, &last, 1, logits));
    tm__tape_free(tape);
    int32_t best = 0;
    for (int i = 1; i < V; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

static void greedy_equals_whole_passes(void **state) {
    (void)state;
    static prompts p;
    tm_ids out[ROWS];
    tm_device *dev = fixture_device("ref", TM_PRECISION_F64);
    tm_model *model = fixture_model(dev, config_text, 3);
    prompts_fill(&p);
    generate(model, &p, &(tm_generate_options){.max_new_tokens = 12, .batch = 3}, NULL, 0, out);
    for (int r = 0; r < ROWS; r++) {
        int32_t text[64];
        int n = (int)p.ids[r].len;
        memcpy(text, p.data[r], (size_t)n * sizeof *text);
        assert_int_equal(out[r].len, 12);
        for (int t = 0; t < 12; t++) {
            text[n] = next_token(model, text, n);
            assert_int_equal(out[r].data[t], text[n]);
            n++;
        }
    }
    release(out);
    tm_model_free(model);
    assert_int_equal(dev->bytes_in_use, 0);
    tm_device_close(dev);
}

static void batches_do_not_change_texts(void **state) {
    (void)state;
    static prompts p;
    static const int64_t sizes[] = {2, 3, 5, 7, 32};
    static const struct {
        const char *name;
        int precision;
    } devices[] = {{"ref", TM_PRECISION_F32}, {"cpu", TM_PRECISION_F32}, {"cpu", TM_PRECISION_BF16}};
    prompts_fill(&p);
    for (size_t d = 0; d < TM__COUNT(devices); d++) {
        tm_device *dev = fixture_device(devices[d].name, devices[d].precision);
        tm_model *model = fixture_model(dev, config_text, 3);
        for (int hot = 0; hot < 2; hot++) {
            tm_ids alone[ROWS], together[ROWS];
            tm_generate_options options = {.max_new_tokens = 150, .batch = 1, .temperature = hot, .seed = 4};
            const int32_t stop[] = {2, 8};
            generate(model, &p, &options, stop, 2, alone);
            bool ended = false;
            for (int r = 0; r < ROWS; r++) ended = ended || alone[r].len < 150;
            assert_true(ended || !hot); /* rows of unlike lengths, so slots are refilled at unlike times */
            for (size_t s = 0; s < TM__COUNT(sizes); s++) {
                options.batch = sizes[s];
                generate(model, &p, &options, stop, 2, together);
                assert_same(alone, together);
                release(together);
            }
            options.seed = 5;
            generate(model, &p, &options, stop, 2, together);
            bool same = true;
            for (int r = 0; r < ROWS; r++)
                same = same && alone[r].len == together[r].len &&
                       memcmp(alone[r].data, together[r].data, alone[r].len * sizeof *alone[r].data) == 0;
            assert_true(same == !hot); /* the seed matters only where something is drawn */
            release(together);
            release(alone);
        }
        tm_model_free(model);
        tm_device_close(dev);
    }
}

/* A row's logits, bit by bit, alone and in company, its prompt in one part or several. */
/* The wider one's rows reach over several tasks of every kernel, at places that depend on the company. */
static const char *const company_configs[] = {
    config_text,
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 74,"
    "\"intermediate_size\": 1003, \"num_hidden_layers\": 2, \"num_attention_heads\": 6, \"num_key_value_heads\": 3,"
    "\"head_dim\": 18, \"vocab_size\": 301, \"initializer_range\": 0.2}",
};

/* Where a processor has a matrix unit for bf16, products of training take it through oneDNN, whose bytes depend on the
 * number of rows: those of generation must not. oneDNN stands in for the unit where AVX-512 is all there is. */
static void open_matrix_unit(tm_device *dev, bool wanted) {
    tm__cpu *cpu = dev->state;
    if (wanted && !cpu->amx && strcmp(dev->isa, "avx512") == 0) assert_ok(tm__amx_open(cpu));
}

/* How the row reaches its last token: in one call; after others; its first tokens in a call of their own; these held
 * apart, as what all slots begin with. */
enum { ALONE, AFTER_OTHERS, IN_PARTS, BEHIND_PREFIX, WAYS };

/* Tokens of one call. */
typedef struct tokens {
    int32_t ids[64], slot[64], position[64], n;
} tokens;

static void list_tokens(tokens *t, int slot, int first, int count, int factor, int add) {
    for (int i = first; i < first + count; i++) {
        t->ids[t->n] = (factor * i + add) % V;
        t->slot[t->n] = slot;
        t->position[t->n++] = i;
    }
}

static void row_logits(tm_model *model, int way, float *logits) {
    enum { ROW = 14, BEGINNING = 5, OTHERS = 3 };
    tokens begin = {.n = 0}, rest = {.n = 0};
    tm__cache *cache, *prefix = NULL;
    tm__tape *tape;
    tm__var *hidden;
    int own = way == IN_PARTS || way == BEHIND_PREFIX ? BEGINNING : 0;
    assert_ok(tm__tape_create(model->dev, &tape));
    tape->recording = false;
    tape->row_invariant = true;
    list_tokens(&begin, way == BEHIND_PREFIX ? 0 : 3, 0, own, 5, 1);
    if (way == BEHIND_PREFIX) {
        assert_ok(tm__cache_create(model, 1, 7, NULL, 0, &prefix));
        assert_ok(tm__model_decode(model, tape, prefix, own, begin.ids, begin.slot, begin.position, NULL, &hidden));
    }
    assert_ok(tm__cache_create(model, 4, prefix ? ROW - own : 32, prefix, prefix ? own : 0, &cache));
    if (way == IN_PARTS)
        assert_ok(tm__model_decode(model, tape, cache, own, begin.ids, begin.slot, begin.position, NULL, &hidden));
    tm__tape_reset(tape);
    for (int o = 0; way >= AFTER_OTHERS && way != IN_PARTS && o < OTHERS; o++)
        list_tokens(&rest, o, way == BEHIND_PREFIX ? own : 0, 8 + o % 2, 7, o);
    list_tokens(&rest, 3, own, ROW - own, 5, 1);
    if (way == BEHIND_PREFIX) { /* there are no rows for them */
        int32_t at = own - 1;
        assert_int_equal(tm__model_decode(model, tape, cache, 1, rest.ids, rest.slot, &at, NULL, &hidden), TM_INVALID);
        assert_ok(tm__cache_grow(model, cache, 23));
    }
    assert_ok(tm__model_decode(model, tape, cache, rest.n, rest.ids, rest.slot, rest.position, NULL, &hidden));
    int32_t last = rest.n - 1, best = 0, found;
    assert_ok(tm__model_logits(model, tape, hidden, &last, 1, logits));
    assert_ok(tm__model_largest(model, tape, hidden, &last, 1, &found));
    for (int i = 1; i < model->config.vocab; i++)
        if (logits[i] > logits[best]) best = i;
    assert_int_equal(found, best);
    tm__tape_free(tape);
    tm__cache_free(model, cache);
    if (prefix) tm__cache_free(model, prefix);
}

static void logits_do_not_depend_on_company(void **state) {
    (void)state;
    enum { MOST = 301, THREADS = 3 };
    for (size_t k = 0; k < 3 * TM__COUNT(company_configs); k++) {
        float first[MOST], logits[MOST];
        for (int threads = 1; threads <= THREADS; threads++) {
            tm_device *dev = NULL;
            const tm_device_options where = {
                .name = "cpu", .threads = threads, .precision = k % 3 ? TM_PRECISION_BF16 : TM_PRECISION_F32};
            assert_ok(tm_device_open(&where, &dev));
            tm_model *model = fixture_model(dev, company_configs[k / 3], 3);
            open_matrix_unit(dev, k % 3 == 2);
            const tm_lora_options lora = {.rank = 3, .alpha = 300, .targets = "all-linear"};
            assert_ok(tm_model_add_lora(model, &lora, 1));
            for (int way = 0; way < WAYS; way++) {
                row_logits(model, way, threads == 1 && way == 0 ? first : logits);
                if (threads > 1 || way) assert_memory_equal(logits, first, (size_t)model->config.vocab * sizeof *first);
            }
            tm_model_free(model);
            assert_int_equal(dev->bytes_in_use, 0);
            tm_device_close(dev);
        }
    }
}

/* Whether a product's bytes depend on the number of rows is up to the processor: so what is asked for is seen here. */
static const tm__kernels *real_kernels;
static int products, products_by_rows;

static tm_status counted_gemm(tm_device *dev, const tm__gemm *g) {
    products++;
    products_by_rows += g->row_invariant;
    return real_kernels->gemm(dev, g);
}

static void every_product_of_generation_is_row_invariant(void **state) {
    (void)state;
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 3);
    const tm_lora_options lora = {.rank = 3, .alpha = 3, .targets = "all-linear"};
    const int32_t ids[] = {3, 4, 5};
    const tm_generate_options options = {.max_new_tokens = 2, .ignore_stop = true};
    tm_ids prompt = {(int32_t *)(uintptr_t)ids, 3, 3}, out = {0};
    assert_ok(tm_model_add_lora(model, &lora, 1));
    tm__kernels counting = *(real_kernels = dev->k);
    counting.gemm = counted_gemm;
    dev->k = &counting;
    products = products_by_rows = 0;
    assert_ok(tm_generate(model, &prompt, 1, NULL, 0, &options, NULL, &out));
    assert_int_equal(products, 2 * (2 * TM__LINEARS * 3 + 1)); /* steps * (blocks * (W, A, B of each linear) + head) */
    assert_int_equal(products_by_rows, products);
    dev->k = real_kernels;
    tm_ids_free(&out);
    tm_model_free(model);
    tm_device_close(dev);
}

/* Any order of the prompts, any number of threads. */
static void order_and_threads_do_not_change_texts(void **state) {
    (void)state;
    static prompts p;
    prompts_fill(&p);
    tm_ids first[ROWS];
    for (int threads = 1; threads <= 3; threads++) {
        tm_device *dev = NULL;
        assert_ok(tm_device_open(&(tm_device_options){.name = "cpu", .threads = threads}, &dev));
        tm_model *model = fixture_model(dev, company_configs[1], 3);
        const tm_generate_options options = {.max_new_tokens = 40, .batch = 2 + threads};
        tm_ids turned[ROWS], out[ROWS] = {{0}};
        if (threads == 1) generate(model, &p, &options, NULL, 0, first);
        for (int r = 0; r < ROWS; r++) turned[r] = p.ids[(r * 3 + threads) % ROWS];
        assert_ok(tm_generate(model, turned, ROWS, NULL, 0, &options, NULL, out));
        for (int r = 0; r < ROWS; r++) {
            const tm_ids *same = &first[(r * 3 + threads) % ROWS];
            assert_int_equal(out[r].len, same->len);
            assert_memory_equal(out[r].data, same->data, same->len * sizeof *same->data);
        }
        release(out);
        tm_model_free(model);
        tm_device_close(dev);
    }
    release(first);
}

static void stops_and_lengths(void **state) {
    (void)state;
    static prompts p;
    tm_ids free_run[ROWS], stopped[ROWS];
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 3);
    prompts_fill(&p);
    tm_generate_options options = {.max_new_tokens = 9};
    generate(model, &p, &options, NULL, 0, free_run);
    int32_t stop[] = {free_run[0].data[4], free_run[3].data[0]};
    generate(model, &p, &options, stop, 2, stopped);
    for (int r = 0; r < ROWS; r++) { /* what comes before the first stop id, which is left out */
        size_t n = 0;
        while (n < 9 && free_run[r].data[n] != stop[0] && free_run[r].data[n] != stop[1]) n++;
        assert_int_equal(stopped[r].len, n);
        assert_memory_equal(stopped[r].data, free_run[r].data, n * sizeof *stop);
    }
    assert_int_equal(stopped[3].len, 0);
    release(stopped);
    options.ignore_stop = true;
    generate(model, &p, &options, stop, 2, stopped);
    assert_same(stopped, free_run);
    release(stopped);
    release(free_run);
    tm_model_free(model);
    tm_device_close(dev);
}

/* A long prompt is fed in parts; the parts change nothing. */
static void long_prompts(void **state) {
    (void)state;
    enum { LONG = 1100 };
    tm_device *dev = fixture_device("cpu", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 3);
    int32_t *ids = malloc(2 * LONG * sizeof *ids);
    for (int i = 0; i < 2 * LONG; i++) ids[i] = (int32_t)((i * 7 + i / 5) % V);
    tm_ids two[2] = {{ids, LONG, LONG}, {ids + LONG, LONG, LONG}}, together[2] = {{0}}, alone[2] = {{0}};
    const tm_generate_options options = {.max_new_tokens = 5};
    assert_ok(tm_generate(model, two, 2, NULL, 0, &options, NULL, together));
    for (int i = 0; i < 2; i++) {
        assert_ok(tm_generate(model, two + i, 1, NULL, 0, &options, NULL, alone + i));
        assert_int_equal(together[i].len, 5);
        assert_memory_equal(together[i].data, alone[i].data, 5 * sizeof *ids);
        tm_ids_free(&together[i]);
        tm_ids_free(&alone[i]);
    }
    free(ids);
    tm_model_free(model);
    tm_device_close(dev);
}

/* What prompts begin with is computed once; slots that are used again still hold it. */
static void common_beginnings(void **state) {
    (void)state;
    enum { COMMON = 40, TEXTS = 6 };
    int32_t ids[TEXTS][COMMON + TEXTS];
    tm_ids texts[TEXTS], together[TEXTS];
    for (int precision = 0; precision < 2; precision++) {
        tm_device *dev = fixture_device("cpu", precision ? TM_PRECISION_BF16 : TM_PRECISION_F32);
        tm_model *model = fixture_model(dev, config_text, 3);
        for (int i = 0; i < TEXTS; i++) { /* the first one is the common part alone */
            for (int t = 0; t < COMMON + i; t++) ids[i][t] = (t * t + 3 * t + (t < COMMON ? 0 : 5 * i)) % V;
            texts[i] = (tm_ids){ids[i], (size_t)(COMMON + i), COMMON + TEXTS};
        }
        for (int batch = 1; batch <= TEXTS; batch++) {
            const tm_generate_options options = {.max_new_tokens = 30, .batch = batch};
            const int32_t stop[] = {4};
            memset(together, 0, sizeof together);
            assert_ok(tm_generate(model, texts, TEXTS, stop, 1, &options, NULL, together));
            for (int i = 0; i < TEXTS; i++) {
                tm_ids alone = {0};
                assert_ok(tm_generate(model, texts + i, 1, stop, 1, &options, NULL, &alone));
                assert_int_equal(together[i].len, alone.len);
                if (alone.len) assert_memory_equal(together[i].data, alone.data, alone.len * sizeof *alone.data);
                tm_ids_free(&together[i]);
                tm_ids_free(&alone);
            }
        }
        tm_model_free(model);
        assert_int_equal(dev->bytes_in_use, 0);
        tm_device_close(dev);
    }
}

static void refuses_bad_arguments(void **state) {
    (void)state;
    static const struct {
        tm_generate_options options;
        const char *field;
    } bad[] = {
        {{.max_new_tokens = -1}, "max-new-tokens"}, {{.batch = 5000}, "batch"}, {{.temperature = NAN}, "temperature"},
        {{.temperature = -1}, "temperature"},       {{.top_k = -1}, "top-k"},   {{.top_p = 1.5}, "top-p"},
    };
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 3);
    int32_t id = 3, outside = V;
    tm_ids prompt = {&id, 1, 1}, empty = {0}, wrong = {&outside, 1, 1}, out = {0};
    for (size_t i = 0; i < TM__COUNT(bad); i++) {
        assert_int_equal(tm_generate(model, &prompt, 1, NULL, 0, &bad[i].options, NULL, &out), TM_INVALID);
        assert_string_equal(tm_error_last()->field, bad[i].field);
    }
    assert_int_equal(tm_generate(model, &empty, 1, NULL, 0, NULL, NULL, &out), TM_INVALID);
    assert_string_equal(tm_error_last()->field, "prompt");
    assert_int_equal(tm_generate(model, &wrong, 1, NULL, 0, NULL, NULL, &out), TM_INVALID);
    assert_null(out.data);
    assert_ok(tm_generate(model, NULL, 0, NULL, 0, NULL, NULL, NULL));
    tm_model_free(model);
    assert_int_equal(dev->bytes_in_use, 0);
    tm_device_close(dev);
}

/* A norm of 1e38 overflows fp32 in the head: every answer must fail, not be token 0. */
static void values_that_are_not_finite_are_reported(void **state) {
    (void)state;
    tm_device *dev = fixture_device("cpu", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 3);
    const int32_t ids[] = {3, 4, 5};
    tm_ids prompt = {(int32_t *)(uintptr_t)ids, 3, 3}, out = {0};
    double sum = 7, embedding[64];
    assert_ok(dev->k->fill(dev, model->final_norm.weight.value.data, 1e38,
                           tm__tensor_count(&model->final_norm.weight.value)));
    assert_ok(dev->k->fill(dev, model->head.value.data, 1e3, tm__tensor_count(&model->head.value)));
    for (int hot = 0; hot < 2; hot++) {
        const tm_generate_options options = {.temperature = hot, .max_new_tokens = 2};
        assert_int_equal(tm_generate(model, &prompt, 1, NULL, 0, &options, NULL, &out), TM_NUMERIC);
        assert_string_equal(tm_error_last()->field, "logits");
        assert_null(out.data);
    }
    assert_int_equal(tm_model_score(model, ids, 3, &sum), TM_NUMERIC);
    assert_true(sum == 7);
    assert_ok(dev->k->fill(dev, model->final_norm.weight.value.data, INFINITY,
                           tm__tensor_count(&model->final_norm.weight.value)));
    assert_int_equal(tm__model_embed_texts(model, &prompt, 1, embedding), TM_NUMERIC);
    tm_model_free(model);
    assert_int_equal(dev->bytes_in_use, 0);
    tm_device_close(dev);
}

/* ---- watching ---------------------------------------------------------------------------------------------------- */

typedef struct watch {
    int64_t reports, done, tokens, stop_after;
} watch;

static void on_progress(void *user, const tm_progress *progress) {
    watch *w = user;
    assert_string_equal(progress->phase, "generate");
    assert_int_equal(progress->total, ROWS);
    assert_true(progress->done >= w->done && progress->tokens >= w->tokens);
    w->reports++;
    w->done = progress->done;
    w->tokens = progress->tokens;
}

static bool on_stop(void *user) {
    watch *w = user;
    return w->stop_after && w->reports >= w->stop_after;
}

static void reports_and_stops(void **state) {
    (void)state;
    static prompts p;
    watch w = {0};
    const tm_monitor monitor = {.progress = on_progress, .stop = on_stop, .user = &w};
    const tm_generate_options options = {.max_new_tokens = 4, .batch = 3};
    tm_ids out[ROWS] = {{0}};
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 3);
    prompts_fill(&p);
    assert_ok(tm_generate(model, p.ids, ROWS, NULL, 0, &options, &monitor, out));
    assert_int_equal(w.done, ROWS);
    assert_int_equal(w.tokens, 4 * ROWS);
    release(out);
    w = (watch){.stop_after = 5};
    memset(out, 0, sizeof out);
    assert_int_equal(tm_generate(model, p.ids, ROWS, NULL, 0, &options, &monitor, out), TM_INTERRUPTED);
    for (int r = 0; r < ROWS; r++) assert_null(out[r].data);
    tm_model_free(model);
    assert_int_equal(dev->bytes_in_use, 0);
    tm_device_close(dev);
}

static void survives_failing_allocations(void **state) {
    (void)state;
    static prompts p;
    tm_ids out[ROWS] = {{0}};
    const tm_generate_options options = {.max_new_tokens = 2, .batch = 3};
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, config_text, 3);
    prompts_fill(&p);
    assert_ok(tm__rope_reserve(model, 64)); /* which the model keeps */
    size_t before = dev->bytes_in_use;
    for (long n = 1;; n++) {
        tm__alloc_fail_at(n, n % 2);
        tm_status status = tm_generate(model, p.ids, ROWS, NULL, 0, &options, NULL, out);
        tm__alloc_fail_at(0, false);
        assert_int_equal(dev->bytes_in_use, before);
        tm__pool_trim(dev);
        if (status == TM_OK) break;
        assert_int_equal(status, TM_NO_MEMORY);
        assert_true(n < 100000);
        for (int r = 0; r < ROWS; r++) assert_null(out[r].data);
    }
    release(out);
    tm_model_free(model);
    tm_device_close(dev);
}

/* ---- conversations ----------------------------------------------------------------------------------------------- */

/* Letters a to z, blank and ChatML's markers: 31 ids. */
static tm_tokenizer *letters(void) {
    tm__string text = {0};
    tm_tokenizer *tokenizer;
    char *path = tm__path_join(test_scratch(), "tokenizer.json");
    assert_true(tm__string_printf(&text, "{\"added_tokens\": ["
                                         "{\"id\": 0, \"content\": \"<|endoftext|>\", \"special\": true},"
                                         "{\"id\": 1, \"content\": \"<|im_start|>\", \"special\": true},"
                                         "{\"id\": 2, \"content\": \"<|im_end|>\", \"special\": true}],"
                                         "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false},"
                                         "\"decoder\": {\"type\": \"ByteLevel\"},"
                                         "\"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {"
                                         "\"<|endoftext|>\": 0, \"<|im_start|>\": 1, \"<|im_end|>\": 2,"
                                         "\"\\u0120\": 3, \"\\u010a\": 4"));
    for (int c = 'a'; c <= 'z'; c++) assert_true(tm__string_printf(&text, ", \"%c\": %d", c, 5 + c - 'a'));
    assert_true(tm__string_printf(&text, "}}}"));
    assert_ok(tm__file_write(path, text.data, text.len));
    assert_ok(tm_tokenizer_load(path, &tokenizer));
    tm__string_free(&text);
    free(path);
    return tokenizer;
}

static void answers_conversations(void **state) {
    (void)state;
    static const char small[] = "{\"model_type\": \"llama\", \"hidden_size\": 16, \"intermediate_size\": 24,"
                                "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"vocab_size\": 31,"
                                "\"initializer_range\": 0.5, \"eos_token_id\": [0, 30]}";
    tm_device *dev = fixture_device("ref", TM_PRECISION_F32);
    tm_model *model = fixture_model(dev, small, 5);
    tm_tokenizer *tokenizer = letters();
    const tm_message asks[][3] = {{{"user", "hello"}, {"assistant", "never read"}, {NULL, NULL}},
                                  {{"user", "who"}, {"assistant", "me"}, {"user", "why"}}};
    tm_dataset *dataset;
    assert_ok(tm_dataset_create(&dataset));
    assert_ok(tm_dataset_add(dataset, asks[0], 2));
    const tm_message closed[] = {asks[1][0], asks[1][1], asks[1][2], {"assistant", "so"}};
    assert_ok(tm_dataset_add(dataset, closed, 4));
    const tm_generate_options options = {.max_new_tokens = 20};
    char *one = NULL, *two = NULL, *all[2] = {NULL, NULL};
    assert_ok(tm_generate_chat(model, tokenizer, TM_CHAT_AUTO, asks[0], 1, &options, &one));
    assert_ok(tm_generate_chat(model, tokenizer, TM_CHAT_AUTO, asks[1], 3, &options, &two));
    assert_ok(tm_generate_dataset(model, tokenizer, TM_CHAT_AUTO, dataset, &options, NULL, all));
    assert_string_equal(one, all[0]);
    assert_string_equal(two, all[1]);
    /* the same by hand: encode, stop at the format's id and the config's, decode */
    tm_ids prompt = {0}, made = {0};
    char *text;
    const int32_t stop[] = {tm_chat_stop_id(tokenizer, TM_CHAT_CHATML), 0, 30};
    assert_int_equal(stop[0], 2);
    assert_ok(tm_chat_encode(tokenizer, TM_CHAT_CHATML, asks[0], 1, true, &prompt, NULL));
    assert_ok(tm_generate(model, &prompt, 1, stop, 3, &options, NULL, &made));
    assert_ok(tm_tokenizer_decode(tokenizer, made.data, made.len, TM_DECODE_SKIP_SPECIAL, &text, NULL));
    assert_string_equal(one, text);
    free(text);
    free(one);
    free(two);
    free(all[0]);
    free(all[1]);
    tm_ids_free(&prompt);
    tm_ids_free(&made);
    tm_dataset_free(dataset);
    tm_tokenizer_free(tokenizer);
    tm_model_free(model);
    tm_device_close(dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probabilities_by_hand),
        cmocka_unit_test(draws_invert_the_cumulative_distribution),
        cmocka_unit_test(greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(greedy_equals_whole_passes),
        cmocka_unit_test(batches_do_not_change_texts),
        cmocka_unit_test(logits_do_not_depend_on_company),
        cmocka_unit_test(every_product_of_generation_is_row_invariant),
        cmocka_unit_test(order_and_threads_do_not_change_texts),
        cmocka_unit_test(stops_and_lengths),
        cmocka_unit_test(long_prompts),
        cmocka_unit_test(common_beginnings),
        cmocka_unit_test(refuses_bad_arguments),
        cmocka_unit_test(values_that_are_not_finite_are_reported),
        cmocka_unit_test(reports_and_stops),
        cmocka_unit_test(survives_failing_allocations),
        cmocka_unit_test(answers_conversations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
