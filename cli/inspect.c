/* inspect.c: temper inspect, what is in a checkpoint: shape of the model, history, tensors, content hash. */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct inspect_options {
    const char *model, *adapter;
    bool tensors, norms, hash, json;
    cli_adapters adapters;
} inspect_options;

static const tm_option table[] = {
    {.name = "model",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(inspect_options, model),
     .unit = "DIR",
     .help = "checkpoint directory (config.json, *.safetensors)"},
    {.name = "adapter",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(inspect_options, adapter),
     .unit = "DIR[=W]",
     .help = "a PEFT LoRA adapter of --model, times W, shown with it; may be given several times"},
    {.name = "tensors",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(inspect_options, tensors),
     .help = "list every tensor"},
    {.name = "norms",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(inspect_options, norms),
     .help = "list every tensor with its Euclidean norm"},
    {.name = "hash",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(inspect_options, hash),
     .help = "SHA-256 over names, shapes, dtypes and bytes of all weights"},
    {.name = "json", .type = TM_OPTION_FLAG, .offset = offsetof(inspect_options, json), .help = "print JSON"},
    {0},
};

typedef struct lister {
    cli_json *json; /* NULL: a table */
    bool norms;
} lister;

static tm_status list_weight(void *user, const tm_weight_info *weight) {
    const lister *to = user;
    if (to->json) {
        cli_json_open(to->json, NULL, '{');
        cli_json_text(to->json, "name", weight->name);
        cli_json_text(to->json, "dtype", weight->dtype);
        cli_json_open(to->json, "shape", '[');
        for (int i = 0; i < weight->ndim; i++) cli_json_int(to->json, NULL, weight->shape[i]);
        cli_json_close(to->json, ']');
        if (to->norms) cli_json_real(to->json, "norm", weight->norm);
        cli_json_bool(to->json, "adapter", weight->adapter);
        cli_json_close(to->json, '}');
        return TM_OK;
    }
    char shape[64] = "";
    for (int i = 0, at = 0; i < weight->ndim && at < (int)sizeof shape; i++)
        at += snprintf(shape + at, sizeof shape - (size_t)at, i ? " x %" PRId64 : "%" PRId64, weight->shape[i]);
    printf("%-6s %16s", weight->dtype, shape);
    if (to->norms) printf(" %12.6g", weight->norm);
    printf("  %s\n", weight->name);
    return TM_OK;
}

/* What there is no word about is as in plain attention. */
static void print_positions(const tm_model_info *info) {
    printf("positions      %s\n", cli_thousands(info->max_positions));
    printf("rotation       base %g", info->rope_theta);
    if (strcmp(info->rope_type, "default") != 0) printf(", %s scaling by %g", info->rope_type, info->rope_factor);
    if (info->rope_original_positions) printf(" from %s positions", cli_thousands(info->rope_original_positions));
    if (info->rotary != info->head_dim)
        printf(", %" PRId64 " of %" PRId64 " dimensions of a head", info->rotary, info->head_dim);
    putchar('\n');
    if (info->window)
        printf("window         %s tokens in %" PRId64 " of %" PRId64 " layers\n", cli_thousands(info->window),
               info->window_layers, info->layers);
    if (info->attention_cap > 0) printf("soft cap       %g of attention scores\n", info->attention_cap);
    if (info->final_cap > 0) printf("soft cap       %g of logits\n", info->final_cap);
}

static void print_summary(const inspect_options *in, const tm_model_info *info) {
    printf("model          %s\n", in->model);
    printf("architecture   %s\n", info->architecture);
    printf("parameters     %s (%s)\n", cli_thousands(info->parameters), info->dtype);
    printf("layers         %" PRId64 "\n", info->layers);
    printf("hidden         %" PRId64 ", feed-forward %" PRId64 "\n", info->hidden_size, info->intermediate_size);
    printf("heads          %" PRId64 ", of which %" PRId64 " for keys and values, %" PRId64 " wide\n", info->heads,
           info->kv_heads, info->head_dim);
    printf("vocabulary     %s, embeddings %s\n", cli_thousands(info->vocab_size),
           info->tied_embeddings ? "tied" : "not tied");
    print_positions(info);
    if (info->labels) printf("labels         %" PRId64 "\n", info->labels);
    for (size_t i = 0; i < in->adapters.count; i++)
        printf("%-14s %s, times %g\n", i ? "" : "adapters", in->adapters.items[i].directory,
               in->adapters.items[i].weight);
}

static void json_positions(cli_json *json, const tm_model_info *info) {
    cli_json_int(json, "max_positions", info->max_positions);
    cli_json_open(json, "rope", '{');
    cli_json_text(json, "type", info->rope_type);
    cli_json_real(json, "theta", info->rope_theta);
    cli_json_real(json, "factor", info->rope_factor);
    if (info->rope_original_positions) cli_json_int(json, "original_positions", info->rope_original_positions);
    cli_json_int(json, "dimensions", info->rotary);
    cli_json_close(json, '}');
    if (info->window) {
        cli_json_int(json, "window", info->window);
        cli_json_int(json, "window_layers", info->window_layers);
    }
    if (info->attention_cap > 0) cli_json_real(json, "attention_soft_cap", info->attention_cap);
    if (info->final_cap > 0) cli_json_real(json, "logit_soft_cap", info->final_cap);
}

