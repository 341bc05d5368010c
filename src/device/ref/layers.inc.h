/* layers.inc.h: normalisation, rotation, gate, dropout and loss. Part of kernels.inc.h. */

static tm_status rmsnorm(tm_device *dev, void *y, void *rstd, const void *x, const void *w, tm_dtype w_type,
                         double shift, int64_t n, int64_t d, double eps) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        const REAL *row = (const REAL *)x + i * d;
        double squares = 0;
        for (int64_t j = 0; j < d; j++) squares += (double)row[j] * (double)row[j];
        double r = 1 / sqrt(squares / (double)d + eps);
        ((REAL *)rstd)[i] = (REAL)r;
        for (int64_t j = 0; j < d; j++)
            ((REAL *)y)[i * d + j] = (REAL)((double)row[j] * r * (shift + ref_load(w, w_type, j)));
    }
    return TM_OK;
}

/* With w for shift + w:  dw_j = sum_i dy_ij x_ij r_i;   dx_ij = r_i w_j dy_ij - x_ij r_i^3 / d * sum_k w_k dy_ik x_ik
 */
static tm_status rmsnorm_grad(tm_device *dev, void *dx, bool accumulate, void *dw, const void *dy, const void *x,
                              const void *w, tm_dtype w_type, double shift, const void *rstd, int64_t n, int64_t d) {
    (void)dev;
    const REAL *g = dy, *in = x, *r = rstd;
    for (int64_t j = 0; dw && j < d; j++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += (double)g[i * d + j] * (double)in[i * d + j] * (double)r[i];
        ((REAL *)dw)[j] = (REAL)((double)((REAL *)dw)[j] + sum);
    }
    for (int64_t i = 0; dx && i < n; i++) {
        double ri = (double)r[i], inner = 0;
        for (int64_t j = 0; j < d; j++)
            inner += (shift + ref_load(w, w_type, j)) * (double)g[i * d + j] * (double)in[i * d + j];
        for (int64_t j = 0; j < d; j++) {
            REAL *out = (REAL *)dx + i * d + j;
            double value = ri * (shift + ref_load(w, w_type, j)) * (double)g[i * d + j] -
                           (double)in[i * d + j] * ri * ri * ri / (double)d * inner;
            *out = (REAL)((accumulate ? (double)*out : 0) + value);
        }
    }
    return TM_OK;
}

static tm_status layernorm(tm_device *dev, void *y, void *mean, void *rstd, const void *x, const void *w,
                           tm_dtype w_type, const void *b, tm_dtype b_type, int64_t n, int64_t d, double eps) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        const REAL *row = (const REAL *)x + i * d;
        double m = 0, squares = 0;
        for (int64_t j = 0; j < d; j++) m += (double)row[j];
        m /= (double)d;
        for (int64_t j = 0; j < d; j++) squares += ((double)row[j] - m) * ((double)row[j] - m);
        double r = 1 / sqrt(squares / (double)d + eps);
        ((REAL *)mean)[i] = (REAL)m;
        ((REAL *)rstd)[i] = (REAL)r;
        for (int64_t j = 0; j < d; j++)
            ((REAL *)y)[i * d + j] = (REAL)(((double)row[j] - m) * r * ref_load(w, w_type, j) + ref_load(b, b_type, j));
    }
    return TM_OK;
}

/* With h = (x - mean) r and g = w dy:  dw_j = sum_i dy_ij h_ij;   db_j = sum_i dy_ij;
 *   dx_ij = r_i (g_ij - mean_k g_ik - h_ij mean_k(g_ik h_ik)) */
static tm_status layernorm_grad(tm_device *dev, void *dx, bool accumulate, void *dw, void *db, const void *dy,
                                const void *x, const void *w, tm_dtype w_type, const void *mean, const void *rstd,
                                int64_t n, int64_t d) {
    (void)dev;
    const REAL *out = dy, *in = x, *m = mean, *r = rstd;
    for (int64_t j = 0; j < d; j++) {
        double sum = 0, plain = 0;
        for (int64_t i = 0; i < n; i++) {
            sum += (double)out[i * d + j] * ((double)in[i * d + j] - (double)m[i]) * (double)r[i];
            plain += (double)out[i * d + j];
        }
        if (dw) ((REAL *)dw)[j] = (REAL)((double)((REAL *)dw)[j] + sum);
        if (db) ((REAL *)db)[j] = (REAL)((double)((REAL *)db)[j] + plain);
    }
    for (int64_t i = 0; dx && i < n; i++) {
        double ri = (double)r[i], mean_g = 0, mean_gh = 0;
        for (int64_t j = 0; j < d; j++) {
            double g = ref_load(w, w_type, j) * (double)out[i * d + j] / (double)d;
            mean_g += g;
            mean_gh += g * ((double)in[i * d + j] - (double)m[i]) * ri;
        }
        for (int64_t j = 0; j < d; j++) {
            REAL *to = (REAL *)dx + i * d + j;
            double h = ((double)in[i * d + j] - (double)m[i]) * ri;
            double value = ri * (ref_load(w, w_type, j) * (double)out[i * d + j] - mean_g - h * mean_gh);
            *to = (REAL)((accumulate ? (double)*to : 0) + value);
        }
    }
    return TM_OK;
}

