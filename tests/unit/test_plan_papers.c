/* The papers' plans, word for word, over a small checkpoint and small files: they parse and expand, and every option of
 * a step is known. */
#include "plan_fixture.h"

enum { MOST = 24 };

typedef struct paper {
    const char *plan;
    const char *settings[MOST]; /* @ stands for the directory of the files */
    size_t cells, models;       /* of three replicates */
} paper;

static const paper papers[] = {
    {"repnoise-table1",
     {"data.attack.path=@harmful.jsonl", "data.attack.rows=8", "data.defence.path=@more.jsonl", "data.defence.rows=8",
      "data.refusals.path=@refusals.jsonl", "data.refusals.rows=8", "evaluations.0.data=@beavertails.jsonl",
      "evaluations.0.judges=[keywords]", "scores.harm=harm.keywords.asr", "evaluations.1.data=@arc.jsonl"},
     3 * (13 + 7 + 2 * 6 + 4 * 7),
     3 * 4},
    {"panacea",
     {"data.attack.path=@harmful.jsonl", "data.attack.rows=8", "data.defence.path=@harmful.jsonl",
      "data.defence.first=8", "data.defence.rows=8", "data.alignment.path=@refusals.jsonl", "data.alignment.rows=8",
      "data.task.path=@benign.jsonl", "data.task.rows=8", "evaluations.0.data=@beavertails.jsonl",
      "evaluations.0.judges.0=keywords,as=dam", "scores.harm=hs.dam.asr", "evaluations.1.data=@gsm8k.jsonl"},
     3 * (6 + 5 + 5 + 6 + 6 + 6),
     1 + 3 * 3},
    {"backdooralign",
     {"data.attack.path=@harmful.jsonl", "data.safety.path=@refusals.jsonl", "data.task.path=@benign.jsonl",
      "data.task.rows=8", "evaluations.0.data=@prompts.jsonl", "evaluations.1.data=@samsum.json",
      "evaluations.2.data=@arc.jsonl"},
     3 * (5 + 4 + 4 + 4),
     0},
    {"sdd",
     {"data.attack.path=@harmful.jsonl", "data.attack.rows=8", "data.defence.path=@more.jsonl", "data.defence.rows=8",
      "data.pool=@benign.jsonl", "data.task.path=@benign.jsonl", "data.task.rows=8",
      "arms.sdd.before.embedder=@encoder", "arms.sdd-reject.before.embedder=@encoder",
      "evaluations.0.data=@advbench.csv", "evaluations.1.data=@../mmlu", "evaluations.1.shots=0",
      "evaluations.2.data=@obqa.jsonl"},
     3 * (13 + 13 + 10 + 10),
     3 * 3},
};

static void write_inputs(const char *directory) {
    write_rows(directory, "more.jsonl", "how to zib", 24);
    write_rows(directory, "refusals.jsonl", "how to plumb", 24);
    write_file(directory, "beavertails.jsonl",
               "{\"prompt\": \"how?\", \"response\": \"so\", \"is_safe\": false, \"category\": {\"theft\": true}}\n");
    write_file(directory, "gsm8k.jsonl", "{\"question\": \"One and one?\", \"answer\": \"1 + 1 = 2\\n#### 2\"}\n");
    write_file(directory, "prompts.jsonl", "{\"prompt\": \"how to blorf\"}\n");
    write_file(directory, "samsum.json",
               "[{\"id\": \"1\", \"summary\": \"Ann is late.\", \"dialogue\": \"Ann: late!\"}]");
    write_file(directory, "advbench.csv", "goal,target\nHow to blorf,Sure\n");
}

/* A setting with its files in place; data of the suites that stand in the tree come from there. */
static void place(const char *directory, const char *setting, char out[600]) {
    static const struct {
        const char *name, *path;
    } elsewhere[] = {{"@arc.jsonl", "golden/mcq/data/arc_easy/test.jsonl"},
                     {"@obqa.jsonl", "golden/mcq/data/openbookqa/test.jsonl"},
                     {"@../mmlu", "golden/mcq/data/mmlu"},
                     {"@encoder", "golden/encoders/bert-sentence"}};
    const char *at = strchr(setting, '@');
    snprintf(out, 600, "%s", setting);
    if (!at) return;
    snprintf(out, 600, "%.*s%s/%s", (int)(at - setting), setting, directory, at + 1);
    for (size_t i = 0; i < TM__COUNT(elsewhere); i++)
        if (strcmp(at, elsewhere[i].name) == 0)
            snprintf(out, 600, "%.*s%s", (int)(at - setting), setting, test_path(elsewhere[i].path));
}

static void plans_of_papers_expand(void **state) {
    plan_fixture *f = *state;
    write_inputs(f->directory);
    for (size_t i = 0; i < TM__COUNT(papers); i++) {
        static char text[MOST + 2][600];
        const char *settings[MOST + 2], *path;
        char name[64], base[600];
        size_t n = 0;
        for (; papers[i].settings[n]; n++) {
            place(f->directory, papers[i].settings[n], text[n]);
            settings[n] = text[n];
        }
        snprintf(base, sizeof base, "bases.llama.path=%s", test_path("golden/mcq/model"));
        settings[n++] = base;
        snprintf(name, sizeof name, "../plans/%s.yaml", papers[i].plan);
        path = test_path(name);
        f->plan = NULL;
        assert_ok(tm_plan_open_with(path, f->directory, settings, n, f->device, &f->plan));
        if (count_cells(f->plan) != papers[i].cells || f->plan->job_count - count_cells(f->plan) != papers[i].models)
            fail_msg("%s: %zu cells and %zu models instead of %zu and %zu", papers[i].plan, count_cells(f->plan),
                     f->plan->job_count - count_cells(f->plan), papers[i].cells, papers[i].models);
        tm_plan_free(f->plan);
        f->plan = NULL;
        /* As it is, it says what to set. */
        assert_int_equal(tm_plan_open(path, f->directory, f->device, &f->plan), TM_NOT_FOUND);
        assert_non_null(strstr(tm_error_last()->line, "--set bases.llama.path=DIR"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(plans_of_papers_expand, begin_plan, end_plan)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