static void json_summary(cli_json *json, const inspect_options *in, const tm_model_info *info) {
    cli_json_text(json, "model", in->model);
    cli_json_text(json, "architecture", info->architecture);
    cli_json_int(json, "parameters", info->parameters);
    cli_json_text(json, "dtype", info->dtype);
    cli_json_int(json, "layers", info->layers);
    cli_json_int(json, "hidden_size", info->hidden_size);
    cli_json_int(json, "intermediate_size", info->intermediate_size);
    cli_json_int(json, "heads", info->heads);
    cli_json_int(json, "kv_heads", info->kv_heads);
    cli_json_int(json, "head_dim", info->head_dim);
    cli_json_int(json, "vocab_size", info->vocab_size);
    json_positions(json, info);
    cli_json_bool(json, "tied_embeddings", info->tied_embeddings);
    if (info->labels) cli_json_int(json, "labels", info->labels);
    cli_json_open(json, "adapters", '[');
    for (size_t i = 0; i < in->adapters.count; i++) {
        cli_json_open(json, NULL, '{');
        cli_json_text(json, "directory", in->adapters.items[i].directory);
        cli_json_real(json, "weight", in->adapters.items[i].weight);
        cli_json_close(json, '}');
    }
    cli_json_close(json, ']');
}

/* The model's past, and the adapter's behind it: one line a stage, or a list of texts. */
static tm_status print_history(const inspect_options *in, cli_json *json) {
    tm_provenance *past = NULL;
    tm_status status = cli_history_load(in->model, &in->adapters, &past, NULL);
    size_t count = status == TM_OK ? tm_provenance_stages(past) : 0;
    if (json && count) cli_json_open(json, "history", '[');
    for (size_t i = 0; i < count && status == TM_OK; i++) {
        char *line;
        status = tm_provenance_describe(past, i, &line);
        if (status != TM_OK) break;
        if (json)
            cli_json_text(json, NULL, line);
        else
            printf("%-14s %zu. %s\n", i ? "" : "history", i + 1, line);
        free(line);
    }
    if (json && count) cli_json_close(json, ']');
    tm_provenance_free(past);
    return status;
}

static tm_status print_model(const inspect_options *in, const tm_model *model) {
    tm_model_info info;
    char hash[65];
    cli_json writer = {.out = stdout};
    lister to = {.json = in->json ? &writer : NULL, .norms = in->norms};
    tm_status status = in->hash ? tm_model_hash(model, hash) : TM_OK;
    if (status != TM_OK) return status;
    tm_model_describe(model, &info);
    if (in->json) {
        cli_json_open(&writer, NULL, '{');
        json_summary(&writer, in, &info);
        if (in->hash) cli_json_text(&writer, "sha256", hash);
        status = print_history(in, &writer);
    } else {
        print_summary(in, &info);
        if (in->hash) printf("sha256         %s\n", hash);
        status = print_history(in, NULL);
    }
    if (status == TM_OK && (in->tensors || in->norms)) {
        if (in->json)
            cli_json_open(&writer, "tensors", '[');
        else
            putchar('\n');
        status = tm_model_visit(model, in->norms, list_weight, &to);
        if (in->json) cli_json_close(&writer, ']');
    }
    if (in->json) cli_json_close(&writer, '}');
    return status;
}

static bool has_file(const char *directory, const char *name) {
    char path[4096];
    struct stat info;
    int n = snprintf(path, sizeof path, "%s/%s", directory, name);
    return n > 0 && n < (int)sizeof path && stat(path, &info) == 0;
}

static int inspect(const inspect_options *in, const tm_device_options *where) {
    if (!has_file(in->model, "config.json") && has_file(in->model, "adapter_config.json"))
        return cli_error(TM_INVALID, in->model, "inspect it with --model BASE --adapter DIR",
                         "is an adapter, which means nothing without its model");
    tm_device *device = NULL;
    tm_model *model = NULL;
    tm_status status = tm_device_open(where, &device);
    if (status == TM_OK) status = tm_model_load(device, in->model, NULL, &model);
    for (size_t i = 0; i < in->adapters.count && status == TM_OK; i++)
        status = tm_model_add_adapter(model, in->adapters.items[i].directory, in->adapters.items[i].weight);
    if (status == TM_OK) status = print_model(in, model);
    int code = status == TM_OK ? 0 : cli_fail(status);
    tm_model_free(model);
    tm_device_close(device);
    return code;
}

static int run(int argc, char **argv) {
    inspect_options in;
    tm_device_options where;
    cli_args args;
    cli_list given;
    int code;
    cli_args_begin(&args, &cli_inspect, 1);
    cli_args_group(&args, "Options", table, &in);
    cli_args_group(&args, "Device", tm_device_option_table, &where);
    cli_args_repeat(&args, "adapter", &given);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    in.adapters = (cli_adapters){0};
    if (args.word_count && in.model)
        code = cli_error(TM_INVALID, "DIR", NULL, "'%.80s' and --model name two models", args.words[0]);
    if (args.word_count) in.model = args.words[0];
    if (code == 0) code = cli_check_required("--model", in.model);
    if (code == 0) code = cli_adapters_read(&given, &in.adapters);
    if (code == 0) code = inspect(&in, &where);
    cli_adapters_free(&in.adapters);
    cli_args_end(&args);
    return code;
}

const cli_command cli_inspect = {
    .name = "inspect",
    .words = "[DIR]",
    .summary = "show what is in a checkpoint",
    .about = "Loads a checkpoint as training would, every check included, and prints the model's shape and, where "
             "Temper made it, what was done to it with which rows; on request its tensors, their norms, and a hash "
             "that changes with any weight.",
    .examples = "temper inspect my-model\n"
                "temper inspect my-model --hash --tensors\n"
                "temper inspect --model my-model --adapter my-adapter --norms --json",
    .run = run,
};
