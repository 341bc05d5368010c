/* vector.inc.h: element-wise work and the optimisers. Part of kernels.inc.h. */

static tm_status add(tm_device *dev, void *y, const void *a, const void *b, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) ((REAL *)y)[i] = ((const REAL *)a)[i] + ((const REAL *)b)[i];
    return TM_OK;
}

static tm_status axpy(tm_device *dev, void *y, double alpha, const void *x, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        ((REAL *)y)[i] = (REAL)((double)((REAL *)y)[i] + alpha * (double)((const REAL *)x)[i]);
    return TM_OK;
}

static tm_status scale(tm_device *dev, void *y, double alpha, const void *x, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) ((REAL *)y)[i] = (REAL)(alpha * (double)((const REAL *)x)[i]);
    return TM_OK;
}

static tm_status fill(tm_device *dev, void *y, double value, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) ((REAL *)y)[i] = (REAL)value;
    return TM_OK;
}

static tm_status dot(tm_device *dev, double *result, const void *x, const void *y, int64_t n) {
    (void)dev;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)((const REAL *)x)[i] * (double)((const REAL *)y)[i];
    *result = sum;
    return TM_OK;
}

static tm_status convert(tm_device *dev, void *y, tm_dtype to, const void *x, tm_dtype from, int64_t n) {
    (void)dev;
    tm__convert(y, to, x, from, (size_t)n);
    return TM_OK;
}

static tm_status adamw(tm_device *dev, void *w, void *m, void *v, const void *g, int64_t n, const tm__adamw *o) {
    (void)dev;
    REAL *weight = w, *first = m, *second = v;
    for (int64_t i = 0; i < n; i++) {
        double grad = (double)((const REAL *)g)[i] * o->grad_scale;
        double mean = o->beta1 * (double)first[i] + (1 - o->beta1) * grad;
        double square = o->beta2 * (double)second[i] + (1 - o->beta2) * grad * grad;
        double decayed = (double)weight[i] * (1 - o->lr * o->weight_decay);
        double step = o->lr * (mean / o->correction1) / (sqrt(square / o->correction2) + o->epsilon);
        first[i] = (REAL)mean;
        second[i] = (REAL)square;
        weight[i] = (REAL)(decayed - step);
    }
    return TM_OK;
}

static tm_status sgd(tm_device *dev, void *w, void *velocity, const void *g, int64_t n, double lr, double momentum,
                     double weight_decay, double grad_scale) {
    (void)dev;
    REAL *weight = w, *speed = velocity;
    for (int64_t i = 0; i < n; i++) {
        double step = (double)((const REAL *)g)[i] * grad_scale + weight_decay * (double)weight[i];
        if (speed) {
            step += momentum * (double)speed[i];
            speed[i] = (REAL)step;
        }
        weight[i] = (REAL)((double)weight[i] - lr * step);
    }
    return TM_OK;
}