static tm_status rope(tm_device *dev, void *y, bool accumulate, const void *x, const void *cos, const void *sin,
                      const int32_t *position, int64_t n, int64_t heads, int64_t head_dim, int64_t rotary, int sign) {
    (void)dev;
    int64_t half = rotary / 2;
    for (int64_t row = 0; row < n * heads; row++) {
        const REAL *from = (const REAL *)x + row * head_dim;
        REAL *to = (REAL *)y + row * head_dim;
        const REAL *c = (const REAL *)cos + position[row / heads] * half;
        const REAL *s = (const REAL *)sin + position[row / heads] * half;
        for (int64_t i = 0; i < half; i++) {
            double a = (double)from[i], b = (double)from[i + half], sine = sign * (double)s[i];
            double ra = a * (double)c[i] - b * sine, rb = b * (double)c[i] + a * sine;
            to[i] = (REAL)((accumulate ? (double)to[i] : 0) + ra);
            to[i + half] = (REAL)((accumulate ? (double)to[i + half] : 0) + rb);
        }
        for (int64_t i = rotary; i < head_dim; i++) to[i] = accumulate ? to[i] + from[i] : from[i];
    }
    return TM_OK;
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* act(x), and its derivative into *slope. Both activations are x s with s = sigmoid(k(x)): slope = s + x s (1 - s) k'.
 */
static double activate(tm__activation act, double x, double *slope) {
    double inner = x, rate = 1;
    if (act == TM__GELU_TANH) {
        double twice = 2 * sqrt(2 / M_PI);
        inner = twice * (x + 0.044715 * x * x * x);
        rate = twice * (1 + 3 * 0.044715 * x * x);
    }
    double s = sigmoid(inner);
    *slope = s + x * s * (1 - s) * rate;
    return x * s;
}

static tm_status gated(tm_device *dev, void *y, tm__activation act, const void *gate, const void *up, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        double slope, u = up ? (double)((const REAL *)up)[i] : 1;
        ((REAL *)y)[i] = (REAL)(activate(act, (double)((const REAL *)gate)[i], &slope) * u);
    }
    return TM_OK;
}

static tm_status gated_grad(tm_device *dev, void *dgate, void *dup, const void *dy, tm__activation act,
                            const void *gate, const void *up, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        double slope, u = up ? (double)((const REAL *)up)[i] : 1, dout = (double)((const REAL *)dy)[i];
        double value = activate(act, (double)((const REAL *)gate)[i], &slope);
        if (dgate) ((REAL *)dgate)[i] = (REAL)(dout * u * slope);
        if (dup) ((REAL *)dup)[i] = (REAL)(dout * value);
    }
    return TM_OK;
}

static double activated(tm__activation act, double x) {
    switch (act) {
    case TM__SILU:
        return x * sigmoid(x);
    case TM__GELU_TANH:
        return x * sigmoid(2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
    case TM__GELU:
        return x / 2 * erfc(-x * M_SQRT1_2);
    case TM__RELU:
        return x > 0 ? x : 0;
    case TM__TANH:
        break;
    }
    return tanh(x);
}

static tm_status activation(tm_device *dev, void *y, tm__activation act, const void *x, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) ((REAL *)y)[i] = (REAL)activated(act, (double)((const REAL *)x)[i]);
    return TM_OK;
}

static tm_status soft_cap(tm_device *dev, void *x, double cap, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) ((REAL *)x)[i] = (REAL)(cap * tanh((double)((REAL *)x)[i] / cap));
    return TM_OK;
}

static tm_status dropout(tm_device *dev, void *y, bool accumulate, const void *x, int64_t n, double p, uint64_t seed,
                         uint64_t stream) {
    (void)dev;
    tm__rng rng = tm__rng_make(seed, stream);
    for (int64_t i = 0; i < n; i++) {
        bool dropped = (double)tm__rng_u32(&rng) < p * 0x1p32;
        double value = dropped ? 0 : (double)((const REAL *)x)[i] / (1 - p);
        REAL *out = (REAL *)y + i;
        *out = (REAL)((accumulate ? (double)*out : 0) + value);
    }
    return TM_OK;
}

static tm_status largest(tm_device *dev, int32_t *index, const void *x, int64_t n, int64_t d) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        const REAL *row = (const REAL *)x + i * d;
        bool finite = true;
        index[i] = 0;
        for (int64_t j = 0; j < d; j++) {
            finite = finite && isfinite(row[j]);
            if (row[j] > row[index[i]]) index[i] = (int32_t)j;
        }
        if (!finite) index[i] = -1;
    }
    return TM_OK;
}

static tm_status cross_entropy(tm_device *dev, void *loss, void *lse, const void *logits, const int32_t *targets,
                               int64_t n, int64_t vocab) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        const REAL *row = (const REAL *)logits + i * vocab;
        double max = (double)row[0], sum = 0;
        for (int64_t j = 1; j < vocab; j++) max = TM__MAX(max, (double)row[j]);
        for (int64_t j = 0; j < vocab; j++) sum += exp((double)row[j] - max);
        double l = max + log(sum);
        ((REAL *)lse)[i] = (REAL)l;
        ((REAL *)loss)[i] = (REAL)(l - (double)row[targets[i]]);
    }
    return TM_OK;
}

static tm_status cross_entropy_grad(tm_device *dev, void *logits, const void *lse, const int32_t *targets,
                                    const void *weight, int64_t n, int64_t vocab, double cap) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        REAL *row = (REAL *)logits + i * vocab;
        double l = (double)((const REAL *)lse)[i], w = (double)((const REAL *)weight)[i];
        for (int64_t j = 0; j < vocab; j++) {
            double z = (double)row[j], slope = cap > 0 ? 1 - z / cap * (z / cap) : 1;
            row[j] = (REAL)((exp(z - l) - (j == targets[i])) * w * slope);
        }
    }
    return TM_OK;
}
