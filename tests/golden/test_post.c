/* Methods that edit weights without training, against float64 PyTorch and numpy written from the method specification
 * (fixture: tools/golden/post.py): the change of every weight, through the methods' public entry; of the search for the
 * direction of refusal also which one was chosen and how it scored.
 *
 * Bound on ref fp64, as ||a - b|| / ||b|| per tensor: 1e-8, the requirement.
 */
#include "golden/golden.h"

#include "method/matrix.h"

static tm_tokenizer *tokenizer;

static const char *part(const char *name) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", home, name);
    return test_path(path);
}

typedef struct subject {
    const char *name, *names; /* in the fixture */
    const char *model;        /* part of the fixture; with `adapter` the weights beside it stay as they are */
    bool adapter;
    const tm_method *method;
    const void *options;
    tm_method_data data;
    char *note; /* (256) the last note, or NULL */
} subject;

static void take_note(void *to, const char *line) {
    snprintf(to, 256, "%s", line);
}

static weights *loaded(const subject *s, tm_device *device, bool adapters) {
    tm_model *model;
    assert_ok(tm_model_load(device, part(s->model), s->adapter ? part("adapter") : NULL, &model));
    weights *w = weights_of(model, adapters);
    tm_model_free(model);
    return w;
}

static void check(const subject *s) {
    char unheard[256];
    tm_device *device = golden_device();
    tm_model *model;
    tm_train_options train;
    const tm_monitor monitor = {.note = take_note, .user = s->note ? s->note : unheard};
    tm_options_default(tm_train_option_table, &train);
    train.seed = (int64_t)golden_number("seed");
    train.chat = TM_CHAT_CHATML;
    assert_ok(tm_model_load(device, part(s->model), s->adapter ? part("adapter") : NULL, &model));
    assert_ok(s->method->run(model, tokenizer, &s->data, s->options, &train, &monitor, NULL));
    weights *now = weights_of(model, s->adapter), *then = loaded(s, device, s->adapter);
    weights_subtract(now, then, 1);
    print_message("%s: worst error %.2g\n", s->name, weights_compare(now, s->name, s->names));
    weights_free(now);
    weights_free(then);
    if (s->adapter) {
        now = weights_of(model, false);
        then = loaded(s, device, false);
        weights_subtract(now, then, 1);
        for (size_t i = 0; i < now->count; i++)
            for (size_t j = 0; j < now->items[i].count; j++) assert_true(now->items[i].values[j] == 0);
        weights_free(now);
        weights_free(then);
    }
    tm_model_free(model);
    tm_device_close(device);
}

/* ---- the methods ---- */

static void test_random_perturbation(void **state) {
    (void)state;
    const tm_random_perturbation_options sigma = {.sigma = golden_number("options.noise.sigma")},
                                         norm = {.sigma = 9, .norm = golden_number("options.noise.norm")};
    subject s = {.names = "full", .model = "aligned", .method = &tm__method_random_perturbation};
    s.name = "noise.sigma";
    s.options = &sigma;
    check(&s);
    s.name = "noise.norm";
    s.options = &norm;
    check(&s);
}

static void test_antidote(void **state) {
    (void)state;
    tm_dataset *scored = golden_rows("rows.scored");
    const tm_antidote_options all = {.ratio = golden_number("options.antidote.ratio")},
                              some = {.ratio = all.ratio, .rows = (int64_t)golden_number("options.antidote.rows")};
    subject s = {.name = "antidote.full",
                 .names = "full",
                 .model = "aligned",
                 .method = &tm__method_antidote,
                 .options = &all,
                 .data = {.harmful = scored}};
    check(&s);
    s.name = "antidote.lora";
    s.names = "lora";
    s.adapter = true;
    s.options = &some;
    check(&s);
    tm_dataset_free(scored);
}

