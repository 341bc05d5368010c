/* tape.c: the recording: vars, nodes, and the walk back.
 *
 * Vars and nodes live in the tape's arena and die together; what they point to on the device comes from its pool.
 * Nodes stand in the order in which they ran, which is a topological order, so backward is one loop from the last to
 * the first. A value is read by nodes behind its own only: once its node has run backward nothing can ask for it any
 * more, and value, gradient and saved buffers go back to the pool at once.
 *
 * Values made again (Chen et al. 2016; the choice at the moment when memory is short: Kirisame et al., "Dynamic tensor
 * rematerialization", 2021): a value that has been dropped is spare if its node can compute it again and each of the
 * node's inputs stays or can be computed again too. When a buffer would exceed the device's limit, the cheapest spare
 * value goes. Its price is static: the work of its node, and of those before it whose values nobody keeps. A saved
 * value that is gone as well is not part of the price: it is made again once, for all who read it, and stays until its
 * own node has run. Values that backward has made again go only when there are no others, because it is about to read
 * them. (tests/grad/test_grad_remake.c, tests/unit/test_memory_limit.c)
 */
#include "tape/tape.h"

#include <stdlib.h>

static bool reclaim(tm__reclaimer *self);

tm_status tm__tape_create(tm_device *dev, tm__tape **tape) {
    tm__tape *made = tm__zalloc(1, sizeof *made);
    if (!made) return tm__fail_memory();
    made->dev = dev;
    made->recording = true;
    made->turn = 1; /* 0 is that of vars which nobody asked for */
    made->reclaimer = (tm__reclaimer){reclaim, dev->reclaimers};
    dev->reclaimers = &made->reclaimer;
    *tape = made;
    return TM_OK;
}

/* ---- releasing --------------------------------------------------------------------------------------------------- */

static void release_value(tm__tape *tape, tm__var *var) {
    if (!var->borrowed) tape->dev->release(tape->dev, var->value.data, tm__tensor_bytes(&var->value));
    var->value.data = NULL;
}

static void release_grad(tm__tape *tape, tm__var *var) {
    if (var->grad) tape->dev->release(tape->dev, var->grad, tm__tensor_bytes(&var->value));
    var->grad = NULL;
}

static void release_saved(tm__tape *tape, tm__node *node) {
    if (node->release) node->release(tape, node);
    node->release = NULL;
}

void tm__tape_reset(tm__tape *tape) {
    for (size_t i = 0; i < tape->count; i++) release_saved(tape, tape->nodes[i]);
    for (size_t i = 0; i < tape->var_count; i++) {
        if (tape->vars[i]->value.data) release_value(tape, tape->vars[i]);
        release_grad(tape, tape->vars[i]);
    }
    tape->count = tape->var_count = 0;
    tape->spent = false;
    tm__arena_reset(&tape->host);
}

static void release_room(tm__tape *tape) {
    if (tape->room) tape->dev->release(tape->dev, tape->room, tape->room_bytes);
    tape->room = NULL;
    tape->room_bytes = 0;
}

tm_status tm__tape_room(tm__tape *tape, int purpose, size_t bytes, void **room) {
    if (bytes > tape->room_bytes) {
        release_room(tape);
        TM__TRY(tm__alloc_for(tape->dev, purpose, bytes, &tape->room));
        tape->room_bytes = bytes;
    }
    *room = tape->room;
    return TM_OK;
}

void tm__tape_free(tm__tape *tape) {
    if (!tape) return;
    tm__tape_reset(tape);
    release_room(tape);
    tm__arena_release(&tape->host);
    tm__reclaimer **link = &tape->dev->reclaimers;
    while (*link != &tape->reclaimer) link = &(*link)->next;
    *link = tape->reclaimer.next;
    free(tape->nodes);
    free(tape->vars);
    free(tape);
}

/* ---- values made again ------------------------------------------------------------------------------------------- */

/* Whether the value is there until its node has run backward, or can be had until then. */
static bool stays(const tm__var *var) {
    return var->borrowed || var->keep || var->saved;
}

static bool can_remake(const tm__tape *tape, const tm__var *var) {
    const tm__node *node = var->node >= 0 ? tape->nodes[var->node] : NULL;
    if (!node || !node->remake) return false;
    for (int i = 0; i < TM__NODE_INPUTS && node->in[i]; i++)
        if (!stays(node->in[i]) && !can_remake(tape, node->in[i])) return false;
    return true;
}

static double work_of(const tm__tape *tape, const tm__var *var) {
    const tm__node *node = tape->nodes[var->node];
    double work = node->work;
    for (int i = 0; i < TM__NODE_INPUTS && node->in[i]; i++)
        if (!stays(node->in[i])) work += work_of(tape, node->in[i]);
    return work;
}

void tm__tape_drop(tm__tape *tape, tm__var *var) {
    if (var->borrowed || var->keep || !var->value.data) return;
    if (!var->saved) {
        release_value(tape, var);
    } else if (can_remake(tape, var)) {
        var->spare = true;
        var->price = work_of(tape, var) / (double)TM__MAX(tm__tensor_bytes(&var->value), (size_t)1);
        if (tape->lean || tape->nodes[var->node]->work == 0) release_value(tape, var);
    }
}

