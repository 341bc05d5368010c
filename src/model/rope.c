/* rope.c: rotary tables.
 *
 * Inverse frequencies are theta^(-2i/d) in fp64, scaled as transformers' ROPE_INIT_FUNCTIONS do: "linear" divides them
 * by the factor; "llama3" divides those whose wavelength exceeds original/low_freq_factor, keeps those below
 * original/high_freq_factor and blends between; "dynamic" (NTK) raises theta for a sequence longer than the trained
 * length; "yarn" (Peng et al. 2023) divides those that turn fewer than beta_slow times within the original length,
 * keeps those that turn more than beta_fast times, blends between, and multiplies cosines and sines by a factor.
 * Angles, cosines and sines are fp64, rounded once to the device's type.
 *
 * Deviation: transformers lets dynamic frequencies depend on the longest sequence of a batch and of batches before it;
 * here they depend on the token's own sequence, so that a result does not depend on its company. For one sequence at a
 * time, as it generates, both are the same.
 * Pinned by tests/golden/test_families.c and tests/unit/test_config.c.
 */
#include "model/model.h"

#include <stdlib.h>

static double llama3(const tm__config *c, double frequency) {
    double original = (double)c->rope_original_positions;
    double wavelength = 2 * M_PI / frequency;
    if (wavelength < original / c->rope_high_freq) return frequency;
    if (wavelength > original / c->rope_low_freq) return frequency / c->rope_factor;
    double smooth = (original / wavelength - c->rope_low_freq) / (c->rope_high_freq - c->rope_low_freq);
    return (1 - smooth) * frequency / c->rope_factor + smooth * frequency;
}

/* Index, not whole, of the frequency that turns so many times within the original length. */
static double turning(const tm__config *c, double times) {
    return (double)c->rotary * log((double)c->rope_original_positions / (times * 2 * M_PI)) / (2 * log(c->rope_theta));
}

static double yarn(const tm__config *c, int64_t i, double frequency) {
    double low = turning(c, c->rope_beta_fast), high = turning(c, c->rope_beta_slow);
    if (c->rope_truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)c->rotary - 1);
    if (low == high) high += 0.001;
    double divided = fmin(fmax(((double)i - low) / (high - low), 0), 1); /* share of the divided frequency */
    return frequency / c->rope_factor * divided + frequency * (1 - divided);
}

void tm__rope_frequencies(const tm__config *c, int64_t length, double *frequency) {
    double theta = c->rope_theta, d = (double)c->rotary;
    if (c->rope_type == TM__ROPE_DYNAMIC && length > c->max_positions)
        theta *= pow(c->rope_factor * (double)length / (double)c->max_positions - (c->rope_factor - 1), d / (d - 2));
    for (int64_t i = 0; i < c->rotary / 2; i++) {
        double f = pow(theta, -2.0 * (double)i / d);
        if (c->rope_type == TM__ROPE_LINEAR) f /= c->rope_factor;
        if (c->rope_type == TM__ROPE_LLAMA3) f = llama3(c, f);
        if (c->rope_type == TM__ROPE_YARN) f = yarn(c, i, f);
        frequency[i] = f;
    }
}

void tm__rope_note(const tm_model *model, int64_t positions, const tm_monitor *monitor) {
    if (positions > model->config.max_positions)
        tm__note(monitor, "a sequence of %lld tokens is longer than the %lld positions the model was made for",
                 (long long)positions, (long long)model->config.max_positions);
}

bool tm__rope_depends(const tm__config *config, int64_t positions) {
    return config->rope_type == TM__ROPE_DYNAMIC && positions > config->max_positions;
}

/* Row `row` of cos and sin (rows, half) in host memory of the device's type. */
static void fill_row(tm_dtype act, int64_t row, int64_t position, int64_t half, const double *frequency, double factor,
                     void *cosines, void *sines) {
    for (int64_t i = 0; i < half; i++) {
        double angle = (double)position * frequency[i];
        int64_t at = row * half + i;
        if (act == TM_F64) {
            ((double *)cosines)[at] = factor * cos(angle);
            ((double *)sines)[at] = factor * sin(angle);
        } else {
            ((float *)cosines)[at] = (float)(factor * cos(angle));
            ((float *)sines)[at] = (float)(factor * sin(angle));
        }
    }
}

static size_t table_bytes(const tm_device *dev, const tm__rope_table *table) {
    return (size_t)(table->positions * (table->rotary / 2)) * tm__dtype_size(dev->act);
}

