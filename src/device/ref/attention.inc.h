/* attention.inc.h: attention over segments, its gradient, and over a cache. Part of kernels.inc.h. */

static double inner(const REAL *a, const REAL *b, int64_t d) {
    double sum = 0;
    for (int64_t i = 0; i < d; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* Score of a raw product after scale and soft cap. */
static double score(double raw, double factor, double cap) {
    return cap > 0 ? cap * tanh(factor * raw / cap) : factor * raw;
}

/* First key that a query at `at` sees, in a document that begins at `start`. */
static int64_t first_seen(int64_t at, int64_t start, int64_t window) {
    return window > 0 ? TM__MAX(start, at - window + 1) : start;
}

/* out (d) = softmax over n keys, `stride` elements apart; returns log sum exp. p (n) holds what is added to the raw
 * products, and is scratch. */
static double attend(REAL *out, double *p, const REAL *q, const REAL *k, const REAL *v, int64_t n, int64_t stride,
                     int64_t d, double factor, double cap) {
    double max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++) {
        p[j] = score(inner(q, k + j * stride, d) + p[j], factor, cap);
        max = TM__MAX(max, p[j]);
    }
    for (int64_t j = 0; j < n; j++) {
        p[j] = exp(p[j] - max);
        sum += p[j];
    }
    for (int64_t c = 0; c < d; c++) {
        double mixed = 0;
        for (int64_t j = 0; j < n; j++) mixed += p[j] / sum * (double)v[j * stride + c];
        out[c] = (REAL)mixed;
    }
    return max + log(sum);
}

/* p (n): the relative terms of token i, head h, for the n tokens of a segment. */
static void relative_terms(double *p, const tm__attention *a, int64_t h, int64_t i, int64_t start, int64_t n) {
    const tm__relative *r = a->relative;
    for (int64_t j = start; j < start + n; j++) {
        int64_t b = r->bucket[i - j + r->longest - 1], head = h * a->tokens;
        double term = 0;
        if (r->content) term += (double)((const REAL *)r->content)[(head + i) * r->buckets + b];
        if (r->position) term += (double)((const REAL *)r->position)[(head + j) * r->buckets + b];
        p[j - start] = term;
    }
}

static tm_status attention(tm_device *dev, void *out, void *lse, const void *q, const void *k, const void *v,
                           const tm__attention *a) {
    (void)dev;
    int64_t d = a->head_dim, stride = a->kv_heads * d, group = a->heads / a->kv_heads;
    double *p = tm__alloc((size_t)a->tokens, sizeof *p);
    if (!p) return tm__fail_memory();
    memset(out, 0, (size_t)(a->tokens * a->heads * d) * sizeof(REAL));
    memset(lse, 0, (size_t)(a->tokens * a->heads) * sizeof(REAL));
    for (int64_t s = 0; s < a->segments; s++)
        for (int64_t i = a->start[s]; i < a->start[s] + a->length[s]; i++)
            for (int64_t h = 0; h < a->heads; h++) {
                int64_t row = i * a->heads + h, first = first_seen(i, a->start[s], a->window);
                int64_t key, n = i - first + 1;
                if (a->whole) {
                    first = a->start[s];
                    n = a->length[s];
                }
                key = (first * a->kv_heads + h / group) * d;
                memset(p, 0, (size_t)n * sizeof *p);
                if (a->relative) relative_terms(p, a, h, i, first, n);
                double l = attend((REAL *)out + row * d, p, (const REAL *)q + row * d, (const REAL *)k + key,
                                  (const REAL *)v + key, n, stride, d, a->scale, a->soft_cap);
                ((REAL *)lse)[row] = (REAL)l;
            }
    free(p);
    return TM_OK;
}

/* One query row: with p_j = exp(s_j - lse) and dp_j = dout . v_j,
 *   dv_j += p_j dout,   ds_j = p_j (dp_j - dout . out) * scale * (1 - (s_j / cap)^2),   dq = sum ds_j k_j,   dk_j +=
 * ds_j q */
static void attend_grad(REAL *dq, double *dk, double *dv, const REAL *dout, const REAL *out, double lse, const REAL *q,
                        const REAL *k, const REAL *v, int64_t n, int64_t stride, const tm__attention *a) {
    int64_t d = a->head_dim;
    double delta = inner(dout, out, d);
    for (int64_t j = 0; j < n; j++) {
        const REAL *kj = k + j * stride, *vj = v + j * stride;
        double s = score(inner(q, kj, d), a->scale, a->soft_cap), p = exp(s - lse);
        double ds = p * (inner(dout, vj, d) - delta) * a->scale;
        if (a->soft_cap > 0) ds *= 1 - s / a->soft_cap * (s / a->soft_cap);
        for (int64_t c = 0; c < d; c++) {
            dv[j * stride + c] += p * (double)dout[c];
            dk[j * stride + c] += ds * (double)q[c];
            dq[c] = (REAL)((double)dq[c] + ds * (double)kj[c]);
        }
    }
}

static tm_status attention_grad(tm_device *dev, void *dq, void *dk, void *dv, const void *dout, const void *out,
                                const void *lse, const void *q, const void *k, const void *v, const tm__attention *a) {
    (void)dev;
    int64_t d = a->head_dim, stride = a->kv_heads * d, group = a->heads / a->kv_heads, count = a->tokens * stride;
    double *sum_k = tm__zalloc((size_t)count, sizeof *sum_k), *sum_v = tm__zalloc((size_t)count, sizeof *sum_v);
    if (!sum_k || !sum_v) {
        free(sum_k);
        free(sum_v);
        return tm__fail_memory();
    }
    memset(dq, 0, (size_t)(a->tokens * a->heads * d) * sizeof(REAL));
    for (int64_t s = 0; s < a->segments; s++)
        for (int64_t i = a->start[s]; i < a->start[s] + a->length[s]; i++)
            for (int64_t h = 0; h < a->heads; h++) {
                int64_t row = i * a->heads + h, first = first_seen(i, a->start[s], a->window);
                int64_t key = (first * a->kv_heads + h / group) * d, at = row * d;
                attend_grad((REAL *)dq + at, sum_k + key, sum_v + key, (const REAL *)dout + at, (const REAL *)out + at,
                            (double)((const REAL *)lse)[row], (const REAL *)q + at, (const REAL *)k + key,
                            (const REAL *)v + key, i - first + 1, stride, a);
            }
    for (int64_t i = 0; i < count; i++) {
        ((REAL *)dk)[i] = (REAL)sum_k[i];
        ((REAL *)dv)[i] = (REAL)sum_v[i];
    }
    free(sum_k);
    free(sum_v);
    return TM_OK;
}

/* One head's keys or values of a token, (n, d) at `to`, from position `first` on. */
static void gather_context(REAL *to, const void *cache, const void *prefix, const tm__attention_cached *a, int64_t slot,
                           int64_t head, int64_t first, int64_t n) {
    int64_t d = a->head_dim, stride = a->kv_heads * d;
    tm_dtype type = a->bf16 ? TM_BF16 : sizeof(REAL) == 8 ? TM_F64 : TM_F32;
    for (int64_t j = 0; j < n; j++) {
        int64_t at = first + j;
        bool shared = at < a->prefix;
        int64_t row = (shared ? at : slot * a->capacity + at - a->prefix) * stride + head * d;
        for (int64_t c = 0; c < d; c++) to[j * d + c] = (REAL)ref_load(shared ? prefix : cache, type, row + c);
    }
}

static tm_status attention_cached(tm_device *dev, void *out, const void *q, const void *cache_k, const void *cache_v,
                                  const tm__attention_cached *a) {
    (void)dev;
    int64_t d = a->head_dim, group = a->heads / a->kv_heads, most = a->prefix + a->capacity;
    double *p = tm__alloc((size_t)most, sizeof *p);
    REAL *k = tm__alloc((size_t)(most * d), 2 * sizeof *k);
    if (!p || !k) {
        free(p);
        free(k);
        return tm__fail_memory();
    }
    REAL *v = k + most * d;
    for (int64_t i = 0; i < a->tokens; i++)
        for (int64_t h = 0; h < a->heads; h++) {
            int64_t row = i * a->heads + h, first = first_seen(a->position[i], 0, a->window);
            int64_t n = a->position[i] - first + 1;
            gather_context(k, cache_k, a->prefix_k, a, a->slot[i], h / group, first, n);
            gather_context(v, cache_v, a->prefix_v, a, a->slot[i], h / group, first, n);
            memset(p, 0, (size_t)n * sizeof *p);
            attend((REAL *)out + row * d, p, (const REAL *)q + row * d, k, v, n, d, d, a->scale, a->soft_cap);
        }
    free(p);
    free(k);
    return TM_OK;
}