void tm__tape_anchor(tm__tape *tape, tm__var *var) {
    if (!var->saved) tm__tape_drop(tape, var);
}

static bool cheaper(const tm__var *a, const tm__var *b) {
    if (a->again != b->again) return b->again;
    return a->price != b->price ? a->price < b->price : a->node < b->node;
}

static bool reclaim(tm__reclaimer *self) {
    tm__tape *tape = (tm__tape *)self;
    tm__var *cheapest = NULL;
    for (size_t i = 0; i < tape->var_count; i++) {
        tm__var *var = tape->vars[i];
        bool free_to_go = var->spare && var->value.data && var->turn != tape->turn;
        if (free_to_go && (!cheapest || cheaper(var, cheapest))) cheapest = var;
    }
    if (cheapest) release_value(tape, cheapest);
    return cheapest != NULL;
}

static tm_status make_again(tm__tape *tape, tm__var *var) {
    tm__node *node = tape->nodes[var->node];
    const void *value;
    for (int i = 0; i < TM__NODE_INPUTS && node->in[i]; i++) TM__TRY(tm__tape_value(tape, node->in[i], &value));
    TM__TRY(tape->dev->alloc(tape->dev, tm__tensor_bytes(&var->value), &var->value.data));
    TM__TRY(node->remake(tape, node));
    for (int i = 0; i < TM__NODE_INPUTS && node->in[i]; i++)
        if (!stays(node->in[i])) release_value(tape, node->in[i]);
    var->again = true;
    tape->dev->worked_again += node->work;
    return TM_OK;
}

tm_status tm__tape_value(tm__tape *tape, tm__var *var, const void **value) {
    var->turn = tape->turn; /* at once: making it may ask for buffers */
    if (!var->value.data) TM__TRY(make_again(tape, var));
    *value = var->value.data;
    return TM_OK;
}

/* ---- vars and nodes ---------------------------------------------------------------------------------------------- */

static tm_status add_var(tm__tape *tape, const tm_tensor *value, bool needs_grad, tm__var **var) {
    if (!tm__grow((void **)&tape->vars, &tape->var_cap, tape->var_count + 1, sizeof *tape->vars))
        return tm__fail_memory();
    tm__var *made = tm__arena_alloc(&tape->host, 1, sizeof *made);
    if (!made) return tm__fail_memory();
    made->value = *value;
    made->needs_grad = needs_grad;
    made->node = -1;
    tape->vars[tape->var_count++] = made;
    *var = made;
    return TM_OK;
}

tm_status tm__tape_input(tm__tape *tape, tm_tensor value, bool needs_grad, tm__var **var) {
    if (value.dtype != tape->dev->act)
        return tm__fail(TM_INVALID, NULL, "input", NULL, "a var is of type %s, not %s", tm__dtype_name(tape->dev->act),
                        tm__dtype_name(value.dtype));
    TM__TRY(add_var(tape, &value, needs_grad, var));
    (*var)->borrowed = true;
    return TM_OK;
}

static tm_status describe(tm_device *dev, int ndim, const int64_t *shape, tm_tensor *value) {
    int64_t count;
    if (ndim < 0 || ndim > TM__MAX_DIMS || !tm__shape_count(shape, ndim, &count) || count > PTRDIFF_MAX / 8)
        return tm__fail(TM_INVALID, NULL, "shape", NULL, "a var of %d dimensions or too many elements", ndim);
    *value = (tm_tensor){.dtype = dev->act, .ndim = ndim};
    for (int i = 0; i < ndim; i++) value->shape[i] = shape[i];
    return TM_OK;
}

tm_status tm__tape_adopt(tm__tape *tape, int ndim, const int64_t *shape, void *buffer, bool needs_grad, tm__var **var) {
    tm_tensor value;
    TM__TRY(describe(tape->dev, ndim, shape, &value)); /* cannot fail for a buffer that exists */
    value.data = buffer;
    tm_status status = add_var(tape, &value, needs_grad, var);
    if (status != TM_OK) tape->dev->release(tape->dev, buffer, tm__tensor_bytes(&value));
    return status;
}

tm_status tm__tape_output(tm__tape *tape, int ndim, const int64_t *shape, bool needs_grad, tm__var **var) {
    tm_tensor value;
    TM__TRY(describe(tape->dev, ndim, shape, &value));
    TM__TRY(tape->dev->alloc(tape->dev, tm__tensor_bytes(&value), &value.data));
    return tm__tape_adopt(tape, ndim, shape, value.data, needs_grad, var);
}

