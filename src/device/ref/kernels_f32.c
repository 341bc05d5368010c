/* kernels_f32.c: the reference kernels with fp32 activations; sums are fp64. */
#define REAL float
#define REF_TABLE tm__ref_kernels_f32
#include "device/ref/kernels.inc.h"
