/* represent.c: hidden states of harmful and harmless prompts in several models: their principal components, per layer,
 * and a linear probe's accuracy.
 *
 * After RepNoise (D. Rosati et al., arXiv 2405.14577), which shows components of states of harmful and harmless text
 * before and after its training, and probes them. How the paper fits its components, at which tokens it reads, and how
 * it trains its probe is not known here: axes are by default those of the first model, so that a picture shows what
 * became of the directions in which it told the two apart; position and fit are options. The probe's control, fitted on
 * shuffled labels, is after Hewitt and Liang 2019 (arXiv 1909.03368).
 * Layers are worked on side by side, each by one thread: the same bytes for every number of threads.
 * Pinned by tests/unit/test_represent.c and tests/golden/test_represent_golden.c.
 */
#include "eval/represent.h"

#include "eval/suite.h"
#include "train/train.h"

#include <stdlib.h>

enum { SHUFFLES = 5 };

const tm_option tm_represent_option_table[] = {
    {"position", TM_OPTION_CHOICE, offsetof(tm_represent_options, position), "last", 1, 0, "last|prompt|answer", NULL,
     "which states: of the prompt's last token, the mean over the prompt, or the mean over the answer, which rows must "
     "then have"},
    {"fit", TM_OPTION_CHOICE, offsetof(tm_represent_options, fit), "first", 1, 0, "first|union|each", NULL,
     "principal components of the first model, with the others projected on them; of all models together; or of each "
     "by itself"},
    {"layers", TM_OPTION_TEXT, offsetof(tm_represent_options, layers), NULL, 1, 0, NULL, "LIST",
     "\"0,4-8\": 0 the embedding, l after block l, the last after the final norm; default: all"},
    {"components", TM_OPTION_INT, offsetof(tm_represent_options, components), "2", 2, 64, NULL, "axes",
     "principal components; pictures show the first two"},
    {"limit", TM_OPTION_INT, offsetof(tm_represent_options, limit), "100", 0, 1e6, NULL, "rows",
     "rows of each kind, drawn by seed; 0: all"},
    {"max-length", TM_OPTION_INT, offsetof(tm_represent_options, max_length), "1024", 1, 1e9, NULL, "tokens",
     "longer rows are left out"},
    {"seed", TM_OPTION_INT, offsetof(tm_represent_options, seed), "0", 0, 9007199254740992.0, NULL, NULL,
     "of the draw of rows, the probe's halves and the control's labels"},
    {"c", TM_OPTION_REAL, offsetof(tm_represent_options, c), "1", 1e-9, 1e9, NULL, NULL,
     "inverse strength of the probe's L2 penalty, as in scikit-learn"},
    {"chat", TM_OPTION_CHOICE, offsetof(tm_represent_options, chat), "auto", 1, 0,
     "auto|chatml|llama2|alpaca|plain|question|template", NULL, "how conversations become text"},
    {0},
};

/* ---- making one -------------------------------------------------------------------------------------------------- */

tm_status tm_representation_create(const tm_dataset *harmful, const tm_dataset *harmless,
                                   const tm_represent_options *options, tm_representation **representation) {
    tm_represent_options checked;
    TM__TRY(tm__options_check(tm_represent_option_table, options, &checked));
    if (options) checked.layers = options->layers;
    tm_representation *r = tm__zalloc(1, sizeof *r);
    if (!r) return tm__fail_memory();
    r->data[0] = harmless;
    r->data[1] = harmful;
    r->options = checked;
    *representation = r;
    return TM_OK;
}

static void forget_rows(tm_representation *r) {
    for (size_t i = 0; i < r->count; i++) {
        tm_ids_free(&r->rows[i].ids);
        tm_ids_free(&r->rows[i].labels);
    }
    free(r->rows);
    free(r->layers);
    free(r->format);
    r->rows = NULL;
    r->layers = NULL;
    r->format = NULL;
    r->count = r->train = r->of[0] = r->of[1] = 0;
}

static void forget_model(tm__represent_model *m) {
    free(m->name);
    free(m->states);
    free(m->points);
    free(m->explained);
    free(m->own);
    free(m->layers);
}

void tm_representation_free(tm_representation *r) {
    if (!r) return;
    forget_rows(r);
    for (size_t i = 0; i < r->model_count; i++) forget_model(&r->models[i]);
    free(r->models);
    free(r);
}

