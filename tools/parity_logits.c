/* parity_logits.c: logits of a checkpoint in fp64, for tools/parity/families_live.py to compare with transformers'.
 *
 *     parity_logits MODEL ADAPTER|- OUT|- <ids >logits
 *
 * Reads token ids separated by blanks, one text a line; writes the logits of every token as doubles, text after text,
 * or a classifier's scores. With OUT the model and its adapter are also written again, to OUT/model and OUT/adapter.
 */
#include "model/model.h"

#include <stdlib.h>

static tm_status write_logits(tm_model *model, const tm_ids *text) {
    const int64_t start = 0, n = (int64_t)text->len,
                  width = model->config.labels ? model->config.labels : model->config.vocab * n;
    int32_t *position = tm__alloc(text->len, sizeof *position);
    double *logits = tm__alloc((size_t)width, sizeof *logits);
    tm__tape *tape = NULL;
    tm__var *hidden;
    tm_status status = position && logits ? tm__tape_create(model->dev, &tape) : tm__fail_memory();
    for (int64_t t = 0; status == TM_OK && t < n; t++) position[t] = (int32_t)t;
    if (status == TM_OK && model->config.labels) {
        status = tm_model_classify(model, text, 1, logits);
    } else if (status == TM_OK) {
        const tm__batch batch = {
            .tokens = n, .ids = text->data, .position = position, .segments = 1, .start = &start, .length = &n};
        tape->recording = false;
        status = tm__model_forward(model, tape, &batch, NULL, &hidden);
        if (status == TM_OK) status = tm__model_logits(model, tape, hidden, position, n, logits);
    }
    if (status == TM_OK) fwrite(logits, sizeof *logits, (size_t)width, stdout);
    tm__tape_free(tape);
    free(position);
    free(logits);
    return status;
}

static tm_status write_again(const tm_model *model, const char *out, bool adapter) {
    char *whole = tm__path_join(out, "model"), *part = tm__path_join(out, "adapter");
    tm_status status = whole && part ? tm_model_save(model, whole, NULL) : tm__fail_memory();
    if (status == TM_OK && adapter) status = tm_model_save_adapter(model, part, NULL);
    free(whole);
    free(part);
    return status;
}

static tm_status each_line(tm_model *model) {
    char line[65536];
    tm_status status = TM_OK;
    while (status == TM_OK && fgets(line, sizeof line, stdin)) {
        tm_ids text = {0};
        char *at = line, *end;
        for (long id; status == TM_OK && (id = strtol(at, &end, 10), end != at); at = end)
            status = tm_ids_push(&text, (int32_t)id);
        if (status == TM_OK && text.len) status = write_logits(model, &text);
        tm_ids_free(&text);
    }
    return status;
}

int main(int argc, char **argv) {
    const tm_device_options options = {.name = "ref", .precision = TM_PRECISION_F64};
    tm_device *device = NULL;
    tm_model *model = NULL;
    if (argc != 4) {
        fprintf(stderr, "usage: parity_logits MODEL ADAPTER|- OUT|- <ids >logits\n");
        return 2;
    }
    bool adapter = strcmp(argv[2], "-") != 0;
    tm_status status = tm_device_open(&options, &device);
    if (status == TM_OK) status = tm_model_load(device, argv[1], adapter ? argv[2] : NULL, &model);
    if (status == TM_OK) status = each_line(model);
    if (status == TM_OK && strcmp(argv[3], "-") != 0) status = write_again(model, argv[3], adapter);
    if (status != TM_OK) fprintf(stderr, "parity_logits: %s\n", tm_error_last()->line);
    tm_model_free(model);
    tm_device_close(device);
    return tm_status_exit_code(status);
}
