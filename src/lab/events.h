/* events.h: TensorBoard's event files: numbers over steps. */
#ifndef TM_LAB_EVENTS_H
#define TM_LAB_EVENTS_H

#include "base/base.h"

/* Appends the file's opening record, which names the version of the format. */
bool tm__events_begin(tm__string *out, double wall_time);
/* Appends one number of the curve `tag`. */
bool tm__events_add(tm__string *out, double wall_time, int64_t step, const char *tag, double value);
uint32_t tm__crc32c(const void *data, size_t len);

#endif