void tm__rope_release(tm_device *dev, tm__rope_table *table) {
    if (table->cos) dev->release(dev, table->cos, table_bytes(dev, table));
    if (table->sin) dev->release(dev, table->sin, table_bytes(dev, table));
    *table = (tm__rope_table){0};
}

static tm_status build(tm_device *dev, const tm__config *config, tm__rope_table *table) {
    int64_t half = table->rotary / 2;
    size_t bytes = table_bytes(dev, table);
    double *frequency = tm__alloc((size_t)half, sizeof *frequency);
    void *cosines = tm__alloc_aligned(bytes), *sines = tm__alloc_aligned(bytes);
    tm_status status = frequency && cosines && sines ? TM_OK : tm__fail_memory();
    if (status == TM_OK) {
        tm__rope_frequencies(config, 0, frequency);
        for (int64_t p = 0; p < table->positions; p++)
            fill_row(dev->act, p, p, half, frequency, config->rope_attention_factor, cosines, sines);
        status = dev->alloc(dev, bytes, &table->cos);
    }
    if (status == TM_OK) status = dev->alloc(dev, bytes, &table->sin);
    if (status == TM_OK) status = dev->upload(dev, table->cos, cosines, bytes);
    if (status == TM_OK) status = dev->upload(dev, table->sin, sines, bytes);
    free(frequency);
    free(cosines);
    free(sines);
    return status;
}

tm_status tm__rope_reserve(tm_model *model, int64_t positions) {
    if (positions <= model->rope.positions) return TM_OK;
    int64_t size = TM__MAX(model->rope.positions, (int64_t)256);
    while (size < positions) size *= 2;
    tm__rope_table table = {.positions = size, .rotary = model->config.rotary};
    tm_status status = build(model->dev, &model->config, &table);
    if (status != TM_OK) {
        tm__rope_release(model->dev, &table);
        return status;
    }
    tm__rope_release(model->dev, &model->rope);
    model->rope = table;
    return TM_OK;
}

/* ---- one row per token ------------------------------------------------------------------------------------------- */

typedef struct rows_room {
    double *frequency;     /* (half) */
    void *cosines, *sines; /* (tokens, half) */
} rows_room;

static void fill_rows(const tm_model *model, int64_t tokens, const int32_t *position, const int32_t *length,
                      const rows_room *room) {
    int64_t last = -1;
    for (int64_t i = 0; i < tokens; i++) {
        if (length[i] != last) tm__rope_frequencies(&model->config, length[i], room->frequency);
        last = length[i];
        fill_row(model->dev->act, i, position[i], model->config.rotary / 2, room->frequency,
                 model->config.rope_attention_factor, room->cosines, room->sines);
    }
}

static tm_status upload_rows(tm__tape *tape, const void *from, int64_t tokens, int64_t half, void **to) {
    tm__var *var;
    TM__TRY(tm__tape_output(tape, 2, (int64_t[]){tokens, half}, false, &var));
    *to = var->value.data;
    return tape->dev->upload(tape->dev, *to, from, tm__tensor_bytes(&var->value));
}

tm_status tm__rope_rows(tm_model *model, tm__tape *tape, int64_t tokens, const int32_t *position, const int32_t *length,
                        const tm__rope_table **table, const int32_t **rows) {
    int64_t half = model->config.rotary / 2;
    size_t bytes = (size_t)(tokens * half) * tm__dtype_size(model->dev->act);
    int32_t *index = tm__arena_alloc(&tape->host, (size_t)tokens, sizeof *index);
    tm__rope_table *made = tm__arena_alloc(&tape->host, 1, sizeof *made);
    rows_room room = {tm__alloc((size_t)half, sizeof(double)), tm__alloc_aligned(bytes), tm__alloc_aligned(bytes)};
    tm_status status = index && made && room.frequency && room.cosines && room.sines ? TM_OK : tm__fail_memory();
    if (status == TM_OK) {
        fill_rows(model, tokens, position, length, &room);
        for (int64_t i = 0; i < tokens; i++) index[i] = (int32_t)i;
        *made = (tm__rope_table){.positions = tokens, .rotary = model->config.rotary};
        status = upload_rows(tape, room.cosines, tokens, half, &made->cos);
    }
    if (status == TM_OK) status = upload_rows(tape, room.sines, tokens, half, &made->sin);
    free(room.frequency);
    free(room.cosines);
    free(room.sines);
    if (status != TM_OK) return status;
    *table = made;
    *rows = index;
    return TM_OK;
}
