/* weight_noise.c: random perturbation: Gaussian noise on every weight, the control of Panacea's perturbation.
 *
 * The baseline of Y. Wang et al. (arXiv 2501.18100): after tuning, w += N(0, sigma^2) per entry. With `norm` the noise
 * is scaled so that it is exactly as long as a perturbation it is compared with: w += norm z / |z|, z ~ N(0, 1).
 *
 * Entry i of tensor k comes from the Philox stream (seed, noise, k), tensors in the order of the model. Deviations:
 * - the released code adds noise anew at each evaluation, so that it piles up: here it is added once;
 * - the paper's runs train an adapter and put noise on its A and B, the trained entries; here an adapter is merged
 *   first, and the noise goes on every weight of the whole model. `norm` makes lengths comparable, directions are not.
 * Pinned by tests/golden/test_post.c and tests/unit/test_controls.c.
 */
#include "method/method.h"

#include <stdlib.h>

static const tm_option options_table[] = {
    {"sigma", TM_OPTION_REAL, offsetof(tm_random_perturbation_options, sigma), "0.001", 0, 1e6, NULL, NULL,
     "standard deviation of the noise on every weight"},
    {"norm", TM_OPTION_REAL, offsetof(tm_random_perturbation_options, norm), "0", 0, 1e9, NULL, NULL,
     "scale the noise to this L2 norm over all weights instead; 0: as sigma says"},
    {0},
};

enum { CHUNK = 1 << 16 };

/* z ~ N(0, 1) on every entry. */
static tm_status draw(const tm__paramset *set, uint64_t seed, tm__vector *z) {
    size_t size = tm__dtype_size(set->dev->act);
    double *noise = tm__alloc(CHUNK, sizeof *noise);
    void *host = tm__alloc(CHUNK, size);
    tm_status status = noise && host ? TM_OK : tm__fail_memory();
    for (size_t k = 0; k < set->count && status == TM_OK; k++) {
        tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_NOISE, (uint32_t)k));
        size_t count = (size_t)tm__tensor_count(&set->items[k]->value);
        for (size_t at = 0; at < count && status == TM_OK; at += CHUNK) {
            size_t n = TM__MIN(count - at, (size_t)CHUNK);
            for (size_t i = 0; i < n; i++) noise[i] = tm__rng_normal(&rng);
            tm__convert(host, set->dev->act, noise, TM_F64, n);
            status = set->dev->upload(set->dev, (char *)z->data[k] + at * size, host, n * size);
        }
    }
    free(noise);
    free(host);
    return status;
}

static tm_status perturb(const tm__paramset *set, uint64_t seed, const tm_random_perturbation_options *o,
                         const tm_monitor *monitor) {
    tm__vector z = {0};
    double square = 0, scale = o->sigma;
    tm_status status = tm__vector_create(set, &z);
    if (status == TM_OK) status = draw(set, seed, &z);
    if (status == TM_OK) status = tm__vector_dot(set, &z, &z, &square);
    if (status == TM_OK && o->norm > 0) scale = o->norm / sqrt(square);
    if (status == TM_OK) status = tm__paramset_axpy(set, scale, &z);
    if (status == TM_OK)
        tm__note(monitor, "noise of norm %.6g on %lld weights", scale * sqrt(square), (long long)set->scalars);
    tm__vector_release(set, &z);
    return status;
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_random_perturbation_options o;
    tm__job job;
    tm__paramset set = {0};
    double began = tm__now();
    TM__TRY(tm__options_check(options_table, options, &o));
    if (options) o = *(const tm_random_perturbation_options *)options;
    TM__TRY(tm__job_begin(&job, &tm__method_random_perturbation, model, tokenizer, data, train, monitor, result));
    if (job.train.lora.rank)
        return tm__fail(TM_INVALID, NULL, "lora-rank", "leave it out", "noise goes on the model's own weights");
    TM__TRY(tm__model_train_full(model));
    tm_status status = tm__paramset_collect(model, &set);
    if (status == TM_OK) status = perturb(&set, (uint64_t)job.train.seed, &o, monitor);
    tm__paramset_release(&set);
    if (status != TM_OK) return status;
    if (result) *result = (tm_train_result){.seconds = tm__now() - began};
    return tm__model_freeze(model);
}

const tm_method tm__method_random_perturbation = {
    .name = "random-perturbation",
    .title = "Random perturbation",
    .paper = "arXiv 2501.18100",
    .summary = "Adds Gaussian noise to every weight: what Panacea's perturbation must beat.",
    .who = "the provider of a fine-tuning service, after it tuned on a user's rows, as a control",
    .needs = "nothing but the model",
    .settings = "None were found: the paper adds N(0, sigma^2) to every trained entry, and its sigma was not "
                "recovered.",
    .stage = TM_STAGE_POST,
    .train_options = "seed",
    .options = options_table,
    .options_size = sizeof(tm_random_perturbation_options),
    .run = run,
};
