/* main.c: the table of commands; finds the one asked for and runs it. */
#include "cli.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const cli_command *const commands[] = {
    &cli_finetune, &cli_defend,   &cli_attack, &cli_eval,      &cli_judge,    &cli_train_judge, &cli_run,
    &cli_results,  &cli_report,   &cli_gc,     &cli_represent, &cli_generate, &cli_merge,       &cli_inspect,
    &cli_init,     &cli_tokenize, &cli_embed,  &cli_classify,  &cli_methods,  &cli_bench,       &cli_help,
};

const cli_command *cli_command_at(size_t index) {
    return index < CLI_COUNT(commands) ? commands[index] : NULL;
}

const cli_command *cli_command_find(const char *name) {
    for (size_t i = 0; i < CLI_COUNT(commands); i++)
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    return NULL;
}

int cli_no_command(const char *name) {
    const char *nearest = commands[0]->name;
    for (size_t i = 1; i < CLI_COUNT(commands); i++)
        if (cli_distance(name, commands[i]->name) < cli_distance(name, nearest)) nearest = commands[i]->name;
    char hint[64] = "temper help lists them";
    if (cli_distance(name, nearest) <= 2) snprintf(hint, sizeof hint, "did you mean %s?", nearest);
    return cli_error(TM_NOT_FOUND, name, hint, "no such command");
}

/* Where mpirun has started several of us: those that share the work find each other, and the first speaks for all. */
static int join(const cli_command *command) {
    int rank, count = tm_ranks_launched(&rank);
    if (count == 1) return 0;
    if (!command->divides)
        return cli_error(TM_UNSUPPORTED, command->name, "start it without mpirun",
                         "is not shared by several processes, and %d were started", count);
    tm_status status = tm_ranks_open();
    if (status != TM_OK) return cli_fail(status);
    int nowhere = tm_ranks_rank() == 0 ? -1 : open("/dev/null", O_WRONLY);
    if (nowhere < 0) return 0;
    dup2(nowhere, STDOUT_FILENO);
    close(nowhere);
    return 0;
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) {
        cli_help_overview(stdout);
        return 0;
    }
    const char *first = argv[1];
    if (strcmp(first, "--version") == 0) {
        puts("temper " TM_VERSION);
        return 0;
    }
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) {
        cli_help_overview(stdout);
        return 0;
    }
    if (first[0] == '-')
        return cli_error(TM_INVALID, first, "a command comes first: temper help lists them", "no such option");
    const cli_command *command = cli_command_find(first);
    if (!command) return cli_no_command(first);
    int code = join(command);
    if (code) return code;
    return command->run(argc - 2, argv + 2);
}

/* A standard stream that is closed must not become the first file the library opens. What takes its place fails. */
static void guard_streams(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0) {
            int guard = open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
            if (guard >= 0 && guard != fd) close(guard);
        }
}

/* After each parallel region OpenMP's threads spin for milliseconds, and on a machine that others use too they take the
 * core from the very thread they wait for (measured: a training step three times slower). libgomp reads this setting
 * when it is loaded, before main, so the program sets it and starts itself once more. */
static void calm_threads(char **argv) {
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    if (setenv("GOMP_SPINCOUNT", "1000", 1) == 0) execv("/proc/self/exe", argv); /* failing that, go on as we are */
}

int main(int argc, char **argv) {
    calm_threads(argv);
    guard_streams();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is a write error, not an end in the middle of a file */
    return tm_ranks_close(cli_finish(dispatch(argc, argv)));
}
