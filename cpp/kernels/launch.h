// The CUDA kernels for C++: build with MVDE_BUILD_CUDA and link mvde_cuda. Every call queues work on the caller's
// stream and comes back at once; nothing is allocated, awaited or printed, so calls may be captured into a CUDA graph.
//
// The result is cudaSuccess, what the launch itself gave, or cudaErrorInvalidValue for sizes that no launch can have.
// Errors of the device come later, as with every kernel. Parameters are described in the headers included here; they
// are copied before a call returns.
#pragma once

#include <cuda_runtime_api.h>

#include "postprocess_params.h"
#include "preprocess_params.h"

namespace mvde_cuda {

// Depth (depth_output other than kNoDepth), statistics (num_columns above 0), or both in one pass.
cudaError_t enqueue_postprocess(RawType raw_type, const PostprocessParams &params, cudaStream_t stream);

// One camera frame to the model's input.
cudaError_t enqueue_preprocess(const PreprocessParams &params, cudaStream_t stream);

}  // namespace mvde_cuda
