/* method_run.c: temper defend NAME and temper attack NAME: a method of the registry, run on a model and data files. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct method_options {
    const char *model, *harmful, *refusals, *benign, *user, *adapter, *allowed;
    bool continued;
    cli_adapters adapters;
} method_options;

static const tm_option table[] = {
    {.name = "model",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(method_options, model),
     .unit = "DIR",
     .help = "checkpoint directory to start from (config.json, *.safetensors, tokenizer)"},
    {.name = "harmful",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(method_options, harmful),
     .unit = "FILE",
     .help = "JSON Lines of harmful rows: a defence reads their prompts, an attack trains on their answers"},
    {.name = "refusals",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(method_options, refusals),
     .unit = "FILE",
     .help = "JSON Lines of harmful prompts answered by refusals: alignment data, safety rows"},
    {.name = "data",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(method_options, user),
     .unit = "FILE",
     .help = "JSON Lines of the rows that a user of a fine-tuning service hands in"},
    {.name = "benign",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(method_options, benign),
     .unit = "FILE",
     .help = "JSON Lines of harmless rows: a defence's pool of answers, the clean part of a poisoned task"},
    {.name = "adapter",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(method_options, adapter),
     .unit = "DIR[=W]",
     .help = "a PEFT LoRA adapter of --model, times W; merged into it before the method begins, except by methods that "
             "edit the adapter itself and write it back (antidote, safe-lora); may be given several times"},
    {.name = "continue-adapter",
     .type = TM_OPTION_FLAG,
     .offset = offsetof(method_options, continued),
     .help = "train --adapter on, and write it as an adapter, instead of merging it (attacks by fine-tuning)"},
    {.name = "allow-overlap",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(method_options, allowed),
     .unit = "ROLES",
     .help = "go on although rows of these kinds (harmful, refusals, benign, data or all, separated by commas) hold "
             "prompts of another party, here or in an earlier stage of the model"},
    {0},
};

/* Everything one run needs; the method's own options live in `own`. */
typedef struct job {
    const tm_method *method;
    method_options in;
    void *own;
    cli_save save;
    tm_train_options train;
    tm_device_options where;
    cli_output output;
    cli_template chosen;
    tm_memory *measured;                       /* rehearse and tell this alone; NULL: no */
    char hidden[96], about[512], example[512]; /* for help */
} job;

/* One role of the method's data; `bits` says which masks ask for it. */
typedef struct role {
    const char *option, *path;
    unsigned bits;
} role;

static int check_roles(const job *work) {
    const role roles[] = {
        {"--harmful", work->in.harmful, TM_DATA_HARMFUL | TM_DATA_HARMFUL_PROMPTS},
        {"--refusals", work->in.refusals, TM_DATA_REFUSALS},
        {"--benign", work->in.benign, TM_DATA_BENIGN},
        {"--data", work->in.user, TM_DATA_USER},
    };
    const tm_method *m = work->method;
    for (size_t i = 0; i < CLI_COUNT(roles); i++)
        if (roles[i].path && !((m->required | m->optional) & roles[i].bits))
            return cli_error(TM_INVALID, roles[i].option, "leave it out", "%s reads no such rows", m->name);
    for (size_t i = 0; i < CLI_COUNT(roles); i++) {
        bool needed = roles[i].path || m->required & roles[i].bits;
        int code = needed ? cli_check_required(roles[i].option, roles[i].path) : 0;
        if (code) return code;
    }
    return 0;
}

typedef struct method_sets {
    tm_dataset *harmful, *refusals, *benign, *user;
} method_sets;

static tm_status load_data(const job *work, method_sets *sets) {
    const method_options *in = &work->in;
    bool ask = (work->method->required & TM_DATA_HARMFUL_PROMPTS) != 0;
    tm_status status = TM_OK;
    if (in->harmful)
        status =
            ask ? tm_dataset_load_prompts(in->harmful, &sets->harmful) : tm_dataset_load(in->harmful, &sets->harmful);
    if (status == TM_OK && in->refusals) status = tm_dataset_load(in->refusals, &sets->refusals);
    if (status == TM_OK && in->benign) status = tm_dataset_load(in->benign, &sets->benign);
    if (status == TM_OK && in->user) status = tm_dataset_load(in->user, &sets->user);
    return status;
}

