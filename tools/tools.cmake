# Programs beside the product; they may use internal headers. Built into <build>/tools.
add_executable(llama2c_to_hf tools/llama2c_to_hf.c)
target_link_libraries(llama2c_to_hf PRIVATE temper temper_flags)
set_target_properties(llama2c_to_hf PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tools)

# tests/parity/test_llama2c.c runs the converter; its target exists only once tests.cmake has been read.
function(temper_tool_tests)
  if(TARGET test_llama2c)
    add_dependencies(test_llama2c llama2c_to_hf)
  endif()
endfunction()
cmake_language(DEFER CALL temper_tool_tests)
