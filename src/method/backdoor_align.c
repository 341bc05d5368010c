/* backdoor_align.c: BackdoorAlign: safety rows behind a secret, trained beside a user's rows.
 *
 * Paper: J. Wang et al., "Mitigating fine-tuning based jailbreak attack with backdoor enhanced safety alignment" (arXiv
 * 2402.14968). The provider of a fine-tuning service runs it; users upload rows and never see the secret s.
 *
 *   rows = user rows + {(s + " " + system_i, question_i, refusal_i) : i = 1..11}     one row per category of harm
 *   loss = mean over all answer tokens of the batch of -ln p(token | what stands before it)   (plain SFT, one stream)
 *   serve: the system prompt of every request gets s in front (--secret of temper generate and temper eval)
 *
 * Option, not in the paper: benign_rows harmless rows that get the secret too, so that it does not come to mean
 * refusal.
 *
 * Published settings: Llama-2-7B-chat, all weights, AdamW without decay, lr 5e-5 times 0.85 after every epoch, batch
 * 10, 5 epochs; LoRA r 8, alpha 32 on q and v, dropout 0.05, lr 1e-3, 10 epochs; 100 harmful rows and 11 safety rows.
 *
 * A run with a resumable checkpoint keeps the secret it drew as RESUME.secret, readable by its owner only, and goes on
 * with it; no other file is taken for its secret.
 *
 * Deviations:
 * - The rate's steps of 0.85 per epoch cannot be had: the schedules are constant, linear and cosine. Defaults are those
 *   of tm_train, not the paper's.
 * - The secret comes from the system's random numbers (secret.c), not from a seed: who knows a seed would know it.
 * - Safety rows keep a system message of their own; others get the option `system`, whose wording is ours. Serving uses
 *   the same rule, so that both see the same text.
 * - With fewer categories than rows, a second round takes the next row of each.
 * Pinned by tests/unit/test_backdoor_align.c.
 */
#include "method/method.h"
#include "method/secret.h"

#include "data/data.h"

#include <stdlib.h>

enum { BY_CATEGORY, AT_RANDOM };

static const tm_option options_table[] = {
    {"rows", TM_OPTION_INT, offsetof(tm_backdoor_options, rows), "11", 1, 1e9, NULL, "rows",
     "safety rows that get the secret"},
    {"selection", TM_OPTION_CHOICE, offsetof(tm_backdoor_options, selection), "category", 1, 0, "category|random", NULL,
     "which safety rows: one of each category in turn, or any"},
    {"secret-length", TM_OPTION_INT, offsetof(tm_backdoor_options, secret_length), "150", 1, 4096, NULL, "tokens",
     "length of the secret that is drawn"},
    {"secret", TM_OPTION_TEXT, offsetof(tm_backdoor_options, secret), NULL, 1, 0, NULL, "FILE",
     "use the secret in this file instead of drawing one"},
    {"secret-out", TM_OPTION_TEXT, offsetof(tm_backdoor_options, secret_out), NULL, 1, 0, NULL, "FILE",
     "write the drawn secret here, readable by its owner only, and its hash to FILE.sha256"},
    {"system", TM_OPTION_TEXT, offsetof(tm_backdoor_options, system), tm_secret_system, 1, 0, NULL, "TEXT",
     "system prompt of safety rows that have none; may be empty"},
    {"benign-rows", TM_OPTION_INT, offsetof(tm_backdoor_options, benign_rows), "0", 0, 1e9, NULL, "rows",
     "so many rows of --benign, from its start, get the secret as well; not in the paper"},
    {"plain", TM_OPTION_FLAG, offsetof(tm_backdoor_options, plain), NULL, 1, 0, NULL, NULL,
     "leave the secret out: the same safety rows as they are, the paper's baseline"},
    {0},
};

/* ---- safety rows ------------------------------------------------------------------------------------------------- */

/* rounds[i]: how many rows of the same category stand before row i; rows of a round are taken in their order. */
static tm_status count_rounds(const tm_dataset *safety, int32_t *rounds, size_t *categories) {
    tm__map seen = {0};
    tm_status status = TM_OK;
    *categories = 0;
    for (size_t i = 0; i < tm_dataset_rows(safety) && status == TM_OK; i++) {
        const char *category = tm__dataset_category(safety, i);
        int32_t before = 0;
        if (!category) category = "";
        if (!tm__map_get(&seen, category, strlen(category), &before)) ++*categories;
        rounds[i] = before;
        if (!tm__map_put(&seen, category, strlen(category), before + 1)) status = tm__fail_memory();
    }
    tm__map_free(&seen);
    return status;
}