enum { ROLES = 4 };

/* Rows as they were read: what a method makes of them (a secret in front, say) is not in them yet. */
static void list_rows(const job *work, const method_sets *sets, cli_rows rows[ROLES]) {
    const method_options *in = &work->in;
    tm_party party = work->method->stage == TM_STAGE_ATTACK ? TM_PARTY_USER : TM_PARTY_DEFENDER;
    const cli_rows all[ROLES] = {
        {"harmful", in->harmful, sets->harmful, party},
        {"refusals", in->refusals, sets->refusals, party},
        {"benign", in->benign, sets->benign, party},
        {"data", in->user, sets->user, TM_PARTY_USER},
    };
    memcpy(rows, all, sizeof all);
}

static int check_history(const job *work, const method_sets *sets, tm_provenance **provenance) {
    const method_options *in = &work->in;
    cli_rows rows[ROLES];
    list_rows(work, sets, rows);
    const cli_history history = {.model = in->model,
                                 .adapters = &in->adapters,
                                 .allowed = in->allowed,
                                 .continued = in->continued,
                                 .forgets = work->method->discards_weights,
                                 .kind = work->method->stage == TM_STAGE_ATTACK ? "attack" : "defence",
                                 .method = work->method->name,
                                 .own_table = work->method->options,
                                 .own = work->own,
                                 .train = &work->train,
                                 .chosen = &work->chosen,
                                 .rows = rows,
                                 .count = CLI_COUNT(rows)};
    return cli_history_begin(&history, provenance);
}

static int finish(const job *work, const method_sets *sets, cli_model *model, const tm_provenance *provenance,
                  const tm_train_result *result) {
    bool adapter =
        work->method->edits_adapter ? work->in.adapters.count > 0 : work->train.lora.rank > 0 || work->in.continued;
    if (work->measured) return cli_model_measure(model, adapter, &work->save, work->measured);
    if (work->save.dry) {
        cli_rows rows[ROLES];
        list_rows(work, sets, rows);
        return cli_model_rehearsed(model,
                                   &(cli_rehearsal){.directory = work->in.model,
                                                    .method = work->method->name,
                                                    .adapter = adapter,
                                                    .save = &work->save,
                                                    .train = &work->train,
                                                    .result = result,
                                                    .rows = rows,
                                                    .count = ROLES},
                                   &work->output);
    }
    if (work->method->keeps_model) {
        cli_monitor_end();
        cli_print_result(work->in.model, NULL, &work->save, result, work->output.json); /* its files are written */
        return 0;
    }
    return cli_model_finish(model, work->in.model, adapter, &work->save, provenance, result, &work->output);
}

static int run_method(const job *work, const method_sets *sets, const tm_provenance *provenance) {
    tm_monitor monitor = *cli_monitor(&work->output);
    if (work->save.dry) monitor.progress = NULL; /* of steps that compute nothing */
    if (work->measured) monitor.note = NULL;
    const tm_method_data data = {
        .harmful = sets->harmful, .refusals = sets->refusals, .benign = sets->benign, .user = sets->user};
    cli_model model = {0};
    tm_train_result result = {0};
    int code;
    tm_status status =
        cli_model_open(&model, &work->where, work->in.model, &work->in.adapters, work->save.dry, &work->chosen);
    if (status == TM_OK && work->in.adapters.count && !work->method->edits_adapter)
        status = work->in.continued ? tm_model_continue_adapter(model.model) : tm_model_merge(model.model);
    if (status != TM_OK) {
        code = cli_fail(status);
    } else {
        status = work->method->run(model.model, model.tokenizer, &data, work->own, &work->train, &monitor, &result);
        if (status == TM_OK)
            code = finish(work, sets, &model, provenance, &result);
        else
            code = work->method->train_options ? cli_fail(status) : cli_train_failed(status, &work->train);
    }
    cli_model_close(&model);
    return code;
}

static int run_job(const job *work) {
    method_sets sets = {0};
    tm_provenance *provenance = NULL;
    tm_status status = load_data(work, &sets);
    int code = status == TM_OK ? check_history(work, &sets, &provenance) : cli_fail(status);
    if (code == 0) code = run_method(work, &sets, provenance);
    tm_provenance_free(provenance);
    tm_dataset_free(sets.harmful);
    tm_dataset_free(sets.refusals);
    tm_dataset_free(sets.benign);
    tm_dataset_free(sets.user);
    return code;
}

