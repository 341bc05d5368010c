/* kernels_f64.c: the reference kernels with fp64 activations, for gradient checks. */
#define REAL double
#define REF_TABLE tm__ref_kernels_f64
#include "device/ref/kernels.inc.h"
