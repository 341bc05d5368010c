/* gemm.h: the ways of multiplying beside packed panels. */
#ifndef TM_CPU_GEMM_H
#define TM_CPU_GEMM_H

#include "device/cpu/isa/tile.h"
#include "device/cpu/tasks.h"

/* gemm_rows.c: rows of A times a weight stored (n, k), at the speed of memory; `count` such products, none empty. */
tm_status TM__ISA(gemm_rows)(tm_device *dev, const tm__gemm *list, int64_t count);

/* int8.c: rows of A times weights that int8_pack has made. */
tm_status TM__ISA(gemm_int8)(tm_device *dev, const tm__gemm *list, int64_t count);

#endif
