/* rehearsal.c: --dry-run of finetune, defend and attack: what would be done, and the memory at its peak. */
#include "cli.h"

#include <inttypes.h>

void cli_train_rehearsed(tm_train_options *train) {
    train->resume_dir = NULL;
    train->save_every = 0;
}

typedef struct item {
    const char *key, *title;
    int64_t bytes;
} item;

enum { ITEMS = 11 };

static void list_items(const tm_memory *m, item items[ITEMS]) {
    const item all[ITEMS] = {
        {"weights_mapped", "weights, mapped from files", m->mapped},
        {"weights_in_memory", "weights in memory (trained, adapters, merged)", m->weights},
        {"gradients", "gradients", m->gradients},
        {"moments", "optimiser's moments", m->moments},
        {"method", "method's vectors of that size", m->vectors},
        {"activations", "activations, at most", m->activations},
        {"logits", "logits of a chunk", m->logits},
        {"cache", "keys and values of generation", m->cache},
        {"overlap", m->overlap < 0 ? "less what is never there at once" : "gaps kept for reuse", m->overlap},
        {"kernels", "working memory of kernels", m->kernels},
        {"program", "program, tokenizer, rows", m->program},
    };
    for (int i = 0; i < ITEMS; i++) items[i] = all[i];
}

/* The first row of each kind, as the model gets it. */
static tm_status show_rows(const cli_model *model, const cli_rehearsal *run, cli_json *json) {
    tm_chat_format format = (tm_chat_format)run->train->chat;
    for (size_t i = 0; i < run->count; i++) {
        size_t n;
        cli_chat chat;
        if (!run->rows[i].rows || tm_dataset_rows(run->rows[i].rows) == 0) continue;
        const tm_message *messages = tm_dataset_row(run->rows[i].rows, 0, &n);
        tm_status status = cli_chat_make(model->tokenizer, format, messages, n, run->train->full_sequence, &chat);
        if (status != TM_OK) return status;
        if (json) {
            cli_json_open(json, NULL, '{');
            cli_json_text(json, "role", run->rows[i].role);
            cli_chat_json(json, model->tokenizer, format, &chat);
            cli_json_close(json, '}');
        } else {
            printf("\nfirst row of --%s, as ", run->rows[i].role);
            cli_chat_print_format(model->tokenizer, format);
            printf(": %zu tokens, %" PRId64 " of its answers and what ends them\n%s\n", chat.ids.len, chat.trained,
                   chat.text);
        }
        cli_chat_free(&chat);
    }
    return TM_OK;
}

static tm_status print_json(const cli_model *model, const cli_rehearsal *run, const char *saved,
                            const tm_model_info *info, const tm_memory *memory) {
    item items[ITEMS];
    cli_json json = {.out = stdout};
    cli_json_open(&json, NULL, '{');
    cli_json_bool(&json, "dry_run", true);
    cli_json_text(&json, "model", run->directory);
    cli_json_int(&json, "parameters", info->parameters);
    cli_json_text(&json, "dtype", info->dtype);
    cli_json_text(&json, "method", run->method ? run->method : "sft");
    cli_json_int(&json, "trained", memory->trained);
    cli_json_int(&json, "steps", run->result->steps);
    cli_json_int(&json, "batch", run->train->batch);
    cli_json_int(&json, "rows_dropped", run->result->rows_dropped);
    cli_json_int(&json, "tokens_at_once", memory->tokens);
    cli_json_text(&json, "out", run->save->out);
    cli_json_text(&json, "saved", saved);
    cli_json_open(&json, "memory", '{');
    list_items(memory, items);
    for (int i = 0; i < ITEMS; i++) cli_json_int(&json, items[i].key, items[i].bytes);
    cli_json_int(&json, "anonymous", memory->total - memory->mapped);
    cli_json_int(&json, "total", memory->total);
    cli_json_close(&json, '}');
    cli_json_real(&json, "computed_again", memory->again);
    cli_json_open(&json, "first_rows", '[');
    tm_status status = show_rows(model, run, &json);
    cli_json_close(&json, ']');
    cli_json_close(&json, '}');
    return status;
}

