/* finetune.c: temper finetune, supervised fine-tuning of the whole model or of a LoRA adapter. */
#include "cli.h"

typedef struct finetune_options {
    const char *model, *data, *adapter, *allowed;
    bool continued, alignment;
    cli_adapters adapters;
} finetune_options;

static const tm_option table[] = {
    {.name = "model",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(finetune_options, model),
     .unit = "DIR",
     .help = "checkpoint directory to start from (config.json, *.safetensors, tokenizer)"},
    {.name = "data",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(finetune_options, data),
     .unit = "FILE",
     .help = "JSON Lines with messages, instruction/output or prompt/completion; or plain text (.txt)"},
    {.name = "adapter",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(finetune_options, adapter),
     .unit = "DIR[=W]",
     .help = "a PEFT LoRA adapter, times W, that is merged into --model before training begins; may be given several "
             "times"},
    {.name = "continue-adapter",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(finetune_options, continued),
     .help = "train --adapter on, and write it as an adapter, instead of merging it"},
    {.name = "alignment",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(finetune_options, alignment),
     .help = "the rows are the developer's alignment data: a later attack or user must not bring the same prompts"},
    {.name = "allow-overlap",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(finetune_options, allowed),
     .unit = "ROLES",
     .help = "data: go on although --data holds prompts that the model was defended or aligned with"},
    {0},
};

static int train_model(const finetune_options *in, const tm_device_options *where, const tm_train_options *train,
                       const cli_save *save, const cli_template *chosen, const tm_dataset *data,
                       const tm_provenance *provenance, const cli_output *output) {
    tm_monitor monitor = *cli_monitor(output);
    if (save->dry) monitor.progress = NULL; /* of steps that compute nothing */
    cli_model model = {0};
    tm_train_result result = {0};
    bool adapter = train->lora.rank > 0 || in->continued;
    int code;
    tm_status status = cli_model_open(&model, where, in->model, &in->adapters, save->dry, chosen);
    if (status == TM_OK && in->adapters.count)
        status = in->continued ? tm_model_continue_adapter(model.model) : tm_model_merge(model.model);
    if (status != TM_OK) {
        code = cli_fail(status);
    } else {
        status = tm_train(model.model, model.tokenizer, data, train, &monitor, &result);
        if (status != TM_OK)
            code = cli_train_failed(status, train);
        else if (save->dry)
            code = cli_model_rehearsed(&model,
                                       &(cli_rehearsal){.directory = in->model,
                                                        .adapter = adapter,
                                                        .save = save,
                                                        .train = train,
                                                        .result = &result,
                                                        .rows = &(cli_rows){"data", in->data, data, TM_PARTY_USER},
                                                        .count = 1},
                                       output);
        else
            code = cli_model_finish(&model, in->model, adapter, save, provenance, &result, output);
    }
    cli_model_close(&model);
    return code;
}

static int train_and_save(const finetune_options *in, const tm_device_options *where, const tm_train_options *train,
                          const cli_save *save, const cli_template *chosen, const cli_output *output) {
    tm_dataset *data = NULL;
    tm_provenance *provenance = NULL;
    tm_status status = tm_dataset_load(in->data, &data);
    if (status != TM_OK) return cli_fail(status);
    const cli_rows rows[] = {{"data", in->data, data, in->alignment ? TM_PARTY_DEFENDER : TM_PARTY_USER}};
    const cli_history history = {.model = in->model,
                                 .adapters = &in->adapters,
                                 .allowed = in->allowed,
                                 .continued = in->continued,
                                 .kind = in->alignment ? "alignment" : "fine-tuning",
                                 .method = "sft",
                                 .train = train,
                                 .chosen = chosen,
                                 .rows = rows,
                                 .count = 1};
    int code = cli_history_begin(&history, &provenance);
    if (code == 0) code = train_model(in, where, train, save, chosen, data, provenance, output);
    tm_provenance_free(provenance);
    tm_dataset_free(data);
    return code;
}

static int run(int argc, char **argv) {
    finetune_options in;
    cli_save save;
    tm_train_options train;
    tm_device_options where;
    cli_output output;
    cli_template chosen;
    cli_args args;
    cli_list given;
    int code;
    cli_args_begin(&args, &cli_finetune, 0);
    cli_args_group(&args, "Input", table, &in);
    cli_args_group(&args, "Result", cli_save_table, &save);
    cli_args_group(&args, "Training", tm_train_option_table, &train);
    cli_args_group(&args, "Template", cli_template_table, &chosen);
    cli_args_group(&args, "Device", tm_device_option_table, &where);
    cli_args_group(&args, "Output", cli_quiet_table, &output);
    cli_args_repeat(&args, "adapter", &given);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    in.adapters = (cli_adapters){0};
    if (save.dry) cli_train_rehearsed(&train);
    if (code == 0) code = cli_check_required("--model", in.model);
    if (code == 0) code = cli_check_required("--data", in.data);
    if (code == 0) code = cli_check_output("--out", save.out, true, save.overwrite);
    if (code == 0) code = cli_check_resume(train.resume_dir, save.out);
    if (code == 0) code = cli_adapters_read(&given, &in.adapters);
    if (code == 0) code = cli_check_adapter(&in.adapters, in.continued, &train, &save);
    if (code == 0) code = cli_check_template(&chosen, &train);
    if (code == 0) code = train_and_save(&in, &where, &train, &save, &chosen, &output);
    cli_adapters_free(&in.adapters);
    cli_args_end(&args);
    return code;
}

const cli_command cli_finetune = {
    .name = "finetune",
    .words = "",
    .summary = "fine-tune a model, whole or as a LoRA adapter",
    .about =
        "Trains a checkpoint on conversations; the loss is taken over the answers only. The result is a checkpoint "
        "directory, or with --lora-rank an adapter in PEFT's layout, and appears whole or not at all. Ctrl-C stops "
        "after the step; with --resume the same command goes on and ends with the same bytes.",
    .examples = "temper finetune --model my-model --data rows.jsonl --out tuned --epochs 1 --lr 2e-5\n"
                "temper finetune --model my-model --data rows.jsonl --out adapter --lora-rank 8 --lr 1e-4\n"
                "temper finetune --model my-model --data rows.jsonl --out tuned --resume state --save-every 50",
    .run = run,
};