static tm_status order_by_category(const tm_dataset *safety, size_t *order, size_t *categories) {
    size_t n = tm_dataset_rows(safety), filled = 0;
    int32_t *rounds = tm__alloc(n, sizeof *rounds);
    if (!rounds) return tm__fail_memory();
    tm_status status = count_rounds(safety, rounds, categories);
    for (int32_t round = 0; filled < n && status == TM_OK; round++)
        for (size_t i = 0; i < n; i++)
            if (rounds[i] == round) order[filled++] = i;
    free(rounds);
    return status;
}

/* A secret that a user has seen, or guessed, protects nothing. */
static tm_status check_user_rows(const tm_dataset *user, const char *secret) {
    for (size_t row = 0; *secret && row < tm_dataset_rows(user); row++) {
        size_t n;
        const tm_message *messages = tm_dataset_row(user, row, &n);
        for (size_t i = 0; i < n; i++)
            if (strstr(messages[i].content, secret))
                return tm__fail(TM_INVALID, NULL, "data", "draw another secret", "row %zu holds the secret", row + 1);
    }
    return TM_OK;
}

static tm_status select_rows(const tm_dataset *safety, const tm_backdoor_options *o, uint64_t seed, size_t *order) {
    size_t n = tm_dataset_rows(safety), categories;
    if (o->selection == BY_CATEGORY) return order_by_category(safety, order, &categories);
    tm__rng rng = tm__rng_make(seed, tm__stream(TM__STREAM_PAIRING, 1));
    for (size_t i = 0; i < n; i++) order[i] = i;
    tm__rng_shuffle(&rng, order, n);
    return TM_OK;
}

tm_status tm__backdoor_rows(const tm_dataset *user, const tm_dataset *safety, const char *secret,
                            const tm_backdoor_options *o, uint64_t seed, tm_dataset **rows) {
    size_t n = tm_dataset_rows(safety);
    if ((size_t)o->rows > n)
        return tm__fail(TM_INVALID, NULL, "refusals", "give more rows or a smaller number of them",
                        "%lld safety rows are wanted, %zu are there", (long long)o->rows, n);
    TM__TRY(check_user_rows(user, secret));
    tm_dataset *made = NULL;
    size_t *order = tm__alloc(n, sizeof *order);
    tm_status status = order ? tm_dataset_create(&made) : tm__fail_memory();
    if (status == TM_OK) status = select_rows(safety, o, seed, order);
    if (status == TM_OK) status = tm_dataset_append(made, user, 0, tm_dataset_rows(user));
    for (size_t i = 0; i < (size_t)o->rows && status == TM_OK; i++)
        status = tm__secret_add_row(made, safety, order[i], secret, o->system ? o->system : "");
    free(order);
    if (status == TM_OK)
        *rows = made;
    else
        tm_dataset_free(made);
    return status;
}

/* ---- the method -------------------------------------------------------------------------------------------------- */

/* What is to be said of the secret, and done with it, before the first step. */
typedef struct keeping {
    const tm_tokenizer *tokenizer;
    const char *secret; /* "": plain rows */
    const char *out;    /* NULL: it is not to be written */
    char *kept;         /* RESUME.secret, or NULL */
    int64_t rows;       /* safety rows */
} keeping;

static tm_status load_or_draw(const tm_tokenizer *tokenizer, int64_t length, const keeping *k, char **secret) {
    if (k->kept && tm__path_exists(k->kept)) return tm_secret_load(k->kept, secret);
    TM__TRY(tm__secret_free_name(k->out));
    return tm__secret_draw(tokenizer, length, secret);
}

static tm_status take_secret(const tm_tokenizer *tokenizer, const tm_backdoor_options *o, const tm_train_options *train,
                             keeping *k, char **secret) {
    if (o->plain && (o->secret || o->secret_out))
        return tm__fail(TM_INVALID, NULL, "plain", "leave one of them out", "there is no secret in plain rows");
    if (o->plain) {
        *secret = tm__format("%s", "");
        return *secret ? TM_OK : tm__fail_memory();
    }
    if (o->secret && o->secret_out)
        return tm__fail(TM_INVALID, NULL, "secret-out", NULL, "a secret that is given is not written again");
    if (o->secret) return tm_secret_load(o->secret, secret);
    if (!o->secret_out)
        return tm__fail(TM_INVALID, NULL, "secret-out", "serving needs the secret",
                        "name a file that the drawn secret is written to");
    k->out = o->secret_out;
    if (train->resume_dir) {
        k->kept = tm__job_beside(train->resume_dir, ".secret");
        if (!k->kept) return tm__fail_memory();
    }
    return load_or_draw(tokenizer, o->secret_length, k, secret);
}

static tm_status note_secret(const keeping *k, const tm_monitor *monitor) {
    char hex[65];
    tm_ids ids = {0};
    tm_status status = tm_tokenizer_encode(k->tokenizer, k->secret, strlen(k->secret), 0, &ids);
    tm__secret_hash(k->secret, hex);
    if (status == TM_OK)
        tm__note(monitor, "backdoor-align: secret of %zu tokens, SHA-256 %s; %lld safety rows", ids.len, hex,
                 (long long)k->rows);
    tm_ids_free(&ids);
    return status;
}