static tm_status bad_layers(const tm_representation *r, const char *what) {
    return tm__fail(TM_INVALID, NULL, "layers", "numbers and ranges: \"0,4-8\"",
                    "'%.80s' %s; this model's are 0 to %lld", r->options.layers, what, (long long)r->depth);
}

/* Marks what a list names. */
static tm_status mark_layers(const tm_representation *r, bool *marked) {
    for (const char *at = r->options.layers; at;) {
        char *end;
        long first = strtol(at, &end, 10), last = first;
        if (end == at || *at == '-' || *at == ' ') return bad_layers(r, "is no list of layers");
        if (*end == '-') {
            at = end + 1;
            last = strtol(at, &end, 10);
            if (end == at || *at == '-' || *at == ' ') return bad_layers(r, "is no list of layers");
        }
        if (first > last || last > r->depth) return bad_layers(r, "names a layer that is not there");
        for (long l = first; l <= last; l++) marked[l] = true;
        if (*end && *end != ',') return bad_layers(r, "is no list of layers");
        at = *end ? end + 1 : NULL;
    }
    return TM_OK;
}

static tm_status choose_layers(tm_representation *r) {
    bool *marked = tm__zalloc((size_t)r->depth + 1, sizeof *marked);
    r->layers = tm__alloc((size_t)r->depth + 1, sizeof *r->layers);
    tm_status status = marked && r->layers ? mark_layers(r, marked) : tm__fail_memory();
    r->layer_count = 0;
    for (int64_t l = 0; l <= r->depth && status == TM_OK; l++)
        if (!r->options.layers || marked[l]) r->layers[r->layer_count++] = l;
    free(marked);
    return status;
}

static tm_status begin(tm_representation *r, const tm_model *model, const tm_tokenizer *tokenizer,
                       const tm_monitor *monitor) {
    r->depth = model->config.layers;
    r->width = model->config.hidden;
    r->format = tm__strdup(tm_chat_format_name(tm_chat_resolve(tokenizer, (tm_chat_format)r->options.chat)));
    tm_status status = r->format ? choose_layers(r) : tm__fail_memory();
    if (status == TM_OK) status = tm__represent_choose(r, tokenizer, monitor);
    if (status != TM_OK) forget_rows(r);
    return status;
}

static tm_status check_fit(const tm_representation *r, const tm_model *model, const tm_tokenizer *tokenizer,
                           const char *name) {
    static const char hint[] = "compare models of one shape";
    const tm__config *c = &model->config;
    for (size_t i = 0; i < r->model_count; i++)
        if (strcmp(r->models[i].name, name) == 0)
            return tm__fail(TM_INVALID, name, NULL, "give it another: NAME=DIR", "two models have this name");
    if (c->layers != r->depth)
        return tm__fail(TM_MISMATCH, name, NULL, hint, "has %lld blocks, %s has %lld", (long long)c->layers,
                        r->models[0].name, (long long)r->depth);
    if (c->hidden != r->width)
        return tm__fail(TM_MISMATCH, name, NULL, hint, "has width %lld, %s has %lld", (long long)c->hidden,
                        r->models[0].name, (long long)r->width);
    return tm__represent_compare(r, tokenizer, name);
}

tm_status tm_representation_add(tm_representation *r, const char *name, tm_model *model, const tm_tokenizer *tokenizer,
                                const tm_monitor *monitor) {
    tm__represent_model made = {0};
    if (r->finished) return tm__fail(TM_INVALID, name, NULL, NULL, "models are added before the result is finished");
    if (!tm__utf8_valid(name, strlen(name)))
        return tm__fail(TM_INVALID, name, NULL, "give it another: NAME=DIR", "the model's name is not UTF-8");
    if (r->model_count == 0)
        TM__TRY(begin(r, model, tokenizer, monitor));
    else
        TM__TRY(check_fit(r, model, tokenizer, name));
    made.name = tm__strdup(name);
    made.states = tm__alloc((size_t)(r->layer_count * r->width) * r->count, sizeof *made.states);
    tm_status status = made.name && made.states ? TM_OK : tm__fail_memory();
    if (status == TM_OK) status = tm__represent_read(r, model, name, monitor, made.states);
    if (status == TM_OK) status = tm_model_hash(model, made.hash);
    if (status == TM_OK && !tm__grow((void **)&r->models, &r->model_cap, r->model_count + 1, sizeof made))
        status = tm__fail_memory();
    if (status == TM_OK) {
        r->models[r->model_count++] = made;
        return TM_OK;
    }
    forget_model(&made);
    if (r->model_count == 0) forget_rows(r);
    return status;
}

