# Every tests/<kind>/test_<name>.c is a program of its own and a CTest case "<kind>.<name>".
# Exit code 77 is a visible skip (a needed input such as ../shared is absent).
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
add_library(temper_test_support STATIC EXCLUDE_FROM_ALL tests/support.c tests/http_server.c)
target_link_libraries(temper_test_support PUBLIC temper temper_flags PkgConfig::CMOCKA)
target_include_directories(temper_test_support PUBLIC tests)
target_compile_definitions(temper_test_support PUBLIC TEMPER_SOURCE_DIR="${CMAKE_SOURCE_DIR}")

file(GLOB tests CONFIGURE_DEPENDS tests/unit/test_*.c tests/grad/test_*.c tests/parity/test_*.c tests/golden/test_*.c
     tests/fault/test_*.c)
foreach(source ${tests})
  get_filename_component(name ${source} NAME_WE)
  get_filename_component(kind ${source} DIRECTORY)
  get_filename_component(kind ${kind} NAME)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE temper_test_support)
  string(REGEX REPLACE "^test_" "" short ${name})
  add_test(NAME ${kind}.${short} COMMAND ${name})
  set_tests_properties(${kind}.${short} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900
    ENVIRONMENT "TEMPER_SHARED=${CMAKE_SOURCE_DIR}/../shared;TEMPER_BIN=${CMAKE_BINARY_DIR}/temper;GOMP_SPINCOUNT=1000")
endforeach()
target_sources(test_ranks_alone PRIVATE src/ranks/alone/alone.c) # instead of MPI's
include(tests/cli/cli_tests.cmake OPTIONAL)
include(tests/ranks/ranks_tests.cmake OPTIONAL)
include(tests/fuzz/fuzz.cmake OPTIONAL)
