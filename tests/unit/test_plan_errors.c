/* Broken plans: every key and every value that is wrong is told by line and column, with the nearest name. */
#include "plan_fixture.h"

static const char good[] =
    "name: test\n"                                                                                             /* 1 */
    "replicates: 2\n"                                                                                          /* 2 */
    "bases:\n"                                                                                                 /* 3 */
    "  one: {chat: chatml, save: bf16, path: MODEL}\n"                                                         /* 4 */
    "data:\n"                                                                                                  /* 5 */
    "  attack: {path: harmful.jsonl, rows: 8}\n"                                                               /* 6 */
    "  defence: {path: harmful.jsonl, first: 8, rows: 8}\n"                                                    /* 7 */
    "  pool: benign.jsonl\n"                                                                                   /* 8 */
    "evaluations:\n"                                                                                           /* 9 */
    "  - {suite: perplexity, name: words, data: text.txt}\n"                                                   /* 10 */
    "  - {suite: loss, data: harmful.jsonl, limit: 4}\n"                                                       /* 11 */
    "scores: {harm: loss.loss, ability: words.token_perplexity}\n"                                             /* 12 */
    "train: {batch: 4}\n"                                                                                      /* 13 */
    "stages:\n"                                                                                                /* 14 */
    "  tuned: {method: finetune, data: pool, steps: 1}\n"                                                      /* 15 */
    "attacks:\n"                                                                                               /* 16 */
    "  none: {}\n"                                                                                             /* 17 */
    "  open: {harmful: attack, steps: 1, axes: {lr: [1e-4, 1e-3]}}\n"                                          /* 18 */
    "arms:\n"                                                                                                  /* 19 */
    "  plain: {attacks: \"none,open\"}\n"                                                                      /* 20 */
    "  sdd: {before: {method: sdd, harmful: defence, benign: pool, steps: 1}, attacks: open, replicates: 1}\n" /* 21 */
    "  safe: {from: tuned, during: {method: panacea, harmful: defence, rho: 0.5}, axes: {during.lambda: [0.1]}}\n"
    "matrix:\n"                                                                    /* 23 */
    "  attacks: [none, open]\n"                                                    /* 24 */
    "  exclude: [{arm: safe, attack: none}]\n"                                     /* 25 */
    "  include: [{arm: sdd, before.lr: 1e-5}, {attack: open, attack.batch: 2}]\n"; /* 26 */

#define TEN "1, 1, 1, 1, 1, 1, 1, 1, 1, 1, "
#define MANY TEN TEN TEN TEN TEN TEN "1, 1, 1, 1, 1"

