/* args.c: one parser for all commands, over the option tables of the library and of the command.
 *
 * --name value, --name=value, --flag, --no-flag, -h; "--" ends the options. Several tables serve one command; a name
 * that stands in two of them (the seed of a method and of its training) is set in both.
 */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

void cli_args_begin(cli_args *args, const cli_command *command, size_t max_words) {
    *args = (cli_args){.command = command, .max_words = max_words};
}

void cli_args_group(cli_args *args, const char *title, const tm_option *table, void *values) {
    if (args->group_count == CLI_GROUPS) abort();
    tm_options_default(table, values);
    args->groups[args->group_count++] = (cli_group){.title = title, .table = table, .values = values};
}

bool cli_listed(const char *names, const char *name) {
    size_t len = strlen(name);
    for (const char *at = names; (at = strstr(at, name)) != NULL; at += len)
        if ((at == names || at[-1] == ' ') && (at[len] == ' ' || !at[len])) return true;
    return false;
}

void cli_args_pick(cli_args *args, const char *title, const tm_option *table, void *values, const char *names) {
    tm_option *first = args->picked + args->picked_count;
    tm_options_default(table, values);
    for (; table->name; table++)
        if (cli_listed(names, table->name)) {
            if (args->picked_count + 2 > CLI_PICKED) abort();
            args->picked[args->picked_count++] = *table;
        }
    args->picked[args->picked_count++] = (tm_option){0};
    if (args->group_count == CLI_GROUPS) abort();
    args->groups[args->group_count++] = (cli_group){.title = title, .table = first, .values = values};
}

void cli_args_reword(cli_args *args, const char *name, const char *help) {
    for (size_t i = 0; i < args->picked_count; i++)
        if (args->picked[i].name && strcmp(args->picked[i].name, name) == 0) args->picked[i].help = help;
}

void cli_args_hide(cli_args *args, const char *names) {
    args->groups[args->group_count - 1].hidden = names;
}

void cli_args_repeat(cli_args *args, const char *name, cli_list *list) {
    *list = (cli_list){0};
    if (args->list_count == CLI_LISTS) abort();
    args->list_names[args->list_count] = name;
    args->lists[args->list_count++] = list;
}

/* ---- the nearest name -------------------------------------------------------------------------------------------- */

/* Edit distance of names of at most 63 bytes. */
int cli_distance(const char *a, const char *b) {
    int row[64], n = (int)strnlen(b, 63);
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1] && i < 64; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

static int unknown_option(const cli_args *args, const char *name) {
    const char *nearest = "help";
    int least = cli_distance(name, nearest);
    for (size_t g = 0; g < args->group_count; g++)
        for (const tm_option *option = args->groups[g].table; option->name; option++) {
            int d = cli_distance(name, option->name);
            /* An option that only begins as the one meant is nearer than its length says. */
            if (d > 1 && strlen(name) >= 3 && strncmp(name, option->name, strlen(name)) == 0) d = 1;
            if (d < least) {
                least = d;
                nearest = option->name;
            }
        }
    char field[80], hint[160];
    snprintf(field, sizeof field, "--%.70s", name);
    if (least <= 1 + (int)strlen(name) / 3)
        snprintf(hint, sizeof hint, "did you mean --%s?", nearest);
    else
        snprintf(hint, sizeof hint, "see temper help %s", args->command->name);
    return cli_error(TM_INVALID, field, hint, "no such option");
}

/* ---- parsing ----------------------------------------------------------------------------------------------------- */

static void mark_given(cli_args *args, const tm_option *option) {
    for (size_t i = 0; i < args->given_count; i++)
        if (args->given[i] == option) return;
    if (args->given_count < CLI_GIVEN) args->given[args->given_count++] = option;
}

bool cli_args_given(const cli_args *args, const char *name) {
    for (size_t i = 0; i < args->given_count; i++)
        if (strcmp(args->given[i]->name, name) == 0) return true;
    return false;
}

static const tm_option *find(const cli_args *args, const char *name) {
    for (size_t g = 0; g < args->group_count; g++) {
        const tm_option *option = tm_options_find(args->groups[g].table, name);
        if (option) return option;
    }
    return NULL;
}

