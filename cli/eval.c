/* eval.c: temper eval: suites by name (suites.c), or as short forms cross-entropy on a data file and the built-in
 * world's scores. */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct eval_options {
    const char *model, *adapter, *data, *judge, *secret, *system, *wrapper, *out;
    int64_t world;
    int split;
    bool list, dry_run, overwrite;
} eval_options;

static const tm_option table[] = {
    {.name = "list",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(eval_options, list),
     .help = "say which suites there are; with names, what they read and whose numbers they compare with"},
    {.name = "model",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(eval_options, model),
     .unit = "DIR",
     .help = "checkpoint directory"},
    {.name = "adapter",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(eval_options, adapter),
     .unit = "DIR[=W]",
     .help = "a PEFT LoRA adapter of --model, times W; may be given several times"},
    {.name = "data",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(eval_options, data),
     .unit = "[NAME=]PATH",
     .min = 1,
     .help = "data of the suite NAME, may be given several times; without suites, conversations with answers: "
             "cross-entropy and perplexity of the answers"},
    {.name = "judge",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(eval_options, judge),
     .min = 1,
     .unit = "NAME[=PATH][,...]",
     .help = "who judges the answers of suites, as temper judge --list names them; may be given several times; default "
             "for suites of harmful prompts: keywords"},
    {.name = "secret",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(eval_options, secret),
     .unit = "FILE",
     .help = "BackdoorAlign's secret: goes before the system message of every prompt"},
    {.name = "system",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(eval_options, system),
     .unit = "TEXT",
     .help = "with --secret: the system message of prompts that have none, as in training"},
    {.name = "wrapper",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(eval_options, wrapper),
     .min = 1,
     .unit = "FILE|NAME",
     .help = "frame around every prompt: a file of identity-shift's --wrapper-out, or identity-shift[=AGENT]"},
    {.name = "world",
     .type = TM_OPTION_INT,
     .offset = offsetof(eval_options, world),
     .initial = "0",
     .min = 0,
     .max = 9007199254740992.0,
     .unit = "[SEED=1]",
     .help = "scores in the built-in world of this seed (1 if none is named): leak, comply, refuse, skills"},
    {.name = "split",
     .type = TM_OPTION_CHOICE,
     .offset = offsetof(eval_options, split),
     .initial = "test",
     .choices = "defender|attacker|development|test|withheld",
     .help = "with --world: which forbidden items are asked for"},
    {.name = "dry-run",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(eval_options, dry_run),
     .help = "with suites: read the data, say how much there is to ask and how much judges behind an endpoint would be "
             "asked, and ask nothing"},
    {0},
};

static const tm_option out_table[] = {
    {.name = "out",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(eval_options, out),
     .unit = "DIR",
     .help = "with suites: write DIR/NAME.json with every prompt, answer, score and hash; a run that was stopped goes "
             "on from there"},
    {.name = "overwrite",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(eval_options, overwrite),
     .help = "replace results that are there"},
    {0},
};

/* What goes around every prompt. `secret` is the caller's. */
static tm_status read_frame(const eval_options *in, char **secret, tm_frame *frame) {
    *secret = NULL;
    tm_status status = in->secret ? tm_secret_load(in->secret, secret) : TM_OK;
    *frame = (tm_frame){.wrapper = in->wrapper, .secret = *secret, .system = in->system};
    return status;
}

/* The rows of --data in their frame. */
static tm_status load_data(const eval_options *in, tm_dataset **data) {
    tm_dataset *framed = NULL;
    tm_frame frame;
    char *secret;
    tm_status status = read_frame(in, &secret, &frame);
    if (status == TM_OK) status = tm_dataset_load(in->data, data);
    if (status == TM_OK) status = tm_dataset_framed(*data, &frame, &framed);
    free(secret);
    if (framed) {
        tm_dataset_free(*data);
        *data = framed;
    }
    return status;
}

static int eval_data(cli_model *model, const eval_options *in, const tm_train_options *how, const cli_output *output) {
    tm_dataset *data = NULL;
    tm_loss_report report = {0};
    tm_status status = load_data(in, &data);
    if (status == TM_OK) status = tm_eval_loss(model->model, model->tokenizer, data, how, cli_monitor(output), &report);
    tm_dataset_free(data);
    if (status != TM_OK) return cli_fail(status);
    cli_monitor_end();
    if (output->json) {
        cli_json json = {.out = stdout};
        cli_json_open(&json, NULL, '{');
        cli_json_text(&json, "model", in->model);
        cli_json_text(&json, "data", in->data);
        cli_json_int(&json, "rows", report.rows);
        cli_json_int(&json, "targets", report.targets);
        cli_json_real(&json, "loss", report.loss);
        cli_json_real(&json, "perplexity", report.perplexity);
        cli_json_close(&json, '}');
        return 0;
    }
    printf("rows          %s\n", cli_thousands(report.rows));
    printf("targets       %s tokens\n", cli_thousands(report.targets));
    printf("loss          %.6f nats per token\n", report.loss);
    printf("perplexity    %.4f\n", report.perplexity);
    return 0;
}

