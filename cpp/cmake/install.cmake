# Installs libmvde, its headers, its CMake and pkg-config packages, and the examples.
include(CMakePackageConfigHelpers)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/mvdeConfig.cmake.in mvdeConfig.cmake
    INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mvde
    PATH_VARS CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(mvdeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
# Relative to the .pc file, so that an unpacked wheel or a copied prefix works in any location.
file(RELATIVE_PATH MVDE_PREFIX_FROM_PC
    ${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(${CMAKE_CURRENT_LIST_DIR}/mvde.pc.in mvde.pc @ONLY)

install(TARGETS mvde EXPORT mvde-targets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
    INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/mvde DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT mvde-targets NAMESPACE mvde:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mvde)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/mvdeConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/mvdeConfigVersion.cmake
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mvde)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/mvde.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(MVDE_WHEEL)  # Python compiles the sources on the machine with the GPU
    install(FILES
        kernels/depth_conversion.cuh kernels/device_common.cuh
        kernels/postprocess.cu kernels/postprocess_params.h
        kernels/preprocess.cu kernels/preprocess_params.h
        DESTINATION cuda/kernels)
else()
    install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DATADIR}/mvde PATTERN __pycache__ EXCLUDE)
endif()
