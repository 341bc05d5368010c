/* results.h: what the files that show a result store share. */
#ifndef TM_LAB_RESULTS_H
#define TM_LAB_RESULTS_H

#include "base/base.h"

/* v: plan, arm, group, attack, world, seed. */
bool tm__results_wanted(const tm_results_options *options, const char *const *v);

#endif
