/* represent.c: temper represent: hidden states of harmful and harmless prompts in models side by side. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct represent_options {
    const char *model, *compare, *adapter, *harmful, *harmless, *out;
    int64_t world;
    int split;
    bool overwrite;
} represent_options;

static const tm_option table[] = {
    {.name = "model",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(represent_options, model),
     .unit = "DIR",
     .help = "checkpoint directory of the first model, the one before; NAME=DIR: what pictures call it"},
    {.name = "adapter",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(represent_options, adapter),
     .unit = "DIR[=W]",
     .help = "a PEFT LoRA adapter of --model, times W; may be given several times"},
    {.name = "compare",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(represent_options, compare),
     .min = 1,
     .unit = "DIR",
     .help = "a model to show beside it: a checkpoint directory, or a PEFT adapter that is put on --model; NAME=DIR "
             "as there; may be given several times"},
    {.name = "harmful",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(represent_options, harmful),
     .unit = "FILE",
     .help = "harmful prompts: conversations, or one prompt per line (.txt)"},
    {.name = "harmless",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(represent_options, harmless),
     .unit = "FILE",
     .help = "harmless prompts"},
    {.name = "world",
     .type = TM_OPTION_INT,
     .offset = offsetof(represent_options, world),
     .initial = "0",
     .min = 0,
     .max = 9007199254740992.0,
     .unit = "[SEED=1]",
     .help = "prompts of the built-in world of this seed (1 if none is named) instead of files: forbidden recipes, and "
             "those of dishes, which are asked for in the same words"},
    {.name = "split",
     .type = TM_OPTION_CHOICE,
     .offset = offsetof(represent_options, split),
     .initial = "test",
     .choices = "defender|attacker|development|test|withheld",
     .help = "with --world: which forbidden items are asked for"},
    {0},
};

static const tm_option out_table[] = {
    {.name = "out",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(represent_options, out),
     .unit = TM_UNIT_OUT_DIR,
     .help = "write tables, JSON and pictures here"},
    {.name = "overwrite",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(represent_options, overwrite),
     .help = "replace --out if it exists"},
    {0},
};

/* ---- prompts ----------------------------------------------------------------------------------------------------- */

typedef struct prompts {
    tm_dataset *harmful, *harmless;
} prompts;

static tm_status world_prompts(const represent_options *in, prompts *p) {
    static const char *const splits[] = {"defender", "attacker", "development", "test", "withheld"};
    tm_world *world = NULL;
    char name[64];
    snprintf(name, sizeof name, "forbidden-%s", splits[in->split]);
    tm_status status = tm_world_create((uint64_t)in->world, &world);
    if (status == TM_OK) status = tm_world_set(world, name, &p->harmful);
    if (status == TM_OK) status = tm_world_set(world, "benign-dishes-test", &p->harmless);
    tm_world_free(world);
    return status;
}