/* ---- components -------------------------------------------------------------------------------------------------- */

/* Rows of models [first, first + count) in a layer; `half` -1: all of them, else those of that half. */
static tm__points gather(const tm_representation *r, int64_t layer, size_t first, size_t count, int half,
                         const float **x) {
    tm__points points = {.x = x, .d = r->width};
    for (size_t m = first; m < first + count; m++)
        for (size_t i = 0; i < r->count; i++)
            if (half < 0 || r->rows[i].train == (half != 0))
                x[points.n++] = r->models[m].states + ((size_t)layer * r->count + i) * (size_t)r->width;
    return points;
}

static tm_status components(tm_representation *r, int64_t layer, const float **x) {
    const int64_t k = r->options.components, d = r->width;
    const int fit = r->options.fit;
    double *centre = tm__alloc((size_t)(d * (k + 1)), sizeof *centre), *axes = centre + d;
    tm_status status = centre ? TM_OK : TM_NO_MEMORY;
    for (size_t m = 0; m < r->model_count && status == TM_OK; m++) {
        tm__represent_model *model = &r->models[m];
        double *explained = model->explained + layer * k;
        if (fit == TM_REPRESENT_FIT_EACH || m == 0) {
            size_t from = fit == TM_REPRESENT_FIT_UNION ? r->model_count : 1;
            tm__points points = gather(r, layer, m, from, -1, x);
            status = tm__pca_fit(&points, k, centre, axes, explained);
        } else {
            memcpy(explained, r->models[0].explained + layer * k, (size_t)k * sizeof *explained);
        }
        if (status != TM_OK) break;
        tm__points points = gather(r, layer, m, 1, -1, x);
        tm__pca_project(&points, k, centre, axes, model->points + layer * k * (int64_t)r->count,
                        model->own + layer * k);
    }
    free(centre);
    return status;
}

/* ---- probes ------------------------------------------------------------------------------------------------------ */

typedef struct half {
    tm__points points;
    bool *labels;
} half;

static half gather_half(const tm_representation *r, size_t m, int64_t layer, bool train, const float **x,
                        bool *labels) {
    half h = {.points = gather(r, layer, m, 1, train, x), .labels = labels};
    size_t n = 0;
    for (size_t i = 0; i < r->count; i++)
        if (r->rows[i].train == train) labels[n++] = r->rows[i].harmful;
    return h;
}

static double correct(const double *f, const half *h) {
    double sum = 0;
    for (int64_t i = 0; i < h->points.n; i++) sum += (f[i] > 0) == h->labels[i];
    return sum;
}

/* The same shuffles for every layer and model. */
static tm_status control(const tm_representation *r, const tm__probe *probe, const half *train, const half *test,
                         double *w, double *f, tm_represent_layer *out) {
    const size_t n = (size_t)train->points.n;
    size_t *order = tm__alloc(n, sizeof *order);
    bool *labels = tm__alloc(n, sizeof *labels);
    tm_status status = order && labels ? TM_OK : TM_NO_MEMORY;
    for (uint32_t s = 0; s < SHUFFLES && status == TM_OK; s++) {
        tm__rng rng = tm__rng_make((uint64_t)r->options.seed, tm__stream(TM__STREAM_PROBE, 2 + s));
        const half shuffled = {train->points, labels};
        double bias;
        for (size_t i = 0; i < n; i++) order[i] = i;
        tm__rng_shuffle(&rng, order, n);
        for (size_t i = 0; i < n; i++) labels[i] = train->labels[order[i]];
        status = tm__probe_fit(probe, labels, r->options.c, w, &bias);
        if (status != TM_OK) break;
        tm__probe_apply(probe, w, bias, &test->points, f);
        out->control += correct(f, test) / (double)test->points.n / SHUFFLES;
        tm__probe_apply(probe, w, bias, &train->points, f);
        out->control_train += correct(f, &shuffled) / (double)n / SHUFFLES;
    }
    free(order);
    free(labels);
    return status;
}

