/* safe_lora.c: SafeLoRA: an adapter's update is projected onto what alignment changed, where it points elsewhere.
 *
 * Paper: C.-Y. Hsu et al., "Safe LoRA: the silver lining of reducing safety risks when fine-tuning large language
 * models" (arXiv 2405.16833). Needs no data: a base checkpoint and the aligned one made from it.
 *
 *   V = W_aligned - W_base,  P = V V^T / |V|_F      per module that the adapter targets
 *   B <- P B   where cos(vec P B A, vec B A) <= tau, or in the `lowest` modules of smallest cosine
 *
 * The published P is neither idempotent nor free of V's scale; `projector exact` takes the orthogonal projector onto
 * V's columns, V (V^T V)^-1 V^T where that exists. It is the identity as soon as V has full rank, so it says something
 * only where alignment's change has low rank (columns within 1e-6 of those before count as dependent).
 * P B is formed as V (V^T B): P itself, (out, out), never is.
 * Modules without change (V or B A zero) are left alone; the code would divide by zero there.
 * Pinned by tests/golden/test_post.c and tests/unit/test_safe_lora.c (golden row A9).
 */
#include "method/matrix.h"
#include "method/method.h"

#include <stdlib.h>

static const tm_option options_table[] = {
    {"base", TM_OPTION_TEXT, offsetof(tm_safe_lora_options, base), NULL, 1, 0, NULL, "DIR",
     "checkpoint before alignment"},
    {"aligned", TM_OPTION_TEXT, offsetof(tm_safe_lora_options, aligned), NULL, 1, 0, NULL, "DIR",
     "checkpoint after alignment; without it --model is taken for it"},
    {"tau", TM_OPTION_REAL, offsetof(tm_safe_lora_options, tau), "0.5", -1, 1, NULL, NULL,
     "project modules whose update keeps at most this cosine under projection; -1: none"},
    {"lowest", TM_OPTION_INT, offsetof(tm_safe_lora_options, lowest), "0", 0, 1e6, NULL, "modules",
     "project so many modules of lowest cosine instead (published: 10); 0: go by tau"},
    {"projector", TM_OPTION_CHOICE, offsetof(tm_safe_lora_options, projector), "code", 1, 0, "code|exact", NULL,
     "V V^T over V's norm as in the released code, or the orthogonal projector"},
    {0},
};

/* ---- one module -------------------------------------------------------------------------------------------------- */

/* pb = V (V^T B) / scale */
static tm_status project_code(const double *v, int64_t out, int64_t in, const double *b, int64_t rank, double scale,
                              double *pb) {
    double *vb = tm__zalloc((size_t)(in * rank), sizeof *vb); /* (in, rank) */
    if (!vb) return tm__fail_memory();
    for (int64_t i = 0; i < out; i++)
        for (int64_t j = 0; j < in; j++)
            for (int64_t k = 0; k < rank; k++) vb[j * rank + k] += v[i * in + j] * b[i * rank + k];
    memset(pb, 0, (size_t)(out * rank) * sizeof *pb);
    for (int64_t i = 0; i < out; i++)
        for (int64_t j = 0; j < in; j++)
            for (int64_t k = 0; k < rank; k++) pb[i * rank + k] += v[i * in + j] * vb[j * rank + k] / scale;
    free(vb);
    return TM_OK;
}

static double column_dot(const double *x, const double *y, int64_t rows, int64_t x_step, int64_t y_step) {
    double sum = 0;
    for (int64_t i = 0; i < rows; i++) sum += x[i * x_step] * y[i * y_step];
    return sum;
}

/* Gram-Schmidt on V's columns, each cleaned twice; pb = Q Q^T B. */
static void project_exact(double *v, int64_t out, int64_t in, const double *b, int64_t rank, double *pb) {
    int64_t kept = 0;
    memset(pb, 0, (size_t)(out * rank) * sizeof *pb);
    for (int64_t j = 0; j < in && kept < out; j++) {
        double *column = v + j, before = sqrt(column_dot(column, column, out, in, in));
        for (int pass = 0; pass < 2; pass++)
            for (int64_t q = 0; q < kept; q++) {
                double along = column_dot(v + q, column, out, in, in);
                for (int64_t i = 0; i < out; i++) column[i * in] -= along * v[i * in + q];
            }
        double left = sqrt(column_dot(column, column, out, in, in));
        if (left <= 1e-6 * before) continue;
        for (int64_t i = 0; i < out; i++) v[i * in + kept] = column[i * in] / left;
        kept++;
    }
    for (int64_t q = 0; q < kept; q++)
        for (int64_t k = 0; k < rank; k++) {
            double along = column_dot(v + q, b + k, out, in, rank);
            for (int64_t i = 0; i < out; i++) pb[i * rank + k] += along * v[i * in + q];
        }
}

