/* Losses that methods compose, by central differences in fp64: the adversarial loss, Panacea's and Booster's with the
 * shift held where the step found it, Vaccine's with its perturbation held, Lisa's pull. RepNoise's is in
 * test_grad_repnoise.c, the embedding attack's in test_soft_prompt.c.
 */
#include "grad/stepcheck.h"

#include "method/repnoise.h"

enum { ROWS = 3 };

static tm_tokenizer *tokenizer;
static tm_dataset *harmful, *refusals;
static tm__examples harm, safe;

static int setup(void **state) {
    (void)state;
    tm_dataset *answers = tiny_rows("no", 5);
    tokenizer = tiny_tokenizer();
    harmful = tiny_rows("harmful", 5);
    assert_ok(tm_dataset_create(&refusals));
    for (size_t i = 0; i < 5; i++) { /* to the same prompts, in words of their own */
        const tm_message row[] = {tm_dataset_row(harmful, i, NULL)[0],
                                  {"assistant", tm_dataset_row(answers, i, NULL)[0].content}};
        assert_ok(tm_dataset_add(refusals, row, 2));
    }
    assert_ok(tm__examples_encode(tokenizer, harmful, TM_CHAT_CHATML, 512, false, NULL, &harm));
    assert_ok(tm__examples_encode(tokenizer, refusals, TM_CHAT_CHATML, 512, false, NULL, &safe));
    tm_dataset_free(answers);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tm__examples_release(&harm);
    tm__examples_release(&safe);
    tm_dataset_free(harmful);
    tm_dataset_free(refusals);
    tm_tokenizer_free(tokenizer);
    return 0;
}

/* ---- a method's second step, looked at from inside the loop ---- */

typedef struct point {
    tm__step step;
    tm_status (*begin)(tm__trainer *trainer, void *own); /* NULL: nothing */
    void (*release)(tm__trainer *trainer, void *own);
    void *own;
    stepcheck_loss loss; /* of a point */
    stepcheck found;
} point;

static tm_status begin(tm__trainer *t, void *user) {
    const point *p = user;
    return p->begin ? p->begin(t, p->own) : TM_OK;
}

static void release(tm__trainer *t, void *user) {
    const point *p = user;
    if (p->release) p->release(t, p->own);
}

static tm_status step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    point *p = user;
    tm__vector made;
    assert_ok(p->step(t, p->own, loss, tokens, targets));
    if (t->step == 0) return TM_OK;
    assert_ok(tm__vector_create(&t->set, &made));
    assert_ok(tm__grads_save(&t->set, &made));
    stepcheck_run(t, p->loss, p, &p->found);
    tm__grads_zero(&t->set);
    assert_ok(tm__grads_axpy(&t->set, 1, &made));
    tm__vector_release(&t->set, &made);
    return TM_OK;
}

static void check(const char *name, point *p, const tm__examples *examples) {
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    tm_train_options train = tiny_options();
    const tm__run run = {.tag = "", .step = step, .user = p, .begin = begin, .release = release};
    train.steps = 2;
    train.batch = ROWS;
    assert_ok(tm__train_prepare(model, &train));
    assert_ok(tm__trainer_run(model, examples, &train, NULL, &run, NULL));
    assert_true(p->found.checked > 15);
    print_message("%s: largest relative error of %d tensors: %.2g\n", name, p->found.checked, p->found.worst);
    tm_model_free(model);
    tm_device_close(device);
}

/* Mean response loss of this step's rows. */
static double sft_loss(tm__trainer *t) {
    const tm__pass pass = {t->examples, tm__job_seed(t, 0), t->step * ROWS, ROWS, 1};
    tm__pass_result made;
    assert_ok(tm__trainer_pass(t, &pass, &made));
    return made.loss;
}

/* ---- the losses ---- */

/* CE_m(refusal) - c CE_m(harmful), as the step says it. */
static double adversarial_loss(tm__trainer *t, void *user) {
    const point *p = user;
    double loss;
    int64_t unused;
    assert_ok(tm__adversarial_step(t, p->own, &loss, &unused, &unused));
    return loss;
}

static void test_adversarial(void **state) {
    (void)state;
    const tm_adversarial_options o = {.coefficient = .3};
    const tm_method_data data = {.harmful = harmful, .refusals = refusals};
    tm_train_options train = tiny_options();
    tm_device *device = tiny_device("ref64");
    tm_model *model = tiny_model(device);
    tm__job job;
    tm__pairs pairs;
    assert_ok(tm__job_begin(&job, &tm__method_adversarial, model, tokenizer, &data, &train, NULL, NULL));
    assert_ok(tm__pairs_encode(&job, TM__PAIRS_CORRECT, &pairs));
    tm__adversarial own = {&o, &pairs};
    point p = {.step = tm__adversarial_step, .own = &own, .loss = adversarial_loss};
    check("adversarial", &p, &pairs.side[TM__REFUSAL]);
    tm__pairs_release(&pairs);
    tm_model_free(model);
    tm_device_close(device);
}

/* f(w) + lambda (h(w) - h(w + s)), s as the step left it. */
static double contrast_loss(tm__trainer *t, const tm__contrast *c) {
    tm__vector kept;
    double here, there, loss = sft_loss(t);
    assert_ok(tm__job_side_pass(t, &harm, &here));
    assert_ok(tm__vector_create(&t->set, &kept));
    assert_ok(tm__paramset_save(&t->set, &kept));
    assert_ok(tm__paramset_axpy(&t->set, 1, &c->shift));
    assert_ok(tm__job_side_pass(t, &harm, &there));
    assert_ok(tm__paramset_restore(&t->set, &kept));
    tm__vector_release(&t->set, &kept);
    return loss + c->lambda * (here - there);
}

