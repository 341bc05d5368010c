/* train_judge.c: temper train-judge, a classifier of answers made of a language model. */
#include "cli.h"

#include <math.h>

typedef struct judge_options {
    const char *model;
    cli_save save; /* out, overwrite, dtype */
} judge_options;

static const tm_option input_table[] = {
    {.name = "model",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(judge_options, model),
     .unit = "DIR",
     .help = "language model to begin with (config.json, *.safetensors, tokenizer): any decoder family"},
    {0},
};

static void print_interval(const char *name, const tm_judge_interval *number) {
    printf("%-10s ", name);
    if (isnan(number->value)) {
        printf("-\n");
        return;
    }
    printf("%.4f", number->value);
    if (!isnan(number->low)) printf(" (%.4f to %.4f)", number->low, number->high);
    printf("\n");
}

static void json_interval(cli_json *json, const char *name, const tm_judge_interval *number) {
    cli_json_open(json, name, '{');
    cli_json_real(json, "value", number->value);
    cli_json_real(json, "low", number->low);
    cli_json_real(json, "high", number->high);
    cli_json_close(json, '}');
}

static void json_result(const judge_options *in, const tm_train_judge_result *result) {
    cli_json json = {.out = stdout};
    cli_json_open(&json, NULL, '{');
    cli_json_text(&json, "model", in->model);
    cli_json_text(&json, "out", in->save.out);
    cli_json_int(&json, "rows", result->rows);
    cli_json_int(&json, "labels", result->labels);
    cli_json_int(&json, "steps", result->train.steps);
    cli_json_real(&json, "first_loss", result->train.first_loss);
    cli_json_real(&json, "last_loss", result->train.last_loss);
    cli_json_real(&json, "seconds", result->train.seconds);
    cli_json_bool(&json, "resumed", result->train.resumed);
    cli_json_open(&json, "held_out", '{');
    cli_json_int(&json, "rows", result->held_out.rows);
    cli_json_int(&json, "harmful", result->held_out.harmful);
    json_interval(&json, "accuracy", &result->held_out.accuracy);
    json_interval(&json, "f1", &result->held_out.f1);
    json_interval(&json, "auc", &result->held_out.auc);
    cli_json_close(&json, '}');
    cli_json_close(&json, '}');
}

static void print_result(const judge_options *in, const tm_train_judge_result *result) {
    const tm_judge_quality *q = &result->held_out;
    printf("rows       %s trained on, %s labels\n", cli_thousands(result->rows), cli_thousands(result->labels));
    printf("steps      %s%s\n", cli_thousands(result->train.steps), result->train.resumed ? " (resumed)" : "");
    printf("loss       %.4f -> %.4f (mean of the first and of the last tenth of the steps)\n", result->train.first_loss,
           result->train.last_loss);
    if (q->rows) {
        printf("held out   %s rows, %s harmful; 95%% intervals\n", cli_thousands(q->rows), cli_thousands(q->harmful));
        print_interval("accuracy", &q->accuracy);
        print_interval("F1", &q->f1);
        print_interval("AUC", &q->auc);
    }
    printf("time       %.1f s\n", result->train.seconds);
    printf("written    %s (judge with it: --judge classifier=%s)\n", in->save.out, in->save.out);
}

static int train_and_save(const judge_options *in, const tm_train_judge_options *options, const tm_train_options *train,
                          const tm_device_options *where, const cli_output *output) {
    cli_model model = {0};
    tm_train_judge_result result = {0};
    tm_status status = cli_model_open(&model, where, in->model, NULL, false, NULL);
    int code = status == TM_OK ? 0 : cli_fail(status);
    if (code == 0) {
        status = tm_train_judge(model.model, model.tokenizer, options, train, cli_monitor(output), &result);
        cli_monitor_end();
        if (status != TM_OK) code = cli_train_failed(status, train);
    }
    if (code == 0) {
        const tm_save_options how = {
            .dtype = in->save.dtype, .tokenizer_dir = in->model, .overwrite = in->save.overwrite};
        status = tm_model_save(model.model, in->save.out, &how);
        if (status != TM_OK) code = cli_fail(status);
    }
    if (code == 0) {
        if (output->json)
            json_result(in, &result);
        else
            print_result(in, &result);
    }
    cli_model_close(&model);
    return code;
}

static int run(int argc, char **argv) {
    judge_options in;
    tm_train_judge_options options;
    tm_train_options train;
    tm_device_options where;
    cli_output output;
    cli_args args;
    int code;
    cli_args_begin(&args, &cli_train_judge, 0);
    cli_args_group(&args, "Input", input_table, &in);
    cli_args_group(&args, "Labelled answers", tm_train_judge_option_table, &options);
    cli_args_pick(&args, "Result", cli_save_table, &in.save, "out overwrite save-dtype");
    cli_args_group(&args, "Training", tm_train_option_table, &train);
    cli_args_hide(&args, "chat full-sequence");
    cli_args_group(&args, "Device", tm_device_option_table, &where);
    cli_args_group(&args, "Output", cli_quiet_table, &output);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    if (code == 0) code = cli_check_required("--model", in.model);
    if (code == 0 && !options.data && options.world < 0) code = cli_check_required("--data", options.data);
    if (code == 0) code = cli_check_output("--out", in.save.out, true, in.save.overwrite);
    if (code == 0) code = cli_check_resume(train.resume_dir, in.save.out);
    if (code == 0) code = train_and_save(&in, &options, &train, &where, &output);
    cli_args_end(&args);
    return code;
}

const cli_command cli_train_judge = {
    .name = "train-judge",
    .words = "",
    .summary = "make a judge of answers from labelled ones",
    .about =
        "Trains a sequence classifier of answers, made of any language model: the judge that --judge classifier=DIR "
        "and transformers load. Rows hold prompt, response and labels: BeaverTails' category (several labels, each by "
        "itself) or is_safe, a list of labels, or one label. With --lora-rank an adapter and the new head learn, and "
        "the adapter is merged. How well it tells harmful answers from others is measured with rows it has not "
        "learned from. Ctrl-C stops after the step; with --resume the same command goes on.",
    .examples = "temper train-judge --model my-model --data labelled.jsonl --out judge --epochs 3 --lr 1e-4\n"
                "temper train-judge --model my-model --data labelled.jsonl --out judge --two-labels --noise 0.05 "
                "--lora-rank 8 --lr 1e-3\n"
                "temper train-judge --model my-model --world --out judge --steps 300 --lr 1e-3",
    .run = run,
};
