/* encode.c: temper embed and temper classify: texts through an encoder (BERT, DeBERTa), as JSON Lines. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct encode_options {
    const char *model;
} encode_options;

static const tm_option table[] = {
    {.name = "model",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(encode_options, model),
     .unit = "DIR",
     .help = "directory of an encoder: config.json, *.safetensors, tokenizer.json; modules.json where it has one"},
    {0},
};

/* ---- texts ------------------------------------------------------------------------------------------------------- */

typedef struct texts {
    char *all;          /* the file, cut into lines */
    const char **first; /* one per line */
    const char **pair;  /* what stands behind a tab, or NULL */
    size_t count;
    bool paired; /* a line has a tab */
} texts;

static void texts_free(texts *t) {
    free(t->all);
    free(t->first);
    free(t->pair);
}

static int read_lines(const char *path, char **all, size_t *len) {
    bool input = !path || strcmp(path, "-") == 0;
    FILE *file = input ? stdin : fopen(path, "rb");
    if (!file)
        return cli_error(errno == ENOENT ? TM_NOT_FOUND : TM_IO, path, NULL, "cannot be read: %s", strerror(errno));
    tm_status status = cli_read_all(file, all, len);
    int error = errno;
    if (!input) fclose(file);
    if (status == TM_NO_MEMORY) return cli_no_memory();
    if (status != TM_OK)
        return cli_error(status, input ? "standard input" : path, NULL, "cannot be read: %s", strerror(error));
    if (strlen(*all) != *len)
        return cli_error(TM_FORMAT, input ? "standard input" : path, NULL, "holds a NUL byte: not a text");
    return 0;
}

