/* logits.c: scores of chosen rows of the hidden state: of the vocabulary, or of a classifier's labels.
 *
 * Shapes: D hidden, V vocabulary or labels.
 */
#include "model/weights.h"

#include <stdlib.h>

/* Where scores go on the host: all of them, or the index of each row's largest. */
typedef struct destination {
    void *scores;
    int32_t *largest;
} destination;

static tm_status deliver(tm_device *dev, const void *scores, int64_t first, int64_t n, int64_t v,
                         const destination *to) {
    size_t size = tm__dtype_size(dev->act);
    if (to->largest) return dev->k->largest(dev, to->largest + first, scores, n, v);
    return dev->download(dev, (char *)to->scores + (size_t)(first * v) * size, scores, (size_t)(n * v) * size);
}

/* One chunk: rows (n) of hidden times the head. `picked` (n, D) and `scores` (n, V) are device buffers. */
static tm_status chunk_scores(tm_model *model, const tm__tape *tape, const tm__var *hidden, const tm__head *head,
                              const int32_t *rows, int64_t n, void *picked, void *scores) {
    tm_device *dev = model->dev;
    int64_t d = model->config.hidden, v = head->weight->value.shape[0];
    tm__gemm product = {.trans_b = true,
                        .m = n,
                        .n = v,
                        .k = d,
                        .a = picked,
                        .a_type = dev->act,
                        .lda = d,
                        .b = head->weight->value.data,
                        .b_type = head->weight->value.dtype,
                        .ldb = d,
                        .c = scores,
                        .ldc = v,
                        .alpha = 1,
                        .row_invariant = tape->row_invariant};
    TM__TRY(tm__param_int8(tape, head->weight, &product.b_int8));
    TM__TRY(dev->k->gather_rows(dev, picked, hidden->value.data, rows, n, d));
    TM__TRY(dev->k->gemm(dev, &product));
    if (head->bias) TM__TRY(dev->k->add_bias(dev, scores, head->bias->value.data, head->bias->value.dtype, n, v));
    return head->soft_cap > 0 ? dev->k->soft_cap(dev, scores, head->soft_cap, n * v) : TM_OK;
}

static tm_status row_scores(tm_model *model, tm__tape *tape, const tm__var *hidden, const tm__head *head,
                            const int32_t *rows, int64_t count, const destination *to) {
    tm_device *dev = model->dev;
    size_t size = tm__dtype_size(dev->act);
    int64_t d = model->config.hidden, v = head->weight->value.shape[0];
    int64_t fit = (int64_t)(TM__HEAD_CHUNK_BYTES / size) / v;
    int64_t chunk = TM__MAX((int64_t)1, TM__MIN(count, fit));
    size_t picked_bytes = (size_t)(chunk * d) * size, score_bytes = (size_t)(chunk * v) * size;
    size_t scores_at = (picked_bytes + 63) / 64 * 64;
    void *room;
    if (!dev->k->gather_rows) return tm__device_lacks(dev, "gather_rows");
    if (to->largest && !dev->k->largest) return tm__device_lacks(dev, "largest");
    if (head->soft_cap > 0 && !dev->k->soft_cap) return tm__device_lacks(dev, "soft_cap");
    TM__TRY(tm__tape_room(tape, TM__FOR_LOGITS, scores_at + score_bytes, &room));
    void *scores = (char *)room + scores_at;
    for (int64_t first = 0; first < count; first += chunk) {
        int64_t n = TM__MIN(chunk, count - first);
        TM__TRY(chunk_scores(model, tape, hidden, head, rows + first, n, room, scores));
        TM__TRY(deliver(dev, scores, first, n, v, to));
    }
    return TM_OK;
}

tm_status tm__model_logits(tm_model *model, tm__tape *tape, const tm__var *hidden, const int32_t *rows, int64_t count,
                           void *logits) {
    const tm__head head = tm__model_head(model);
    TM__TRY(tm__model_check_language(model));
    return row_scores(model, tape, hidden, &head, rows, count, &(destination){.scores = logits});
}

tm_status tm__model_largest(tm_model *model, tm__tape *tape, const tm__var *hidden, const int32_t *rows, int64_t count,
                            int32_t *ids) {
    const tm__head head = tm__model_head(model);
    TM__TRY(tm__model_check_language(model));
    return row_scores(model, tape, hidden, &head, rows, count, &(destination){.largest = ids});
}

tm_status tm__model_label_scores(tm_model *model, tm__tape *tape, const tm__var *hidden, const int32_t *rows,
                                 int64_t count, void *scores) {
    const tm__head head = {.weight = &model->score};
    return row_scores(model, tape, hidden, &head, rows, count, &(destination){.scores = scores});
}
