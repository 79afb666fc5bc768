# TensorRT (TensorRT_INCLUDE_DIR with NvInferRuntime.h, TensorRT_LIBRARY: libnvinfer.so) and TensorRT-RTX
# (TensorRT_RTX_INCLUDE_DIR, TensorRT_RTX_LIBRARY: libtensorrt_rtx.so). Each backend is built if both its variables are set.
# With headers only, the sources are compiled but not linked (target tensorrt_compile_check).
find_path(TensorRT_INCLUDE_DIR NvInferRuntime.h DOC "Folder of TensorRT's headers")
find_library(TensorRT_LIBRARY nvinfer DOC "TensorRT's library, libnvinfer.so")
find_path(TensorRT_RTX_INCLUDE_DIR NvInferRuntime.h PATH_SUFFIXES tensorrt_rtx NO_DEFAULT_PATH
    DOC "Folder of TensorRT-RTX's headers")
find_library(TensorRT_RTX_LIBRARY tensorrt_rtx DOC "TensorRT-RTX's library, libtensorrt_rtx.so")

set(tensorrt_sources tensorrt/tensorrt.cpp tensorrt/tensorrt_plan.cpp tensorrt/gpu_engine.cpp tensorrt/gpu_frame.cpp)
set(num_tensorrt_backends 0)

function(add_tensorrt_backend name title include_dir library)
    mvde_backend(${name} ${tensorrt_sources})
    target_include_directories(mvde_${name} SYSTEM PRIVATE ${include_dir})
    target_compile_definitions(mvde_${name} PRIVATE MVDE_TENSORRT_TITLE="${title}")
    target_link_libraries(mvde_${name} PRIVATE mvde::cuda ${library})
    set_target_properties(mvde_${name} PROPERTIES LINKER_LANGUAGE CXX)  # CUDA is enabled in the kernels' directory only
endfunction()

if(TensorRT_INCLUDE_DIR AND TensorRT_LIBRARY)
    add_tensorrt_backend(tensorrt TensorRT ${TensorRT_INCLUDE_DIR} ${TensorRT_LIBRARY})
    math(EXPR num_tensorrt_backends "${num_tensorrt_backends} + 1")
endif()
if(TensorRT_RTX_INCLUDE_DIR AND TensorRT_RTX_LIBRARY)
    add_tensorrt_backend(tensorrt_rtx TensorRT-RTX ${TensorRT_RTX_INCLUDE_DIR} ${TensorRT_RTX_LIBRARY})
    math(EXPR num_tensorrt_backends "${num_tensorrt_backends} + 1")
endif()

if(num_tensorrt_backends EQUAL 0)
    find_path(CUDA_INCLUDE_DIR cuda_runtime_api.h HINTS ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES include
        DOC "Folder of CUDA's headers")
    if(NOT TensorRT_INCLUDE_DIR OR NOT CUDA_INCLUDE_DIR)
        message(FATAL_ERROR
            "MVDE_BUILD_TENSORRT needs TensorRT_INCLUDE_DIR and TensorRT_LIBRARY (or TensorRT_RTX_INCLUDE_DIR and "
            "TensorRT_RTX_LIBRARY), and nvcc; for a check of the sources alone, TensorRT_INCLUDE_DIR and CUDA_INCLUDE_DIR.")
    endif()
    message(STATUS "No TensorRT library: its backend is compiled against ${TensorRT_INCLUDE_DIR} and not linked")
    add_library(tensorrt_compile_check OBJECT ${tensorrt_sources})
    target_include_directories(tensorrt_compile_check PRIVATE
        ${PROJECT_SOURCE_DIR}/cpp/src ${PROJECT_SOURCE_DIR}/cpp/include ${PROJECT_SOURCE_DIR}/cpp/kernels)
    target_include_directories(tensorrt_compile_check SYSTEM PRIVATE ${TensorRT_INCLUDE_DIR} ${CUDA_INCLUDE_DIR})
    target_compile_features(tensorrt_compile_check PRIVATE cxx_std_17)
    target_compile_definitions(tensorrt_compile_check PRIVATE MVDE_TENSORRT_TITLE="TensorRT")
    target_compile_options(tensorrt_compile_check PRIVATE -Wall -Wextra -Wshadow $<$<BOOL:${MVDE_WERROR}>:-Werror>)
endif()
