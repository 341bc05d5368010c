/* report.c: a plan's results as one page: what was run, tables, pictures, and what is needed to repeat it.
 *
 * report_tables.c and report_plots.c hold the views, page.c the HTML.
 * Pinned by tests/unit/test_report.c and tests/cli/cases/report.sh.
 */
#include "lab/report.h"

#include <stdlib.h>

/* ---- arms -------------------------------------------------------------------------------------------------------- */

static bool seen_in(const tm__report *r, const char *arm, const tm__view *view) {
    const char *harm = tm__tables_harm(r->found.plan);
    char name[TM__SCORE_NAME + 40];
    double value;
    if (!harm) harm = r->found.records[0].count ? r->found.records[0].names[0] : "";
    snprintf(name, sizeof name, "%s%s", harm, view->suffix);
    for (size_t i = 0; i < r->found.count; i++)
        if (strcmp(r->found.records[i].arm, arm) == 0 && tm__record_get(&r->found.records[i], name, &value))
            return true;
    return false;
}

static tm_status list_arms(tm__report *r) {
    const tm_plan *plan = r->found.plan;
    r->arms = tm__alloc(plan->arm_count * TM__VIEWS + 1, sizeof *r->arms);
    if (!r->arms) return tm__fail_memory();
    for (size_t a = 0; a < plan->arm_count; a++)
        for (size_t v = 0; v < TM__VIEWS; v++) {
            if (!seen_in(r, plan->arms[a].name, &tm__views[v])) continue;
            tm__arm_view *made = &r->arms[r->arm_count++];
            *made = (tm__arm_view){.arm = plan->arms[a].name, .view = &tm__views[v]};
            snprintf(made->label, sizeof made->label, "%s%s", made->arm, made->view->label);
        }
    return TM_OK;
}

/* Without trials of searches that were dropped. */
static size_t count_cells(const tm_plan *plan) {
    size_t n = 0;
    tm_plan_job_info info;
    for (size_t i = 0; tm_plan_job(plan, i, &info); i++) n += info.cell && !info.dropped;
    return n;
}

/* How many of what; attackers are those that do harm. */
static void put_what(tm__report *r) {
    const tm_plan *plan = r->found.plan;
    size_t kinds[3] = {0};
    char text[256];
    for (size_t i = 0; i < plan->attack_count; i++) kinds[tm__tables_kind(&plan->attacks[i])]++;
    snprintf(text, sizeof text, "%zu defences and controls, %zu attackers%s%s, %lld replicates: %zu cells",
             plan->arm_count, kinds[TM__ATTACK_HARMFUL], kinds[TM__ATTACK_BENIGN] ? ", harmless fine-tuning" : "",
             kinds[TM__ATTACK_NONE] ? ", no attack" : "", (long long)plan->replicates, r->found.count);
    tm__page_fact(&r->page, "what", text);
}

/* The one paragraph that says what the figures are of. */
static void put_head(tm__report *r) {
    const tm_plan *plan = r->found.plan;
    tm__page *p = &r->page;
    char text[512];
    size_t cells = count_cells(plan), at = 0;
    text[0] = 0;
    tm__page_begin(p, plan->name);
    if (r->found.count < cells) {
        snprintf(text, sizeof text, "Part of the plan only: %zu of %zu cells are done.", r->found.count, cells);
        tm__page_paragraph(p, text);
    }
    tm__page_put(p, "<dl>\n");
    put_what(r);
    for (size_t i = 0; i < plan->world_count; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%llu",
                               i                       ? ", "
                               : plan->world_count > 1 ? "worlds "
                                                       : "world ",
                               (unsigned long long)plan->worlds[i]);
    snprintf(text + at, sizeof text - at, "%sa replicate has a seed of its own, for its defence and its attack; %s",
             at ? "; " : "",
             plan->base_count ? "all start from the same checkpoint"
                              : "all replicates of a world start from the same base model, which is trained once");
    tm__page_fact(p, "seeds", text);
    tm__page_fact(
        p, "intervals",
        "mean ± half of a 95% interval of Student's t over replicates: how a repetition with other seeds would "
        "vary, not how another base model would");
    tm__page_fact(p, "made by", plan->setup);
    tm__page_put(p, "</dl>\n");
}

