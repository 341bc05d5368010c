# The command line from outside: scripts with exact goldens, malformed inputs, and rules about the sources.
add_executable(tiny_model tests/cli/tiny_model.c)
target_link_libraries(tiny_model PRIVATE temper temper_flags)
add_executable(json_check tests/cli/json_check.c tests/cli/json_schema.c)
target_link_libraries(json_check PRIVATE temper_flags PkgConfig::JANSSON)
add_executable(chat_server tests/cli/chat_server.c tests/http_server.c)
target_link_libraries(chat_server PRIVATE temper_flags)
set(example ${CMAKE_BINARY_DIR}/tests/cli/header_example.c)
add_custom_command(OUTPUT ${example}
  COMMAND ${CMAKE_COMMAND} -DIN=${CMAKE_SOURCE_DIR}/include/temper.h -DOUT=${example}
          -P ${CMAKE_SOURCE_DIR}/tests/cli/header_example.cmake
  DEPENDS include/temper.h tests/cli/header_example.cmake)
add_executable(header_example ${example})
target_link_libraries(header_example PRIVATE temper temper_flags)
set_target_properties(tiny_model json_check chat_server header_example PROPERTIES
                      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/cli)

set(TEMPER_TINY ${CMAKE_BINARY_DIR}/tests/cli/tiny)
set(TEMPER_CLI_ENVIRONMENT "TEMPER_BIN_DIR=${CMAKE_BINARY_DIR};TEMPER_BIN=${CMAKE_BINARY_DIR}/temper"
    "TEMPER_HELPERS=${CMAKE_BINARY_DIR}/tests/cli;TINY=${TEMPER_TINY};TEMPER_SOURCE=${CMAKE_SOURCE_DIR}"
    "TEMPER_SHARED=${CMAKE_SOURCE_DIR}/../shared")
if(TEMPER_MPI_FOUND)
  list(APPEND TEMPER_CLI_ENVIRONMENT "TEMPER_MPIRUN=${MPIEXEC_EXECUTABLE}")
endif()
add_test(NAME cli.fixture COMMAND tiny_model ${TEMPER_TINY})
set_tests_properties(cli.fixture PROPERTIES FIXTURES_SETUP tiny TIMEOUT 300)

file(GLOB cases CONFIGURE_DEPENDS tests/cli/cases/*.sh)
foreach(case ${cases})
  get_filename_component(name ${case} NAME_WE)
  add_test(NAME cli.${name} COMMAND ${CMAKE_SOURCE_DIR}/tests/cli/run-case ${case})
  set_tests_properties(cli.${name} PROPERTIES FIXTURES_REQUIRED tiny SKIP_RETURN_CODE 77 TIMEOUT 900
                       ENVIRONMENT "${TEMPER_CLI_ENVIRONMENT}")
endforeach()

add_executable(test_malformed tests/malformed/test_malformed.c tests/malformed/spoil.c)
target_link_libraries(test_malformed PRIVATE temper_test_support)
add_test(NAME malformed.all COMMAND test_malformed)
set_tests_properties(malformed.all PROPERTIES FIXTURES_REQUIRED tiny TIMEOUT 900
                     ENVIRONMENT "${TEMPER_CLI_ENVIRONMENT}")
