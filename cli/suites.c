/* suites.c: temper eval SUITE...: suites by name, their data, the table of numbers and the files of results. */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- lists ------------------------------------------------------------------------------------------------------- */

static void print_field(const char *name, const char *text) {
    if (!text || !text[0]) return;
    int column = printf("  %-9s", name);
    cli_wrap(stdout, text, column, column);
}

static void print_suite(const tm_suite *suite) {
    printf("%s: %s\n", suite->name, suite->measures);
    print_field("Numbers", suite->numbers);
    print_field("Data", suite->layout ? suite->layout : "none: the world makes its own (--world SEED, --split)");
    print_field("Folders", suite->folders);
    print_field("Files", suite->files);
    print_field("Examples", suite->shot_file);
    print_field("Compare", suite->compare);
    if (suite->max_new_tokens)
        printf("  Answers  up to %lld tokens, chat format %s\n", (long long)suite->max_new_tokens,
               tm_chat_format_name((tm_chat_format)suite->chat));
    if (suite->shot_file) printf("  Shots    %lld unless --shots says otherwise\n", (long long)suite->shots);
}

static void json_suite(cli_json *json, const tm_suite *suite) {
    cli_json_open(json, NULL, '{');
    cli_json_text(json, "name", suite->name);
    cli_json_text(json, "kind", tm_suite_kind_name(suite->kind));
    cli_json_text(json, "measures", suite->measures);
    cli_json_text(json, "numbers", suite->numbers);
    cli_json_text(json, "data", suite->layout);
    cli_json_text(json, "folders", suite->folders);
    cli_json_text(json, "files", suite->files);
    cli_json_text(json, "examples", suite->shot_file);
    cli_json_text(json, "compare", suite->compare);
    cli_json_int(json, "shots", suite->shots);
    cli_json_int(json, "max_new_tokens", suite->max_new_tokens);
    cli_json_close(json, '}');
}

