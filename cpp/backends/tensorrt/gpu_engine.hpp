// An engine on a GPU with its buffers: runs frames from host memory (through page-locked memory) or device memory.
#pragma once

#include "session/backend.hpp"
#include "cuda_device.hpp"
#include "gpu_frame.hpp"
#include "tensorrt_plan.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace mvde::internal::gpu {

class Engine {
public:
    explicit Engine(const mvde_backend_request &request);
    ~Engine();

    void start();
    bool wait(std::int64_t timeout_ms);  // whether the frame is done; negative: no limit
    void bind_device(const mvde_frame &frame, const mvde_outputs &outputs);
    void infer_device(cudaStream_t stream);
    mvde_backend_engine view();

private:
    struct DeviceFrame {
        mvde_cuda::PreprocessParams resize;
        mvde_cuda::PostprocessParams statistics;
    };

    void run_engine(cudaStream_t stream);
    void enqueue_host_frame(cudaStream_t stream);
    void enqueue_device_frame(cudaStream_t stream);
    float *depth() const { return maps_[0]->device(); }
    std::string captured(Graph &graph, void (Engine::*enqueue)(cudaStream_t));

    const Device device_;
    const std::vector<std::int32_t> stats_;
    const mvde_backend_request request_;  // without texts and tables, which are valid during the call only
    std::string execution_;
    Stream stream_;
    Event done_;  // of the last frame, on any stream: frames of one engine share its buffers
    SharedArray<std::uint8_t> images_;
    std::vector<std::unique_ptr<SharedArray<float>>> maps_;  // of the request's outputs, depth first
    SharedArray<float> patch_stats_;
    Resize resize_;
    Plan plan_;
    std::optional<DeviceFrame> bound_;
    Graph host_graph_, device_graph_;
};

}  // namespace mvde::internal::gpu