static const struct {
    const char *from, *to, *says; /* behind "plan.yaml: " */
} cases[] = {
    /* keys */
    {"name: test", "nam: test", "line 1, column 1: a plan has no \"nam\" (did you mean 'name'?)"},
    {"replicates: 2\n", "", "line 1, column 1: the plan lacks \"replicates\""},
    {"bases:\n", "basis:\n", "line 3, column 1: a plan has no \"basis\" (did you mean 'bases'?)"},
    {"save: bf16", "sav: bf16", "line 4, column 23: a base has no \"sav\" (did you mean 'save'?)"},
    {"rows: 8}\n", "row: 8}\n", "line 6, column 33: data has no \"row\" (did you mean 'rows'?)"},
    {"limit: 4", "limt: 4", "line 11, column 40: an evaluation has no \"limt\" (did you mean 'limit'?)"},
    {"ability: w", "abillity: w", "line 12, column 27: scores has no \"abillity\" (did you mean 'ability'?)"},
    {"train: {batch", "train: {bach", "line 13, column 15: bach: no such option (did you mean 'batch'?)"},
    {"pool, steps: 1}\na", "pool, step: 1}\na", "line 15, column 47: step: no such option (did you mean 'steps'?)"},
    {"attack, steps", "attack, stepz", "line 18, column 34: stepz: no such option (did you mean 'steps'?)"},
    {"lr: [1e-4, 1e-3]}}\narms", "x: {[a]: {}}}}\narms", "line 18, column 48: a name is expected"},
    {"plain: {attacks", "plain: {atacks", "line 20, column 11: an arm has no \"atacks\" (did you mean 'attacks'?)"},
    {"during.lambda", "during.lamda", "line 22, column 100: lamda: no such option (did you mean 'lambda'?)"},
    {"  exclude:", "  exclud:", "line 25, column 3: a matrix has no \"exclud\" (did you mean 'exclude'?)"},
    {"[{arm: safe, attack", "[{arm: safe, attac",
     "line 25, column 25: what is excluded has no \"attac\" (did you mean 'attack'?)"},
    {"before.lr", "before.lt", "line 26, column 35: lt: no such option (did you mean 'lr'?)"},
    {"{attack: open, attack.batch", "{attack: open, atack.batch",
     "line 26, column 57: what is included has no \"atack.batch\" (arm, attack, base, replicates, before.X, during.X, "
     "after.X, attack.X)"},
    /* values */
    {"replicates: 2", "replicates: x",
     "line 2, column 13: no number that is possible here: \"x\" (replicates: a whole number from 1 to 1000)"},
    {"replicates: 2", "replicates: 1001", "line 2, column 13: no number that is possible here: \"1001\""},
    {"replicates: 2", "replicates: 2\nworlds: [99999999999999999999]",
     "line 3, column 10: no number that is possible here: \"99999999999999999999\" (a world: a whole number from 0 "
     "to "},
    {"replicates: 2", "replicates: 2\nworlds: [1, 2, 01]", "line 3, column 16: stands twice: \"01\" (remove one)"},
    {"path: MODEL", "path: nowhere", NULL},
    {"chat: chatml", "chat: chatm", "line 4, column 15: chat: 'chatm' is not one of"},
    {"save: bf16", "save: bf61",
     "line 4, column 29: save: 'bf61' is not one of keep|fp32|bf16|fp16 (did you mean 'bf16'?)"},
    {"path: harmful.jsonl, rows", "path: harmfl.jsonl, rows", "line 6, column 11"},
    {"first: 8, rows: 8", "first: 20, rows: 8",
     "line 7, column 12: DIR/harmful.jsonl: defence: rows 20 to 27 are wanted and there are 24"},
    {"first: 8, rows: 8", "first: 4, rows: 8",
     "line 21, column 8: sdd: 4 prompts of the defender's defence are the "
     "attacker's in attack (give the defender rows of its own, or the data "
     "allow-overlap: true)"},
    {"suite: perplexity", "suite: perplexty",
     "line 10, column 13: there is no suite \"perplexty\" (did you mean 'perplexity'?)"},
    {"limit: 4", "limit: -4", "line 11, column 47: limit: -4 is outside"},
    {"name: words", "name: loss",
     "line 11, column 5: two evaluations have this name: \"loss\" (give one a name: of its "
     "own)"},
    {"data: text.txt", "data: txt.txt", "line 10, column 5: DIR/txt.txt: perplexity: there is no such data"},
    {"harm: loss.loss", "harm: loss.los",
     "line 12, column 16: no cell will have a score \"loss.los\" (did you mean 'loss.loss'?)"},
    {"batch: 4}", "batch: four}", "line 13, column 16: batch: 'four'"},
    {"method: finetune", "method: finetun",
     "line 15, column 19: there is no method \"finetun\" (did you mean 'finetune'?)"},
    {"data: pool, steps", "data: pol, steps",
     "line 15, column 35: there is no data set \"pol\" (did you mean 'pool'?)"},
    {"data: pool, steps", "steps", "line 15, column 10: the step lacks rows: \"data\" (name a data set)"},
    {"[1e-4, 1e-3]", "[]", "line 18, column 48: an axis needs values: \"lr\""},
    {"[1e-4, 1e-3]", "[" MANY "], batch: [" MANY "]",
     "line 18, column 43: the axes have too many combinations (4096 at most)"},
    {"{harmful: attack, steps: 1, a", "{harmful: \"\", steps: 1, a",
     "line 18, column 19: no data set is named (leave it out, or name one)"},
    {"[1e-4, 1e-3]", "[1e-4, 1e-4]",
     "line 18, column 9: lr=1e-4: two attackers have this name, in open and in open (name what differs as an axis)"},
    {"\"none,open\"", "\"none,opn\"",
     "line 20, column 20: there is no group of attacks \"opn\" (did you mean 'open'?)"},
    {"from: tuned", "from: tund", "line 22, column 16: no stage is called \"tund\" (did you mean 'tuned'?)"},
    {"{method: panacea", "{method: sdd, benign: pool", NULL},
    {"attacks: [none, open]", "attacks: [nne, open]",
     "line 24, column 13: there is no attack \"nne\" (did you mean 'none'?)"},
    {"attacks: [none, open]", "attacks: none", "line 24, column 12: a list is expected for \"attacks\" ([NAME, NAME])"},
    {"{arm: safe,", "{arm: sfe,", "line 25, column 19: there is no arm \"sfe\" (did you mean 'safe'?)"},
    {"{arm: safe,", "{base: two,", "line 25, column 20: there is no base \"two\""},
    {"[{arm: safe, attack: none}]", "[{arm: sdd, attack: none}]",
     "line 25, column 13: no combination is left that this excludes (leave it out)"},
    {"before.lr: 1e-5", "after.lr: 1e-5",
     "line 26, column 34: no option \"after.lr\" (before.OPTION, during.OPTION or after.OPTION of a step it has)"},
    {"{attack: open, attack.batch: 2}", "{attack: open, replicates: 3}",
     "line 26, column 57: holds for all attackers of an arm: \"replicates\" (leave out attack)"},
    {"{attack: open, attack.batch", "{attack: open, attack.bach", "line 26, column 70: bach: no such option"},
    {"evaluations:\n", "evaluations: {}\nmodel: {hidden: 8}\nworlds: [1]\nprobes:\n", "line 10, column"},
    {"[{arm: safe, attack: none}]", "{arm: safe}",
     "line 25, column 12: a list is expected for \"exclude\" (- {arm: NAME, attack: NAME})"},
};

