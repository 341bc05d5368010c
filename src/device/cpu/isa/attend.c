/* attend.c: see attend.h. */
#include "device/cpu/isa/attend.h"

#include <stdlib.h>

/* Query tokens in each task of a document. */
static int64_t span_length(int64_t length, int64_t span_tokens, int64_t most) {
    return most > 0 ? TM__MAX(span_tokens, (length + most - 1) / most) : span_tokens;
}

tm_status TM__ISA(attention_plan)(attention_plan *plan, const tm__attention *a, int64_t span_tokens, int64_t most) {
    *plan = (attention_plan){.a = a, .group = a->heads / a->kv_heads};
    plan->query_stride = a->heads * a->head_dim;
    plan->kv_stride = a->kv_heads * a->head_dim;
    int64_t spans = 0, covered = 0;
    for (int64_t s = 0; s < a->segments; s++) {
        int64_t each = span_length(a->length[s], span_tokens, most);
        spans += (a->length[s] + each - 1) / each * a->kv_heads;
        covered += a->length[s];
        plan->longest = TM__MAX(plan->longest, a->length[s]);
    }
    plan->covers_all = covered == a->tokens;
    plan->documents = tm__alloc((size_t)TM__MAX(a->segments * a->kv_heads, (int64_t)1), sizeof(document));
    plan->spans = tm__alloc((size_t)TM__MAX(spans, (int64_t)1), sizeof(span));
    if (!plan->documents || !plan->spans) {
        TM__ISA(attention_plan_free)(plan);
        return tm__fail_memory();
    }
    for (int64_t s = 0; s < a->segments; s++)
        for (int64_t h = 0; h < a->kv_heads; h++) {
            document *doc = &plan->documents[plan->document_count];
            int64_t each = span_length(a->length[s], span_tokens, most);
            *doc = (document){a->start[s], a->length[s], h, plan->keys_floats, plan->values_floats, 0};
            plan->keys_floats += round_up(doc->length, WIDE) * a->head_dim;
            plan->values_floats += round_up(a->head_dim, WIDE) * doc->length;
            for (int64_t first = 0; first < doc->length; first += each)
                plan->spans[plan->span_count++] =
                    (span){plan->document_count, first, TM__MIN(first + each, doc->length), doc->spans++};
            plan->document_count++;
        }
    return TM_OK;
}

void TM__ISA(attention_plan_free)(attention_plan *plan) {
    free(plan->documents);
    free(plan->spans);
    plan->documents = NULL;
    plan->spans = NULL;
}

void TM__ISA(pack_tokens)(const attention_plan *plan, const document *doc, float *to, const float *x) {
    int64_t d = plan->a->head_dim;
    const float *from = x + doc->start * plan->kv_stride + doc->kv_head * d;
    for (int64_t j = 0; j * WIDE < doc->length; j++) {
        int width = panel_vectors(doc->length, j, WIDE) * VL;
        TM__ISA(pack)
        (to + j * WIDE * d, width, TM__MIN(doc->length - j * WIDE, width), d, from + j * WIDE * plan->kv_stride, TM_F32,
         plan->kv_stride, true, false);
    }
}

void TM__ISA(pack_features)(const attention_plan *plan, const document *doc, float *to, const float *x) {
    int64_t d = plan->a->head_dim;
    const float *from = x + doc->start * plan->kv_stride + doc->kv_head * d;
    for (int64_t j = 0; j * WIDE < d; j++) {
        int width = panel_vectors(d, j, WIDE) * VL;
        TM__ISA(pack)
        (to + j * WIDE * doc->length, width, TM__MIN(d - j * WIDE, width), doc->length, from + j * WIDE, TM_F32,
         plan->kv_stride, false, false);
    }
}
