/* affinity.h: how Panacea's perturbation lies over a model's blocks and modules. */
#ifndef TM_LAB_AFFINITY_H
#define TM_LAB_AFFINITY_H

#include "base/base.h"

typedef tm_status tm__affinity_add(void *user, const char *name, double share);

/* Reads the file that panacea's `affinity` option wrote and tells each part's norm as a share of the whole norm:
 * epsilon_block_0 ..., then epsilon_MODULE for each module (q_proj, ...; over all blocks) and epsilon_outside for what
 * lies in no block. Squares of the blocks' shares and of epsilon_outside add up to 1. */
tm_status tm__affinity_read(const char *path, tm__affinity_add *add, void *user);

#endif