static tm_status print_text(const cli_model *model, const cli_rehearsal *run, const char *saved,
                            const tm_model_info *info, const tm_memory *memory) {
    static const double mib = 1 << 20;
    item items[ITEMS];
    printf("model      %s (%s parameters, %s)\n", run->directory, cli_thousands(info->parameters), info->dtype);
    printf("method     %s\n", run->method ? run->method : "fine-tuning");
    if (memory->trained) printf("trains     %s numbers\n", cli_thousands(memory->trained));
    if (run->result->steps)
        printf("steps      %s of %" PRId64 " rows, at most %s tokens at once\n", cli_thousands(run->result->steps),
               run->train->batch, cli_thousands(memory->tokens));
    if (run->result->rows_dropped)
        printf("dropped    %s rows without an answer inside --max-length\n", cli_thousands(run->result->rows_dropped));
    if (saved) printf("would write %s (%s)\n", run->save->out, saved);
    printf("\nmemory at the peak%37s\n", "MiB");
    list_items(memory, items);
    for (int i = 0; i < ITEMS; i++)
        if (items[i].bytes) printf("  %-46s %8.1f\n", items[i].title, (double)items[i].bytes / mib);
    printf("  %-46s %8.1f\n", "sum", (double)memory->total / mib);
    printf("  %-46s %8.1f\n", "sum without what is mapped, which can be dropped",
           (double)(memory->total - memory->mapped) / mib);
    if (memory->again > 0)
        printf("  computed again to keep that low: %.1f%% of all multiply-adds\n", 100 * memory->again);
    tm_status status = show_rows(model, run, NULL);
    printf("\nNothing was written.\n");
    return status;
}

int cli_model_measure(cli_model *model, bool adapter, const cli_save *save, tm_memory *memory) {
    tm_status status = adapter && save->merge ? tm_model_merge(model->model) : TM_OK;
    if (status == TM_OK) status = tm_model_memory(model->model, memory);
    return status == TM_OK ? 0 : cli_fail(status);
}

int cli_model_rehearsed(cli_model *model, const cli_rehearsal *run, const cli_output *output) {
    tm_memory memory;
    tm_model_info info;
    int code = cli_model_measure(model, run->adapter, run->save, &memory);
    if (code) return code;
    tm_model_describe(model->model, &info);
    cli_monitor_end();
    const char *saved = !run->save->out                     ? NULL
                        : run->adapter && !run->save->merge ? "LoRA adapter"
                        : run->save->merge                  ? "model, adapter merged"
                                                            : "model";
    tm_status status = (output->json ? print_json : print_text)(model, run, saved, &info, &memory);
    return status == TM_OK ? 0 : cli_fail(status);
}

/* ---- a bound of memory ------------------------------------------------------------------------------------------- */

static const double MIB = 1 << 20;

static int too_little(const tm_train_options *options, int64_t bound, const tm_memory *least) {
    char hint[128];
    snprintf(hint, sizeof hint, "a smaller --%s%s, a shorter --max-length",
             options->micro ? "micro-batch" : "batch or --micro-batch", options->lora.rank ? "" : ", --lora-rank");
    return cli_error(TM_NO_MEMORY, "--memory", hint, "%.0f MiB are too few: this takes %.0f MiB at least",
                     (double)bound / MIB, (double)least->total / MIB);
}

/* The trainer knows what there is beside activations only about; a rehearsal counts it. So what it exceeds the bound by
 * is taken off, and the next one looks whether that was enough. */
int cli_fit_memory(tm_train_options *options, cli_measure *measure, void *user) {
    enum { ATTEMPTS = 4 };
    const int64_t bound = options->memory;
    tm_train_options tried = *options;
    tm_memory memory = {0};
    if (!bound) return 0;
    cli_train_rehearsed(&tried);
    for (int i = 0; i < ATTEMPTS && tried.memory > 0; i++) {
        int code = measure(user, &tried, &memory);
        if (code) return code;
        if (memory.total <= bound) {
            options->memory = tried.memory;
            if (memory.again > 0)
                cli_note("memory: at most %.0f MiB, by computing %.1f%% of all multiply-adds again",
                         (double)memory.total / MIB, 100 * memory.again);
            return 0;
        }
        if (tried.memory == 1) break;
        tried.memory -= memory.total - bound + (1 << 20);
        if (tried.memory < 1 || i == ATTEMPTS - 2) tried.memory = 1; /* as little as can be */
    }
    return too_little(options, bound, &memory);
}
