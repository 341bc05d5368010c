/* device.c: the list of devices, their options, and what a program may ask of an open one. */
#include "device/device.h"

#include "ranks/ranks.h"

static const struct {
    const char *name;
    tm_status (*open)(const tm_device_options *options, tm_device **device);
} devices[] = {
    {"cpu", tm__cpu_open},
    {"ref", tm__ref_open},
};

const tm_option tm_device_option_table[] = {
    {.name = "device",
     .type = TM_OPTION_TEXT,
     .offset = offsetof(tm_device_options, name),
     .initial = "cpu",
     .unit = "NAME",
     .help = "where to compute: cpu (fast), ref (plain and slow, the yardstick of the tests)"},
    {.name = "threads",
     .type = TM_OPTION_INT,
     .offset = offsetof(tm_device_options, threads),
     .initial = "0",
     .min = 0,
     .max = 1024,
     .help = "threads to use; 0: all cores this process may use. Results do not depend on it"},
    {.name = "precision",
     .type = TM_OPTION_CHOICE,
     .offset = offsetof(tm_device_options, precision),
     .initial = "auto",
     .choices = "auto|fp32|bf16|fp64|int8",
     .help = "operands of matrix products; auto: bf16 where the processor gains by it, else fp32. fp64: device ref. "
             "int8: weights of 8 bits, to answer and "
             "to measure with, not to train"},
    {0},
};

static tm_status check(const tm_device_options *options) {
    if (options->threads < 0 || options->threads > 1024)
        return tm__fail(TM_INVALID, NULL, "threads", NULL, "%lld is outside 0 to 1024", (long long)options->threads);
    if (options->precision < TM_PRECISION_AUTO || options->precision > TM_PRECISION_INT8)
        return tm__fail(TM_INVALID, NULL, "precision", NULL, "%d is no tm_precision", options->precision);
    bool ref = strcmp(options->name, "ref") == 0;
    if (options->precision == TM_PRECISION_F64 && !ref)
        return tm__fail(TM_UNSUPPORTED, NULL, "precision", "choose the device ref",
                        "device %.60s does not compute in fp64", options->name);
    if (options->precision == TM_PRECISION_BF16 && ref)
        return tm__fail(TM_UNSUPPORTED, NULL, "precision", "choose the device cpu, or fp32",
                        "device ref does not compute in bf16");
    return TM_OK;
}

tm_status tm_device_open(const tm_device_options *options, tm_device **device) {
    tm_device_options chosen;
    tm_options_default(tm_device_option_table, &chosen);
    if (options) {
        const char *name = chosen.name;
        chosen = *options;
        if (!chosen.name) chosen.name = name;
    }
    if (chosen.threads == 0 && tm_ranks_count() > 1) chosen.threads = tm__ranks_threads();
    for (size_t i = 0; i < TM__COUNT(devices); i++) {
        if (strcmp(chosen.name, devices[i].name) != 0) continue;
        TM__TRY(check(&chosen));
        return devices[i].open(&chosen, device);
    }
    return tm__fail(TM_INVALID, NULL, "device", "choose cpu or ref", "there is no device '%.60s'", chosen.name);
}

void tm_device_close(tm_device *device) {
    if (device) device->close(device);
}

const char *tm_device_name(const tm_device *device) {
    return device->name;
}

const char *tm_device_instruction_set(const tm_device *device) {
    return device->isa;
}

const char *tm_device_precision(const tm_device *device) {
    return device->int8_weights ? "int8" : device->bf16_products ? "bf16" : tm__dtype_name(device->act);
}

int tm_device_threads(const tm_device *device) {
    return device->threads;
}