/* <X A, Y A> for X, Y (out, rank), by A A^T (rank, rank). */
static double update_dot(const double *x, const double *y, const double *gram, int64_t out, int64_t rank) {
    double sum = 0;
    for (int64_t k = 0; k < rank; k++)
        for (int64_t l = 0; l < rank; l++) sum += gram[k * rank + l] * column_dot(x + k, y + l, out, rank, rank);
    return sum;
}

tm_status tm__safe_lora_project(double *v, int64_t out, int64_t in, const double *b, const double *a, int64_t rank,
                                int projector, double *pb, double *cosine) {
    double norm = sqrt(column_dot(v, v, out * in, 1, 1));
    *cosine = NAN;
    if (norm == 0) return TM_OK;
    double *gram = tm__alloc((size_t)(rank * rank), sizeof *gram);
    if (!gram) return tm__fail_memory();
    for (int64_t k = 0; k < rank; k++)
        for (int64_t l = 0; l < rank; l++) gram[k * rank + l] = column_dot(a + k * in, a + l * in, in, 1, 1);
    tm_status status = TM_OK;
    if (projector == TM__PROJECT_EXACT)
        project_exact(v, out, in, b, rank, pb);
    else
        status = project_code(v, out, in, b, rank, norm, pb);
    if (status == TM_OK) {
        double whole = update_dot(b, b, gram, out, rank), kept = update_dot(pb, pb, gram, out, rank);
        if (whole > 0) *cosine = kept > 0 ? update_dot(pb, b, gram, out, rank) / sqrt(whole * kept) : 0;
    }
    free(gram);
    return status;
}

/* ---- all modules ------------------------------------------------------------------------------------------------- */

typedef struct module {
    tm__adapter *adapter;
    double *pb, cosine;
} module;

typedef struct work {
    const tm_safe_lora_options *options;
    tm_model *model, *base;
    const tm_model *aligned;
    module *modules;
    size_t count, cap;
} work;

/* V of one linear; the caller's. */
static tm_status difference(const work *w, const tm__linear *aligned, const tm__linear *base, double **v) {
    double *low = NULL;
    if (!tm__tensor_same_shape(&aligned->weight.value, &base->weight.value))
        return tm__fail(TM_MISMATCH, NULL, aligned->weight.name, "all three models must be of one kind",
                        "has another shape in the base model");
    TM__TRY(tm__param_read_all(w->aligned->dev, &aligned->weight, v));
    tm_status status = tm__param_read_all(w->base->dev, &base->weight, &low);
    int64_t count = tm__tensor_count(&aligned->weight.value);
    for (int64_t i = 0; status == TM_OK && i < count; i++) (*v)[i] -= low[i];
    free(low);
    if (status == TM_OK) return TM_OK;
    free(*v);
    *v = NULL;
    return status;
}

static tm_status visit(work *w, int64_t layer, int index) {
    tm__linear *own = tm__block_linear(&w->model->blocks[layer], index);
    tm__adapter *adapter = tm__adapter_find(own, w->model->adapter_count - 1);
    if (!adapter) return TM_OK;
    const tm__linear *aligned = tm__block_linear(&w->aligned->blocks[layer], index);
    if (!tm__tensor_same_shape(&own->weight.value, &aligned->weight.value))
        return tm__fail(TM_MISMATCH, NULL, own->weight.name, "all three models must be of one kind",
                        "has another shape in the aligned model");
    int64_t out = own->weight.value.shape[0], in = own->weight.value.shape[1], rank = adapter->rank;
    double *v = NULL, *a = NULL, *b = NULL;
    if (!tm__grow((void **)&w->modules, &w->cap, w->count + 1, sizeof *w->modules)) return tm__fail_memory();
    module *m = &w->modules[w->count];
    *m = (module){.adapter = adapter, .pb = tm__alloc((size_t)(out * rank), sizeof *m->pb)};
    if (!m->pb) return tm__fail_memory();
    w->count++;
    tm_status status = difference(w, aligned, tm__block_linear(&w->base->blocks[layer], index), &v);
    if (status == TM_OK) status = tm__param_read_all(w->model->dev, &adapter->a, &a);
    if (status == TM_OK) status = tm__param_read_all(w->model->dev, &adapter->b, &b);
    if (status == TM_OK)
        status = tm__safe_lora_project(v, out, in, b, a, rank, w->options->projector, m->pb, &m->cosine);
    free(v);
    free(a);
    free(b);
    return status;
}