tm_status tm__var_reshape(tm__var *var, int ndim, const int64_t *shape) {
    int64_t count;
    if (ndim < 0 || ndim > TM__MAX_DIMS || !tm__shape_count(shape, ndim, &count) ||
        count != tm__tensor_count(&var->value))
        return tm__fail(TM_INVALID, NULL, "reshape", NULL, "the new shape has another number of elements");
    var->value.ndim = ndim;
    for (int i = 0; i < ndim; i++) var->value.shape[i] = shape[i];
    return TM_OK;
}

tm_status tm__tape_node(tm__tape *tape, size_t size, const char *op, tm__var *out,
                        tm_status (*backward)(tm__tape *, tm__node *), void (*release)(tm__tape *, tm__node *),
                        void *node) {
    assert(tape->recording && out->needs_grad && size >= sizeof(tm__node));
    if (tape->spent) return tm__fail(TM_INVALID, NULL, op, "reset the tape first", "recorded after backward has run");
    if (!tm__grow((void **)&tape->nodes, &tape->cap, tape->count + 1, sizeof *tape->nodes)) return tm__fail_memory();
    tm__node *made = tm__arena_alloc(&tape->host, 1, size);
    if (!made) return tm__fail_memory();
    made->op = op;
    made->backward = backward;
    made->release = release;
    made->out = out;
    out->node = (int64_t)tape->count;
    tape->nodes[tape->count++] = made;
    memcpy(node, &made, sizeof made); /* the caller's pointer is to its own node type */
    return TM_OK;
}

/* ---- gradients --------------------------------------------------------------------------------------------------- */

tm_status tm__tape_grad(tm__tape *tape, tm__var *var, void **grad, bool *fresh) {
    *fresh = var->grad == NULL;
    if (*fresh) TM__TRY(tape->dev->alloc(tape->dev, tm__tensor_bytes(&var->value), &var->grad));
    *grad = var->grad;
    return TM_OK;
}

tm_status tm__tape_grad_add(tm__tape *tape, tm__var *var, const void *from) {
    const tm__kernels *k = tape->dev->k;
    int64_t n = tm__tensor_count(&var->value);
    void *grad;
    bool fresh;
    if (!k->scale) return tm__device_lacks(tape->dev, "scale");
    if (!k->axpy) return tm__device_lacks(tape->dev, "axpy");
    TM__TRY(tm__tape_grad(tape, var, &grad, &fresh));
    return fresh ? k->scale(tape->dev, grad, 1, from, n) : k->axpy(tape->dev, grad, 1, from, n);
}

/* Gradient `value` everywhere, where there is none yet; else adds it. */
static tm_status grad_constant(tm__tape *tape, tm__var *var, double value) {
    tm_device *dev = tape->dev;
    size_t bytes = tm__tensor_bytes(&var->value);
    int64_t n = tm__tensor_count(&var->value);
    if (!dev->k->fill) return tm__device_lacks(dev, "fill");
    if (!var->grad) {
        TM__TRY(dev->alloc(dev, bytes, &var->grad));
        return dev->k->fill(dev, var->grad, value, n);
    }
    void *constant;
    TM__TRY(dev->alloc(dev, bytes, &constant));
    tm_status status = dev->k->fill(dev, constant, value, n);
    if (status == TM_OK) status = tm__tape_grad_add(tape, var, constant);
    dev->release(dev, constant, bytes);
    return status;
}

static tm_status check_seeds(size_t n, tm__var *const *vars) {
    for (size_t i = 0; i < n; i++) {
        if (!vars[i]->needs_grad)
            return tm__fail(TM_INVALID, NULL, "backward", "train a parameter, or ask for an input's gradient",
                            "nothing in front of var %zu needs a gradient", i);
        if (vars[i]->node < 0 && !vars[i]->borrowed)
            return tm__fail(TM_INVALID, NULL, "backward", NULL, "var %zu was computed with recording off", i);
    }
    return TM_OK;
}

/* Runs one node backward if a gradient reached it, and lets go of what nobody needs any more. */
static tm_status step_back(tm__tape *tape, tm__node *node) {
    tm__var *out = node->out;
    tape->turn++;
    if (!out->keep && !node->reads_value) release_value(tape, out); /* all who read it are done */
    if (!out->grad && node->source) TM__TRY(grad_constant(tape, out, 0));
    if (out->grad) TM__TRY(node->backward(tape, node));
    release_saved(tape, node);
    if (!out->keep) {
        release_value(tape, out);
        release_grad(tape, out);
    }
    return TM_OK;
}

tm_status tm__tape_backward(tm__tape *tape, size_t n, tm__var *const *vars, const void *const *seeds) {
    if (tape->spent) return tm__fail(TM_INVALID, NULL, "backward", "record again", "backward runs once per recording");
    TM__TRY(check_seeds(n, vars));
    tape->spent = true;
    for (size_t i = 0; i < n; i++) {
        if (seeds && seeds[i])
            TM__TRY(tm__tape_grad_add(tape, vars[i], seeds[i]));
        else
            TM__TRY(grad_constant(tape, vars[i], 1));
    }
    for (size_t i = tape->count; i-- > 0;) TM__TRY(step_back(tape, tape->nodes[i]));
    return TM_OK;
}
