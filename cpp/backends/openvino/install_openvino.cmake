# Component `openvino` of the installation, not part of the default one: what engines for the CPU need of OpenVINO, for machines
# without it.
#     cmake --install BUILD --prefix PREFIX --component openvino
# It goes into lib/mvde/openvino, a folder of its own, so that no other program picks up its TBB.
get_target_property(openvino_runtime openvino::runtime LOCATION)
get_filename_component(openvino_libs ${openvino_runtime} DIRECTORY)
# An engine is a compiled blob, which needs the reader of OpenVINO's own format and the plugin. libtbbbind and its libhwloc,
# where present, pin threads on CPUs with several kinds of cores or several sockets.
file(GLOB openvino_files
    ${openvino_libs}/libopenvino.so* ${openvino_libs}/libopenvino_*_cpu_plugin.so ${openvino_libs}/plugins.xml
    ${openvino_libs}/libopenvino_ir_frontend.so*
    ${openvino_libs}/libtbb.so* ${openvino_libs}/libtbbmalloc.so* ${openvino_libs}/libtbbbind*.so* ${openvino_libs}/libhwloc.so*)
foreach(wanted IN ITEMS libopenvino_[a-z]+_cpu_plugin.so libopenvino_ir_frontend.so libtbb.so)
    if(NOT "${openvino_files}" MATCHES "/${wanted}")
        set(missing "${openvino_libs} has no ${wanted}: set OpenVINO_DIR to a package that brings its plugins and TBB beside "
            "libopenvino.so, such as Python's openvino, or install OpenVINO itself where the prefix is used")
        string(CONCAT missing ${missing})
        install(CODE "message(FATAL_ERROR \"${missing}\")" COMPONENT openvino EXCLUDE_FROM_ALL)
    endif()
endforeach()
install(FILES ${openvino_files} DESTINATION ${CMAKE_INSTALL_LIBDIR}/mvde/openvino COMPONENT openvino EXCLUDE_FROM_ALL)
