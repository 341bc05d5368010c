/* config.h: what the readers of config.json share. */
#ifndef TM_MODEL_CONFIG_H
#define TM_MODEL_CONFIG_H

#include "model/model.h"

/* Whether a value is absent, null or `neutral` (true and false count as 1 and 0). */
bool tm__config_neutral(const struct json_t *value, double neutral);
/* TM_UNSUPPORTED. */
tm_status tm__config_refuse(const char *file, const char *key, const char *why);
/* A finite number above 0. */
tm_status tm__config_positive(const struct json_t *object, const char *file, const char *key, const double *fallback,
                              double *value);
/* Reads the rotary settings; sizes are known. */
tm_status tm__config_rope(const struct json_t *raw, const char *file, tm__config *config);

#endif
