/* table.c: the kernel table of one instruction set. */
#include "device/cpu/isa/simd.h"

#define ENTRY(kernel) .kernel = TM__ISA(kernel),

const tm__kernels TM__JOIN3(tm__cpu_kernels_, TM__ISA_NAME, ) = {TM__CPU_KERNELS(ENTRY)};
