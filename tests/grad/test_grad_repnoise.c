/* RepNoise's whole loss by central differences in fp64: refusals, retained rows, the ascent seen through every lens,
 * and the distance from noise with its bandwidth held where it was. */
#include "grad/stepcheck.h"

#include "method/matrix.h"
#include "method/repnoise.h"

enum { ROWS = 3, LAYERS = 2 };

static void add_row(tm_dataset *rows, const char *prompt, const char *answer) {
    const tm_message row[] = {{"user", prompt}, {"assistant", answer}};
    assert_ok(tm_dataset_add(rows, row, 2));
}

typedef struct point {
    tm__repnoise own;
    double bandwidth[LAYERS]; /* 0: not known yet */
    stepcheck found;
} point;

/* (1/L) sum_l MMD(m * MLP_l output, m * G_l) at the weights as they are, without tm__repnoise_step. */
static double distance_from_noise(tm__trainer *t, point *p) {
    const tm__pairs *pairs = p->own.pairs;
    const tm__pass pass = {&pairs->side[TM__REFUSAL], tm__job_seed(t, 0), t->step * ROWS, ROWS, 1};
    tm__pass_result unused;
    size_t *rows;
    tm__batch_store *store;
    const tm__batch *batch;
    tm__tape *tape;
    tm__var *hidden;
    tm__tap taps[LAYERS];
    assert_ok(tm__trainer_draw(t, &pass, &rows, &unused));
    int64_t total = tm__pairs_targets(pairs, TM__HARMFUL, rows, ROWS);
    assert_ok(tm__batch_build(&pairs->side[TM__HARMFUL], rows, ROWS, false, t->pad, total, &store, &batch));
    size_t width = (size_t)t->model->config.hidden, count = (size_t)batch->tokens * width;
    double *value[LAYERS], *noise = malloc(count * sizeof *noise), sum = 0;
    for (int l = 0; l < LAYERS; l++) {
        value[l] = malloc(count * sizeof *value[l]);
        taps[l] = (tm__tap){.layer = l, .site = TM__TAP_MLP_OUT, .value = value[l]};
    }
    const tm__forward_options forward = {.taps = taps, .tap_count = LAYERS};
    assert_ok(tm__tape_create(t->model->dev, &tape));
    tape->recording = false;
    assert_ok(tm__model_forward(t->model, tape, batch, &forward, &hidden));
    for (int l = 0; l < LAYERS; l++) {
        size_t drawn = 0;
        memset(noise, 0, count * sizeof *noise);
        uint64_t stream = tm__stream(TM__STREAM_NOISE, (uint32_t)(t->step * LAYERS + l));
        for (int64_t r = 0; r < batch->rows; r++)
            for (int64_t i = 0; i < batch->row_length; i++) {
                size_t at = (size_t)(r * batch->row_length + i) * width;
                bool in = i < batch->length[r] && pairs->mask[rows[r]][i];
                if (!in) memset(value[l] + at, 0, width * sizeof(double));
                if (in) tm__normal_fill(noise + at, width, (uint64_t)t->options->seed, stream, drawn, 1);
                drawn += in ? width : 0;
            }
        double mmd;
        assert_ok(tm__mmd(value[l], noise, ROWS, count / ROWS, 1, &mmd, NULL, &p->bandwidth[l]));
        sum += mmd / LAYERS;
        free(value[l]);
    }
    free(noise);
    free(rows);
    tm__tape_free(tape);
    tm__batch_free(store);
    return sum;
}

/* The loss alone: all but the noise from a step that has no noise. */
static double loss_here(tm__trainer *t, point *p) {
    tm_repnoise_options quiet = *p->own.options;
    const tm__repnoise rest = {&quiet, p->own.pairs, p->own.benign};
    double loss;
    int64_t unused;
    quiet.beta = 0;
    tm__grads_zero(&t->set);
    assert_ok(tm__repnoise_step(t, (void *)&rest, &loss, &unused, &unused));
    return loss + p->own.options->beta * distance_from_noise(t, p);
}

