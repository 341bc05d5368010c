# Every tests/fuzz/fuzz_<name>.c defines LLVMFuzzerTestOneInput. It is built in one of two ways:
#   as a rule        with driver.c: a CTest case "fuzz.<name>" that runs every file below corpus/<name>/
#   TEMPER_FUZZ=ON   (clang) as a libFuzzer program: fuzz_<name> NEW_DIR tests/fuzz/corpus/<name>
# An input that once broke something is kept in the corpus, and so becomes a regression test.
if(TEMPER_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "TEMPER_FUZZ needs clang: cmake -DCMAKE_C_COMPILER=clang -DTEMPER_FUZZ=ON")
  endif()
  target_compile_options(temper_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
                                                -fno-omit-frame-pointer -g -O1)
  target_link_options(temper PUBLIC -fsanitize=address,undefined)
endif()

file(GLOB fuzz_sources CONFIGURE_DEPENDS tests/fuzz/fuzz_*.c)
foreach(source ${fuzz_sources})
  get_filename_component(target ${source} NAME_WE)
  string(REGEX REPLACE "^fuzz_" "" short ${target})
  if(TEMPER_FUZZ)
    add_executable(${target} ${source})
    target_link_options(${target} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(${target} ${source} tests/fuzz/driver.c)
    add_test(NAME fuzz.${short} COMMAND ${target} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${short})
    set_tests_properties(fuzz.${short} PROPERTIES TIMEOUT 300)
  endif()
  target_link_libraries(${target} PRIVATE temper temper_flags PkgConfig::JANSSON)
  target_include_directories(${target} PRIVATE tests/fuzz)
endforeach()