/* ---- what is needed to repeat it --------------------------------------------------------------------------------- */

static void put_command(tm__page *p, const tm_plan *plan, const char *command) {
    tm__page_printf(p, "<p><code>temper %s ", command);
    tm__page_escaped(p, plan->path);
    tm__page_put(p, " --directory ");
    tm__page_escaped(p, plan->directory);
    for (size_t i = 0; i < plan->override_count; i++) {
        tm__page_put(p, " --set '");
        tm__page_escaped(p, plan->overrides[i]);
        tm__page_put(p, "'");
    }
    tm__page_put(p, "</code></p>\n");
}

static void begin_list(tm__page *p, const char *title) {
    tm__page_printf(p, "<details><summary>%s</summary>\n<pre class=\"wide\"><code>", title);
}

static void end_list(tm__page *p) {
    tm__page_put(p, "</code></pre></details>\n");
}

static void put_line(tm__page *p, const char *hash, const char *text) {
    tm__page_printf(p, "%s ", hash);
    tm__page_escaped(p, text);
    tm__page_put(p, "\n");
}

static void put_sources(tm__page *p, const tm_plan *plan) {
    const char *name;
    char text[160], hex[65];
    tm__sha256 hash;
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, plan->text, strlen(plan->text));
    tm__sha256_hex(&hash, hex);
    begin_list(p, "SHA-256 of plan, data sets and whatever else it reads");
    put_line(p, hex, plan->path);
    for (size_t w = 0; w < plan->world_count; w++) {
        snprintf(text, sizeof text, "world %llu: tokenizer", (unsigned long long)plan->worlds[w]);
        put_line(p, plan->tokenizer_hash[w], text);
        for (size_t i = 0; (name = tm_world_set_name(i)); i++) {
            snprintf(text, sizeof text, "world %llu: %s", (unsigned long long)plan->worlds[w], name);
            put_line(p, tm__plan_set_hash(plan, (int)w, name), text);
        }
    }
    for (size_t i = 0; i < plan->base_count; i++) {
        snprintf(text, sizeof text, "%s: tokenizer, template and format", plan->bases[i].name);
        put_line(p, plan->bases[i].hash, plan->bases[i].path);
        put_line(p, plan->bases[i].tokenizer_hash, text);
    }
    for (size_t i = 0; i < plan->data_count; i++) put_line(p, plan->data[i].hash, plan->data[i].path);
    for (size_t i = 0; i < plan->evaluation_count; i++)
        put_line(p, plan->evaluations[i].hash, plan->evaluations[i].name);
    for (size_t i = 0; i < plan->place_count; i++) put_line(p, plan->places[i].hash, plan->places[i].path);
    end_list(p);
}

static void put_keys(tm__report *r, tm__job_kind kind) {
    const tm_plan *plan = r->found.plan;
    tm_plan_job_info info;
    for (size_t i = 0; i < plan->job_count; i++)
        if (plan->jobs[i].kind == kind && tm_plan_job(plan, i, &info)) put_line(&r->page, plan->jobs[i].key, info.name);
}

