/* key.h: digests for keys: texts by name, options by name and value, data sets by content. */
#ifndef TM_LAB_KEY_H
#define TM_LAB_KEY_H

#include "base/base.h"

void tm__key_text(tm__sha256 *hash, const char *name, const char *value);
/* An option's value as it stands in keys: texts in full, all else in `room`. */
const char *tm__key_value(const tm_option *option, const void *options, char room[256]);
void tm__key_options(tm__sha256 *hash, const tm_option *table, const void *options);
void tm__key_dataset(tm__sha256 *hash, const tm_dataset *dataset);

#endif
