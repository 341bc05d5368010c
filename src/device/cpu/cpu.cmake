# The kernels of isa/ are compiled once per instruction set, the rest once. Products and sums may be fused (one rounding)
# where the instruction set has it; -ffp-contract comes last so that it wins over the project's default.
file(GLOB cpu_isa_sources CONFIGURE_DEPENDS src/device/cpu/isa/*.c)
# rows x vectors: of the sums that a product keeps in registers (isa/tile.c).
function(temper_cpu_isa name lanes rows vectors)
  add_library(tm_device_cpu_${name} OBJECT ${cpu_isa_sources})
  target_include_directories(tm_device_cpu_${name} PRIVATE $<TARGET_PROPERTY:temper_flags,INTERFACE_INCLUDE_DIRECTORIES>)
  target_compile_definitions(tm_device_cpu_${name} PRIVATE
    $<TARGET_PROPERTY:temper_flags,INTERFACE_COMPILE_DEFINITIONS> TM__ISA_NAME=${name} TM__LANES=${lanes}
    TM__TILE_ROWS=${rows} TM__TILE_VECTORS=${vectors})
  target_compile_options(tm_device_cpu_${name} PRIVATE
    $<TARGET_PROPERTY:temper_flags,INTERFACE_COMPILE_OPTIONS> -O3 -Wno-psabi ${ARGN})
  target_link_libraries(tm_device_cpu_${name} PRIVATE OpenMP::OpenMP_C)
endfunction()
set(cpu_wide_vectors)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  set(cpu_wide_vectors -mprefer-vector-width=512)
endif()
temper_cpu_isa(avx512 16 8 3 -march=x86-64-v4 ${cpu_wide_vectors} -ffp-contract=fast)
temper_cpu_isa(avx2 8 6 2 -march=x86-64-v3 -ffp-contract=fast)
temper_cpu_isa(sse 4 4 2 -march=x86-64)

file(GLOB cpu_sources CONFIGURE_DEPENDS src/device/cpu/*.c)
add_library(tm_device_cpu OBJECT ${cpu_sources})
target_link_libraries(tm_device_cpu PRIVATE temper_flags OpenMP::OpenMP_C temper_dnnl)
list(APPEND TEMPER_OBJECTS $<TARGET_OBJECTS:tm_device_cpu> $<TARGET_OBJECTS:tm_device_cpu_avx512>
     $<TARGET_OBJECTS:tm_device_cpu_avx2> $<TARGET_OBJECTS:tm_device_cpu_sse>)