int cli_suites_list(const cli_suite_list *chosen, bool as_json) {
    const tm_suite *suite;
    cli_json json = {.out = stdout};
    if (as_json) cli_json_open(&json, NULL, '[');
    for (size_t i = 0; (suite = tm_suite_at(i)) != NULL; i++) {
        bool named = chosen->count == 0;
        for (size_t k = 0; k < chosen->count; k++) named = named || chosen->items[k] == suite;
        if (!named) continue;
        if (as_json)
            json_suite(&json, suite);
        else if (chosen->count)
            print_suite(suite);
        else
            printf("%-17s %s (%s)\n", suite->name, suite->measures, suite->judged ? "by judges" : suite->numbers);
    }
    if (as_json)
        cli_json_close(&json, ']');
    else if (chosen->count == 0)
        puts("\ntemper eval NAME --list says more.");
    return 0;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static int no_suite(const char *name) {
    const tm_suite *suite, *nearest = NULL;
    char hint[96] = "temper eval --list names them";
    int least = 0;
    for (size_t i = 0; (suite = tm_suite_at(i)) != NULL; i++) {
        int d = cli_distance(name, suite->name);
        if (!nearest || d < least) nearest = suite, least = d;
    }
    if (nearest && least <= 1 + (int)strlen(name) / 3) snprintf(hint, sizeof hint, "did you mean %s?", nearest->name);
    return cli_error(TM_NOT_FOUND, name, hint, "there is no such suite");
}

int cli_suites_choose(const char *const *words, size_t count, cli_suite_list *list) {
    *list = (cli_suite_list){0};
    for (size_t i = 0; i < count; i++)
        for (const char *at = words[i]; *at;) {
            char name[64];
            size_t len = strcspn(at, ",");
            snprintf(name, sizeof name, "%.*s", (int)len, at);
            at += len + (at[len] == ',');
            if (!name[0]) continue;
            const tm_suite *suite = tm_suite_find(name);
            if (!suite) return no_suite(name);
            for (size_t k = 0; k < list->count; k++)
                if (list->items[k] == suite) return cli_error(TM_INVALID, name, NULL, "is named twice");
            if (list->count == CLI_SUITES) return cli_error(TM_INVALID, name, NULL, "too many suites");
            list->items[list->count++] = suite;
        }
    return 0;
}

/* --data NAME=PATH for each suite, or --data PATH where there is only one. */
int cli_suites_data(const cli_list *given, cli_suite_list *list) {
    for (size_t i = 0; i < given->count; i++) {
        const char *text = given->items[i], *equals = strchr(text, '=');
        size_t at = list->count;
        for (size_t k = 0; equals && k < list->count; k++) {
            const char *name = list->items[k]->name;
            if (strlen(name) == (size_t)(equals - text) && strncmp(name, text, strlen(name)) == 0) at = k;
        }
        if (at < list->count) {
            list->data[at] = equals + 1;
        } else if (list->count == 1) {
            list->data[0] = text;
        } else {
            return cli_error(TM_INVALID, "--data", "--data NAME=PATH", "'%.80s' does not say which suite it is for",
                             text);
        }
    }
    return 0;
}

/* ---- output ------------------------------------------------------------------------------------------------------ */

static void print_value(double value) {
    if (!isfinite(value))
        printf("%12s", "-");
    else
        printf(fabs(value) < 1e5 ? "%12.4f" : "%12.4g", value);
}

/* A judge's name stands where the suite's does, set off. */
static void print_number(const char *suite, const char *judge, const tm_number *number) {
    char name[64], who[64];
    snprintf(who, sizeof who, "%s%s", judge ? "  " : "", judge ? judge : suite);
    snprintf(name, sizeof name, "%s%s", number->group ? "  " : number->name, number->group ? number->group : "");
    printf("%-15s %-18s", who, name);
    print_value(number->value);
    if (number->interval) {
        char low[32], high[32];
        const char *format = fabs(number->high) < 1e5 ? "%.4f" : "%.4g";
        snprintf(low, sizeof low, format[2] == '4' && format[3] == 'f' ? "%.4f" : "%.4g", number->low);
        snprintf(high, sizeof high, format[2] == '4' && format[3] == 'f' ? "%.4f" : "%.4g", number->high);
        printf("  %10s to %-10s", low, high);
    } else {
        printf("  %24s", "");
    }
    printf(" %9s\n", cli_thousands(number->n));
}

static void print_head(void) {
    printf("%-15s %-18s%12s  %10s    %-10s %9s\n", "suite", "number", "value", "95 % from", "to", "items");
}

/* Groups of a number only where they are few. */
static void print_evaluation(const char *name, const tm_evaluation *evaluation) {
    enum { FEW = 16 };
    tm_number number, next;
    const char *judge = NULL;
    size_t lines = 0, groups = 0;
    for (size_t i = 0; tm_evaluation_number(evaluation, i, &number); i++) {
        if (!number.group) {
            groups = 0;
            while (tm_evaluation_number(evaluation, i + groups + 1, &next) && next.group) groups++;
        }
        if (number.group && groups > FEW) continue;
        bool other = number.judge && (!judge || strcmp(judge, number.judge) != 0);
        print_number(lines++ ? "" : name, other ? number.judge : NULL, &number);
        judge = number.judge;
    }
    fflush(stdout);
}

static int print_json(const tm_evaluation *evaluation) {
    char *text;
    tm_status status = tm_evaluation_json(evaluation, false, &text);
    if (status != TM_OK) return cli_fail(status);
    puts(text);
    fflush(stdout);
    free(text);
    return 0;
}

int cli_evaluation_print(const char *name, const tm_evaluation *evaluation, bool first, const cli_output *output) {
    const char *note;
    for (size_t i = 0; (note = tm_evaluation_note(evaluation, i)) != NULL; i++) cli_note("%s: %s", name, note);
    if (output->json) return print_json(evaluation);
    if (first) print_head();
    print_evaluation(name, evaluation);
    return 0;
}

/* ---- one suite after another ------------------------------------------------------------------------------------- */

static void out_path(const cli_suite_run *run, const tm_suite *suite, const char *prefix, const char *end,
                     char path[4200]) {
    snprintf(path, 4200, "%s/%s%s%s", run->out ? run->out : "", prefix, suite->name, end);
}

int cli_check_results(const char *out) {
    struct stat info;
    if (!out) return 0;
    if (!out[0]) return cli_error(TM_INVALID, "--out", NULL, "is empty");
    if (strlen(out) > 4000) return cli_error(TM_INVALID, "--out", NULL, "the path is too long");
    if (mkdir(out, 0777) != 0 && errno != EEXIST)
        return cli_error(TM_IO, out, NULL, "cannot be made: %s", strerror(errno));
    if (stat(out, &info) != 0 || !S_ISDIR(info.st_mode)) return cli_error(TM_IO, out, NULL, "is not a directory");
    return 0;
}

/* Before any work: results may be written, and none is in the way. */
static int check_out(const cli_suite_run *run) {
    char path[4200];
    int code = cli_check_results(run->out);
    for (size_t i = 0; run->out && code == 0 && i < run->suites->count; i++) {
        out_path(run, run->suites->items[i], "", ".json", path);
        code = cli_check_output("--out", path, false, run->overwrite);
    }
    return code;
}

/* Those that --judge named, for suites of answers; without any, lists of refusals where a suite has no other numbers.
 */
static int open_judges(const cli_suite_run *run, const tm_device_options *where, cli_judges *judges) {
    static const char *usual[] = {"keywords"};
    const cli_list refusals = {usual, 1};
    bool answers = false, judged = false;
    for (size_t i = 0; i < run->suites->count; i++) {
        answers = answers || run->suites->items[i]->kind == TM_SUITE_ANSWERS;
        judged = judged || run->suites->items[i]->judged;
    }
    if (run->judges->count && !answers)
        return cli_error(TM_INVALID, "--judge", "temper eval --list --json names their kinds",
                         "none of these suites has answers to judge");
    *judges = (cli_judges){0};
    if (run->judges->count) return cli_judges_open(run->judges, where, run->output, judges);
    return judged ? cli_judges_open(&refusals, where, run->output, judges) : 0;
}

static int keep(const cli_suite_run *run, const tm_suite *suite, const tm_evaluation *evaluation) {
    char path[4200];
    if (!run->out) return 0;
    out_path(run, suite, "", ".json", path);
    tm_status status = tm_evaluation_save(evaluation, path);
    if (status == TM_OK && suite->exports) {
        out_path(run, suite, "", ".outputs.json", path);
        status = tm_evaluation_export(evaluation, run->generator, path);
    }
    return status == TM_OK ? 0 : cli_fail(status);
}

static int stopped(const cli_suite_run *run, size_t at, tm_status status) {
    char rest[512] = "";
    size_t used = 0;
    int code = cli_fail(status);
    if (status != TM_INTERRUPTED) return code;
    for (size_t i = at; i < run->suites->count && used + 1 < sizeof rest; i++)
        used +=
            (size_t)snprintf(rest + used, sizeof rest - used, "%s%s", i > at ? "," : "", run->suites->items[i]->name);
    if (run->out)
        cli_note("To go on where it stopped: the same command with the suites %s.", rest);
    else
        cli_note("Nothing was kept; with --out DIR a stopped run can go on where it was.");
    return code;
}

static bool is_judged(const cli_suite_run *run, const tm_suite *suite) {
    return suite->kind == TM_SUITE_ANSWERS && (suite->judged || run->judges->count);
}

static int run_one(const cli_suite_run *run, size_t at, tm_evaluation *evaluation, const cli_model *model,
                   const cli_judges *judges) {
    const tm_suite *suite = run->suites->items[at];
    char journal[4200], prefix[4200];
    out_path(run, suite, ".", ".partial", journal);
    out_path(run, suite, ".", "", prefix);
    tm_status status = tm_evaluation_run(evaluation, model->model, model->tokenizer, run->out ? journal : NULL,
                                         cli_monitor(run->output));
    if (status == TM_OK && is_judged(run, suite))
        status = cli_judges_run(judges, evaluation, run->out ? prefix : NULL, run->output);
    cli_monitor_end();
    if (status != TM_OK) return stopped(run, at, status);
    int code = keep(run, suite, evaluation);
    return code ? code : cli_evaluation_print(suite->name, evaluation, at == 0, run->output);
}

/* Model and judges; the data of all suites has been read. */
static int run_all(const cli_suite_run *run, const char *directory, const tm_device_options *where,
                   const cli_adapters *adapters, tm_evaluation **evaluations) {
    cli_model model;
    cli_judges judges;
    int code = open_judges(run, where, &judges);
    if (code) return code;
    tm_status status = cli_model_open(&model, where, directory, adapters, false, run->chosen);
    if (status == TM_OK) {
        for (size_t i = 0; code == 0 && i < run->suites->count; i++) {
            code = run_one(run, i, evaluations[i], &model, &judges);
            tm_evaluation_free(evaluations[i]);
            evaluations[i] = NULL;
        }
        cli_model_close(&model);
    } else {
        code = cli_fail(status);
    }
    cli_judges_close(&judges);
    return code;
}

static void tell_size(const cli_suite_run *run, const tm_suite *suite, const tm_evaluation *evaluation,
                      cli_json *json) {
    int64_t items = (int64_t)tm_evaluation_items(evaluation);
    int64_t longest = run->options->max_new_tokens ? run->options->max_new_tokens : suite->max_new_tokens;
    bool answers = suite->kind == TM_SUITE_ANSWERS;
    if (json) {
        cli_json_open(json, NULL, '{');
        cli_json_text(json, "name", suite->name);
        cli_json_int(json, "items", items);
        if (answers) cli_json_int(json, "max_answer_tokens", items * longest);
        cli_json_close(json, '}');
    } else {
        printf("%s: %s items to ask", suite->name, cli_thousands(items));
        if (answers) printf(", answers of at most %s tokens each", cli_thousands(longest));
        puts("");
    }
}

/* How much there is to ask, of the model and of others. */
static int tell_sizes(const cli_suite_run *run, const tm_device_options *where, tm_evaluation **evaluations) {
    cli_judges judges;
    cli_json json = {.out = stdout}, *out = run->output->json ? &json : NULL;
    int code = open_judges(run, where, &judges);
    if (code) return code;
    if (out) cli_json_open(out, NULL, '[');
    for (size_t i = 0; code == 0 && i < run->suites->count; i++) {
        const tm_suite *suite = run->suites->items[i];
        tell_size(run, suite, evaluations[i], out);
        if (!is_judged(run, suite)) continue;
        tm_status status = cli_judges_cost(&judges, evaluations[i], suite->name, NULL, out);
        if (status != TM_OK) code = cli_fail(status);
    }
    if (out && code == 0) cli_json_close(out, ']');
    cli_judges_close(&judges);
    return code;
}

int cli_suites_run(const cli_suite_run *run, const char *directory, const tm_device_options *where,
                   const cli_adapters *adapters) {
    tm_evaluation *evaluations[CLI_SUITES] = {0};
    int code = run->dry ? 0 : check_out(run);
    for (size_t i = 0; code == 0 && i < run->suites->count; i++) {
        tm_status status =
            tm_evaluation_open(run->suites->items[i], run->suites->data[i], run->options, &evaluations[i]);
        if (status != TM_OK) code = cli_fail(status);
    }
    if (code == 0 && run->dry)
        code = tell_sizes(run, where, evaluations);
    else if (code == 0)
        code = run_all(run, directory, where, adapters, evaluations);
    for (size_t i = 0; i < run->suites->count; i++) tm_evaluation_free(evaluations[i]);
    if (code == 0 && run->out && !run->dry && !run->output->json) printf("\nwritten to %s\n", run->out);
    return code;
}
