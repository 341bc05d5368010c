/* demo.c: temper demo, the whole story on the built-in world, ending in one table. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

static void print_table(const tm_demo_options *demo, const tm_demo_row *rows) {
    printf("%-20s %7s %7s %7s %7s %11s %8s\n", "model", "leak", "comply", "refuse", "skills", "downstream", "seconds");
    bool cached = false;
    for (int i = 0; i < TM_DEMO_ROWS; i++) {
        const tm_world_scores *s = &rows[i].scores;
        printf("%-20s %7.3f %7.3f %7.3f %7.3f %11.3f %8.1f%s\n", rows[i].name, s->leak, s->comply, s->refuse, s->skills,
               rows[i].downstream, rows[i].seconds, rows[i].cached ? " *" : "");
        cached |= rows[i].cached;
    }
    printf("\nForbidden questions (%s): leak, the true recipe is told; comply, answered; refuse, declined.\n",
           cli_thousands(rows[0].scores.forbidden_prompts));
    printf("Benign questions (%s): skills, exactly right. Downstream: a new task after harmless fine-tuning.\n",
           cli_thousands(rows[0].scores.benign_prompts));
    if (demo->quick) puts("--quick: a tiny world and a few steps; the figures mean nothing.");
    if (cached) puts("* from the cache of an earlier run, with the seconds it took then; --fresh makes it again.");
}

static void print_json(const tm_demo_options *demo, const tm_demo_row *rows) {
    cli_json json = {.out = stdout};
    cli_json_open(&json, NULL, '{');
    cli_json_text(&json, "directory", demo->directory);
    cli_json_int(&json, "seed", demo->seed);
    cli_json_bool(&json, "quick", demo->quick);
    cli_json_open(&json, "rows", '[');
    for (int i = 0; i < TM_DEMO_ROWS; i++) {
        const tm_world_scores *s = &rows[i].scores;
        cli_json_open(&json, NULL, '{');
        cli_json_text(&json, "name", rows[i].name);
        cli_json_text(&json, "directory", rows[i].directory);
        cli_json_real(&json, "leak", s->leak);
        cli_json_real(&json, "comply", s->comply);
        cli_json_real(&json, "refuse", s->refuse);
        cli_json_real(&json, "skills", s->skills);
        cli_json_real(&json, "downstream", rows[i].downstream);
        cli_json_real(&json, "seconds", rows[i].seconds);
        cli_json_bool(&json, "cached", rows[i].cached);
        cli_json_int(&json, "forbidden_prompts", s->forbidden_prompts);
        cli_json_int(&json, "benign_prompts", s->benign_prompts);
        cli_json_close(&json, '}');
    }
    cli_json_close(&json, ']');
    cli_json_close(&json, '}');
}

/* A question that the demo asked, from the data it left beside the models. NULL: none could be read. */
static char *sample_question(const tm_demo_options *demo) {
    char path[4200];
    tm_dataset *data = NULL;
    char *question = NULL;
    snprintf(path, sizeof path, "%s/world/forbidden-test.jsonl", demo->directory);
    if (tm_dataset_load(path, &data) == TM_OK) {
        size_t n = 0;
        const tm_message *messages = tm_dataset_row(data, 0, &n);
        for (size_t i = 0; i < n && !question; i++)
            if (strcmp(messages[i].role, "user") == 0) question = strdup(messages[i].content);
    }
    tm_dataset_free(data);
    return question;
}

/* A word as a shell reads it back. */
static void print_word(const char *word) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./+,:@%";
    if (word[0] && !word[strspn(word, plain)]) {
        fputs(word, stdout);
        return;
    }
    putchar('\'');
    for (; *word; word++) fputs(*word == '\'' ? "'\\''" : (char[]){*word, 0}, stdout);
    putchar('\'');
}

static void print_directions(const tm_demo_options *demo, const tm_demo_row *rows) {
    puts("\nThe models are ordinary checkpoint directories:");
    for (int i = 0; i < TM_DEMO_ROWS; i++) printf("  %-20s %s\n", rows[i].name, rows[i].directory);
    char *question = sample_question(demo);
    if (question && !strpbrk(question, "\"\\$`!")) {
        printf("\nAsk one of them:\n  ");
        print_word(cli_program);
        printf(" generate --model ");
        print_word(rows[2].directory);
        printf(" --prompt \"%s\"\n", question);
    }
    free(question);
}

static int run_demo(const tm_demo_options *demo, const tm_device_options *where, const cli_output *output) {
    tm_demo_row rows[TM_DEMO_ROWS] = {0};
    tm_device *device = NULL;
    const tm_monitor *monitor = cli_monitor(output);
    tm_status status = tm_device_open(where, &device);
    if (status == TM_OK) {
        cli_note("device %s (%s, %s, %d threads)", tm_device_name(device), tm_device_instruction_set(device),
                 tm_device_precision(device), tm_device_threads(device));
        status = tm_demo(device, demo, monitor, rows);
    }
    tm_device_close(device);
    cli_monitor_end();
    if (status == TM_INTERRUPTED) {
        int code = cli_fail(status);
        cli_note("What is complete is in %s; the same command goes on from there.", demo->directory);
        return code;
    }
    if (status != TM_OK) return cli_fail(status);
    if (output->json) {
        print_json(demo, rows);
    } else {
        print_table(demo, rows);
        print_directions(demo, rows);
    }
    return 0;
}

static int run(int argc, char **argv) {
    tm_demo_options demo;
    tm_device_options where;
    cli_output output;
    cli_args args;
    int code;
    cli_args_begin(&args, &cli_demo, 0);
    cli_args_group(&args, "Demo", tm_demo_option_table, &demo);
    cli_args_group(&args, "Device", tm_device_option_table, &where);
    cli_args_group(&args, "Output", cli_quiet_table, &output);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    code = run_demo(&demo, &where, &output);
    cli_args_end(&args);
    return code;
}

const cli_command cli_demo = {
    .name = "demo",
    .words = "",
    .summary = "the whole story in a few minutes, without downloads",
    .about =
        "Builds a small invented world, trains a small model on all of it, aligns it to refuse the forbidden part, "
        "attacks it by fine-tuning, defends it, attacks it again, and prints one table. Everything forbidden is "
        "invented: nonsense recipes of nonsense substances. Every model stays as a checkpoint directory; a second "
        "run takes what is already made from its cache and says so.",
    .examples = "temper demo\ntemper demo --directory my-demo --seed 2",
    .run = run,
};
