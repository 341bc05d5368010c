# Programs beside the product; they may use internal headers. Built into <build>/tools.
foreach(tool llama2c_to_hf tokenizer_batch parity_logits)
  add_executable(${tool} tools/${tool}.c)
  target_link_libraries(${tool} PRIVATE temper temper_flags)
  set_target_properties(${tool} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tools)
endforeach()

# tests/parity/test_llama2c.c runs the converter; its target exists only once tests.cmake has been read.
function(temper_tool_tests)
  if(TARGET test_llama2c)
    add_dependencies(test_llama2c llama2c_to_hf)
  endif()
endfunction()
cmake_language(DEFER CALL temper_tool_tests)

# The other side of tools/parity/templates.py.
add_executable(templates_peer tools/parity/templates_peer.c)
target_link_libraries(templates_peer PRIVATE temper temper_flags PkgConfig::JANSSON)
set_target_properties(templates_peer PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tools)