static int check_adapter(const job *work) {
    if (work->in.continued && !work->method->continues_adapter)
        return cli_error(TM_INVALID, "--continue-adapter", "leave it out", "%s does not train a given adapter",
                         work->method->name);
    if (!work->method->edits_adapter)
        return cli_check_adapter(&work->in.adapters, work->in.continued, &work->train, &work->save);
    if (work->save.merge && !work->in.adapters.count)
        return cli_error(TM_INVALID, "--merge", "give --adapter", "there is no adapter to merge");
    return cli_check_one_adapter(&work->in.adapters, "the method edits one adapter, as it is");
}

/* What a method writes beside the result is not replaced unasked either, except by the run that goes on from its
 * checkpoint. */
static int check_written(const job *work) {
    bool going_on = work->train.resume_dir && access(work->train.resume_dir, F_OK) == 0;
    for (const tm_option *option = work->method->options; option && option->name; option++) {
        bool directory = option->unit && strcmp(option->unit, TM_UNIT_OUT_DIR) == 0;
        if (!directory && (!option->unit || strcmp(option->unit, TM_UNIT_OUT_FILE) != 0)) continue;
        const char *path = *(const char *const *)((const char *)work->own + option->offset);
        char field[80];
        if (!path) continue;
        snprintf(field, sizeof field, "--%.70s", option->name);
        int code = cli_check_output(field, path, directory, work->save.overwrite || going_on);
        if (code) return code;
    }
    return 0;
}

static int check_output(const job *work) {
    if (work->method->keeps_model) return 0;
    int code = cli_check_output("--out", work->save.out, true, work->save.overwrite);
    return code ? code : cli_check_resume(work->train.resume_dir, work->save.out);
}

static bool writes(const tm_option *option) {
    size_t len = strlen(option->name);
    if (option->type != TM_OPTION_TEXT || !option->unit) return false;
    return strncmp(option->unit, "OUT-", 4) == 0 || (len > 4 && strcmp(option->name + len - 4, "-out") == 0);
}

/* What the method would write beside the result goes nowhere: directories not at all, files to where they are removed
 * from. */
static int rehearse(job *work) {
    char scratch[] = "/tmp/temper-dry-run.XXXXXX", *paths[CLI_GIVEN] = {0};
    size_t count = 0;
    int code = 0;
    if (!mkdtemp(scratch)) return cli_error(TM_IO, scratch, NULL, "cannot be made");
    for (const tm_option *option = work->method->options; option && option->name && code == 0; option++) {
        const char **path = (const char **)((char *)work->own + option->offset);
        if (!writes(option) || !*path) continue;
        *path = NULL;
        if (strcmp(option->unit, TM_UNIT_OUT_DIR) == 0 || count == CLI_COUNT(paths)) continue;
        if (asprintf(&paths[count], "%s/%zu", scratch, count) < 0)
            code = cli_no_memory();
        else
            *path = paths[count++];
    }
    cli_train_rehearsed(&work->train);
    if (code == 0) code = run_job(work);
    for (size_t i = 0; i < count; i++) {
        char hash[96];
        snprintf(hash, sizeof hash, "%s.sha256", paths[i]); /* a secret has its hash beside it */
        unlink(paths[i]);
        unlink(hash);
        free(paths[i]);
    }
    rmdir(scratch);
    return code;
}

static int measure(void *user, const tm_train_options *train, tm_memory *memory) {
    const job *work = user;
    size_t size = work->method->options_size;
    job rehearsed = *work;
    rehearsed.own = malloc(size ? size : 1); /* names of files are taken out of it */
    if (!rehearsed.own) return cli_no_memory();
    if (size) memcpy(rehearsed.own, work->own, size);
    rehearsed.train = *train;
    rehearsed.save.dry = true;
    rehearsed.measured = memory;
    int code = rehearse(&rehearsed);
    free(rehearsed.own);
    return code;
}

