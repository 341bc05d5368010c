/* dense.inc.h: products and rows of tables. Part of kernels.inc.h. */

enum { COLUMNS = 64 }; /* of C at a time: op(B)'s columns are unpacked to fp64 once per block */

/* One block of columns of C; b (k, width) in fp64. */
static void gemm_block(const tm__gemm *g, const double *b, int64_t column, int64_t width) {
    for (int64_t i = 0; i < g->m; i++) {
        double sum[COLUMNS] = {0};
        for (int64_t p = 0; p < g->k; p++) {
            double a = ref_load(g->a, g->a_type, g->trans_a ? p * g->lda + i : i * g->lda + p);
            const double *row = b + p * COLUMNS;
            for (int64_t j = 0; j < COLUMNS; j++) sum[j] += a * row[j];
        }
        REAL *c = (REAL *)g->c + i * g->ldc + column;
        for (int64_t j = 0; j < width; j++) c[j] = (REAL)((g->accumulate ? (double)c[j] : 0) + g->alpha * sum[j]);
    }
}

static tm_status gemm(tm_device *dev, const tm__gemm *g) {
    (void)dev;
    if (g->m == 0 || g->n == 0) return TM_OK;
    if (g->b_int8) return gemm_int8(g);
    double *b = tm__zalloc((size_t)(g->k * COLUMNS), sizeof *b);
    if (!b) return tm__fail_memory();
    for (int64_t column = 0; column < g->n; column += COLUMNS) {
        int64_t width = TM__MIN((int64_t)COLUMNS, g->n - column);
        for (int64_t p = 0; p < g->k; p++)
            for (int64_t j = 0; j < width; j++) {
                int64_t from = g->trans_b ? (column + j) * g->ldb + p : p * g->ldb + column + j;
                b[p * COLUMNS + j] = ref_load(g->b, g->b_type, from);
            }
        gemm_block(g, b, column, width);
    }
    free(b);
    return TM_OK;
}

static tm_status gemms(tm_device *dev, const tm__gemm *list, int64_t count) {
    for (int64_t i = 0; i < count; i++) TM__TRY(dev->k->gemm(dev, &list[i]));
    return TM_OK;
}

static tm_status embedding(tm_device *dev, void *y, const void *table, tm_dtype table_type, const int32_t *ids,
                           int64_t n, int64_t d) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++) ((REAL *)y)[i * d + j] = (REAL)ref_load(table, table_type, ids[i] * d + j);
    return TM_OK;
}

static tm_status embedding_grad(tm_device *dev, void *dtable, const void *dy, const int32_t *ids, int64_t n,
                                int64_t d) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++) ((REAL *)dtable)[ids[i] * d + j] += ((const REAL *)dy)[i * d + j];
    return TM_OK;
}

static tm_status add_bias(tm_device *dev, void *y, const void *bias, tm_dtype bias_type, int64_t n, int64_t d) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++) {
            REAL *at = (REAL *)y + i * d + j;
            *at = (REAL)((double)*at + ref_load(bias, bias_type, j));
        }
    return TM_OK;
}

static tm_status bias_grad(tm_device *dev, void *dbias, const void *dy, int64_t n, int64_t d) {
    (void)dev;
    for (int64_t j = 0; j < d; j++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += (double)((const REAL *)dy)[i * d + j];
        ((REAL *)dbias)[j] = (REAL)((double)((REAL *)dbias)[j] + sum);
    }
    return TM_OK;
}

static tm_status gather_rows(tm_device *dev, void *y, const void *x, const int32_t *rows, int64_t m, int64_t d) {
    (void)dev;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < d; j++) ((REAL *)y)[i * d + j] = ((const REAL *)x)[rows[i] * d + j];
    return TM_OK;
}

static tm_status scatter_rows(tm_device *dev, void *x, const void *y, const int32_t *rows, int64_t m, int64_t d) {
    (void)dev;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < d; j++) ((REAL *)x)[rows[i] * d + j] += ((const REAL *)y)[i * d + j];
    return TM_OK;
}
