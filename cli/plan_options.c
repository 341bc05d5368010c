/* plan_options.c: --directory and --set, as all commands about a plan have them. */
#include "cli.h"

static const tm_option table[] = {
    {.name = "directory",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(cli_plan, directory),
     .initial = "temper-runs",
     .min = 1,
     .unit = "DIR",
     .help = "where temper run keeps worlds, models and results"},
    {.name = "set",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(cli_plan, set),
     .min = 1,
     .unit = "PATH=VALUE",
     .help = "set a part of the plan (of each, where several are named), as arms.sdd.replicates=5 or "
             "attacks.grid.axes.lr=[1e-4,1e-3]; may be given several times"},
    {0},
};

void cli_plan_args(cli_args *args, cli_plan *plan) {
    cli_args_group(args, "Plan", table, plan);
    plan->sets = (cli_list){0};
    cli_args_repeat(args, "set", &plan->sets);
}

tm_status cli_plan_open(const cli_plan *how, const char *path, const tm_device *device, tm_plan **plan) {
    return tm_plan_open_with(path, how->directory, how->sets.items, how->sets.count, device, plan);
}
