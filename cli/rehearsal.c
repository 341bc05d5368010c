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

enum { ITEMS = 10 };

static void list_items(const tm_memory *m, item items[ITEMS]) {
    const item all[ITEMS] = {
        {"weights_mapped", "weights, mapped from files", m->mapped},
        {"weights_in_memory", "weights in memory (trained, adapters, merged)", m->weights},
        {"gradients", "gradients", m->gradients},
        {"moments", "optimiser's moments", m->moments},
        {"method", "method's vectors of that size", m->vectors},
        {"activations", "activations of the largest batch", m->activations},
        {"logits", "logits of a chunk", m->logits},
        {"cache", "keys and values of generation", m->cache},
        {"kernels", "working memory of kernels", m->kernels},
        {"program", "program, tokenizer, rows", m->program},
    };
    for (int i = 0; i < ITEMS; i++) items[i] = all[i];
}

static void print_json(const char *directory, const char *method, const char *saved, const cli_save *save,
                       const tm_model_info *info, const tm_train_options *train, const tm_train_result *result,
                       const tm_memory *memory) {
    item items[ITEMS];
    cli_json json = {.out = stdout};
    cli_json_open(&json, NULL, '{');
    cli_json_bool(&json, "dry_run", true);
    cli_json_text(&json, "model", directory);
    cli_json_int(&json, "parameters", info->parameters);
    cli_json_text(&json, "dtype", info->dtype);
    cli_json_text(&json, "method", method ? method : "sft");
    cli_json_int(&json, "trained", memory->trained);
    cli_json_int(&json, "steps", result->steps);
    cli_json_int(&json, "batch", train->batch);
    cli_json_int(&json, "rows_dropped", result->rows_dropped);
    cli_json_int(&json, "tokens_at_once", memory->tokens);
    cli_json_text(&json, "out", save->out);
    cli_json_text(&json, "saved", saved);
    cli_json_open(&json, "memory", '{');
    list_items(memory, items);
    for (int i = 0; i < ITEMS; i++) cli_json_int(&json, items[i].key, items[i].bytes);
    cli_json_int(&json, "anonymous", memory->total - memory->mapped);
    cli_json_int(&json, "total", memory->total);
    cli_json_close(&json, '}');
    cli_json_close(&json, '}');
}

static void print_text(const char *directory, const char *method, const char *saved, const cli_save *save,
                       const tm_model_info *info, const tm_train_options *train, const tm_train_result *result,
                       const tm_memory *memory) {
    static const double mib = 1 << 20;
    item items[ITEMS];
    printf("model      %s (%s parameters, %s)\n", directory, cli_thousands(info->parameters), info->dtype);
    printf("method     %s\n", method ? method : "fine-tuning");
    if (memory->trained) printf("trains     %s numbers\n", cli_thousands(memory->trained));
    if (result->steps)
        printf("steps      %s of %" PRId64 " rows, at most %s tokens at once\n", cli_thousands(result->steps),
               train->batch, cli_thousands(memory->tokens));
    if (result->rows_dropped)
        printf("dropped    %s rows without an answer inside --max-length\n", cli_thousands(result->rows_dropped));
    if (saved) printf("would write %s (%s)\n", save->out, saved);
    printf("\nmemory at the peak%37s\n", "MiB");
    list_items(memory, items);
    for (int i = 0; i < ITEMS; i++)
        if (items[i].bytes) printf("  %-46s %8.1f\n", items[i].title, (double)items[i].bytes / mib);
    printf("  %-46s %8.1f\n", "sum", (double)memory->total / mib);
    printf("  %-46s %8.1f\n", "sum without what is mapped, which can be dropped",
           (double)(memory->total - memory->mapped) / mib);
    printf("\nNothing was written.\n");
}

int cli_model_rehearsed(cli_model *model, const char *directory, const char *method, bool adapter, const cli_save *save,
                        const tm_train_options *train, const tm_train_result *result, const cli_output *output) {
    tm_memory memory;
    tm_model_info info;
    tm_status status = adapter && save->merge ? tm_model_merge(model->model) : TM_OK;
    if (status == TM_OK) status = tm_model_memory(model->model, &memory);
    if (status != TM_OK) return cli_fail(status);
    tm_model_describe(model->model, &info);
    cli_monitor_end();
    const char *saved = !save->out                ? NULL
                        : adapter && !save->merge ? "LoRA adapter"
                        : save->merge             ? "model, adapter merged"
                                                  : "model";
    (output->json ? print_json : print_text)(directory, method, saved, save, &info, train, result, &memory);
    return 0;
}
