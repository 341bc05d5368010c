/* model.c: opening a model for a command, and saving what training made of it. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

tm_status cli_model_open(cli_model *model, const tm_device_options *where, const char *directory,
                         const cli_adapters *adapters, bool rehearse, const cli_template *chosen) {
    *model = (cli_model){0};
    tm_status status =
        rehearse ? tm_device_open_rehearsal(where, &model->device) : tm_device_open(where, &model->device);
    if (status == TM_OK) status = tm_model_load(model->device, directory, NULL, &model->model);
    for (size_t i = 0; adapters && i < adapters->count && status == TM_OK; i++)
        status = tm_model_add_adapter(model->model, adapters->items[i].directory, adapters->items[i].weight);
    if (status == TM_OK) status = tm_tokenizer_load(directory, &model->tokenizer);
    if (status == TM_OK && chosen)
        status = tm_tokenizer_use_template(model->tokenizer, chosen->name, chosen->variables);
    if (status != TM_OK) cli_model_close(model);
    return status;
}

void cli_model_close(cli_model *model) {
    tm_tokenizer_free(model->tokenizer);
    tm_model_free(model->model);
    tm_device_close(model->device);
    *model = (cli_model){0};
}

const tm_option cli_save_table[] = {
    {.name = "out",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(cli_save, out),
     .unit = "DIR",
     .help = "write the result here: a checkpoint directory, or with --lora-rank an adapter in PEFT's layout"},
    {.name = "overwrite",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(cli_save, overwrite),
     .help = "replace --out if it exists, in one step and only once the new one is complete"},
    {.name = "merge",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(cli_save, merge),
     .help = "with --lora-rank: add the adapter to the weights and write the whole model"},
    {.name = "save-dtype",
     .type = TM_OPTION_CHOICE,
     .offset = offsetof(cli_save, dtype),
     .initial = "keep",
     .choices = "keep|fp32|bf16|fp16",
     .help = "number format of the written weights; keep: as in --model"},
    {.name = "dry-run",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(cli_save, dry),
     .help = "check everything, print what would be done and how much memory it takes, and write nothing"},
    {0},
};

int cli_check_adapter(const cli_adapters *adapters, bool continued, const tm_train_options *train,
                      const cli_save *save) {
    bool adapter = adapters->count > 0;
    if (continued && !adapter)
        return cli_error(TM_INVALID, "--continue-adapter", "give --adapter", "there is no adapter to continue");
    if (continued && train->lora.rank > 0)
        return cli_error(TM_INVALID, "--lora-rank", "leave it out: the adapter has its own",
                         "--continue-adapter trains the adapter that is there");
    if (continued)
        return cli_check_one_adapter(adapters, "--continue-adapter trains one adapter, as it is, on its own model");
    if (save->merge && train->lora.rank == 0)
        return cli_error(TM_INVALID, "--merge", "without --lora-rank the whole model is trained and written anyway",
                         "there is no adapter to merge");
    if (adapter && train->lora.rank > 0 && !save->merge)
        return cli_error(TM_INVALID, "--adapter", "give --merge to write the whole model",
                         "a new adapter on top of a merged one would fit no model on disk");
    return 0;
}

int cli_train_failed(tm_status status, const tm_train_options *train) {
    int code = cli_fail(status);
    if (status != TM_INTERRUPTED) return code;
    if (train->resume_dir)
        cli_note("The state is in %s; the same command goes on from there.", train->resume_dir);
    else
        cli_note("Nothing was written; with --resume DIR a stopped run can go on where it was.");
    return code;
}

void cli_print_result(const char *directory, const char *saved, const cli_save *save, const tm_train_result *result,
                      bool as_json) {
    if (as_json) {
        cli_json json = {.out = stdout};
        cli_json_open(&json, NULL, '{');
        cli_json_text(&json, "model", directory);
        cli_json_text(&json, "out", save->out);
        cli_json_text(&json, "saved", saved);
        cli_json_int(&json, "steps", result->steps);
        cli_json_int(&json, "tokens", result->tokens);
        cli_json_int(&json, "target_tokens", result->target_tokens);
        cli_json_int(&json, "rows_dropped", result->rows_dropped);
        cli_json_real(&json, "padding", result->padding);
        cli_json_real(&json, "first_loss", result->first_loss);
        cli_json_real(&json, "last_loss", result->last_loss);
        cli_json_real(&json, "seconds", result->seconds);
        cli_json_bool(&json, "resumed", result->resumed);
        cli_json_close(&json, '}');
        return;
    }
    if (result->steps == 0) { /* a method that trains nothing */
        printf("time       %.1f s\n", result->seconds);
        if (saved) printf("written    %s (%s)\n", save->out, saved);
        return;
    }
    printf("steps      %s%s\n", cli_thousands(result->steps), result->resumed ? " (resumed)" : "");
    printf("tokens     %s, of which %s %s\n", cli_thousands(result->tokens), cli_thousands(result->target_tokens),
           saved ? "trained on" : "of targets");
    if (result->padding > 0) printf("padding    %.1f%% of the positions computed\n", 100 * result->padding);
    if (result->rows_dropped)
        printf("dropped    %s rows without an answer inside --max-length\n", cli_thousands(result->rows_dropped));
    printf("loss       %.4f -> %.4f (%s)\n", result->first_loss, result->last_loss,
           saved ? "mean of the first and of the last tenth of the steps" : "before the first and after the last step");
    printf("time       %.1f s\n", result->seconds);
    if (saved) printf("written    %s (%s)\n", save->out, saved);
}

int cli_model_finish(cli_model *model, const char *directory, bool adapter, const cli_save *save,
                     const tm_provenance *provenance, const tm_train_result *result, const cli_output *output) {
    tm_save_options how = {.dtype = save->dtype,
                           .shard_bytes = 5000000000,
                           .tokenizer_dir = directory,
                           .tokenizer = model->tokenizer,
                           .overwrite = save->overwrite,
                           .provenance = provenance};
    tm_status status = TM_OK;
    if (adapter && save->merge) status = tm_model_merge(model->model);
    adapter = adapter && !save->merge;
    if (status == TM_OK && tm_ranks_rank() == 0)
        status = adapter ? tm_model_save_adapter(model->model, save->out, &how)
                         : tm_model_save(model->model, save->out, &how);
    status = tm_ranks_agree(status);
    if (status != TM_OK) return cli_fail(status);
    cli_monitor_end();
    cli_print_result(directory,
                     adapter       ? "LoRA adapter"
                     : save->merge ? "model, adapter merged"
                                   : "model",
                     save, result, output->json);
    return 0;
}
