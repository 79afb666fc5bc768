# OpenVINO (OpenVINO_DIR). Its wheel brings headers and CMake files: -DOpenVINO_DIR=$(python -c "import openvino, os;
# print(os.path.join(os.path.dirname(openvino.__file__), 'cmake'))")
find_package(OpenVINO REQUIRED COMPONENTS Runtime OPTIONAL_COMPONENTS Threading)
mvde_backend(openvino openvino/openvino.cpp)
target_link_libraries(mvde_openvino PRIVATE openvino::runtime)
if(TARGET mvde_attention AND TARGET openvino::threading)  # in OpenVINO's own threads
    target_sources(mvde_openvino PRIVATE openvino/attention_operator.cpp openvino/linear_operator.cpp)
    target_compile_definitions(mvde_openvino PRIVATE MVDE_HAVE_ATTENTION)
    target_link_libraries(mvde_openvino PRIVATE mvde_attention openvino::threading)
endif()

# Where an installed libmvde_openvino looks for OpenVINO. In the wheel: in the package openvino, beside the package mvde; not
# where this machine has it. Else: in what the component `openvino` has installed, then where it was found.
# INSTALL_RPATH_USE_LINK_PATH omits directories inside the source tree, such as a virtual environment.
if(MVDE_WHEEL)
    set_target_properties(mvde_openvino PROPERTIES
        INSTALL_RPATH "$ORIGIN/../../openvino/libs" INSTALL_RPATH_USE_LINK_PATH OFF)
else()
    set_property(TARGET mvde_openvino APPEND PROPERTY INSTALL_RPATH
        "$ORIGIN/mvde/openvino" "$<TARGET_FILE_DIR:openvino::runtime>")
endif()
if(MVDE_INSTALL AND NOT MVDE_WHEEL)
    include(openvino/install_openvino.cmake)
endif()
