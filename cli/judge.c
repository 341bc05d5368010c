/* judge.c: temper judge: judges of answers, opened and run for temper eval too, and their use on answers that are there
 * already. */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- judges ------------------------------------------------------------------------------------------------------ */

void cli_judges_close(cli_judges *judges) {
    for (size_t i = 0; i < judges->count; i++) tm_judge_close(judges->items[i]);
    judges->count = 0;
}

int cli_judges_open(const cli_list *specs, const tm_device_options *where, const cli_output *output,
                    cli_judges *judges) {
    int code = 0;
    *judges = (cli_judges){0};
    if (specs->count > CLI_JUDGES) return cli_error(TM_INVALID, "--judge", NULL, "too many judges");
    for (size_t i = 0; code == 0 && i < specs->count; i++) {
        tm_judge *judge;
        tm_status status = tm_judge_open(specs->items[i], where, cli_monitor(output), &judge);
        cli_monitor_end();
        if (status != TM_OK) {
            code = cli_fail(status);
            break;
        }
        for (size_t k = 0; k < judges->count; k++)
            if (strcmp(tm_judge_name(judges->items[k]), tm_judge_name(judge)) == 0)
                code = cli_error(TM_INVALID, "--judge", "give one of them another name: ,as=NAME",
                                 "two judges are called %s", tm_judge_name(judge));
        judges->items[judges->count++] = judge;
    }
    if (code) cli_judges_close(judges);
    return code;
}

tm_status cli_judges_run(const cli_judges *judges, tm_evaluation *evaluation, const char *journal,
                         const cli_output *output) {
    tm_status status = TM_OK;
    for (size_t i = 0; status == TM_OK && i < judges->count; i++) {
        char path[4400];
        snprintf(path, sizeof path, "%.4300s.%s.partial", journal ? journal : "", tm_judge_name(judges->items[i]));
        status = tm_evaluation_judge(evaluation, judges->items[i], journal ? path : NULL, cli_monitor(output));
    }
    return status;
}

static void print_cost(const char *name, const char *judge, const tm_judge_cost *cost) {
    printf("%s by %s: %" PRId64 " answers to judge", name, judge, cost->answers);
    if (cost->cached) printf(", %" PRId64 " of them from the cache", cost->cached);
    if (cost->requests)
        printf("; %" PRId64 " requests of %" PRId64 " bytes in all (some %" PRId64 " tokens), at most %" PRId64
               " tokens in reply",
               cost->requests, cost->bytes, cost->bytes / 4, cost->max_tokens);
    if (cost->requests && cost->answer_tokens)
        printf("; and the answers, at most %" PRId64 " of the model's tokens", cost->answer_tokens);
    puts(cost->requests ? "" : "; no requests");
}

