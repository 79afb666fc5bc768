// C++ API of the CUDA kernels: build with MVDE_BUILD_CUDA and link mvde_cuda. Every call enqueues work on the caller's
// stream and returns immediately, without allocating, synchronising or printing, so calls can be captured into a CUDA
// graph.
//
// Returns cudaSuccess, the launch's own error, or cudaErrorInvalidValue for sizes that cannot be launched. Device errors
// are reported asynchronously, as for any kernel. Parameters are documented in the headers included here; they are copied
// before a call returns.
#pragma once

#include <cuda_runtime_api.h>

#include "postprocess_params.h"
#include "preprocess_params.h"

namespace mvde_cuda {

// Compute depth (depth_output other than kNoDepth), statistics (num_columns > 0), or both in one pass.
cudaError_t enqueue_postprocess(RawType raw_type, const PostprocessParams &params, cudaStream_t stream);

// Convert one camera frame to the model's input.
cudaError_t enqueue_preprocess(const PreprocessParams &params, cudaStream_t stream);

}  // namespace mvde_cuda