static tm_status file_prompts(const represent_options *in, prompts *p) {
    tm_status status = tm_dataset_load_prompts(in->harmful, &p->harmful);
    if (status == TM_OK) status = tm_dataset_load_prompts(in->harmless, &p->harmless);
    return status;
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

typedef struct named {
    char name[128];
    const char *directory;
} named;

/* "NAME=DIR", or a directory that is called by the last part of its path. */
static named read_named(const char *text) {
    const char *equals = strchr(text, '=');
    named n = {.directory = text};
    if (equals && equals > text && access(text, F_OK) != 0) {
        snprintf(n.name, sizeof n.name, "%.*s", (int)(equals - text), text);
        n.directory = equals + 1;
        return n;
    }
    size_t len = strlen(text), from;
    while (len > 1 && text[len - 1] == '/') len--;
    for (from = len; from > 0 && text[from - 1] != '/'; from--) {
    }
    snprintf(n.name, sizeof n.name, "%.*s", (int)(len - from), text + from);
    return n;
}

static bool is_adapter(const char *directory) {
    char path[4096];
    int len = snprintf(path, sizeof path, "%s/adapter_config.json", directory);
    return len > 0 && (size_t)len < sizeof path && access(path, F_OK) == 0;
}

typedef struct job {
    const represent_options *in;
    const tm_device_options *where;
    const cli_adapters *adapters;
    const cli_template *chosen;
    const cli_output *output;
    tm_representation *result;
} job;

/* Only one model is held at a time. */
static tm_status add_model(const job *j, const named *base, const named *which, bool last) {
    cli_model model;
    bool adapter = which != base && is_adapter(which->directory), own = which == base || adapter;
    tm_status status = cli_model_open(&model, j->where, own ? base->directory : which->directory,
                                      own ? j->adapters : NULL, false, j->chosen);
    if (status != TM_OK) return status;
    if (adapter) status = tm_model_add_adapter(model.model, which->directory, 1);
    if (status == TM_OK)
        status = tm_representation_add(j->result, which->name, model.model, model.tokenizer, cli_monitor(j->output));
    if (status == TM_OK && last) status = tm_representation_finish(j->result, model.device);
    cli_model_close(&model);
    return status;
}

/* ---- what is told ------------------------------------------------------------------------------------------------ */

static void print_result(const tm_representation *r) {
    tm_represent_layer l;
    tm_represent_row row;
    size_t rows = 0, test = 0;
    for (; tm_representation_row(r, rows, &row); rows++) test += !row.train;
    printf("%-24s %5s  %8s  %-16s %6s  %7s  %15s\n", "model", "layer", "accuracy", "95 % interval", "auc", "control",
           "PC 1, PC 2, own");
    for (size_t m = 0; m < tm_representation_models(r); m++)
        for (size_t i = 0; tm_representation_layer(r, m, i, &l); i++)
            printf("%-24s %5lld  %8.3f  [%.3f, %.3f]   %6.3f  %7.3f  %6.3f, %6.3f\n", tm_representation_name(r, m),
                   (long long)l.layer, l.accuracy.value, l.accuracy.low, l.accuracy.high, l.auc, l.control, l.own[0],
                   l.own[1]);
    printf(
        "\nA linear probe on %zu rows held out of %zu; control: the same probe fitted on shuffled labels; own: share "
        "of the\nmodel's variance along the axes.\n",
        test, rows);
}

static int tell(const job *j) {
    if (j->in->out) {
        tm_status status = tm_representation_save(j->result, j->in->out, j->in->overwrite, cli_monitor(j->output));
        if (status != TM_OK) return cli_fail(status);
    }
    if (j->output->json) {
        char *text;
        tm_status status = tm_representation_json(j->result, &text);
        if (status != TM_OK) return cli_fail(status);
        puts(text);
        free(text);
        return 0;
    }
    print_result(j->result);
    if (j->in->out) printf("written    %s\n", j->in->out);
    return 0;
}

static int work(const represent_options *in, const tm_represent_options *how, const cli_list *compare,
                const tm_device_options *where, const cli_adapters *adapters, const cli_template *chosen,
                const cli_output *output) {
    prompts p = {0};
    job j = {.in = in, .where = where, .adapters = adapters, .chosen = chosen, .output = output};
    named base = read_named(in->model);
    tm_status status = in->harmful ? file_prompts(in, &p) : world_prompts(in, &p);
    if (status == TM_OK) status = tm_representation_create(p.harmful, p.harmless, how, &j.result);
    if (status == TM_OK) status = add_model(&j, &base, &base, compare->count == 0);
    for (size_t i = 0; i < compare->count && status == TM_OK; i++) {
        named which = read_named(compare->items[i]);
        status = add_model(&j, &base, &which, i + 1 == compare->count);
    }
    cli_monitor_end();
    int code = status == TM_OK ? tell(&j) : cli_fail(status);
    tm_representation_free(j.result);
    tm_dataset_free(p.harmful);
    tm_dataset_free(p.harmless);
    return code;
}

/* Before the first model is read, which may take hours. */
static int check_names(const represent_options *in, const cli_list *compare) {
    for (size_t i = 0; i < compare->count; i++) {
        named which = read_named(compare->items[i]);
        for (size_t k = 0; k <= i; k++) {
            named other = read_named(k ? compare->items[k - 1] : in->model);
            if (strcmp(which.name, other.name) == 0)
                return cli_error(TM_INVALID, which.name, "give it another: NAME=DIR", "two models have this name");
        }
    }
    return 0;
}

static int check(const represent_options *in, bool world) {
    int code = cli_check_required("--model", in->model);
    if (code) return code;
    if (world == (in->harmful != NULL) || world == (in->harmless != NULL))
        return cli_error(TM_INVALID, NULL, "--harmful FILE --harmless FILE, or --world",
                         "give both files of prompts, or the built-in world");
    /* What may be replaced is the library's to say. */
    return in->out && !in->overwrite ? cli_check_output("--out", in->out, true, false) : 0;
}

static int run(int argc, char **argv) {
    represent_options in;
    tm_represent_options how;
    tm_device_options where;
    cli_output output;
    cli_template chosen;
    cli_args args;
    cli_list given, compare;
    cli_adapters adapters = {0};
    tm_train_options train = {0};
    int code;
    cli_args_begin(&args, &cli_represent, 0);
    cli_args_group(&args, "Input", table, &in);
    cli_args_group(&args, "States", tm_represent_option_table, &how);
    cli_args_group(&args, "Template", cli_template_table, &chosen);
    cli_args_group(&args, "Device", tm_device_option_table, &where);
    cli_args_group(&args, "Output", out_table, &in);
    cli_args_group(&args, "Printing", cli_quiet_table, &output);
    cli_args_repeat(&args, "adapter", &given);
    cli_args_repeat(&args, "compare", &compare);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    train.chat = how.chat;
    code = check(&in, cli_args_given(&args, "world"));
    if (code == 0) code = check_names(&in, &compare);
    if (code == 0) code = cli_check_template(&chosen, &train);
    if (code == 0) code = cli_adapters_read(&given, &adapters);
    if (code == 0) code = work(&in, &how, &compare, &where, &adapters, &chosen, &output);
    cli_adapters_free(&adapters);
    cli_args_end(&args);
    return code;
}

const cli_command cli_represent = {
    .name = "represent",
    .words = "",
    .summary = "where models hold harmful and harmless prompts, layer by layer",
    .about = "Reads the hidden states of harmful and of harmless prompts after every block, in one model or in several "
             "side by side (before and after a defence), and shows them on their principal components; and fits a "
             "linear probe on half of the prompts of each layer that tells harmful from harmless, with its accuracy on "
             "the other half. With --out DIR: representation.json, points.csv, layers.csv, and the pictures components "
             "and probe as SVG, PNG and gnuplot script.",
    .examples = "temper represent --model aligned --compare defended --harmful harmful.jsonl --harmless alpaca.jsonl "
                "--out states\n"
                "temper represent --model before=aligned --compare after=defended-adapter --harmful harmful.jsonl "
                "--harmless alpaca.jsonl --position answer --out states\n"
                "temper represent --model temper-demo/models/aligned --compare temper-demo/models/sdd --world --out "
                "states",
    .run = run,
};