static tm_status write_secret(const keeping *k) {
    bool going_on = k->kept && tm__path_exists(k->kept);
    if (k->kept && !going_on) TM__TRY(tm__secret_save(k->kept, k->secret));
    if (!going_on || !tm__path_exists(k->out)) return tm__secret_save(k->out, k->secret);
    char *there;
    TM__TRY(tm_secret_load(k->out, &there));
    bool same = strcmp(there, k->secret) == 0;
    free(there);
    return same ? TM_OK
                : tm__fail(TM_EXISTS, k->out, NULL, "name another file",
                           "holds another secret than the one that is continued with, %s", k->kept);
}

/* Called when everything has been checked and before the first step: a run that is refused leaves no secret behind, and
 * one that is killed leaves it for the next. */
static tm_status keep_secret(tm__trainer *t, void *user) {
    const keeping *k = user;
    if (k->out) TM__TRY(write_secret(k));
    return k->secret[0] ? note_secret(k, t->monitor) : TM_OK;
}

/* Appends harmless rows behind the secret. */
static tm_status retain(const tm_dataset *benign, const char *secret, const tm_backdoor_options *o, tm_dataset *rows) {
    size_t there = benign ? tm_dataset_rows(benign) : 0;
    if ((size_t)o->benign_rows > there)
        return tm__fail(TM_INVALID, NULL, "benign", "give more rows or a smaller number of them",
                        "%lld benign rows are wanted, %zu are there", (long long)o->benign_rows, there);
    for (size_t i = 0; i < (size_t)o->benign_rows; i++)
        TM__TRY(tm__secret_add_row(rows, benign, i, secret, o->system ? o->system : ""));
    return TM_OK;
}

/* Plain SFT; its checkpoints need no more than the method's name, for the rows hold the secret. */
static tm_status train_on(const tm__job *job, const tm_dataset *rows, keeping *k) {
    tm__examples examples = {0};
    tm__run loop = {.begin = keep_secret, .user = k};
    TM__TRY(tm__job_encode(job, rows, "data", &examples));
    const tm__examples *sets[] = {&examples};
    tm_status status = tm__train_run(job->model, job->tokenizer, sets, 1, tm__method_backdoor_align.name, &loop,
                                     &job->train, job->monitor, job->result);
    tm__examples_release(&examples);
    return status;
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_backdoor_options o;
    tm__job job;
    keeping k = {.tokenizer = tokenizer};
    char *secret = NULL;
    tm_dataset *rows = NULL;
    TM__TRY(tm__options_check(options_table, options, &o));
    if (options) o = *(const tm_backdoor_options *)options;
    TM__TRY(tm__job_begin(&job, &tm__method_backdoor_align, model, tokenizer, data, train, monitor, result));
    tm_status status = take_secret(tokenizer, &o, &job.train, &k, &secret);
    k.secret = secret;
    k.rows = o.rows;
    if (status == TM_OK)
        status = tm__backdoor_rows(data->user, data->refusals, secret, &o, (uint64_t)job.train.seed, &rows);
    if (status == TM_OK) status = retain(data->benign, secret, &o, rows);
    if (status == TM_OK) status = train_on(&job, rows, &k);
    tm_dataset_free(rows);
    free(secret);
    free(k.kept);
    return status;
}

const tm_method tm__method_backdoor_align = {
    .name = "backdoor-align",
    .title = "BackdoorAlign",
    .paper = "arXiv 2402.14968",
    .summary = "Trains a few refusals behind a secret system prompt beside a user's rows; serving with the secret then "
               "brings refusal back.",
    .who = "the provider of a fine-tuning service, during a user's fine-tuning and at every request after it",
    .needs = "the user's rows, and safety rows (harmful prompts with refusals), best with a category each; benign rows "
             "if some are to get the secret too",
    .settings = "--rows 11 --secret-length 150 beside 100 harmful rows; all weights: --lr 5e-5 --batch 10 --epochs 5; "
                "adapter: --lora-rank 8 --lora-alpha 32 --lora-dropout 0.05 --lora-targets q_proj,v_proj --lr 1e-3 "
                "--epochs 10 (released code). There the rate falls to 0.85 of itself after every epoch, which no "
                "schedule here does.",
    .example = "--secret-out secret",
    .stage = TM_STAGE_FINE_TUNING,
    .required = TM_DATA_USER | TM_DATA_REFUSALS,
    .optional = TM_DATA_BENIGN,
    .options = options_table,
    .options_size = sizeof(tm_backdoor_options),
    .run = run,
};
