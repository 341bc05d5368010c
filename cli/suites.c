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
            printf("%-15s %s (%s)\n", suite->name, suite->measures, suite->numbers);
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

static void print_number(const char *suite, const tm_number *number) {
    char name[64];
    snprintf(name, sizeof name, "%s%s%s", number->group ? "  " : number->name, number->group ? number->group : "", "");
    printf("%-15s %-18s", suite, name);
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

/* Groups only where they are few. */
static void print_evaluation(const tm_suite *suite, const tm_evaluation *evaluation) {
    enum { FEW = 8 };
    tm_number number;
    size_t groups = 0, lines = 0;
    for (size_t i = 0; tm_evaluation_number(evaluation, i, &number); i++) groups += number.group != NULL;
    for (size_t i = 0; tm_evaluation_number(evaluation, i, &number); i++)
        if (!number.group || groups <= FEW) print_number(lines++ ? "" : suite->name, &number);
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

/* ---- one suite after another ------------------------------------------------------------------------------------- */

static void out_path(const cli_suite_run *run, const tm_suite *suite, const char *prefix, const char *end,
                     char path[4200]) {
    snprintf(path, 4200, "%s/%s%s%s", run->out, prefix, suite->name, end);
}

/* Before any work: results may be written, and none is in the way. */
static int check_out(const cli_suite_run *run) {
    char path[4200];
    struct stat info;
    if (!run->out) return 0;
    if (!run->out[0]) return cli_error(TM_INVALID, "--out", NULL, "is empty");
    if (strlen(run->out) > 4000) return cli_error(TM_INVALID, "--out", NULL, "the path is too long");
    if (mkdir(run->out, 0777) != 0 && errno != EEXIST)
        return cli_error(TM_IO, run->out, NULL, "cannot be made: %s", strerror(errno));
    if (stat(run->out, &info) != 0 || !S_ISDIR(info.st_mode))
        return cli_error(TM_IO, run->out, NULL, "is not a directory");
    for (size_t i = 0; i < run->suites->count; i++) {
        out_path(run, run->suites->items[i], "", ".json", path);
        int code = cli_check_output("--out", path, false, run->overwrite);
        if (code) return code;
    }
    return 0;
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

static int run_one(const cli_suite_run *run, size_t at, tm_evaluation *evaluation, const cli_model *model) {
    const tm_suite *suite = run->suites->items[at];
    char journal[4200];
    if (run->out) out_path(run, suite, ".", ".partial", journal);
    tm_status status = tm_evaluation_run(evaluation, model->model, model->tokenizer, run->out ? journal : NULL,
                                         cli_monitor(run->output));
    cli_monitor_end();
    if (status != TM_OK) return stopped(run, at, status);
    const char *note;
    for (size_t i = 0; (note = tm_evaluation_note(evaluation, i)) != NULL; i++) cli_note("%s: %s", suite->name, note);
    int code = keep(run, suite, evaluation);
    if (code == 0 && run->output->json) return print_json(evaluation);
    if (code == 0) {
        if (at == 0) print_head();
        print_evaluation(suite, evaluation);
    }
    return code;
}

/* Data of all suites is read before the model is. */
int cli_suites_run(const cli_suite_run *run, const char *directory, const tm_device_options *where,
                   const cli_adapters *adapters) {
    tm_evaluation *evaluations[CLI_SUITES] = {0};
    cli_model model;
    int code = check_out(run);
    for (size_t i = 0; code == 0 && i < run->suites->count; i++) {
        tm_status status =
            tm_evaluation_open(run->suites->items[i], run->suites->data[i], run->options, &evaluations[i]);
        if (status != TM_OK) code = cli_fail(status);
    }
    if (code == 0) {
        tm_status status = cli_model_open(&model, where, directory, adapters, false, run->chosen);
        if (status == TM_OK) {
            for (size_t i = 0; code == 0 && i < run->suites->count; i++) {
                code = run_one(run, i, evaluations[i], &model);
                tm_evaluation_free(evaluations[i]);
                evaluations[i] = NULL;
            }
            cli_model_close(&model);
        } else {
            code = cli_fail(status);
        }
    }
    for (size_t i = 0; i < run->suites->count; i++) tm_evaluation_free(evaluations[i]);
    if (code == 0 && run->out && !run->output->json) printf("\nwritten to %s\n", run->out);
    return code;
}
