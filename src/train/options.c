/* options.c: the options of training: names, defaults, ranges.
 *
 * Defaults are those that the papers inherit from Hugging Face's Trainer (AdamW, clipping at 1, seed 42) where it has
 * one; SDD's length of 512.
 */
#include "train/train.h"

#define FIELD(name) offsetof(tm_train_options, name)
#define INT(option, field, initial, min, max, unit, help) \
    { option, TM_OPTION_INT, FIELD(field), initial, min, max, NULL, unit, help }
#define REAL(option, field, initial, min, max, help) \
    { option, TM_OPTION_REAL, FIELD(field), initial, min, max, NULL, NULL, help }
#define FLAG(option, field, help) \
    { option, TM_OPTION_FLAG, FIELD(field), NULL, 1, 0, NULL, NULL, help }
#define TEXT(option, field, initial, unit, help) \
    { option, TM_OPTION_TEXT, FIELD(field), initial, 1, 0, NULL, unit, help }
#define CHOICE(option, field, choices, help) \
    { option, TM_OPTION_CHOICE, FIELD(field), NULL, 1, 0, choices, NULL, help }

const tm_option tm_train_option_table[] = {
    INT("steps", steps, "0", 0, 1e9, "steps", "optimiser steps; 0: as many as the epochs take"),
    REAL("epochs", epochs, "1", 0, 1e6, "passes over the rows, where steps is 0"),
    INT("batch", batch, "8", 1, 1e6, "rows", "rows per optimiser step"),
    INT("micro-batch", micro, "0", 0, 1e6, "rows",
        "rows per forward and backward pass; 0: the whole batch. Fewer need less memory"),
    REAL("lr", lr, "2e-5", 1e-12, 100, "learning rate"),
    CHOICE("schedule", schedule, "constant|linear|cosine", "course of the learning rate after the warm-up"),
    REAL("warmup", warmup, "0", 0, 1, "share of the steps in which a linear or cosine schedule rises from 0"),
    CHOICE("optimiser", optimiser, "adamw|sgd", "optimiser"),
    REAL("beta1", beta1, "0.9", 0, 0.9999999, "AdamW: decay of the mean of gradients"),
    REAL("beta2", beta2, "0.999", 0, 0.9999999, "AdamW: decay of the mean of their squares"),
    REAL("epsilon", epsilon, "1e-8", 1e-30, 1, "AdamW: added to the denominator"),
    REAL("weight-decay", weight_decay, "0", 0, 10, "decay of matrices (norms and biases are spared)"),
    REAL("momentum", momentum, "0", 0, 0.9999999, "SGD: momentum"),
    REAL("clip", clip, "1", 0, 1e9, "largest global gradient norm; 0: no clipping"),
    INT("max-length", max_length, "512", 2, 1e6, "tokens", "rows are cut off behind this many tokens"),
    FLAG("packed", packed, "lay rows end to end instead of padding them; the loss is the same"),
    FLAG("full-sequence", full_sequence, "train on prompts too, not on answers alone"),
    INT("freeze-blocks", freeze_blocks, "0", 0, 1e6, "blocks",
        "leave the embedding and so many of the first blocks as they are"),
    FLAG("recompute", recompute, "keep only the inputs of blocks and compute the rest again: less memory, more time"),
    INT("memory", memory, "0", 0, 1e15, TM_UNIT_BYTES,
        "most memory that the run may take, as in 8G: values that backward needs are computed again, the cheapest "
        "first, "
        "as far as that is exceeded. Results are the same. 0: no bound"),
    INT("seed", seed, "42", 0, 9e15, NULL, "seed of row order, dropout and new adapters"),
    INT("save-every", save_every, "0", 0, 1e9, "steps",
        "steps between resumable checkpoints; 0: only when interrupted"),
    TEXT("resume", resume_dir, NULL, "DIR", "directory of the resumable checkpoint, continued from if it holds one"),
    FLAG("force", force_resume, "continue a checkpoint of another instruction set or precision"),
    CHOICE("chat", chat, "auto|chatml|llama2|alpaca|plain|question|template",
           "how conversations become text; auto: what --template says, else the tokenizer's own template"),
    INT("lora-rank", lora.rank, "0", 0, 65536, NULL, "train a LoRA adapter of this rank; 0: train all weights"),
    REAL("lora-alpha", lora.alpha, "16", 1e-6, 1e6, "adapter's scale is alpha / rank"),
    REAL("lora-dropout", lora.dropout, "0", 0, 0.99, "dropout on the adapter's input"),
    TEXT("lora-targets", lora.targets, "q_proj,v_proj", "NAMES", "modules that get an adapter, or all-linear"),
    FLAG("rslora", lora.rslora, "scale by alpha / sqrt(rank)"),
    {0},
};

/* A struct filled in C may hold anything, so every value takes the way of the command line once. */
tm_status tm__options_check(const tm_option *table, const void *given, void *scratch) {
    tm_options_default(table, scratch);
    for (const tm_option *option = table; given && option->name; option++) {
        char text[64];
        if (option->type == TM_OPTION_TEXT) continue;
        tm_options_text(option, given, text, sizeof text);
        TM__TRY(tm_options_set(table, scratch, option->name, text));
    }
    return TM_OK;
}

tm_status tm__train_options_resolve(const tm_train_options *given, tm_train_options *options) {
    tm_train_options checked;
    TM__TRY(tm__options_check(tm_train_option_table, given, &checked));
    if (given) checked = *given;
    if (!checked.lora.targets) checked.lora.targets = tm_options_find(tm_train_option_table, "lora-targets")->initial;
    if (checked.save_every && !checked.resume_dir)
        return tm__fail(TM_INVALID, NULL, "save-every", "name a directory with resume",
                        "resumable checkpoints need a place");
    if (checked.steps == 0 && checked.epochs == 0)
        return tm__fail(TM_INVALID, NULL, "steps", "give steps or epochs", "there is nothing to do");
    *options = checked;
    return TM_OK;
}