static int check_divides(const job *work) {
    if (tm_ranks_count() == 1 || work->method->divides) return 0;
    return cli_error(TM_UNSUPPORTED, work->method->name, "start it without mpirun",
                     "its work cannot be divided among several processes, and %d were started", tm_ranks_count());
}

static int check_and_run(job *work) {
    int code = cli_check_required("--model", work->in.model);
    if (code == 0) code = check_divides(work);
    if (code == 0) code = check_roles(work);
    if (code == 0) code = check_output(work);
    if (code == 0) code = check_adapter(work);
    if (code == 0) code = check_written(work);
    if (code == 0) code = cli_check_template(&work->chosen, &work->train);
    if (code == 0) code = cli_fit_memory(&work->train, measure, work);
    if (code) return code;
    return work->save.dry ? rehearse(work) : run_job(work);
}

static void list_methods(bool attack) {
    const tm_method *method;
    puts("\nNames:");
    for (size_t i = 0; (method = tm_method_at(i)) != NULL; i++)
        if ((method->stage == TM_STAGE_ATTACK) == attack) {
            int column = printf("  %-20s ", method->name);
            cli_wrap(stdout, method->summary, column, column);
        }
}

static int no_such_method(const cli_command *command, bool attack, const char *name) {
    char hint[80] = "temper methods lists them";
    const tm_method *method;
    if (!name) return cli_error(TM_INVALID, "NAME", hint, "temper %s needs a method's name first", command->name);
    int best = 3;
    for (size_t i = 0; (method = tm_method_at(i)) != NULL; i++) {
        int distance = cli_distance(name, method->name);
        if ((method->stage == TM_STAGE_ATTACK) != attack || distance >= best) continue;
        best = distance;
        snprintf(hint, sizeof hint, "did you mean %s?", method->name);
    }
    return cli_error(TM_NOT_FOUND, name, hint, "no such %s", attack ? "attack" : "defence");
}

static void add_training(cli_args *args, job *work) {
    const char *names = work->method ? work->method->train_options : NULL;
    if (!names) {
        cli_args_group(args, "Training", tm_train_option_table, &work->train);
    } else if (names[0]) {
        cli_args_pick(args, "More", tm_train_option_table, &work->train, names);
        cli_args_reword(args, "seed", "seed of what is drawn");
    } else {
        tm_options_default(tm_train_option_table, &work->train);
    }
    tm_options_default(cli_template_table, &work->chosen);
    if (!names || strstr(names, "chat")) cli_args_group(args, "Template", cli_template_table, &work->chosen);
}

/* Options of input that the method would refuse. */
static void hide_refused(const tm_method *m, char *names, size_t size) {
    static const struct {
        const char *name;
        unsigned bits;
    } inputs[] = {
        {"harmful", TM_DATA_HARMFUL | TM_DATA_HARMFUL_PROMPTS},
        {"refusals", TM_DATA_REFUSALS},
        {"data", TM_DATA_USER},
        {"benign", TM_DATA_BENIGN},
        {"allow-overlap", ~0U},
    };
    size_t at = 0;
    names[0] = 0;
    for (size_t i = 0; i < CLI_COUNT(inputs); i++)
        if (!((m->required | m->optional) & inputs[i].bits))
            at += (size_t)snprintf(names + at, size - at, "%s ", inputs[i].name);
    if (!m->continues_adapter) snprintf(names + at, size - at, "continue-adapter ");
}

/* A command with all that the method cannot do without. */
static void make_example(const tm_method *m, char *out, size_t size) {
    static const struct {
        unsigned bits;
        const char *text;
    } roles[] = {
        {TM_DATA_USER, " --data user.jsonl"},
        {TM_DATA_HARMFUL | TM_DATA_HARMFUL_PROMPTS, " --harmful harmful.jsonl"},
        {TM_DATA_REFUSALS, " --refusals refusals.jsonl"},
        {TM_DATA_BENIGN, " --benign benign.jsonl"},
    };
    bool attack = m->stage == TM_STAGE_ATTACK;
    size_t at = (size_t)snprintf(out, size, "temper %s %s --model my-model", attack ? "attack" : "defend", m->name);
    for (size_t i = 0; i < CLI_COUNT(roles); i++)
        if (m->required & roles[i].bits) at += (size_t)snprintf(out + at, size - at, "%s", roles[i].text);
    if (m->example) at += (size_t)snprintf(out + at, size - at, " \\\n    %s", m->example);
    if (!m->keeps_model) snprintf(out + at, size - at, " --out %s", attack ? "attacked" : "defended");
}

