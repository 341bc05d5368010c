/* methods.c: temper methods, the registry of defences and attacks in words. */
#include "cli.h"

#include <string.h>

static const char *stage_name(tm_stage stage) {
    switch (stage) {
    case TM_STAGE_ALIGNMENT:
        return "alignment";
    case TM_STAGE_FINE_TUNING:
        return "fine-tuning";
    case TM_STAGE_POST:
        return "after fine-tuning";
    case TM_STAGE_ATTACK:
        break;
    }
    return "attack";
}

static const char *command_name(const tm_method *method) {
    return method->stage == TM_STAGE_ATTACK ? "attack" : "defend";
}

static void print_field(const char *name, const char *text) {
    int column = printf("%-10s", name);
    cli_wrap(stdout, text ? text : "", column, column);
}

static void print_method(const tm_method *method) {
    printf("%s: %s\n\n", method->name, method->title);
    print_field("Summary", method->summary);
    print_field("Paper", method->paper);
    print_field("Stage", stage_name(method->stage));
    print_field("Who", method->who);
    print_field("Data", method->needs);
    printf("%-10stemper %s %s (options: temper help %s %s)\n", "Command", command_name(method), method->name,
           command_name(method), method->name);
    if (!method->settings) return;
    puts("\nPublished settings:");
    cli_wrap(stdout, method->settings, 0, 0);
}

static void json_method(cli_json *json, const tm_method *method) {
    cli_json_open(json, NULL, '{');
    cli_json_text(json, "name", method->name);
    cli_json_text(json, "title", method->title);
    cli_json_text(json, "paper", method->paper);
    cli_json_text(json, "summary", method->summary);
    cli_json_text(json, "stage", stage_name(method->stage));
    cli_json_text(json, "who", method->who);
    cli_json_text(json, "data", method->needs);
    cli_json_text(json, "settings", method->settings);
    cli_json_text(json, "command", command_name(method));
    cli_json_open(json, "options", '[');
    for (const tm_option *option = method->options; option && option->name; option++) {
        cli_json_open(json, NULL, '{');
        cli_json_text(json, "name", option->name);
        cli_json_text(json, "default", option->initial);
        cli_json_text(json, "help", option->help);
        cli_json_close(json, '}');
    }
    cli_json_close(json, ']');
    cli_json_close(json, '}');
}

static void list(bool as_json) {
    const tm_method *method;
    cli_json json = {.out = stdout};
    if (as_json) cli_json_open(&json, NULL, '[');
    for (size_t i = 0; (method = tm_method_at(i)) != NULL; i++) {
        if (as_json)
            json_method(&json, method);
        else
            printf("%-7s %-20s  %s (%s)\n", command_name(method), method->name, method->title, method->paper);
    }
    if (as_json)
        cli_json_close(&json, ']');
    else
        puts("\ntemper methods NAME says more.");
}

static const tm_option table[] = {
    {.name = "json", .type = TM_OPTION_FLAG, .offset = offsetof(cli_output, json), .help = "print JSON"},
    {0},
};

static int run(int argc, char **argv) {
    cli_args args;
    cli_output output;
    int code;
    cli_args_begin(&args, &cli_methods, 1);
    cli_args_group(&args, "Output", table, &output);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    const tm_method *method = args.word_count ? tm_method_find(args.words[0]) : NULL;
    cli_json json = {.out = stdout};
    if (args.word_count == 0)
        list(output.json);
    else if (!method)
        code = cli_error(TM_NOT_FOUND, args.words[0], "temper methods lists them", "no such method");
    else if (output.json)
        json_method(&json, method);
    else
        print_method(method);
    cli_args_end(&args);
    return code;
}

const cli_command cli_methods = {
    .name = "methods",
    .words = "[NAME]",
    .summary = "list the defences and attacks, or explain one",
    .about = "Lists every defence and attack that temper defend and temper attack know, or says of one what it does, "
             "who runs it and when, which data it needs, which paper it comes from and what settings were published. "
             "Training has the same defaults for all methods; they are nobody's published ones.",
    .examples = "temper methods\ntemper methods sdd",
    .run = run,
};