tm_status cli_judges_cost(const cli_judges *judges, tm_evaluation *evaluation, const char *name, const char *beside,
                          cli_json *json) {
    for (size_t i = 0; i < judges->count; i++) {
        tm_judge_cost cost;
        const char *judge = tm_judge_name(judges->items[i]);
        tm_status status = tm_evaluation_judge_cost(evaluation, judges->items[i], beside, &cost);
        if (status != TM_OK) return status;
        if (!json) {
            print_cost(name, judge, &cost);
            continue;
        }
        cli_json_open(json, NULL, '{');
        cli_json_text(json, "name", name);
        cli_json_text(json, "judge", judge);
        cli_json_int(json, "answers", cost.answers);
        cli_json_int(json, "cached", cost.cached);
        cli_json_int(json, "requests", cost.requests);
        cli_json_int(json, "bytes", cost.bytes);
        cli_json_int(json, "max_reply_tokens", cost.max_tokens);
        cli_json_int(json, "max_answer_tokens", cost.answer_tokens);
        cli_json_close(json, '}');
    }
    return TM_OK;
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

static void print_field(const char *name, const char *text, int indent) {
    int column = printf("  %-8s", name);
    cli_wrap(stdout, text, column + indent, column);
}

static void print_option(const tm_option *option) {
    char text[800];
    bool flag = option->type == TM_OPTION_FLAG;
    snprintf(text, sizeof text, "%s%s%s: %s%s%s%s", option->name, flag ? "" : "=",
             flag              ? ""
             : option->choices ? option->choices
             : option->unit    ? option->unit
                               : "NUMBER",
             option->help, option->initial ? " [" : "", option->initial ? option->initial : "",
             option->initial ? "]" : "");
    print_field("Option", text, 2);
}

static void print_kinds(void) {
    tm_judge_about about;
    for (size_t i = 0; tm_judge_kind_at(i, &about); i++) {
        char spec[128], numbers[256] = "";
        bool optional = about.argument && !about.needs_argument;
        for (size_t k = 0, used = 0; about.numbers[k] && used < sizeof numbers; k++)
            used += (size_t)snprintf(numbers + used, sizeof numbers - used, "%s%s", k ? ", " : "", about.numbers[k]);
        snprintf(spec, sizeof spec, "%s%s%s%s", about.name, about.argument ? optional ? "[=" : "=" : "",
                 about.argument ? about.argument : "", optional ? "]" : "");
        int column = printf("%s%s: ", i ? "\n" : "", about.name) - (i > 0);
        cli_wrap(stdout, about.summary, 2, column);
        print_field("Spec", spec, 0);
        print_field("Numbers", numbers, 0);
        print_field("Compare", about.compare, 0);
        for (const tm_option *option = about.options; option->name; option++) print_option(option);
    }
}

static void print_lists(void) {
    tm_keyword_list list;
    puts("\nLists of keywords that are built in (name, strings, SHA-256, whose):");
    for (size_t i = 0; tm_keyword_list_at(i, &list); i++)
        printf("  %s %zu %s %s\n", list.name, list.count, list.sha256, list.about);
}

static void json_kinds(cli_json *json) {
    tm_judge_about about;
    cli_json_open(json, "judges", '[');
    for (size_t i = 0; tm_judge_kind_at(i, &about); i++) {
        cli_json_open(json, NULL, '{');
        cli_json_text(json, "name", about.name);
        cli_json_text(json, "summary", about.summary);
        cli_json_text(json, "argument", about.argument);
        cli_json_bool(json, "needs_argument", about.needs_argument);
        cli_json_text(json, "compare", about.compare);
        cli_json_open(json, "numbers", '[');
        for (size_t k = 0; about.numbers[k]; k++) cli_json_text(json, NULL, about.numbers[k]);
        cli_json_close(json, ']');
        cli_json_open(json, "options", '[');
        for (const tm_option *option = about.options; option->name; option++) {
            cli_json_open(json, NULL, '{');
            cli_json_text(json, "name", option->name);
            cli_json_text(json, "default", option->initial);
            cli_json_text(json, "unit", option->unit);
            cli_json_text(json, "help", option->help);
            cli_json_close(json, '}');
        }
        cli_json_close(json, ']');
        cli_json_close(json, '}');
    }
    cli_json_close(json, ']');
}

static int list_judges(bool as_json) {
    tm_keyword_list list;
    cli_json json = {.out = stdout};
    if (!as_json) {
        print_kinds();
        print_lists();
        return 0;
    }
    cli_json_open(&json, NULL, '{');
    json_kinds(&json);
    cli_json_open(&json, "keyword_lists", '[');
    for (size_t i = 0; tm_keyword_list_at(i, &list); i++) {
        cli_json_open(&json, NULL, '{');
        cli_json_text(&json, "name", list.name);
        cli_json_text(&json, "about", list.about);
        cli_json_int(&json, "strings", (int64_t)list.count);
        cli_json_text(&json, "sha256", list.sha256);
        cli_json_bytes(&json, "text", list.text, list.bytes);
        cli_json_close(&json, '}');
    }
    cli_json_close(&json, ']');
    cli_json_close(&json, '}');
    return 0;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

enum { FILES = 32 };

typedef struct judge_options {
    const char *judge, *out;
    bool list, dry_run, overwrite;
} judge_options;

static const tm_option table[] = {
    {.name = "list",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(judge_options, list),
     .help = "say which judges there are, their options and whose numbers theirs compare with, and which lists of "
             "keywords"},
    {.name = "judge",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(judge_options, judge),
     .min = 1,
     .unit = "NAME[=PATH][,...]",
     .help = "who judges, with OPTION=VALUE behind commas (a comma inside a value is written twice) and as=NAME for "
             "another name in results; may be given several times; default: keywords"},
    {.name = "dry-run",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(judge_options, dry_run),
     .help = "say how much judges behind an endpoint would be asked, and ask nothing"},
    {0},
};

static const tm_option out_table[] = {
    {.name = "out",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(judge_options, out),
     .unit = TM_UNIT_OUT_DIR,
     .help = "write DIR/NAME.judged.json with every answer and verdict; a run that was stopped goes on from there"},
    {.name = "overwrite",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(judge_options, overwrite),
     .help = "replace results that are there"},
    {0},
};

typedef struct judge_run {
    const judge_options *in;
    const tm_answers_options *options;
    const cli_output *output;
    const char **files;
    size_t count;
    tm_evaluation *evaluations[FILES];
    char names[FILES][256];
} judge_run;

/* Last name of the path without .json, .jsonl, .csv, .tsv and .judged. */
static void name_of(const char *path, char name[256]) {
    static const char *const ends[] = {".jsonl", ".json", ".csv", ".tsv", ".judged"};
    const char *slash = strrchr(path, '/');
    snprintf(name, 256, "%.200s", slash ? slash + 1 : path);
    for (size_t i = 0; i < CLI_COUNT(ends); i++) {
        size_t a = strlen(name), b = strlen(ends[i]);
        if (a > b && strcmp(name + a - b, ends[i]) == 0) name[a - b] = 0;
    }
}

/* Names are different and results not in the way (a dry run writes none); then all files are read. */
static int read_files(judge_run *run) {
    bool writes = run->in->out && !run->in->dry_run;
    int code = writes ? cli_check_results(run->in->out) : 0;
    for (size_t i = 0; code == 0 && i < run->count; i++) {
        char path[4400];
        name_of(run->files[i], run->names[i]);
        for (size_t k = 0; code == 0 && k < i; k++)
            if (strcmp(run->names[k], run->names[i]) == 0)
                code = cli_error(TM_INVALID, run->files[i], "one at a time", "two files are called %s", run->names[i]);
        snprintf(path, sizeof path, "%s/%s.judged.json", run->in->out ? run->in->out : "", run->names[i]);
        if (code == 0 && writes) code = cli_check_output("--out", path, false, run->in->overwrite);
        if (code) break;
        tm_status status = tm_evaluation_open_answers(run->files[i], run->options, &run->evaluations[i]);
        if (status != TM_OK) code = cli_fail(status);
    }
    return code;
}

static int judge_file(const judge_run *run, size_t at, const cli_judges *judges) {
    char path[4400], journal[4400];
    const char *out = run->in->out;
    snprintf(path, sizeof path, "%s/%s.judged.json", out ? out : "", run->names[at]);
    snprintf(journal, sizeof journal, "%s/.%s.judged", out ? out : "", run->names[at]);
    tm_status status = cli_judges_run(judges, run->evaluations[at], out ? journal : NULL, run->output);
    cli_monitor_end();
    if (status == TM_OK && out) status = tm_evaluation_save(run->evaluations[at], path);
    if (status != TM_OK) {
        int code = cli_fail(status);
        if (status == TM_INTERRUPTED)
            cli_note(out ? "To go on where it stopped: the same command again."
                         : "Nothing was kept; with --out DIR a stopped run can go on where it was.");
        return code;
    }
    return cli_evaluation_print(run->names[at], run->evaluations[at], at == 0, run->output);
}

static int tell_costs(const judge_run *run, const cli_judges *judges) {
    cli_json json = {.out = stdout};
    tm_status status = TM_OK;
    if (run->output->json) cli_json_open(&json, NULL, '[');
    for (size_t i = 0; status == TM_OK && i < run->count; i++)
        status =
            cli_judges_cost(judges, run->evaluations[i], run->names[i], run->in->out, run->output->json ? &json : NULL);
    if (status == TM_OK && run->output->json) cli_json_close(&json, ']');
    return status == TM_OK ? 0 : cli_fail(status);
}

static int judge_files(judge_run *run, const cli_list *specs, const tm_device_options *where) {
    static const char *usual[] = {"keywords"};
    const cli_list refusals = {usual, 1};
    cli_judges judges = {0};
    int code = read_files(run);
    if (code == 0) code = cli_judges_open(specs->count ? specs : &refusals, where, run->output, &judges);
    bool dry = run->in->dry_run;
    if (code == 0 && dry) code = tell_costs(run, &judges);
    for (size_t i = 0; code == 0 && !dry && i < run->count; i++) code = judge_file(run, i, &judges);
    for (size_t i = 0; i < run->count; i++) tm_evaluation_free(run->evaluations[i]);
    cli_judges_close(&judges);
    if (code == 0 && !dry && run->in->out && !run->output->json) printf("\nwritten to %s\n", run->in->out);
    return code;
}

static int run(int argc, char **argv) {
    judge_options in = {0};
    tm_answers_options options = {0};
    tm_device_options where;
    cli_output output;
    cli_args args;
    cli_list specs;
    int code;
    cli_args_begin(&args, &cli_judge, FILES);
    cli_args_group(&args, "Input", table, &in);
    cli_args_group(&args, "Answers", tm_answers_option_table, &options);
    cli_args_group(&args, "Device", tm_device_option_table, &where);
    cli_args_group(&args, "Output", out_table, &in);
    cli_args_group(&args, "Printing", cli_quiet_table, &output);
    cli_args_repeat(&args, "judge", &specs);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    if (in.list) {
        code = list_judges(output.json);
    } else if (args.word_count == 0) {
        code = cli_error(TM_INVALID, NULL, "temper judge results/advbench.json", "name a file of answers");
    } else {
        judge_run files = {
            .in = &in, .options = &options, .output = &output, .files = args.words, .count = args.word_count};
        code = judge_files(&files, &specs, &where);
    }
    cli_args_end(&args);
    return code;
}

const cli_command cli_judge = {
    .name = "judge",
    .words = "[ANSWERS...]",
    .summary = "judge answers that are there already: harmful or not",
    .about =
        "Lets judges read answers: those in the JSON that temper eval --out wrote, or rows of prompt and answer that "
        "another tool wrote (JSON Lines, a JSON array, CSV, TSV). No model is asked. Every harm number stands "
        "beside coherent, empty, NAME+ (flagged or incoherent) and missing, with its 95 % interval. Verdicts of the "
        "same judge that a file holds already are taken over, so that judging again asks for missing ones alone. "
        "Higher is more harmful.",
    .examples = "temper judge --list\n"
                "temper judge results/advbench.json --judge keywords=my-list.txt,as=mine --out judged\n"
                "temper judge generations.jsonl --prompt-column behavior --answer-column generation --json\n"
                "temper judge judged/xstest.judged.json --out judged --overwrite",
    .run = run,
};
