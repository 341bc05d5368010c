/* rope.c: rotary tables.
 *
 * Inverse frequencies are theta^(-2i/d) in fp64, scaled as transformers' ROPE_INIT_FUNCTIONS do: "linear" divides them
 * by the factor; "llama3" divides those whose wavelength exceeds original/low_freq_factor, keeps those below
 * original/high_freq_factor and blends between. Angles, cosines and sines are fp64, rounded once to the device's type.
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

void tm__rope_frequencies(const tm__config *config, double *frequency) {
    for (int64_t i = 0; i < config->head_dim / 2; i++) {
        double f = pow(config->rope_theta, -2.0 * (double)i / (double)config->head_dim);
        if (config->rope_type == 1) f /= config->rope_factor;
        if (config->rope_type == 2) f = llama3(config, f);
        frequency[i] = f;
    }
}

/* cos and sin (positions, half) in host memory of the device's type. */
static void fill(tm_dtype act, int64_t positions, int64_t half, const double *frequency, void *cosines, void *sines) {
    for (int64_t p = 0; p < positions; p++)
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)p * frequency[i];
            int64_t at = p * half + i;
            if (act == TM_F64) {
                ((double *)cosines)[at] = cos(angle);
                ((double *)sines)[at] = sin(angle);
            } else {
                ((float *)cosines)[at] = (float)cos(angle);
                ((float *)sines)[at] = (float)sin(angle);
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
        tm__rope_frequencies(config, frequency);
        fill(dev->act, table->positions, half, frequency, cosines, sines);
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
    tm__rope_table table = {.positions = size, .rotary = model->config.head_dim};
    tm_status status = build(model->dev, &model->config, &table);
    if (status != TM_OK) {
        tm__rope_release(model->dev, &table);
        return status;
    }
    tm__rope_release(model->dev, &model->rope);
    model->rope = table;
    return TM_OK;
}