static double panacea_loss(tm__trainer *t, void *user) {
    return contrast_loss(t, &((const tm__panacea *)((const point *)user)->own)->contrast);
}

static double booster_loss(tm__trainer *t, void *user) {
    return contrast_loss(t, &((const tm__booster *)((const point *)user)->own)->contrast);
}

static void test_panacea(void **state) {
    (void)state;
    const tm_panacea_options o = {.lambda = .8, .rho = .7};
    tm__panacea own = {.options = &o, .harmful = &harm};
    point p = {tm__panacea_step, tm__panacea_begin, tm__panacea_release, &own, panacea_loss, {0, 0}};
    check("panacea", &p, &safe);
}

static void test_booster(void **state) {
    (void)state;
    const tm_booster_options o = {.lambda = 2, .alpha = .4};
    tm__booster own = {.options = &o, .harmful = &harm};
    point p = {tm__booster_step, tm__booster_begin, tm__booster_release, &own, booster_loss, {0, 0}};
    check("booster", &p, &safe);
}

/* CE(w) + (rho / 2) |w - a|^2, a being the weights at the last switch: where the first step began. */
static double lisa_loss(tm__trainer *t, void *user) {
    const tm__lisa *lisa = ((const point *)user)->own;
    const tm_lisa_options none = {.k1 = lisa->options->k1, .k2 = lisa->options->k2};
    tm__lisa rows = *lisa; /* the step's rows alone */
    tm__vector w;
    double loss, square;
    int64_t unused;
    rows.options = &none;
    assert_ok(tm__lisa_step(t, &rows, &loss, &unused, &unused));
    assert_ok(tm__vector_create(&t->set, &w));
    assert_ok(tm__paramset_save(&t->set, &w));
    for (size_t i = 0; i < t->set.count; i++)
        assert_ok(t->set.dev->k->axpy(t->set.dev, w.data[i], -1, lisa->anchor.data[i],
                                      tm__tensor_count(&t->set.items[i]->value)));
    assert_ok(tm__vector_dot(&t->set, &w, &w, &square));
    tm__vector_release(&t->set, &w);
    assert_true(square > 1e-3);
    return loss + lisa->options->rho / 2 * square;
}

/* The first step only sets the anchor: its switch is where the turn of k1 = 2 begins, and the second stays in it. */
static tm_status lisa_step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    tm__lisa *lisa = user;
    if (t->step == 0) {
        assert_ok(tm__paramset_save(&t->set, &lisa->anchor));
        *loss = sft_loss(t);
        *tokens = *targets = 1;
        return TM_OK;
    }
    return tm__lisa_step(t, lisa, loss, tokens, targets);
}

static void test_lisa(void **state) {
    (void)state;
    const tm_lisa_options o = {.k1 = 2, .k2 = 2, .rho = 3};
    tm__lisa own = {.options = &o, .refusals = &safe};
    point p = {lisa_step, tm__lisa_begin, tm__lisa_release, &own, lisa_loss, {0, 0}};
    check("lisa", &p, &safe);
}

/* ---- Vaccine ---- */

typedef struct vaccine {
    double rho;
    tm__batch_store *store; /* the step's batch, and e as a step at the same weights finds it */
    const tm__batch *batch;
    tm__attention_taps taps;
} vaccine;

static tm_status vaccine_step(tm__trainer *t, void *user, double *loss, int64_t *tokens, int64_t *targets) {
    vaccine *v = user;
    tm__vaccine own = {.rho = v->rho};
    const tm__pass pass = {t->examples, tm__job_seed(t, 0), t->step * ROWS, ROWS, 1};
    tm__pass_result made;
    double unused;
    if (t->step == 1) {
        assert_ok(tm__trainer_batch(t, &pass, &v->store, &v->batch, &made));
        assert_ok(tm__attention_taps_create(t->model, v->batch->tokens, &v->taps));
        for (size_t l = 0; l < v->taps.layers; l++) v->taps.taps[l].grad = v->taps.buffers[l];
        assert_ok(tm__attention_taps_pass(t, v->batch, &v->taps, &unused));
        assert_ok(tm__attention_taps_direction(&v->taps, v->rho, &unused));
        for (size_t l = 0; l < v->taps.layers; l++) {
            v->taps.taps[l].grad = NULL;
            v->taps.taps[l].perturb = v->taps.buffers[l];
        }
        tm__grads_zero(&t->set);
    }
    return tm__vaccine_step(t, &own, loss, tokens, targets);
}

static double vaccine_loss(tm__trainer *t, void *user) {
    const vaccine *v = ((const point *)user)->own;
    double loss;
    assert_ok(tm__attention_taps_pass(t, v->batch, &v->taps, &loss));
    return loss;
}

static void vaccine_release(tm__trainer *t, void *user) {
    vaccine *v = user;
    (void)t;
    tm__attention_taps_release(&v->taps);
    tm__batch_free(v->store);
}

static void test_vaccine(void **state) {
    (void)state;
    vaccine own = {.rho = 2};
    point p = {vaccine_step, NULL, vaccine_release, &own, vaccine_loss, {0, 0}};
    check("vaccine", &p, &safe);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adversarial), cmocka_unit_test(test_panacea), cmocka_unit_test(test_booster),
        cmocka_unit_test(test_lisa),        cmocka_unit_test(test_vaccine),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
