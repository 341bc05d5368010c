# The command line sees the public header and the C library only: `src` is not on its include path.
file(GLOB TEMPER_CLI_SOURCES CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.c)
add_executable(temper_cli ${TEMPER_CLI_SOURCES})
set_target_properties(temper_cli PROPERTIES OUTPUT_NAME temper RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
target_compile_definitions(temper_cli PRIVATE _GNU_SOURCE)
target_compile_options(temper_cli PRIVATE $<TARGET_PROPERTY:temper_flags,INTERFACE_COMPILE_OPTIONS>)
target_link_options(temper_cli PRIVATE $<TARGET_PROPERTY:temper_flags,INTERFACE_LINK_OPTIONS>)
target_link_libraries(temper_cli PRIVATE temper m)

include(GNUInstallDirs)
install(TARGETS temper_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS temper ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "temper*.h")
install(FILES ${CMAKE_SOURCE_DIR}/README.md ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
