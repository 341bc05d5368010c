/* history.c: what a command knows of its rows and of the model's past, and refuses: the same prompts in the hands of
 * two parties. Shared by finetune, defend and attack.
 */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

static const char *const role_names[] = {"harmful", "refusals", "benign", "data", "all"};

/* Whether a comma-separated list names the role or all. */
static bool listed(const char *list, const char *role) {
    for (const char *at = list; at && *at; at += at[strcspn(at, ",")] == ',') {
        size_t n = strcspn(at, ",");
        if ((n == strlen(role) && strncmp(at, role, n) == 0) || (n == 3 && strncmp(at, "all", 3) == 0)) return true;
        at += n;
    }
    return false;
}

static int check_list(const char *list) {
    for (const char *at = list; at;) {
        size_t n = strcspn(at, ",");
        bool known = false;
        for (size_t i = 0; i < CLI_COUNT(role_names); i++)
            known |= n == strlen(role_names[i]) && strncmp(at, role_names[i], n) == 0;
        if (!known)
            return cli_error(TM_INVALID, "--allow-overlap", "harmful, refusals, benign, data or all",
                             "'%.*s' is no kind of rows", (int)(n < 60 ? n : 60), at);
        at = at[n] ? at + n + 1 : NULL;
    }
    return 0;
}

/* The defender's rows against the user's; harmful rows against harmless ones, whosoever they are. */
static bool comparable(const cli_rows *a, const cli_rows *b) {
    bool mixed = (strcmp(a->role, "harmful") == 0 && strcmp(b->role, "benign") == 0) ||
                 (strcmp(a->role, "benign") == 0 && strcmp(b->role, "harmful") == 0);
    return a->rows && b->rows && (a->party != b->party || mixed);
}

static int check_pair(const cli_rows *a, const cli_rows *b) {
    tm_overlap found;
    char hint[96];
    tm_status status = tm_dataset_overlap(a->rows, b->rows, &found);
    if (status != TM_OK) return cli_fail(status);
    if (found.prompts == 0) return 0;
    snprintf(hint, sizeof hint, "give rows without these prompts, or --allow-overlap %s", a->role);
    return cli_error(TM_MISMATCH, a->path, hint, "%zu of its prompts stand in %.200s too; row %zu is row %zu there",
                     found.prompts, b->path, found.row_a + 1, found.row_b + 1);
}

static int check_within(const cli_rows *rows, size_t count, const char *allowed) {
    for (size_t j = 0; j < count; j++)
        for (size_t i = 0; i < j; i++) {
            if (!comparable(&rows[i], &rows[j])) continue;
            if (listed(allowed, rows[i].role) || listed(allowed, rows[j].role)) continue;
            int code = check_pair(&rows[j], &rows[i]);
            if (code) return code;
        }
    return 0;
}

tm_status cli_history_load(const char *model, const cli_adapters *adapters, tm_provenance **past, bool *extends) {
    tm_provenance *made = NULL;
    bool all = true;
    tm_status status = tm_provenance_load(model, &made);
    for (size_t i = 0; i < adapters->count && status == TM_OK; i++) {
        tm_provenance *adapter = NULL;
        bool one = true;
        status = tm_provenance_load(adapters->items[i].directory, &adapter);
        if (status == TM_OK && tm_provenance_stages(adapter) > 0) status = tm_provenance_join(made, adapter, &one);
        tm_provenance_free(adapter);
        all = all && one;
    }
    if (status != TM_OK) {
        tm_provenance_free(made);
        return status;
    }
    *past = made;
    if (extends) *extends = all;
    return TM_OK;
}

static tm_status add_stage(const cli_history *in, tm_provenance *past) {
    tm_status status = tm_provenance_begin(past, in->kind, in->method, in->train->seed);
    if (status == TM_OK) status = tm_provenance_options(past, tm_train_option_table, in->train);
    if (status == TM_OK && in->own) status = tm_provenance_options(past, in->own_table, in->own);
    if (status == TM_OK && in->continued) status = tm_provenance_note(past, "continue-adapter", "true");
    const char *name = in->chosen ? in->chosen->name : NULL, *slash = name ? strrchr(name, '/') : NULL;
    if (status == TM_OK && name) status = tm_provenance_note(past, "template", slash ? slash + 1 : name);
    if (status == TM_OK && in->chosen && in->chosen->variables)
        status = tm_provenance_note(past, "template-vars", in->chosen->variables);
    if (status == TM_OK && in->allowed) status = tm_provenance_note(past, "allow-overlap", in->allowed);
    for (size_t i = 0; i < in->count && status == TM_OK; i++)
        if (in->rows[i].rows)
            status = tm_provenance_rows(past, in->rows[i].role, in->rows[i].party, in->rows[i].path, in->rows[i].rows);
    return status;
}

int cli_history_begin(const cli_history *in, tm_provenance **provenance) {
    tm_provenance *past = NULL;
    bool extends;
    int code = in->allowed ? check_list(in->allowed) : 0;
    if (code == 0) code = check_within(in->rows, in->count, in->allowed);
    if (code) return code;
    tm_status status = cli_history_load(in->model, in->adapters, &past, &extends);
    for (size_t i = 0; i < in->count && status == TM_OK && !in->forgets; i++)
        if (in->rows[i].rows && !listed(in->allowed, in->rows[i].role))
            status = tm_provenance_check(past, in->rows[i].role, in->rows[i].party, in->rows[i].rows);
    if (status == TM_OK) status = add_stage(in, past);
    if (status != TM_OK)
        code = cli_fail(status);
    else if (!extends && in->continued)
        code = cli_error(TM_MISMATCH, in->adapters->items[0].directory,
                         "leave --continue-adapter out to merge it all the same",
                         "was made for another model: its history does not begin with that of %.200s", in->model);
    if (code)
        tm_provenance_free(past);
    else
        *provenance = past;
    return code;
}
