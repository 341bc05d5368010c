/* registry.c: the one table of methods. A new method is one file and one line here. */
#include "method/method.h"

static const tm_method *const methods[] = {
    &tm__method_sdd,
    &tm__method_panacea,
    &tm__method_backdoor_align,
    &tm__method_antidote,
    &tm__method_safe_lora,
    &tm__method_security_vectors,
    &tm__method_booster,
    &tm__method_vaccine,
    &tm__method_random_vaccine,
    &tm__method_t_vaccine,
    &tm__method_lisa,
    &tm__method_gradient_ascent,
    &tm__method_safety_training,
    &tm__method_random_perturbation,
    &tm__method_repnoise,
    &tm__method_adversarial,
    &tm__method_harmful_sft,
    &tm__method_identity_shift,
    &tm__method_embedding,
    &tm__method_random_init,
    &tm__method_refusal_ablation,
};

const tm_method *tm_method_at(size_t index) {
    return index < TM__COUNT(methods) ? methods[index] : NULL;
}

const tm_method *tm_method_find(const char *name) {
    for (size_t i = 0; i < TM__COUNT(methods); i++)
        if (strcmp(methods[i]->name, name) == 0) return methods[i];
    return NULL;
}