static tm_status measure(const tm_representation *r, const half *train, const half *test, double *w, double *f,
                         tm_represent_layer *out) {
    tm__probe probe;
    double bias, n = (double)test->points.n;
    tm_status status = tm__probe_prepare(&train->points, &probe);
    if (status == TM_OK) status = tm__probe_fit(&probe, train->labels, r->options.c, w, &bias);
    if (status == TM_OK) {
        tm__probe_apply(&probe, w, bias, &train->points, f);
        out->train_accuracy = correct(f, train) / (double)train->points.n;
        tm__probe_apply(&probe, w, bias, &test->points, f);
        double right = correct(f, test);
        out->accuracy.value = right / n;
        tm__wilson(right, n, &out->accuracy.low, &out->accuracy.high);
        out->auc = tm__probe_auc(f, test->labels, test->points.n);
        status = control(r, &probe, train, test, w, f, out);
    }
    tm__probe_release(&probe);
    return status;
}

static tm_status probe_layer(tm_representation *r, int64_t layer, const float **x) {
    double *w = tm__alloc((size_t)r->width, sizeof *w), *f = tm__alloc(r->count, sizeof *f);
    bool *labels = tm__alloc(r->count, sizeof *labels);
    tm_status status = w && f && labels ? TM_OK : TM_NO_MEMORY;
    for (size_t m = 0; m < r->model_count && status == TM_OK; m++) {
        const half train = gather_half(r, m, layer, true, x, labels);
        const half test = gather_half(r, m, layer, false, x + r->train, labels + r->train);
        status = measure(r, &train, &test, w, f, &r->models[m].layers[layer]);
    }
    free(w);
    free(f);
    free(labels);
    return status;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static tm_status work_layer(tm_representation *r, int64_t layer) {
    const float **x = tm__alloc(r->count * r->model_count, sizeof *x);
    tm_status status = x ? components(r, layer, x) : TM_NO_MEMORY;
    if (status == TM_OK) status = probe_layer(r, layer, x);
    free(x);
    return status;
}

static tm_status prepare_model(const tm_representation *r, tm__represent_model *m) {
    const int64_t k = r->options.components;
    const size_t layers = (size_t)r->layer_count;
    free(m->points); /* of a finish that failed */
    free(m->explained);
    free(m->own);
    free(m->layers);
    m->points = tm__zalloc(layers * r->count * (size_t)k, sizeof *m->points);
    m->explained = tm__zalloc(layers * (size_t)k, sizeof *m->explained);
    m->own = tm__zalloc(layers * (size_t)k, sizeof *m->own);
    m->layers = tm__zalloc(layers, sizeof *m->layers);
    if (!m->points || !m->explained || !m->own || !m->layers) return tm__fail_memory();
    for (int64_t l = 0; l < r->layer_count; l++)
        m->layers[l] = (tm_represent_layer){.layer = r->layers[l],
                                            .points = m->points + l * k * (int64_t)r->count,
                                            .explained = m->explained + l * k,
                                            .own = m->own + l * k};
    return TM_OK;
}

tm_status tm_representation_finish(tm_representation *r, const tm_device *device) {
    if (r->model_count == 0) return tm__fail(TM_INVALID, NULL, NULL, NULL, "no model was added");
    if (r->finished) return TM_OK;
    for (size_t m = 0; m < r->model_count; m++) TM__TRY(prepare_model(r, &r->models[m]));
    tm_status *done = tm__zalloc((size_t)r->layer_count, sizeof *done), status = TM_OK;
    if (!done) return tm__fail_memory();
    int threads = tm_device_threads(device);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t l = 0; l < r->layer_count; l++) done[l] = work_layer(r, l);
    for (int64_t l = 0; l < r->layer_count && status == TM_OK; l++) {
        if (done[l] == TM_NO_MEMORY)
            status = tm__fail_memory();
        else if (done[l] != TM_OK)
            status = tm__fail(done[l], NULL, "c", "a smaller c is easier to fit",
                              "components or probe of layer %lld were not found", (long long)r->layers[l]);
    }
    free(done);
    r->finished = status == TM_OK;
    return status;
}

/* ---- reading the result ------------------------------------------------------------------------------------------ */

size_t tm_representation_models(const tm_representation *r) {
    return r->model_count;
}

const char *tm_representation_name(const tm_representation *r, size_t model) {
    return model < r->model_count ? r->models[model].name : NULL;
}

bool tm_representation_row(const tm_representation *r, size_t index, tm_represent_row *row) {
    if (index >= r->count) return false;
    *row = (tm_represent_row){r->rows[index].harmful, r->rows[index].train, r->rows[index].row};
    return true;
}

bool tm_representation_layer(const tm_representation *r, size_t model, size_t index, tm_represent_layer *layer) {
    if (!r->finished || model >= r->model_count || index >= (size_t)r->layer_count) return false;
    *layer = r->models[model].layers[index];
    return true;
}