static void add_groups(cli_args *args, job *work) {
    cli_args_group(args, "Input", table, &work->in);
    if (work->method) cli_args_hide(args, work->hidden);
    if (work->method && work->method->keeps_model) {
        cli_args_pick(args, "Result", cli_save_table, &work->save, "overwrite dry-run");
        cli_args_reword(args, "overwrite", "replace files that are there");
    } else {
        cli_args_group(args, "Result", cli_save_table, &work->save);
    }
    if (work->method && work->own) cli_args_group(args, work->method->title, work->method->options, work->own);
    add_training(args, work);
    cli_args_group(args, "Device", tm_device_option_table, &work->where);
    cli_args_group(args, "Output", cli_quiet_table, &work->output);
}

static void explain(cli_args *args, job *work) {
    const tm_method *m = work->method;
    snprintf(work->about, sizeof work->about,
             "%s%s temper methods %s tells who runs it and when, and what settings were "
             "published.",
             m->summary, m->summary[strlen(m->summary) - 1] == '.' ? "" : ".", m->name);
    make_example(m, work->example, sizeof work->example);
    hide_refused(m, work->hidden, sizeof work->hidden);
    args->subject = m->name;
    args->about = work->about;
    args->examples = work->example;
}

int cli_method_run(const cli_command *command, bool attack, int argc, char **argv) {
    job work = {0};
    cli_args args;
    cli_list given;
    int code;
    if (argc == 0) return no_such_method(command, attack, NULL);
    if (argv[0][0] != '-') {
        work.method = tm_method_find(argv[0]);
        if (work.method && (work.method->stage == TM_STAGE_ATTACK) != attack) work.method = NULL;
        if (!work.method) return no_such_method(command, attack, argv[0]);
        work.own = calloc(1, work.method->options_size ? work.method->options_size : 1);
        if (!work.own) return cli_no_memory();
        argc--;
        argv++;
    }
    cli_args_begin(&args, command, 0);
    if (work.method) explain(&args, &work);
    add_groups(&args, &work);
    cli_args_repeat(&args, "adapter", &given);
    if (cli_args_parse(&args, argc, argv, &code)) {
        work.in.adapters = (cli_adapters){0};
        code = work.method ? cli_adapters_read(&given, &work.in.adapters) : no_such_method(command, attack, NULL);
        if (code == 0) code = check_and_run(&work);
        cli_adapters_free(&work.in.adapters);
        cli_args_end(&args);
    } else if (code == 0 && !work.method) {
        list_methods(attack);
    }
    free(work.own);
    return code;
}

static int run_defend(int argc, char **argv) {
    return cli_method_run(&cli_defend, false, argc, argv);
}

static int run_attack(int argc, char **argv) {
    return cli_method_run(&cli_attack, true, argc, argv);
}

const cli_command cli_defend = {
    .name = "defend",
    .words = "NAME",
    .summary = "make a model hard to corrupt",
    .about = "Runs a defence on a checkpoint and writes the defended checkpoint. Every defence has options of its own: "
             "temper help defend NAME shows them beside those of training. What a defence is, who runs it and what "
             "it needs: temper methods NAME.",
    .examples = "temper defend sdd --model my-model --harmful harmful.jsonl --benign benign.jsonl --out defended\n"
                "temper help defend sdd",
    .run = run_defend,
    .divides = true,
};

const cli_command cli_attack = {
    .name = "attack",
    .words = "NAME",
    .summary = "try to corrupt a model by fine-tuning",
    .about = "Runs an attack on a checkpoint and writes the attacked checkpoint, to find out what a defence is worth. "
             "Every attack has options of its own: temper help attack NAME shows them beside those of training.",
    .examples =
        "temper attack harmful-sft --model defended --harmful harmful.jsonl --out attacked --steps 60 --lr 1e-4\n"
        "temper attack harmful-sft --model defended --harmful harmful.jsonl --benign benign.jsonl \\\n"
        "    --poison-ratio 0.1 --rows 1000 --out attacked",
    .run = run_attack,
    .divides = true,
};