/* Sets `name` in every table that has it. */
static int set(cli_args *args, const char *name, const char *value) {
    for (size_t g = 0; g < args->group_count; g++) {
        const cli_group *group = &args->groups[g];
        const tm_option *option = tm_options_find(group->table, name);
        if (!option) continue;
        tm_status status = tm_options_set(group->table, group->values, name, value);
        if (status != TM_OK) {
            const tm_error *error = tm_error_last();
            char field[80];
            snprintf(field, sizeof field, "--%.70s", name);
            return cli_error(status, field, error->hint, "%s", error->message);
        }
        mark_given(args, option);
    }
    for (size_t i = 0; i < args->list_count; i++)
        if (strcmp(args->list_names[i], name) == 0) args->lists[i]->items[args->lists[i]->count++] = value;
    return 0;
}

bool cli_value_optional(const tm_option *option) {
    size_t len = option->unit ? strlen(option->unit) : 0;
    bool number = option->type == TM_OPTION_INT || option->type == TM_OPTION_REAL;
    return number && len && option->unit[0] == '[' && option->unit[len - 1] == ']' && strchr(option->unit, '=');
}

/* What the option without its value means. */
static bool optional_value(const tm_option *option, char *value, size_t size) {
    if (!cli_value_optional(option)) return false;
    const char *equals = strchr(option->unit, '=');
    snprintf(value, size, "%.*s", (int)strcspn(equals + 1, "]"), equals + 1);
    return true;
}

/* Takes argv[*at] (which begins with "--") and, where it needs one, the value after it. */
static int take_option(cli_args *args, int argc, char **argv, int *at) {
    const char *text = argv[(*at)++] + 2, *equals = strchr(text, '='), *value = NULL;
    size_t len = equals ? (size_t)(equals - text) : strlen(text);
    char name[80], meant[32];
    snprintf(name, sizeof name, "%.*s", len > 70 ? 70 : (int)len, text);
    const tm_option *option = find(args, name);
    bool negated = false;
    if (!option && strncmp(name, "no-", 3) == 0) {
        option = find(args, name + 3);
        negated = option && option->type == TM_OPTION_FLAG && !equals;
        if (!negated) option = NULL;
    }
    if (!option) return unknown_option(args, name);
    if (negated) return set(args, option->name, "false");
    if (equals) {
        value = equals + 1;
    } else if (option->type != TM_OPTION_FLAG) {
        if (optional_value(option, meant, sizeof meant)) {
            bool follows = *at < argc && argv[*at][0] != '-';
            return set(args, option->name, follows ? argv[(*at)++] : meant);
        }
        if (*at == argc || strncmp(argv[*at], "--", 2) == 0) {
            char field[80], hint[160] = "";
            snprintf(field, sizeof field, "--%.70s", name);
            if (*at < argc) snprintf(hint, sizeof hint, "one that begins with dashes goes behind '=': %s=...", field);
            return cli_error(TM_INVALID, field, hint, "needs a value");
        }
        value = argv[(*at)++];
    }
    return set(args, option->name, value);
}

static int take_word(cli_args *args, const char *word) {
    if (args->word_count == args->max_words) {
        char hint[80];
        snprintf(hint, sizeof hint, "see temper help %s", args->command->name);
        return cli_error(TM_INVALID, NULL, hint, "unexpected argument '%.80s'", word);
    }
    args->words[args->word_count++] = word;
    return 0;
}

static bool asks_help(const char *word) {
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

bool cli_args_parse(cli_args *args, int argc, char **argv, int *code) {
    size_t room = (size_t)(argc > 0 ? argc : 0) + 1;
    args->words = calloc(room, sizeof *args->words);
    *code = args->words ? 0 : cli_no_memory();
    for (size_t i = 0; i < args->list_count; i++) {
        args->lists[i]->items = calloc(room, sizeof *args->lists[i]->items);
        if (!args->lists[i]->items && *code == 0) *code = cli_no_memory();
    }
    bool options = true;
    for (int at = 0; *code == 0 && at < argc;) {
        const char *word = argv[at];
        if (!options || word[0] != '-' || !word[1]) {
            *code = take_word(args, word);
            at++;
        } else if (asks_help(word)) {
            cli_help_command(args, stdout);
            break;
        } else if (strcmp(word, "--") == 0) {
            options = false;
            at++;
        } else if (word[1] != '-') {
            *code = cli_error(TM_INVALID, word, "options begin with two dashes", "no such option");
        } else {
            *code = take_option(args, argc, argv, &at);
        }
        if (*code == 0 && at == argc) return true;
    }
    if (*code == 0 && argc == 0) return true;
    cli_args_end(args);
    return false;
}

void cli_args_end(cli_args *args) {
    free(args->words);
    args->words = NULL;
    for (size_t i = 0; i < args->list_count; i++) {
        free(args->lists[i]->items);
        *args->lists[i] = (cli_list){0};
    }
}