/* How many modules have a cosine below this one's (ties: before it). */
static size_t rank_of(const work *w, size_t index) {
    size_t below = 0;
    for (size_t i = 0; i < w->count; i++) {
        double x = w->modules[i].cosine, y = w->modules[index].cosine;
        below += x < y || (x == y && i < index);
    }
    return below;
}

static tm_status project(work *w, const tm_monitor *monitor) {
    size_t projected = 0, empty = 0;
    for (size_t i = 0; i < w->count; i++) {
        module *m = &w->modules[i];
        empty += isnan(m->cosine);
        if (isnan(m->cosine)) continue;
        bool chosen = w->options->lowest ? rank_of(w, i) < (size_t)w->options->lowest : m->cosine <= w->options->tau;
        if (!chosen) continue;
        TM__TRY(tm__param_write(w->model->dev, &m->adapter->b, 0, tm__tensor_count(&m->adapter->b.value), m->pb));
        projected++;
    }
    tm__note(monitor, "safe-lora: %zu of %zu modules projected, %zu without a change to compare", projected, w->count,
             empty);
    return TM_OK;
}

static tm_status load(const work *w, const char *directory, const char *option, tm_model **model) {
    TM__TRY(tm_model_load(w->model->dev, directory, NULL, model));
    if ((*model)->config.layers == w->model->config.layers) return TM_OK;
    return tm__fail(TM_MISMATCH, directory, option, "all three models must be of one kind",
                    "has another number of layers");
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_safe_lora_options o;
    tm_model *aligned = NULL;
    (void)tokenizer, (void)data, (void)train;
    double began = tm__now();
    TM__TRY(tm__options_check(options_table, options, &o));
    if (options) o = *(const tm_safe_lora_options *)options;
    if (!o.base) return tm__fail(TM_INVALID, NULL, "base", NULL, "safe-lora needs the checkpoint before alignment");
    if (model->adapter_count == 0)
        return tm__fail(TM_INVALID, NULL, "adapter", "give the adapter that fine-tuning made", "there is none");
    work w = {.options = &o, .model = model, .aligned = model};
    tm_status status = load(&w, o.base, "base", &w.base);
    if (status == TM_OK && o.aligned) status = load(&w, o.aligned, "aligned", &aligned);
    if (aligned) w.aligned = aligned;
    for (int64_t layer = 0; layer < model->config.layers && status == TM_OK; layer++)
        for (int index = 0; index < TM__LINEARS && status == TM_OK; index++) status = visit(&w, layer, index);
    if (status == TM_OK) status = project(&w, monitor);
    for (size_t i = 0; i < w.count; i++) free(w.modules[i].pb);
    free(w.modules);
    tm_model_free(w.base);
    tm_model_free(aligned);
    if (status == TM_OK && result) *result = (tm_train_result){.seconds = tm__now() - began};
    return status;
}

const tm_method tm__method_safe_lora = {
    .name = "safe-lora",
    .title = "SafeLoRA",
    .paper = "arXiv 2405.16833",
    .summary = "Projects a fine-tuned adapter onto what alignment changed, module by module, where the adapter points "
               "elsewhere.",
    .who = "a fine-tuning service, after a user's LoRA fine-tuning; it needs no data",
    .needs = "none: an adapter, the checkpoint before alignment and the aligned one",
    .settings = "--tau 0.5, or --lowest 10 (released code).",
    .example = "--base before-alignment --adapter tuned",
    .stage = TM_STAGE_POST,
    .edits_adapter = true,
    .train_options = "",
    .options = options_table,
    .options_size = sizeof(tm_safe_lora_options),
    .run = run,
};
