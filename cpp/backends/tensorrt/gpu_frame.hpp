// The arguments of the CUDA kernels for one session: frames in device memory -> the model's input, depth -> statistics.
#pragma once

#include "session/backend.hpp"
#include "cuda_device.hpp"
#include "launch.h"

#include <cstdint>
#include <vector>

namespace mvde::internal::gpu {

// The resizing of a session's frames on the device, with its tables in the device's memory.
class Resize {
public:
    explicit Resize(const mvde_backend_request &request);

    // `target` is the model's input; `frame` is complete, with its strides and chroma plane.
    mvde_cuda::PreprocessParams params(const mvde_frame &frame, std::uint8_t *target) const;

private:
    mvde_box source_, target_;
    std::int64_t height_, width_;
    std::int64_t most_columns_, most_rows_;
    DeviceArray<std::int32_t> columns_, rows_;  // firsts, counts and weights one after the other
};

// Statistics of depth in metres and, where `depth` is not NULL, the depth itself with 0 where none is valid.
mvde_cuda::PostprocessParams statistics_params(const mvde_backend_request &request, const float *raw, float *depth,
                                               float *stats);

// Sets the depth outside the part of the input where the frame is to 0: bars have no depth and no statistics.
void clear_bars(float *depth, std::int64_t height, std::int64_t width, const mvde_box &seen, cudaStream_t stream);

}  // namespace mvde::internal::gpu