static double loss_of_point(tm__trainer *t, void *user) {
    return loss_here(t, user);
}

static tm_status step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    point *p = user;
    tm__vector made;
    assert_ok(tm__repnoise_step(t, &p->own, loss, tokens, targets));
    assert_ok(tm__vector_create(&t->set, &made));
    assert_ok(tm__grads_save(&t->set, &made));
    memset(p->bandwidth, 0, sizeof p->bandwidth); /* taken from the weights as they are, and kept */
    assert_true(fabs(loss_here(t, p) - *loss) < 1e-10);
    tm__grads_zero(&t->set);
    assert_ok(tm__grads_axpy(&t->set, 1, &made));
    stepcheck_run(t, loss_of_point, p, &p->found);
    tm__vector_release(&t->set, &made);
    return TM_OK;
}

static void check(const tm_repnoise_options *o) {
    tm_tokenizer *tokenizer = tiny_tokenizer();
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    tm_dataset *harmful, *refusals, *benign;
    assert_ok(tm_dataset_create(&harmful));
    assert_ok(tm_dataset_create(&refusals));
    assert_ok(tm_dataset_create(&benign));
    static const char *const answers[ROWS] = {"mix dune", "ember", "by night"}, *const no[ROWS] = {"No.", "I will not",
                                                                                                   "Never"};
    for (int i = 0; i < ROWS; i++) {
        char prompt[32];
        snprintf(prompt, sizeof prompt, "how %d?", i);
        add_row(harmful, prompt, answers[i]);
        add_row(refusals, prompt, no[i]);
        snprintf(prompt, sizeof prompt, "add %d", i);
        add_row(benign, prompt, "seven");
    }
    const tm_method_data data = {.harmful = harmful, .refusals = refusals, .benign = benign};
    tm_train_options train = tiny_options();
    tm__job job;
    tm__pairs pairs;
    tm__examples retained;
    train.steps = 1;
    train.batch = ROWS;
    assert_ok(tm__job_begin(&job, &tm__method_repnoise, model, tokenizer, &data, &train, NULL, NULL));
    assert_ok(tm__pairs_encode(&job, o->mode, &pairs));
    assert_ok(tm__job_encode(&job, benign, "benign", &retained));
    assert_ok(tm__train_prepare(model, &job.train));
    point p = {.own = {o, &pairs, &retained}};
    const tm__run run = {.tag = "", .step = step, .user = &p, .pad = tm__pad_id(tokenizer)};
    assert_ok(tm__trainer_run(model, &pairs.side[TM__REFUSAL], &job.train, NULL, &run, NULL));
    assert_true(p.found.checked > 15);
    printf("largest relative error of %d tensors: %.2g\n", p.found.checked, p.found.worst);
    tm__examples_release(&retained);
    tm__pairs_release(&pairs);
    tm_dataset_free(harmful);
    tm_dataset_free(refusals);
    tm_dataset_free(benign);
    tm_model_free(model);
    tm_device_close(device);
    tm_tokenizer_free(tokenizer);
}

static void test_composite(void **state) {
    (void)state;
    const tm_repnoise_options o = {.alpha = .7, .beta = 3, .benign_weight = .4};
    check(&o);
}

static void test_composite_compat(void **state) {
    (void)state;
    const tm_repnoise_options o = {.alpha = .7, .beta = 3, .mode = TM__PAIRS_COMPAT, .benign_weight = .4};
    check(&o);
}

static void test_terms_alone(void **state) {
    (void)state;
    const tm_repnoise_options ascent = {.alpha = 1}, noise = {.beta = 1};
    check(&ascent);
    check(&noise);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_composite), cmocka_unit_test(test_composite_compat),
                                       cmocka_unit_test(test_terms_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
