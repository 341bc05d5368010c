/* checkpoint.c: activation checkpointing (Chen et al. 2016, "Training deep nets with sublinear memory cost").
 *
 * A segment runs on a tape of its own with recording off; that tape is freed at once and only the result survives. In
 * backward the segment is recorded again from its input, on another tape of its own, with the dropout stream set back
 * to where it stood, and differentiated there. For the time of that inner backward the input's gradient buffer moves to
 * the inner tape: additions then happen in the order they have without checkpointing, so results are equal bit by bit.
 */
#include "tape/tape.h"

typedef struct segment_node {
    tm__node base;
    tm__segment body;
    void *ctx;
    tm__var *x;
    uint64_t dropout_seed, dropout_stream;
    bool training;
} segment_node;

static tm_status open_inner(const tm__tape *tape, bool recording, const tm__var *x, tm__tape **inner, tm__var **ix) {
    TM__TRY(tm__tape_create(tape->dev, inner));
    (*inner)->recording = recording;
    (*inner)->row_invariant = tape->row_invariant;
    (*inner)->dropout_seed = tape->dropout_seed;
    (*inner)->dropout_stream = tape->dropout_stream;
    (*inner)->training = tape->training;
    (*inner)->head_chunk_bytes = tape->head_chunk_bytes;
    tm_status status = tm__tape_input(*inner, x->value, x->needs_grad, ix);
    if (status != TM_OK) tm__tape_free(*inner);
    return status;
}

static tm_status replay(tm__tape *tape, tm__node *base) {
    segment_node *node = (segment_node *)base;
    tm__tape *inner;
    tm__var *ix, *iy;
    TM__TRY(open_inner(tape, true, node->x, &inner, &ix));
    inner->dropout_seed = node->dropout_seed;
    inner->dropout_stream = node->dropout_stream;
    inner->training = node->training;
    tm_status status = node->body(inner, node->ctx, ix, &iy);
    if (status == TM_OK) {
        const void *seed = base->out->grad;
        ix->grad = node->x->grad;
        status = tm__tape_backward(inner, 1, &iy, &seed);
        node->x->grad = ix->grad;
        ix->grad = NULL;
    }
    tm__tape_free(inner);
    return status;
}

/* Moves the result of the inner tape to the outer one; a result that is the segment's input is copied. */
static tm_status take_over(tm__tape *tape, tm__var *iy, tm__var **y) {
    const tm_tensor *value = &iy->value;
    if (!iy->borrowed) {
        iy->borrowed = true;
        return tm__tape_adopt(tape, value->ndim, value->shape, value->data, iy->needs_grad, y);
    }
    if (!tape->dev->k->scale) return tm__device_lacks(tape->dev, "scale");
    TM__TRY(tm__tape_output(tape, value->ndim, value->shape, iy->needs_grad, y));
    return tape->dev->k->scale(tape->dev, (*y)->value.data, 1, value->data, tm__tensor_count(value));
}

static tm_status record(tm__tape *tape, tm__segment body, void *ctx, tm__var *x, const tm__tape *inner, tm__var *y) {
    segment_node *node;
    TM__TRY(tm__tape_node(tape, sizeof *node, "checkpoint", y, replay, NULL, &node));
    node->base.source = inner->sources;
    node->body = body;
    node->ctx = ctx;
    node->x = x;
    x->saved = true;
    node->dropout_seed = tape->dropout_seed;
    node->dropout_stream = tape->dropout_stream; /* still where the segment began */
    node->training = tape->training;
    return TM_OK;
}

tm_status tm__tape_checkpoint(tm__tape *tape, tm__segment body, void *ctx, tm__var *x, tm__var **y) {
    tm__tape *inner;
    tm__var *ix, *iy;
    TM__TRY(open_inner(tape, false, x, &inner, &ix));
    tm_status status;
    TM__TRY_GOTO(status, body(inner, ctx, ix, &iy), done);
    TM__TRY_GOTO(status, take_over(tape, iy, y), done);
    if (tape->recording && (*y)->needs_grad) TM__TRY_GOTO(status, record(tape, body, ctx, x, inner, *y), done);
    tape->dropout_stream = inner->dropout_stream;
    tape->sources |= inner->sources;
done:
    tm__tape_free(inner);
    return status;
}
