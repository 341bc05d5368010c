/* help.c: help made from the command's texts and its option tables; nothing about an option is written twice. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 80, OPTION_COLUMN = 28 };

void cli_wrap(FILE *out, const char *text, int indent, int column) {
    while (*text) {
        size_t blanks = strspn(text, " "), len = strcspn(text + blanks, " ");
        if (column > indent && column + (int)(blanks + len) > WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
            blanks = 0;
            text += strspn(text, " ");
        }
        fprintf(out, "%.*s", (int)(blanks + len), text);
        text += blanks + len;
        column += (int)(blanks + len);
    }
    fputc('\n', out);
}

/* "N", "DIR", "[SEED]", "auto|chatml": what stands for the value. */
static void placeholder(const tm_option *option, char *out, size_t size) {
    const char *unit = option->unit ? option->unit : "";
    out[0] = 0;
    switch (option->type) {
    case TM_OPTION_FLAG:
        return;
    case TM_OPTION_CHOICE:
        snprintf(out, size, " %s", strlen(option->choices) < 24 ? option->choices : "NAME");
        return;
    case TM_OPTION_INT:
    case TM_OPTION_REAL:
    case TM_OPTION_TEXT:
        break;
    }
    if (cli_value_optional(option))
        snprintf(out, size, " %.*s]", (int)strcspn(unit, "=]"), unit);
    else if (unit[0] == '[' || (unit[0] >= 'A' && unit[0] <= 'Z'))
        snprintf(out, size, " %s", unit);
    else
        snprintf(out, size, " %s", option->type == TM_OPTION_INT ? "N" : option->type == TM_OPTION_REAL ? "X" : "TEXT");
}

/* A bound as people write it: 512, 0.99, 1e9, 1e-8. */
static const char *bound(double value, char out[32]) {
    snprintf(out, 32, fabs(value) < 1e6 ? "%.12g" : "%.6e", value);
    char *e = strchr(out, 'e');
    if (!e) return out;
    int exponent = (int)strtol(e + 1, NULL, 10);
    while (e > out && (e[-1] == '0' || e[-1] == '.') && memchr(out, '.', (size_t)(e - out))) e--;
    snprintf(e, (size_t)(out + 32 - e), "e%d", exponent);
    return out;
}

static size_t add(char *out, size_t at, size_t size, const char *text) {
    if (at >= size) return at;
    int n = snprintf(out + at, size - at, "%s%s", at ? "; " : "", text);
    return at + (size_t)(n > 0 ? n : 0);
}

/* "steps; default 100; 1 to 1000": unit, choices, default and range, as far as there are any. */
static void remarks(const tm_option *option, char *out, size_t size) {
    char part[192];
    size_t at = 0;
    bool number = option->type == TM_OPTION_INT || option->type == TM_OPTION_REAL;
    out[0] = 0;
    if (number && option->unit && option->unit[0] >= 'a' && option->unit[0] <= 'z' &&
        strcmp(option->unit, option->name) != 0)
        at = add(out, at, size, option->unit);
    if (option->type == TM_OPTION_CHOICE && strlen(option->choices) >= 24) at = add(out, at, size, option->choices);
    if (option->type == TM_OPTION_FLAG) {
        if (option->initial && strcmp(option->initial, "true") == 0) at = add(out, at, size, "on by default");
    } else if (cli_value_optional(option)) {
        number = false; /* the unit says what the option means without a value; absent it means nothing */
    } else if (option->initial && option->initial[0]) {
        snprintf(part, sizeof part, "default %s", option->initial);
        at = add(out, at, size, part);
    } else if (number) {
        at = add(out, at, size, "default 0");
    } else if (option->type == TM_OPTION_CHOICE) {
        snprintf(part, sizeof part, "default %.*s", (int)strcspn(option->choices, "|"), option->choices);
        at = add(out, at, size, part);
    }
    if (number && option->min <= option->max) {
        char min[32], max[32];
        if (isinf(option->max) || option->max >= 9e15)
            snprintf(part, sizeof part, "at least %s", bound(option->min, min));
        else
            snprintf(part, sizeof part, "%s to %s", bound(option->min, min), bound(option->max, max));
        add(out, at, size, part);
    }
}

