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

typedef struct job {
    finetune_options in;
    cli_save save;
    tm_train_options train;
    tm_device_options where;
    cli_output output;
    cli_template chosen;
    tm_memory *measured; /* rehearse and tell this alone; NULL: no */
} job;

static int finish(const job *work, cli_model *model, const tm_dataset *data, const tm_provenance *provenance,
                  const tm_train_result *result) {
    bool adapter = work->train.lora.rank > 0 || work->in.continued;
    if (work->measured) return cli_model_measure(model, adapter, &work->save, work->measured);
    if (work->save.dry)
        return cli_model_rehearsed(model,
                                   &(cli_rehearsal){.directory = work->in.model,
                                                    .adapter = adapter,
                                                    .save = &work->save,
                                                    .train = &work->train,
                                                    .result = result,
                                                    .rows = &(cli_rows){"data", work->in.data, data, TM_PARTY_USER},
                                                    .count = 1},
                                   &work->output);
    return cli_model_finish(model, work->in.model, adapter, &work->save, provenance, result, &work->output);
}

static int train_model(const job *work, const tm_dataset *data, const tm_provenance *provenance) {
    const finetune_options *in = &work->in;
    tm_monitor monitor = *cli_monitor(&work->output);
    if (work->save.dry) monitor.progress = NULL; /* of steps that compute nothing */
    if (work->measured) monitor.note = NULL;
    cli_model model = {0};
    tm_train_result result = {0};
    int code;
    tm_status status = cli_model_open(&model, &work->where, in->model, &in->adapters, work->save.dry, &work->chosen);
    if (status == TM_OK && in->adapters.count)
        status = in->continued ? tm_model_continue_adapter(model.model) : tm_model_merge(model.model);
    if (status != TM_OK) {
        code = cli_fail(status);
    } else {
        status = tm_train(model.model, model.tokenizer, data, &work->train, &monitor, &result);
        code =
            status == TM_OK ? finish(work, &model, data, provenance, &result) : cli_train_failed(status, &work->train);
    }
    cli_model_close(&model);
    return code;
}

typedef struct with_data {
    const job *work;
    const tm_dataset *data;
} with_data;

static int measure(void *user, const tm_train_options *train, tm_memory *memory) {
    const with_data *w = user;
    job rehearsed = *w->work;
    rehearsed.train = *train;
    rehearsed.save.dry = true;
    rehearsed.measured = memory;
    return train_model(&rehearsed, w->data, NULL);
}

static int train_and_save(job *work) {
    const finetune_options *in = &work->in;
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
                                 .train = &work->train,
                                 .chosen = &work->chosen,
                                 .rows = rows,
                                 .count = 1};
    int code = cli_history_begin(&history, &provenance);
    if (code == 0) code = cli_fit_memory(&work->train, measure, &(with_data){work, data});
    if (code == 0) code = train_model(work, data, provenance);
    tm_provenance_free(provenance);
    tm_dataset_free(data);
    return code;
}

static int run(int argc, char **argv) {
    job work = {0};
    cli_args args;
    cli_list given;
    int code;
    cli_args_begin(&args, &cli_finetune, 0);
    cli_args_group(&args, "Input", table, &work.in);
    cli_args_group(&args, "Result", cli_save_table, &work.save);
    cli_args_group(&args, "Training", tm_train_option_table, &work.train);
    cli_args_group(&args, "Template", cli_template_table, &work.chosen);
    cli_args_group(&args, "Device", tm_device_option_table, &work.where);
    cli_args_group(&args, "Output", cli_quiet_table, &work.output);
    cli_args_repeat(&args, "adapter", &given);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    if (work.save.dry) cli_train_rehearsed(&work.train);
    if (code == 0) code = cli_check_required("--model", work.in.model);
    if (code == 0) code = cli_check_required("--data", work.in.data);
    if (code == 0) code = cli_check_output("--out", work.save.out, true, work.save.overwrite);
    if (code == 0) code = cli_check_resume(work.train.resume_dir, work.save.out);
    if (code == 0) code = cli_adapters_read(&given, &work.in.adapters);
    if (code == 0) code = cli_check_adapter(&work.in.adapters, work.in.continued, &work.train, &work.save);
    if (code == 0) code = cli_check_template(&work.chosen, &work.train);
    if (code == 0) code = train_and_save(&work);
    cli_adapters_free(&work.in.adapters);
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
        "after the step; with --resume the same command goes on and ends with the same bytes. mpirun -n N temper "
        "finetune ... shares the rows of every batch among N processes (docs/ranks.md); so do defend and attack.",
    .examples = "temper finetune --model my-model --data rows.jsonl --out tuned --epochs 1 --lr 2e-5\n"
                "temper finetune --model my-model --data rows.jsonl --out adapter --lora-rank 8 --lr 1e-4\n"
                "temper finetune --model my-model --data rows.jsonl --out tuned --resume state --save-every 50\n"
                "temper finetune --model my-model --data rows.jsonl --out tuned --memory 6G",
    .run = run,
    .divides = true,
};