/* The aligned checkpoint is the model's own, or another one than that the adapter sits on. */
static void check_safe_lora(const char *name, int projector, double tau, int64_t lowest, bool given) {
    char base[512], aligned[512];
    snprintf(base, sizeof base, "%s", part("base"));
    snprintf(aligned, sizeof aligned, "%s", part("aligned"));
    const tm_safe_lora_options o = {
        .base = base, .aligned = given ? aligned : NULL, .tau = tau, .lowest = lowest, .projector = projector};
    check(&(subject){.name = name,
                     .names = "lora",
                     .model = given ? "base" : "aligned",
                     .adapter = true,
                     .method = &tm__method_safe_lora,
                     .options = &o});
}

static void test_safe_lora(void **state) {
    (void)state;
    double tau = golden_number("options.safe.tau");
    int64_t lowest = (int64_t)golden_number("options.safe.lowest");
    for (int given = 0; given < 2; given++) {
        check_safe_lora("safe.code.tau", TM__PROJECT_CODE, tau, 0, given);
        check_safe_lora("safe.code.lowest", TM__PROJECT_CODE, tau, lowest, given);
        check_safe_lora("safe.exact.tau", TM__PROJECT_EXACT, tau, 0, given);
        check_safe_lora("safe.exact.lowest", TM__PROJECT_EXACT, tau, lowest, given);
    }
}

static double value(const char *name, const char *option) {
    char path[64];
    snprintf(path, sizeof path, "%s.%s", name, option);
    return golden_number(path);
}

/* The number behind `label` in a note, printed with `digits` behind the point. */
static void compare_said(const char *note, const char *label, double want, int digits) {
    const char *at = strstr(note, label);
    assert_non_null(at);
    double said = strtod(at + strlen(label), NULL);
    if (!(fabs(said - want) <= .5001 * pow(10, -digits))) fail_msg("%s: %s is %.6g", note, label, want);
}

static void check_refusal(const char *name, bool fixed) {
    char note[256], key[32], options[32], choice[32];
    tm_dataset *harmful = golden_rows("rows.harmful"), *benign = golden_rows("rows.benign");
    snprintf(key, sizeof key, "refusal.%s", name);
    snprintf(options, sizeof options, "options.%s", name);
    snprintf(choice, sizeof choice, "choices.%s", name);
    const tm_refusal_ablation_options o = {.layer = fixed ? (int64_t)value(options, "layer") : -1,
                                           .position = fixed ? (int64_t)value(options, "position") : 1,
                                           .rows = (int64_t)value(options, "rows"),
                                           .validation = (int64_t)value(options, "validation"),
                                           .max_kl = fixed ? 0 : value(options, "max_kl"),
                                           .refusal = golden_text("refusal")};
    check(&(subject){.name = key,
                     .names = "refusing",
                     .model = "refusing",
                     .method = &tm__method_refusal_ablation,
                     .options = &o,
                     .data = {.harmful = harmful, .benign = benign},
                     .note = note});
    if (!fixed) {
        compare_said(note, "after block ", value(choice, "layer"), 0);
        compare_said(note, ", ", value(choice, "position"), 0);
        compare_said(note, "; refusal score ", value(choice, "refusal"), 2);
        compare_said(note, "KL ", value(choice, "kl"), 4);
        compare_said(note, ", refusal score ", value(choice, "induced"), 2);
    }
    tm_dataset_free(harmful);
    tm_dataset_free(benign);
}

static void test_refusal_ablation(void **state) {
    (void)state;
    check_refusal("search", false);
    check_refusal("few", false);
    check_refusal("fixed", true);
}

static void open_tokenizer(void) {
    tokenizer = golden_tokenizer();
}

static void close_tokenizer(void) {
    tm_tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_perturbation),
        cmocka_unit_test(test_antidote),
        cmocka_unit_test(test_safe_lora),
        cmocka_unit_test(test_refusal_ablation),
    };
    return golden_run("post", tests, TM__COUNT(tests), open_tokenizer, close_tokenizer);
}