static void put_appendix(tm__report *r) {
    const tm_plan *plan = r->found.plan;
    tm__page *p = &r->page;
    tm__page_heading(p, "To repeat it");
    put_command(p, plan, "run");
    put_command(p, plan, "report");
    begin_list(p, "The plan");
    tm__page_escaped(p, plan->text);
    end_list(p);
    put_sources(p, plan);
    begin_list(p, "Key of every model: SHA-256 of all that decides it");
    put_keys(r, TM__JOB_MODEL);
    end_list(p);
    begin_list(p, "Key of every cell");
    put_keys(r, TM__JOB_CELL);
    end_list(p);
    tm__page_put(p, "</body>\n</html>\n");
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

/* The tables of the terminal: those by attacker (`matrices`), or the others. */
static tm_status add_tables(tm__report *r, bool matrices) {
    tm__tables all = {0};
    tm_status status = tm__tables_make(&r->found, NULL, &all);
    for (size_t i = 0; i < all.count && status == TM_OK; i++) {
        char name[96];
        bool matrix = strstr(all.items[i].title, "after the attack") != NULL;
        if (matrix != matrices) continue;
        tm__page_file_name("table", all.items[i].title, name);
        status = tm__page_table(
            &r->page, all.items[i].title,
            matrix ? "Stronger colour is more. One column for each value of the first axis of the attackers." : NULL,
            &all.items[i].sheet, matrix, name);
    }
    tm__tables_release(&all);
    return status;
}

static tm_status add_groups(tm__report *r, tm_status (*add)(tm__report *, const char *)) {
    const tm_plan *plan = r->found.plan;
    for (size_t i = 0; i < plan->attack_count; i++)
        if (tm__tables_new_group(plan, i)) TM__TRY(add(r, plan->attacks[i].group));
    return TM_OK;
}

static tm_status fill(tm__report *r) {
    TM__TRY(list_arms(r));
    put_head(r);
    TM__TRY(add_tables(r, false));
    TM__TRY(tm__report_heat(r));
    TM__TRY(add_groups(r, tm__report_scatter));
    TM__TRY(add_groups(r, tm__report_costs));
    TM__TRY(tm__report_searches(r));
    TM__TRY(add_groups(r, tm__report_tests));
    TM__TRY(tm__report_abilities(r));
    TM__TRY(tm__report_ratios(r));
    TM__TRY(tm__report_budgets(r));
    TM__TRY(tm__report_secrets(r));
    TM__TRY(add_tables(r, true));
    TM__TRY(tm__report_losses(r));
    TM__TRY(tm__report_affinity(r));
    TM__TRY(tm__report_states(r));
    TM__TRY(tm__report_prices(r));
    put_appendix(r);
    if (!r->page.ok) return tm__fail_memory();
    char *path = tm__path_join(r->page.directory, "report.html");
    tm_status status = path ? tm__file_write(path, r->page.text.data, r->page.text.len) : tm__fail_memory();
    free(path);
    return status;
}

/* What is replaced is a report, and no directory of somebody's. */
static tm_status check_replaced(const char *directory) {
    char *page = tm__path_join(directory, "report.html");
    if (!page) return tm__fail_memory();
    bool may = !tm__path_is_directory(directory) || tm__path_is_empty_directory(directory) || tm__path_exists(page);
    free(page);
    return may ? TM_OK
               : tm__fail(TM_EXISTS, directory, NULL, "choose another name, or remove it yourself",
                          "holds no report, so it is not replaced by one");
}

tm_status tm_plan_report(const tm_plan *plan, const char *directory, bool overwrite, const tm_monitor *monitor) {
    tm__outdir out = {0};
    tm__record *records = NULL;
    tm__report r = {.found = {.plan = plan}, .page = {.monitor = monitor, .ok = true, .pictures = true}};
    TM__TRY(tm__records_load(plan, &records, &r.found.count));
    r.found.records = records;
    tm_status status = overwrite ? check_replaced(directory) : TM_OK;
    if (status == TM_OK)
        status = r.found.count ? tm__outdir_begin(&out, directory, overwrite)
                               : tm__fail(TM_NOT_FOUND, plan->directory, NULL, "temper run does cells",
                                          "no cell of %s is done", plan->path);
    r.page.directory = out.aside;
    if (status == TM_OK) status = fill(&r);
    if (status == TM_OK)
        status = tm__outdir_commit(&out);
    else
        tm__outdir_abandon(&out);
    tm__string_free(&r.page.text);
    free(r.arms);
    free(records);
    return status;
}
