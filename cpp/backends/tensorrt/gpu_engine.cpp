#include "gpu_engine.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

namespace mvde::internal::gpu {
namespace {

constexpr auto kPollInterval = std::chrono::microseconds(50);
constexpr std::int64_t kLongestMs = 86'400'000;  // one day is as good as no limit, and does not overflow the clock

std::size_t num_pixels(const mvde_backend_request &request) {
    return static_cast<std::size_t>(request.height * request.width);
}

std::size_t num_stats(const mvde_backend_request &request) {
    const std::int64_t patches = (request.height / request.patch_size) * (request.width / request.patch_size);
    return static_cast<std::size_t>(patches * request.num_stats);
}

std::vector<std::unique_ptr<SharedArray<float>>> allocate_maps(const Device &device, const mvde_backend_request &request) {
    std::vector<std::unique_ptr<SharedArray<float>>> maps;
    for (std::int32_t i = 0; i < request.num_outputs; ++i)
        maps.push_back(std::make_unique<SharedArray<float>>(device, num_pixels(request)));
    return maps;
}

std::vector<float *> on_device(const std::vector<std::unique_ptr<SharedArray<float>>> &maps) {
    std::vector<float *> pointers;
    for (const auto &map : maps) pointers.push_back(map->device());
    return pointers;
}

// The part of a request that remains valid after the call.
mvde_backend_request kept(mvde_backend_request request, const std::vector<std::int32_t> &stats) {
    request.path = request.input_name = nullptr;
    for (const char *&name : request.output_names) name = nullptr;
    request.options = nullptr;
    request.content = nullptr;
    request.size_bytes = 0;
    request.num_options = 0;
    request.columns = request.rows = {};
    request.stats = stats.data();
    return request;
}

}  // namespace

Engine::Engine(const mvde_backend_request &request)
    : device_(current_device()), stats_(request.stats, request.stats + request.num_stats), request_(kept(request, stats_)),
      images_(device_, num_pixels(request) * 3), maps_(allocate_maps(device_, request)),
      patch_stats_(device_, std::max<std::size_t>(num_stats(request), 1)), resize_(request),
      plan_(request, images_.device(), on_device(maps_)) {
    std::memset(images_.host(), 0, num_pixels(request) * 3);
    enqueue_host_frame(stream_.get());  // the library requires one frame before a capture, for its lazy initialisation
    stream_.synchronize();
    done_.record(stream_.get());
    execution_ = captured(host_graph_, &Engine::enqueue_host_frame);
}

Engine::~Engine() {
    // Wait before freeing anything a frame still uses; errors no longer matter here.
    try {
        const OnDevice here(device_.number);
        done_.synchronize();
    } catch (const Failure &) {
    }
}

void Engine::start() {
    const OnDevice here(device_.number);
    done_.hold_back(stream_.get());
    if (host_graph_) host_graph_.launch(stream_.get());
    else enqueue_host_frame(stream_.get());
    done_.record(stream_.get());
}

bool Engine::wait(std::int64_t timeout_ms) {
    const OnDevice here(device_.number);
    if (timeout_ms < 0) return done_.synchronize(), true;
    const std::chrono::milliseconds timeout(std::min(timeout_ms, kLongestMs));
    const auto limit = std::chrono::steady_clock::now() + timeout;
    while (!done_.is_done()) {
        if (std::chrono::steady_clock::now() >= limit) return false;
        std::this_thread::sleep_for(kPollInterval);
    }
    return true;
}

void Engine::bind_device(const mvde_frame &frame, const mvde_outputs &outputs) {
    const OnDevice here(device_.number);
    done_.synchronize();
    device_graph_.clear();
    bound_ = DeviceFrame{resize_.params(frame, images_.device()),
                         statistics_params(request_, depth(), outputs.depth_m, outputs.stats, request_.map_scale)};
    enqueue_device_frame(stream_.get());
    stream_.synchronize();  // reports pointers that are not the device's
    execution_ = captured(device_graph_, &Engine::enqueue_device_frame);
}

void Engine::infer_device(cudaStream_t stream) {
    const OnDevice here(device_.number);
    done_.hold_back(stream);
    if (device_graph_) device_graph_.launch(stream);
    else enqueue_device_frame(stream);
    done_.record(stream);
}

mvde_backend_engine Engine::view() {
    float *const stats = request_.num_stats ? patch_stats_.host() : nullptr;
    mvde_backend_engine loaded{this, images_.host(), {}, stats, nullptr, execution_.c_str(), 0};
    for (std::size_t i = 0; i < maps_.size(); ++i) loaded.maps[i] = maps_[i]->host();
    return loaded;
}

void Engine::run_engine(cudaStream_t stream) {
    plan_.enqueue(stream);
    clear_bars(depth(), request_.height, request_.width, request_.target, stream);
}

void Engine::enqueue_host_frame(cudaStream_t stream) {
    images_.upload(stream);
    run_engine(stream);
    for (const auto &map : maps_) map->download(stream);
    if (!request_.num_stats) return;
    const auto statistics = statistics_params(request_, depth(), nullptr, patch_stats_.device(), 1.0F);
    check(mvde_cuda::enqueue_postprocess(mvde_cuda::kRawFloat32, statistics, stream), "launch the statistics");
    patch_stats_.download(stream);
}

void Engine::enqueue_device_frame(cudaStream_t stream) {
    check(mvde_cuda::enqueue_preprocess(bound_->resize, stream), "launch the resizing");
    run_engine(stream);
    check(mvde_cuda::enqueue_postprocess(mvde_cuda::kRawFloat32, bound_->statistics, stream), "launch the statistics");
}

// Captures a frame as a graph; if the library does not allow it, frames are enqueued call by call. Returns the execution
// mode, with the reason.
std::string Engine::captured(Graph &graph, void (Engine::*enqueue)(cudaStream_t)) {
    try {
        graph.capture(stream_.get(), [&] { (this->*enqueue)(stream_.get()); });
        return "CUDA graph";
    } catch (const Failure &error) {
        (this->*enqueue)(stream_.get());  // throws if a frame does not run without a graph either
        stream_.synchronize();
        return std::string("CUDA stream, because graph capture failed: ") + error.what();
    }
}

}  // namespace mvde::internal::gpu