/* The path of the directory as DIR. */
static void plain_line(const plan_fixture *f, char *out, size_t size) {
    const char *line = strstr(tm_error_last()->line, "plan.yaml: "), *at;
    size_t used = 0;
    assert_non_null(line);
    for (line += strlen("plan.yaml: "); *line && used + 1 < size; line = at) {
        bool here = strncmp(line, f->directory, strlen(f->directory)) == 0;
        at = line + (here ? strlen(f->directory) : 1);
        used += (size_t)snprintf(out + used, size - used, "%s%c", here ? "DI" : "", here ? 'R' : *line);
    }
}

static void broken_plans_are_told(void **state) {
    plan_fixture *f = *state;
    assert_ok(open_plan(f, good, NULL, 0));
    assert_int_equal(count_cells(f->plan), 3 * 2 + 2 + 2 * 2);
    tm_plan_free(f->plan);
    f->plan = NULL;
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        char text[sizeof good + 512], line[1200];
        const char *at = strstr(good, cases[i].from);
        assert_non_null(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, cases[i].to, at + strlen(cases[i].from));
        if (open_plan(f, text, NULL, 0) == TM_OK) fail_msg("\"%s\" is taken", cases[i].to);
        assert_null(f->plan);
        plain_line(f, line, sizeof line);
        if (cases[i].says && strncmp(line, cases[i].says, strlen(cases[i].says)) != 0)
            fail_msg("\"%s\" is told as\n%s\ninstead of\n%s", cases[i].to, line, cases[i].says);
        if (strncmp(line, "line ", 5) != 0) fail_msg("\"%s\" has no place: %s", cases[i].to, line);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(broken_plans_are_told, begin_plan, end_plan)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
