/* bench_needs.c: how many forward and backward passes the mathematics of each method's step needs.
 *
 * A pass over t tokens with n targets is counted by its multiply-adds with weights,
 *
 *   F(t, n) = t (weights of all blocks) + n (hidden x vocabulary) + sum over rows of length s: L heads dim s^2
 *
 * forward; backward costs the same multiple of it everywhere, so that ratios of F are ratios of passes. RepNoise's
 * lenses are L times n (hidden x vocabulary); MMD among b rows and b of noise, of w numbers each, takes
 * (b (2b - 1) + b (2b - 1)) differences of w numbers, 3 operations each, against the 6 of a multiply-add forward and
 * backward (4 under LoRA, which computes no gradients of frozen weights).
 * (tests/unit/test_bench.c)
 */
#include "lab/bench.h"

static const tm__bench_needs table[] = {
    {"sdd", 1, "update"},
    {"panacea", 3, "user's rows, harmful rows, harmful rows at the perturbed weights"},
    {"backdoor-align", 1, "update"},
    {"antidote", 0, "scores on the harmful rows, and zeroing"},
    {"safe-lora", 0, "projection of every module"},
    {"security-vectors", 1, "update, with the frozen vectors active"},
    {"booster", 3, "refusals, harmful rows, harmful rows one harmful step on"},
    {"vaccine", 2, "perturbation, update"},
    {"random-vaccine", 1, "update under noise"},
    {"t-vaccine", 2, "perturbation, update"},
    {"lisa", 1, "update"},
    {"gradient-ascent", 1, "update, targets on prompts too"},
    {"safety-training", 1, "update"},
    {"random-perturbation", 0, "noise on every weight"},
    {"repnoise", 2, "refusals, harmful rows, and a lens per layer"},
    {"adversarial", 2, "refusals, harmful rows"},
    {"harmful-sft", 1, "update"},
    {"identity-shift", 1, "update, on ten longer rows of its own, end to end"},
    {"embedding", 0, "two moves of the vectors of every prompt, and answers of four tokens"},
    {"random-init", 1, "update"},
    {"refusal-ablation", 0, "mean states of the prompts, and the edit; direction named, not searched"},
};

const tm__bench_needs *tm__bench_needs_find(const char *name) {
    for (size_t i = 0; i < TM__COUNT(table); i++)
        if (strcmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}

static double head(const tm_model_info *m) {
    return (double)m->hidden_size * (double)m->vocab_size;
}

double tm__bench_pass(const tm__bench_size *size, double tokens, double targets) {
    const tm_model_info *m = &size->model;
    double d = (double)m->hidden_size, attended = (double)(m->heads * m->head_dim);
    double block = d * (2 * attended + 2 * (double)(m->kv_heads * m->head_dim) + 3 * (double)m->intermediate_size);
    return (double)m->layers * tokens * (block + attended * size->length) + targets * head(m);
}

double tm__bench_lens(const tm__bench_size *size, double targets) {
    const tm_model_info *m = &size->model;
    double pass = tm__bench_pass(size, size->tokens, size->targets), rows = size->rows;
    double width = targets / rows * (double)m->hidden_size, differences = 2 * rows * (2 * rows - 1) * width;
    double mmd = 3 * differences / (size->lora ? 4 : 6);
    return (double)m->layers * (targets * head(m) + mmd) / pass;
}