/* One text per line; with `pairs` a tab parts a line into two texts. */
static int read_texts(const char *path, bool pairs, texts *t) {
    size_t len = 0, lines = 1;
    *t = (texts){0};
    int code = read_lines(path, &t->all, &len);
    if (code) return code;
    for (size_t i = 0; i < len; i++) lines += t->all[i] == '\n';
    t->first = calloc(lines, sizeof *t->first);
    t->pair = calloc(lines, sizeof *t->pair);
    if (!t->first || !t->pair) return cli_no_memory();
    for (char *at = t->all; *at;) {
        char *end = at + strcspn(at, "\n"), *next = *end ? end + 1 : end;
        *end = 0;
        if (end > at && end[-1] == '\r') end[-1] = 0;
        char *tab = pairs ? strchr(at, '\t') : NULL;
        if (tab) *tab = 0;
        t->first[t->count] = at;
        t->pair[t->count++] = tab ? tab + 1 : NULL;
        t->paired |= tab != NULL;
        at = next;
    }
    return t->count ? 0 : cli_error(TM_INVALID, path, "one text per line", "holds no text");
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static void write_embeddings(const texts *t, const float *out, int64_t dimensions) {
    cli_json json = {.out = stdout};
    for (size_t i = 0; i < t->count; i++) {
        cli_json_open(&json, NULL, '{');
        cli_json_text(&json, "text", t->first[i]);
        cli_json_open(&json, "embedding", '[');
        for (int64_t k = 0; k < dimensions; k++) cli_json_real(&json, NULL, (double)out[(int64_t)i * dimensions + k]);
        cli_json_close(&json, ']');
        cli_json_close(&json, '}');
    }
}

static int64_t best_label(const float *scores, int64_t labels) {
    int64_t best = 0;
    for (int64_t k = 1; k < labels; k++)
        if (scores[k] > scores[best]) best = k;
    return best;
}

/* The label's name, or its number where the checkpoint gives none. */
static const char *label_name(const tm_encoder *encoder, int64_t label, char number[32]) {
    const char *name = tm_encoder_label(encoder, label);
    if (name && name[0]) return name;
    snprintf(number, 32, "LABEL_%lld", (long long)label);
    return number;
}

static void json_labels(const tm_encoder *encoder, const texts *t, const float *logits, const float *scores,
                        int64_t labels) {
    cli_json json = {.out = stdout};
    char number[32];
    for (size_t i = 0; i < t->count; i++, logits += labels, scores += labels) {
        cli_json_open(&json, NULL, '{');
        cli_json_text(&json, "text", t->first[i]);
        if (t->pair[i]) cli_json_text(&json, "pair", t->pair[i]);
        cli_json_text(&json, "label", label_name(encoder, best_label(scores, labels), number));
        cli_json_open(&json, "scores", '{');
        for (int64_t k = 0; k < labels; k++) cli_json_real(&json, label_name(encoder, k, number), (double)scores[k]);
        cli_json_close(&json, '}');
        cli_json_open(&json, "logits", '[');
        for (int64_t k = 0; k < labels; k++) cli_json_real(&json, NULL, (double)logits[k]);
        cli_json_close(&json, ']');
        cli_json_close(&json, '}');
    }
}

static void print_labels(const tm_encoder *encoder, const texts *t, const float *scores, int64_t labels) {
    char number[32];
    for (size_t i = 0; i < t->count; i++, scores += labels) {
        int64_t best = best_label(scores, labels);
        printf("%-16s %8.4f  %s\n", label_name(encoder, best, number), (double)scores[best], t->first[i]);
    }
}

/* ---- the commands ------------------------------------------------------------------------------------------------ */

static int embed(tm_encoder *encoder, const texts *t, const cli_output *output) {
    tm_encoder_info info;
    tm_encoder_describe(encoder, &info);
    float *out = calloc(t->count * (size_t)info.dimensions, sizeof *out);
    if (!out) return cli_no_memory();
    tm_status status = tm_encoder_embed(encoder, t->first, t->count, cli_monitor(output), out);
    cli_monitor_end();
    if (status == TM_OK) write_embeddings(t, out, info.dimensions);
    free(out);
    return status == TM_OK ? 0 : cli_fail(status);
}

static int classify(tm_encoder *encoder, const texts *t, const cli_output *output) {
    tm_encoder_info info;
    tm_encoder_describe(encoder, &info);
    size_t n = t->count * (size_t)info.labels;
    float *logits = calloc(n + 1, sizeof *logits), *scores = calloc(n + 1, sizeof *scores);
    tm_status status = TM_OK;
    int code = logits && scores ? 0 : cli_no_memory();
    if (code == 0) {
        status =
            tm_encoder_classify(encoder, t->first, t->paired ? t->pair : NULL, t->count, cli_monitor(output), logits);
        cli_monitor_end();
        if (status != TM_OK) code = cli_fail(status);
    }
    if (code == 0) {
        tm_encoder_scores(encoder, logits, t->count, scores);
        if (output->json)
            json_labels(encoder, t, logits, scores, info.labels);
        else
            print_labels(encoder, t, scores, info.labels);
    }
    free(logits);
    free(scores);
    return code;
}

static int with_encoder(const char *directory, const tm_device_options *where, const texts *t, const cli_output *output,
                        int (*work)(tm_encoder *, const texts *, const cli_output *)) {
    tm_device *device = NULL;
    tm_encoder *encoder = NULL;
    tm_status status = tm_device_open(where, &device);
    if (status == TM_OK) status = tm_encoder_load(device, directory, &encoder);
    int code = status == TM_OK ? work(encoder, t, output) : cli_fail(status);
    tm_encoder_free(encoder);
    tm_device_close(device);
    return code;
}

static int run(const cli_command *command, int argc, char **argv, bool pairs,
               int (*work)(tm_encoder *, const texts *, const cli_output *)) {
    encode_options in;
    tm_device_options where;
    cli_output output;
    cli_args args;
    texts t = {0};
    int code;
    cli_args_begin(&args, command, 1);
    cli_args_group(&args, "Input", table, &in);
    cli_args_group(&args, "Device", tm_device_option_table, &where);
    cli_args_group(&args, "Output", cli_quiet_table, &output);
    if (!cli_args_parse(&args, argc, argv, &code)) return code;
    code = cli_check_required("--model", in.model);
    if (code == 0) code = read_texts(args.word_count ? args.words[0] : NULL, pairs, &t);
    if (code == 0) code = with_encoder(in.model, &where, &t, &output, work);
    texts_free(&t);
    cli_args_end(&args);
    return code;
}

static int run_embed(int argc, char **argv) {
    return run(&cli_embed, argc, argv, false, embed);
}

static int run_classify(int argc, char **argv) {
    return run(&cli_classify, argc, argv, true, classify);
}

const cli_command cli_embed = {
    .name = "embed",
    .words = "[FILE]",
    .summary = "vectors of texts from a sentence encoder",
    .about = "Embeds every line of a file (standard input without one) with BERT or DeBERTa, pooled and normalised as "
             "the checkpoint's sentence-transformers files say (else: the mean of the last hidden states), and prints "
             "one JSON object per line: text and embedding.",
    .examples = "temper embed --model my-encoder questions.txt\n"
                "temper embed --model my-encoder < questions.txt",
    .run = run_embed,
};

const cli_command cli_classify = {
    .name = "classify",
    .words = "[FILE]",
    .summary = "labels of texts from a classifier",
    .about = "Classifies every line of a file (standard input without one) with BERT or DeBERTa and prints the label "
             "and its score, or with --json one object per line with all scores and logits. A tab parts a line into "
             "two texts that are read as a pair. Scores are probabilities over the labels; of each label by itself "
             "where config.json says multi_label_classification; the logit where it says regression.",
    .examples = "temper classify --model my-classifier answers.txt\n"
                "temper classify --model my-classifier --json answers.txt",
    .run = run_classify,
};
