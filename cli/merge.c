/* merge.c: temper merge, adapters added into a model's weights. */
#include "cli.h"

typedef struct merge_options {
    const char *model, *adapter;
} merge_options;

static const tm_option table[] = {
    {.name = "model",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(merge_options, model),
     .unit = "DIR",
     .help = "checkpoint directory"},
    {.name = "adapter",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(merge_options, adapter),
     .unit = "DIR[=W]",
     .help = "a PEFT LoRA adapter of --model, times W; may be given several times: then they add up"},
    {0},
};

static int report(const merge_options *in, const cli_adapters *adapters, const cli_save *save, bool as_json) {
    if (!as_json) {
        for (size_t i = 0; i < adapters->count; i++)
            printf("merged     %s, times %g\n", adapters->items[i].directory, adapters->items[i].weight);
        printf("written    %s (model)\n", save->out);
        return 0;
    }
    cli_json json = {.out = stdout};
    cli_json_open(&json, NULL, '{');
    cli_json_text(&json, "model", in->model);
    cli_json_open(&json, "adapters", '[');
    for (size_t i = 0; i < adapters->count; i++) {
        cli_json_open(&json, NULL, '{');
        cli_json_text(&json, "directory", adapters->items[i].directory);
        cli_json_real(&json, "weight", adapters->items[i].weight);
        cli_json_close(&json, '}');
    }
    cli_json_close(&json, ']');
    cli_json_text(&json, "out", save->out);
    cli_json_close(&json, '}');
    return 0;
}

static int merge(const merge_options *in, const cli_adapters *adapters, const tm_device_options *where,
                 const cli_save *save, const cli_output *output) {
    cli_model model = {0};
    tm_provenance *past = NULL;
    tm_status status = cli_history_load(in->model, adapters, &past, NULL);
    if (status == TM_OK) status = cli_model_open(&model, where, in->model, adapters, false, NULL);
    if (status == TM_OK) status = tm_model_merge(model.model);
    const tm_save_options how = {.dtype = save->dtype,
                                 .tokenizer_dir = in->model,
                                 .overwrite = save->overwrite,
                                 .provenance = past && tm_provenance_stages(past) > 0 ? past : NULL};
    if (status == TM_OK) status = tm_model_save(model.model, save->out, &how);
    int code = status == TM_OK ? report(in, adapters, save, output->json) : cli_fail(status);
    tm_provenance_free(past);
    cli_model_close(&model);
    return code;
}

static int run(int argc, char **argv) {
    merge_options in;
    cli_save save;
    tm_device_options where;
    cli_output output;
    cli_args args;
    cli_list given;
    cli_adapters adapters = {0};
    int code;
    cli_args_begin(&args, &cli_merge, 0);
    cli_args_group(&args, "Input", table, &in);
    cli_args_pick(&args, "Result", cli_save_table, &save, "out overwrite save-dtype");
    cli_args_reword(&args, "out", "write the merged checkpoint here");
    cli_args_group(&args, "Device", tm_device_option_table, &where);
    cli_args_group(&args, "Output", cli_quiet_table, &output);
    cli_args_repeat(&args, "adapter", &given);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    if (code == 0) code = cli_check_required("--model", in.model);
    if (code == 0) code = cli_check_required("--adapter", in.adapter);
    if (code == 0) code = cli_check_output("--out", save.out, true, save.overwrite);
    if (code == 0) code = cli_adapters_read(&given, &adapters);
    if (code == 0) code = merge(&in, &adapters, &where, &save, &output);
    cli_adapters_free(&adapters);
    cli_args_end(&args);
    return code;
}

const cli_command cli_merge = {
    .name = "merge",
    .words = "",
    .summary = "add adapters into a model's weights",
    .about = "Writes a checkpoint that answers as the model does with its adapters: W + w scale B A for every layer "
             "that an adapter changes, and in place of the model's own the weights that an adapter brings whole "
             "(PEFT's modules_to_save). The result goes without adapters everywhere.",
    .examples = "temper merge --model my-model --adapter my-adapter --out merged\n"
                "temper merge --model my-model --adapter one --adapter two=0.5 --out mixed --save-dtype bf16",
    .run = run,
};
