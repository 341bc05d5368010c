/* int8.inc.h: products with weights of 8 bits. Part of kernels.inc.h. Packed: scales (n, groups), then integers
 * (n, k). */

static int64_t int8_groups(int64_t k) {
    return (k + TM__INT8_GROUP - 1) / TM__INT8_GROUP;
}

static size_t int8_bytes(int64_t n, int64_t k) {
    return (size_t)(n * int8_groups(k)) * sizeof(float) + (size_t)(n * k);
}

/* One row (k) as integers and scales (groups). */
static void int8_row(int8_t *q, float *scale, const void *x, tm_dtype type, int64_t at, int64_t k) {
    for (int64_t first = 0; first < k; first += TM__INT8_GROUP, scale++) {
        int64_t end = TM__MIN(first + TM__INT8_GROUP, k);
        float most = 0;
        for (int64_t p = first; p < end; p++) most = fmaxf(most, fabsf((float)ref_load(x, type, at + p)));
        float by = most > 0 ? 127 / most : 0;
        for (int64_t p = first; p < end; p++) q[p] = (int8_t)rintf((float)ref_load(x, type, at + p) * by);
        *scale = most / 127;
    }
}

static tm_status int8_pack(tm_device *dev, void *packed, const void *w, tm_dtype type, int64_t n, int64_t k,
                           int64_t ld) {
    (void)dev;
    float *scale = packed;
    int8_t *q = (int8_t *)(scale + n * int8_groups(k));
    for (int64_t j = 0; j < n; j++) int8_row(q + j * k, scale + j * int8_groups(k), w, type, j * ld, k);
    return TM_OK;
}

static tm_status gemm_int8(const tm__gemm *g) {
    int64_t groups = int8_groups(g->k);
    const float *b_scale = g->b_int8;
    const int8_t *b = (const int8_t *)(b_scale + g->n * groups);
    float *a_scale = tm__alloc((size_t)groups, sizeof *a_scale);
    int8_t *a = tm__alloc((size_t)g->k, 1);
    tm_status status = a_scale && a ? TM_OK : tm__fail_memory();
    for (int64_t i = 0; status == TM_OK && i < g->m; i++) {
        int8_row(a, a_scale, g->a, g->a_type, i * g->lda, g->k);
        for (int64_t j = 0; j < g->n; j++) {
            double total = 0;
            for (int64_t x = 0; x < groups; x++) {
                int64_t sum = 0, end = TM__MIN((x + 1) * TM__INT8_GROUP, g->k);
                for (int64_t p = x * TM__INT8_GROUP; p < end; p++) sum += a[p] * b[j * g->k + p];
                total += (double)a_scale[x] * b_scale[j * groups + x] * (double)sum;
            }
            REAL *c = (REAL *)g->c + i * g->ldc + j;
            *c = (REAL)((g->accumulate ? (double)*c : 0) + g->alpha * total);
        }
    }
    free(a_scale);
    free(a);
    return status;
}
