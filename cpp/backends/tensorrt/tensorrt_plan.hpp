// A TensorRT plan over two buffers of a device. The library's headers stay behind it.
#pragma once

#include "session/backend.hpp"

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>

namespace mvde::internal::gpu {

class Plan {
public:
    // Loads the plan and binds its tensors, once, to the model's input [1, H, W, 3] and output [1, H, W] in the device's
    // memory. Throws Failure where the library refuses it, or where its tensors are not those of the manifest.
    Plan(const mvde_backend_request &request, std::uint8_t *images, float *depth);
    ~Plan();

    static std::string library_version();  // major.minor.patch.build

    // Queues one run on the stream. Throws Failure with the library's own words.
    void enqueue(cudaStream_t stream);

private:
    struct Library;
    std::unique_ptr<Library> library_;
};

}  // namespace mvde::internal::gpu
