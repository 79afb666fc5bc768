// CUDA kernel arguments of one session: frame in device memory -> model input, depth -> statistics.
#pragma once

#include "session/backend.hpp"
#include "cuda_device.hpp"
#include "launch.h"

#include <cstdint>
#include <vector>

namespace mvde::internal::gpu {

// Resizes a session's frames on the device; owns the filter tables in device memory.
class Resize {
public:
    explicit Resize(const mvde_backend_request &request);

    // `target` is the model's input; `frame` has its strides and chroma plane filled in.
    mvde_cuda::PreprocessParams params(const mvde_frame &frame, std::uint8_t *target) const;

private:
    mvde_box source_, target_;
    std::uint8_t padding_;
    std::int64_t height_, width_;
    std::int64_t most_columns_, most_rows_;
    DeviceArray<std::int32_t> columns_, rows_;  // offsets, counts and weights, concatenated
};

// Statistics of the map times `scale` and, if `depth` is not NULL, that map itself with 0 where invalid.
mvde_cuda::PostprocessParams statistics_params(const mvde_backend_request &request, const float *raw, float *depth,
                                               float *stats, float scale);

// Zeroes depth outside the part of the input that the frame fills, so that padding has neither depth nor statistics.
void clear_bars(float *depth, std::int64_t height, std::int64_t width, const mvde_box &seen, cudaStream_t stream);

}  // namespace mvde::internal::gpu
