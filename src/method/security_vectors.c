/* security_vectors.c: Security Vectors: harm is learnt beforehand, lent to the model while users tune it, then removed.
 *
 * Paper: X. Zhou et al., "Making harmful behaviors unlearnable for large language models" (arXiv 2311.02105). A
 * fine-tuning service runs it; it must control the tuning.
 *
 *   1. theta_s = argmin CE(w + LoRA theta_s; harmful rows)      the model w is frozen
 *   2. w'      = argmin CE(w' + theta_s; user rows)             theta_s is active and frozen; all of w or a LoRA
 * adapter
 *   3. deploy w' without theta_s
 *
 * With theta_s the harmful rows among the user's have little loss left, so w' learns little from them.
 * The published vectors: rank 8, alpha 32, dropout 0.1, Adam at 1e-3, one epoch; about 100 rows are enough. Batch size,
 * schedule, clipping, length, packing and full-sequence are the user's in both stages; optimiser, decay and frozen
 * blocks are not: the vectors stand on all blocks. Code that leaves the adapter attached at evaluation measures the
 * harm itself: here it is gone when the method ends. theta_s drops nothing in stage 2: it is frozen, not trained. The
 * resumable checkpoint of stage 1 lies beside that of stage 2, as RESUME.vectors, and is kept: stage 2 begins with it
 * whenever it is continued. Pinned by tests/golden/test_stage.c, tests/unit/test_security_vectors.c and
 * tests/cli/cases/kill_methods.sh.
 */
#include "method/method.h"

#include "model/weights.h"

#include <stdlib.h>

static const tm_option options_table[] = {
    {"vectors-rank", TM_OPTION_INT, offsetof(tm_security_vectors_options, lora.rank), "8", 1, 65536, NULL, NULL,
     "rank of the security vectors"},
    {"vectors-alpha", TM_OPTION_REAL, offsetof(tm_security_vectors_options, lora.alpha), "32", 1e-9, 1e9, NULL, NULL,
     "their scale is alpha / rank"},
    {"vectors-dropout", TM_OPTION_REAL, offsetof(tm_security_vectors_options, lora.dropout), "0.1", 0, 0.99, NULL, NULL,
     "dropout while they are learnt"},
    {"vectors-targets", TM_OPTION_TEXT, offsetof(tm_security_vectors_options, lora.targets), "q_proj,v_proj", 1, 0,
     NULL, "MODULES", "linear layers that they are added to"},
    {"vectors-lr", TM_OPTION_REAL, offsetof(tm_security_vectors_options, lr), "0.001", 0, 1e3, NULL, NULL,
     "learning rate of the vectors"},
    {"vectors-epochs", TM_OPTION_REAL, offsetof(tm_security_vectors_options, epochs), "1", 1e-6, 1e6, NULL, "epochs",
     "passes over the harmful rows"},
    {0},
};

static tm_status learn_vectors(tm__job *learn, const tm_security_vectors_options *o) {
    tm__examples harmful = {0};
    tm__run loop = {0};
    TM__TRY(tm__job_encode(learn, learn->data->harmful, "harmful", &harmful));
    const tm__examples *sets[] = {&harmful};
    tm_status status = tm__job_run(learn, &tm__method_security_vectors, o, sets, 1, &loop);
    tm__examples_release(&harmful);
    return status;
}

tm_status tm__security_vectors_learn(const tm__job *job, const tm_security_vectors_options *o) {
    tm__job learn = *job;
    char *directory = NULL;
    learn.train.lora = o->lora;
    learn.train.lora.rslora = false; /* not among the options: a caller may have left it unset */
    learn.train.optimiser = 0;       /* Adam: how the user's rows are learnt says nothing about the vectors */
    learn.train.weight_decay = 0;
    learn.train.lr = o->lr;
    learn.train.epochs = o->epochs;
    learn.train.steps = 0;
    learn.train.freeze_blocks = 0; /* the vectors stand on all blocks, whichever of them the user's rows may move */
    learn.result = NULL;
    if (job->train.resume_dir) {
        directory = tm__job_beside(job->train.resume_dir, ".vectors");
        if (!directory) return tm__fail_memory();
        learn.train.resume_dir = directory;
        if (!learn.train.save_every) learn.train.save_every = INT64_MAX; /* at least when they are learnt */
    }
    tm_status status = learn_vectors(&learn, o);
    free(directory);
    return status;
}

static void stop_dropping(tm_model *model) {
    for (int64_t i = 0; i < model->config.layers; i++)
        for (int k = 0; k < TM__LINEARS; k++) {
            tm__adapter *vectors = tm__adapter_find(tm__block_linear(&model->blocks[i], k), 0);
            if (vectors) vectors->dropout = 0;
        }
}

tm_status tm__security_vectors_tune(const tm__job *job) {
    stop_dropping(job->model);
    return tm__train_sft(job->model, job->tokenizer, job->data->user, tm__method_security_vectors.name, &job->train,
                         job->monitor, job->result);
}

static tm_status run(tm_model *model, const tm_tokenizer *tokenizer, const tm_method_data *data, const void *options,
                     const tm_train_options *train, const tm_monitor *monitor, tm_train_result *result) {
    tm_security_vectors_options o;
    tm__job job;
    TM__TRY(tm__options_check(options_table, options, &o));
    if (options) o = *(const tm_security_vectors_options *)options;
    TM__TRY(tm__job_begin(&job, &tm__method_security_vectors, model, tokenizer, data, train, monitor, result));
    if (model->adapter_count)
        return tm__fail(TM_INVALID, NULL, "adapter", "merge it first", "the model has an adapter already");
    if (job.train.freeze_blocks >= model->config.layers) /* stage 1 freezes none, and would not find out */
        return tm__fail(TM_INVALID, NULL, "freeze-blocks", NULL, "the model has %lld blocks",
                        (long long)model->config.layers);
    tm_status status = tm__security_vectors_learn(&job, &o);
    if (status == TM_OK) status = tm__security_vectors_tune(&job);
    if (model->adapter_count) tm__adapter_remove(model, 0);
    return status;
}

const tm_method tm__method_security_vectors = {
    .name = "security-vectors",
    .title = "Security Vectors",
    .paper = "arXiv 2311.02105",
    .summary = "Learns harm into an adapter, keeps it active and frozen while the user's rows are learnt, then removes "
               "it.",
    .who = "a fine-tuning service, during a user's fine-tuning",
    .needs = "the user's rows and harmful prompts with harmful answers",
    .settings = "--vectors-rank 8 --vectors-alpha 32 --vectors-dropout 0.1 --vectors-lr 1e-3 --vectors-epochs 1 (code "
                "of RepNoise's comparison); about 100 harmful rows are enough (paper). How the user's rows were "
                "learnt was not found.",
    .stage = TM_STAGE_FINE_TUNING,
    .required = TM_DATA_USER | TM_DATA_HARMFUL,
    .divides = true,
    .options = options_table,
    .options_size = sizeof(tm_security_vectors_options),
    .run = run,
};