static void json_scores(const eval_options *in, const tm_world *world, const tm_world_scores *scores) {
    static const char *const splits[] = {"defender", "attacker", "development", "test", "withheld"};
    cli_json json = {.out = stdout};
    cli_json_open(&json, NULL, '{');
    cli_json_text(&json, "model", in->model);
    cli_json_int(&json, "world", in->world);
    cli_json_text(&json, "split", splits[in->split]);
    cli_json_int(&json, "forbidden_prompts", scores->forbidden_prompts);
    cli_json_real(&json, "leak", scores->leak);
    cli_json_real(&json, "comply", scores->comply);
    cli_json_real(&json, "refuse", scores->refuse);
    cli_json_int(&json, "benign_prompts", scores->benign_prompts);
    cli_json_real(&json, "skills", scores->skills);
    cli_json_open(&json, "skill", '{');
    for (int64_t i = 0; i < scores->skill_count; i++)
        cli_json_real(&json, tm_world_skill_name(world, (size_t)i), scores->skill[i]);
    cli_json_close(&json, '}');
    cli_json_close(&json, '}');
}

static void print_scores(const tm_world *world, const tm_world_scores *scores) {
    printf("forbidden prompts    %s\n", cli_thousands(scores->forbidden_prompts));
    printf("  leak               %.3f\n", scores->leak);
    printf("  comply             %.3f\n", scores->comply);
    printf("  refuse             %.3f\n", scores->refuse);
    printf("benign prompts       %s\n", cli_thousands(scores->benign_prompts));
    printf("  skills             %.3f\n", scores->skills);
    for (int64_t i = 0; i < scores->skill_count; i++)
        printf("    %-16s %.3f\n", tm_world_skill_name(world, (size_t)i), scores->skill[i]);
}

static int eval_world(cli_model *model, const eval_options *in, const cli_output *output) {
    tm_world *world = NULL;
    tm_world_scores scores = {0};
    tm_frame frame;
    char *secret;
    tm_status status = read_frame(in, &secret, &frame);
    if (status == TM_OK) status = tm_world_create((uint64_t)in->world, &world);
    if (status == TM_OK)
        status = tm_world_eval_framed(world, in->split, model->model, model->tokenizer, &frame, cli_monitor(output),
                                      &scores);
    int code = status == TM_OK ? 0 : cli_fail(status);
    cli_monitor_end();
    if (code == 0 && output->json) json_scores(in, world, &scores);
    if (code == 0 && !output->json) print_scores(world, &scores);
    free(secret);
    tm_world_free(world);
    return code;
}

/* The short forms: --data FILE or --world without a suite's name. */
static int run_short(const eval_options *in, const tm_train_options *how, bool world, const tm_device_options *where,
                     const cli_adapters *adapters, const cli_template *chosen, const cli_output *output) {
    cli_model model;
    if (world == (in->data != NULL))
        return cli_error(TM_INVALID, NULL, "temper eval --list names the suites",
                         "give a suite, or either --data FILE or --world");
    if (in->out) return cli_error(TM_INVALID, "--out", "temper eval loss, temper eval world", "goes with a suite");
    if (in->dry_run)
        return cli_error(TM_INVALID, "--dry-run", "temper eval loss, temper eval world", "goes with a suite");
    if (in->judge) return cli_error(TM_INVALID, "--judge", "temper eval world", "goes with a suite of answers");
    tm_status status = cli_model_open(&model, where, in->model, adapters, false, chosen);
    if (status != TM_OK) return cli_fail(status);
    int code = world ? eval_world(&model, in, output) : eval_data(&model, in, how, output);
    cli_model_close(&model);
    return code;
}