static bool stands_before(const cli_group *groups, size_t before, const char *name) {
    for (size_t g = 0; g < before; g++)
        if (tm_options_find(groups[g].table, name)) return true;
    return false;
}

void cli_help_options(const cli_group *group, size_t before, const cli_group *groups, FILE *out) {
    fprintf(out, "\n%s:\n", group->title);
    for (const tm_option *option = group->table; option->name; option++) {
        if (stands_before(groups, before, option->name)) continue;
        if (group->hidden && cli_listed(group->hidden, option->name)) continue;
        char value[96], note[512], text[1024];
        placeholder(option, value, sizeof value);
        remarks(option, note, sizeof note);
        bool on = option->type == TM_OPTION_FLAG && option->initial && strcmp(option->initial, "true") == 0;
        int column = fprintf(out, "  --%s%s%s", on ? "[no-]" : "", option->name, value);
        if (column + 2 > OPTION_COLUMN) {
            fputc('\n', out);
            column = 0;
        }
        fprintf(out, "%*s", OPTION_COLUMN - column, "");
        snprintf(text, sizeof text, note[0] ? "%s [%s]" : "%s", option->help ? option->help : "", note);
        cli_wrap(out, text, OPTION_COLUMN, OPTION_COLUMN);
    }
}

void cli_help_command(const cli_args *args, FILE *out) {
    const cli_command *command = args->command;
    fprintf(out, "Usage: temper %s", command->name);
    if (args->subject)
        fprintf(out, " %s", args->subject);
    else if (command->words[0])
        fprintf(out, " %s", command->words);
    fprintf(out, "%s\n\n", args->group_count ? " [OPTIONS]" : "");
    cli_wrap(out, args->about ? args->about : command->about, 0, 0);
    fputs("\nExamples:\n", out);
    for (const char *line = args->examples ? args->examples : command->examples; *line;) {
        size_t len = strcspn(line, "\n");
        fprintf(out, "  %.*s\n", (int)len, line);
        line += len + (line[len] == '\n');
    }
    for (size_t g = 0; g < args->group_count; g++) cli_help_options(&args->groups[g], g, args->groups, out);
}

void cli_help_overview(FILE *out) {
    fputs("temper " TM_VERSION ": make open-weight language models hard to corrupt by fine-tuning,\n"
          "and find out how well it worked. A Hugging Face checkpoint directory goes in, a\n"
          "Hugging Face checkpoint directory comes out.\n"
          "\nUsage: temper COMMAND [OPTIONS]\n\nCommands:\n",
          out);
    const cli_command *command;
    for (size_t i = 0; (command = cli_command_at(i)) != NULL; i++)
        fprintf(out, "  %-11s %s\n", command->name, command->summary);
    fputs("\nStart with temper run plans/demo.yaml: defences against attackers, without downloads.\n"
          "temper help COMMAND shows options, defaults and examples.\n",
          out);
}

static int run(int argc, char **argv) {
    cli_args args;
    int code;
    cli_args_begin(&args, &cli_help, 2);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    if (args.word_count == 0) {
        cli_help_overview(stdout);
    } else {
        const cli_command *command = cli_command_find(args.words[0]);
        char help[] = "--help";
        char *words[2] = {(char *)args.words[args.word_count - 1], help}; /* a method's name, or nothing, and --help */
        if (!command)
            code = cli_no_command(args.words[0]);
        else
            code = args.word_count == 2 ? command->run(2, words) : command->run(1, words + 1);
    }
    cli_args_end(&args);
    return code;
}

const cli_command cli_help = {
    .name = "help",
    .words = "[COMMAND [NAME]]",
    .summary = "explain a command",
    .about = "Prints the overview, or the help of one command: what it does, examples, and every option with its "
             "default, range and unit. The same as temper COMMAND --help.",
    .examples = "temper help generate\ntemper help defend sdd",
    .run = run,
};
