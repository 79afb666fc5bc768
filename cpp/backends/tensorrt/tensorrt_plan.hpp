// A TensorRT plan bound to two device buffers. Hides the library's headers.
#pragma once

#include "session/backend.hpp"

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace mvde::internal::gpu {

class Plan {
public:
    // Loads the plan and binds its tensors to the model's input [1, H, W, 3] and the request's outputs, each [1, H, W], in
    // device memory. Throws Failure if the library rejects it or its tensors differ from the manifest.
    Plan(const mvde_backend_request &request, std::uint8_t *images, const std::vector<float *> &maps);
    ~Plan();

    static std::string library_version();  // major.minor.patch.build

    // Enqueues one inference on the stream. Throws Failure with the library's message.
    void enqueue(cudaStream_t stream);

private:
    struct Library;
    std::unique_ptr<Library> library_;
};

}  // namespace mvde::internal::gpu