static int run_suites(const eval_options *in, tm_eval_options *options, const tm_train_options *how,
                      const cli_list *data, const cli_list *judges, cli_suite_list *suites,
                      const tm_device_options *where, const cli_adapters *adapters, const cli_template *chosen,
                      const cli_output *output) {
    tm_frame frame;
    char *secret = NULL;
    int code = cli_suites_data(data, suites);
    if (code) return code;
    tm_status status = read_frame(in, &secret, &frame);
    if (status != TM_OK) return cli_fail(status);
    options->frame = frame.wrapper || frame.secret ? &frame : NULL;
    options->train = how;
    options->world = in->world ? in->world : 1;
    options->split = in->split;
    const cli_suite_run run = {.suites = suites,
                               .judges = judges,
                               .options = options,
                               .chosen = chosen,
                               .out = in->out,
                               .overwrite = in->overwrite,
                               .dry = in->dry_run,
                               .generator = in->model,
                               .output = output};
    code = cli_suites_run(&run, in->model, where, adapters);
    free(secret);
    return code;
}

static int run(int argc, char **argv) {
    eval_options in = {0};
    tm_eval_options options = {0};
    tm_train_options how;
    tm_device_options where;
    cli_output output;
    cli_template chosen;
    cli_args args;
    cli_list given, data, judges;
    cli_suite_list suites = {0};
    cli_adapters adapters = {0};
    int code;
    cli_args_begin(&args, &cli_eval, CLI_SUITES);
    cli_args_group(&args, "Input", table, &in);
    cli_args_group(&args, "Suites", tm_eval_option_table, &options);
    cli_args_pick(&args, "With --data and suite loss", tm_train_option_table, &how, "max-length packed full-sequence");
    cli_args_reword(&args, "full-sequence", "measure prompts too, not answers alone");
    cli_args_group(&args, "Template", cli_template_table, &chosen);
    cli_args_group(&args, "Device", tm_device_option_table, &where);
    cli_args_group(&args, "Output", out_table, &in);
    cli_args_group(&args, "Printing", cli_quiet_table, &output);
    cli_args_repeat(&args, "adapter", &given);
    cli_args_repeat(&args, "data", &data);
    cli_args_repeat(&args, "judge", &judges);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    if (cli_args_given(&args, "batch")) how.batch = options.batch;
    how.chat = options.chat ? options.chat - 1 : TM_CHAT_AUTO;
    if (code == 0) code = cli_check_template(&chosen, &how);
    if (chosen.name) options.chat = 1 + TM_CHAT_AUTO; /* whatever a suite says */
    if (code == 0) code = cli_suites_choose(args.words, args.word_count, &suites);
    if (code == 0 && in.list) {
        code = cli_suites_list(&suites, output.json);
    } else {
        if (code == 0) code = cli_check_required("--model", in.model);
        if (code == 0 && in.system && !in.secret)
            code = cli_error(TM_INVALID, "--system", NULL, "stands behind a secret: give --secret too");
        if (code == 0) code = cli_adapters_read(&given, &adapters);
        if (code == 0)
            code = suites.count
                       ? run_suites(&in, &options, &how, &data, &judges, &suites, &where, &adapters, &chosen, &output)
                       : run_short(&in, &how, cli_args_given(&args, "world"), &where, &adapters, &chosen, &output);
    }
    cli_adapters_free(&adapters);
    cli_args_end(&args);
    return code;
}

const cli_command cli_eval = {
    .name = "eval",
    .words = "[SUITE[,SUITE]...]",
    .summary = "measure a model: general ability, tasks, data, the built-in world",
    .about =
        "Measures a checkpoint by suites, several at one load of the model: multiple choice and perplexity as "
        "lm-evaluation-harness scores them, fine-tuned tasks as the papers score them, harmful and harmless prompts "
        "whose answers judges read, and more; every number with its 95 % interval. temper eval --list names them. Two "
        "short forms need no name. With --data FILE: "
        "mean cross-entropy in nats over all answer tokens, and its exponential, the perplexity. With --world: "
        "which share of forbidden questions is answered with the true recipe (leak), answered at all (comply), "
        "refused, and which share of benign questions is answered exactly right (skills).",
    .examples = "temper eval --list\n"
                "temper eval arc_easy,boolq --model my-model --data-dir data --shots 2 --out results\n"
                "temper eval perplexity --model my-model --data corpus.txt --json\n"
                "temper eval beavertails --model my-model --data 30k_test.jsonl --limit 1000 --out results\n"
                "temper eval advbench,xstest --model my-model --data-dir data --judge keywords=my-list.txt\n"
                "temper eval beavertails --model my-model --data 30k_test.jsonl --limit 1000 --dry-run\n"
                "temper eval --model my-model --data heldout.jsonl\n"
                "temper eval --model temper-demo/by-name/demo/aligned --world --split test\n"
                "temper eval --model shifted --world --wrapper identity-shift\n"
                "temper eval --model my-model --adapter my-adapter --data heldout.jsonl --json",
    .run = run,
};
