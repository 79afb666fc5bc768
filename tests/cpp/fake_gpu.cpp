// A fake GPU: CUDA runtime, kernels and plan implemented on the CPU, below the TensorRT backend's real sources.
//
// Streams are queues that run only when something waits for them, so that a result read too early is stale. FAKE_GPU
// selects the kind: "none" (no device), "integrated" (shared memory), "uncapturable" (graph capture fails). The plan's
// depth is 0.5 m + the mean of the colours / 64, over the whole input, padding included.
#include "cuda_device.hpp"
#include "launch.h"
#include "tensorrt_plan.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <vector>

using Work = std::function<void()>;

struct CUstream_st {
    std::deque<Work> queue;
    bool is_capturing = false;
    std::vector<Work> captured;

    void run() {
        while (!queue.empty()) {
            const Work next = std::move(queue.front());
            queue.pop_front();
            next();
        }
    }
};
struct CUevent_st {
    cudaStream_t stream = nullptr;  // the stream it was recorded on; nullptr: done
    int num_asked = 0;
    void finish() {
        const cudaStream_t waited = stream;
        stream = nullptr;
        if (waited) waited->run();
    }
};
struct CUgraph_st {
    std::vector<Work> work;
};
struct CUgraphExec_st {
    std::vector<Work> work;
};

namespace {

bool is(const char *wanted) {
    const char *kind = std::getenv("FAKE_GPU");
    return kind && !std::strcmp(kind, wanted);
}

CUstream_st default_stream;

cudaError_t enqueue(cudaStream_t stream, Work work) {
    CUstream_st &chosen = stream ? *stream : default_stream;
    if (chosen.is_capturing) chosen.captured.push_back(std::move(work));
    else chosen.queue.push_back(std::move(work));
    return cudaSuccess;
}

}  // namespace

// ---- CUDA runtime

const char *cudaGetErrorName(cudaError_t error) {
    return error == cudaErrorNoDevice ? "cudaErrorNoDevice" : "cudaErrorOther";
}
const char *cudaGetErrorString(cudaError_t) { return "so says the fake"; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int *count) {
    *count = is("none") ? 0 : 1;
    return is("none") ? cudaErrorNoDevice : cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int) {
    std::strcpy(properties->name, "Fake GPU");
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrIntegrated ? is("integrated") : attribute == cudaDevAttrComputeCapabilityMajor ? 8 : 7;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) { return *stream = new CUstream_st, cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return stream->run(), delete stream, cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return (stream ? *stream : default_stream).run(), cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    return enqueue(stream, [recorded = event->stream] {  // its state when the wait was requested
        if (recorded) recorded->run();
    });
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    return stream->is_capturing = true, cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    stream->is_capturing = false;
    if (is("uncapturable")) return stream->captured.clear(), cudaErrorStreamCaptureInvalidated;
    *graph = new CUgraph_st{std::move(stream->captured)};
    return stream->captured.clear(), cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long) {
    return *executable = new CUgraphExec_st{graph->work}, cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    return enqueue(stream, [executable] {
        for (const Work &work : executable->work) work();
    });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return delete executable, cudaSuccess; }
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) { return *event = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    event->num_asked = 0;
    return event->stream = stream ? stream : &default_stream, cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return event->finish(), cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t event) {  // done at the third query
    if (!event->stream) return cudaSuccess;
    if (++event->num_asked < 3) return cudaErrorNotReady;
    return event->finish(), cudaSuccess;
}

cudaError_t cudaMalloc(void **data, std::size_t size) { return *data = std::malloc(size), cudaSuccess; }
cudaError_t cudaFree(void *data) { return std::free(data), cudaSuccess; }
cudaError_t cudaHostAlloc(void **data, std::size_t size, unsigned) { return *data = std::malloc(size), cudaSuccess; }
cudaError_t cudaFreeHost(void *data) { return std::free(data), cudaSuccess; }
cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned) { return *device = host, cudaSuccess; }
cudaError_t cudaMemcpy(void *to, const void *from, std::size_t size, cudaMemcpyKind) {
    return std::memcpy(to, from, size), cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, std::size_t size, cudaMemcpyKind, cudaStream_t stream) {
    if (is("integrated")) return cudaErrorInvalidValue;  // no copies with shared memory
    return enqueue(stream, [=] { std::memcpy(to, from, size); });
}
cudaError_t cudaMemset2DAsync(void *data, std::size_t pitch, int value, std::size_t width, std::size_t height,
                              cudaStream_t stream) {
    return enqueue(stream, [=] {
        for (std::size_t y = 0; y < height; ++y) std::memset(static_cast<char *>(data) + y * pitch, value, width);
    });
}

// ---- kernels: their results, computed from the arguments that the backend passes

cudaError_t mvde_cuda::enqueue_postprocess(RawType, const PostprocessParams &p, cudaStream_t stream) {
    return enqueue(stream, [p] {
        std::int32_t columns[kMaxColumns];
        for (int i = 0; i < p.num_columns; ++i) columns[i] = static_cast<std::int32_t>(p.columns >> (4 * i) & 15U);
        const mvde_map raw{
            const_cast<void *>(p.raw), MVDE_FLOAT32, 0, p.batch, p.height, p.width, 0, p.raw_row_stride * 4, 0};
        const mvde_map depth{p.depth, MVDE_FLOAT32, 0, p.batch, p.height, p.width, 0, p.depth_row_stride * 4, 0};
        mvde_postprocess_options options;
        mvde_postprocess_defaults(&options);
        options.conversion = p.conversion;
        options.scale = p.scale;
        options.shift = p.shift;
        options.range = p.range;
        options.min_depth_m = p.min_depth_m;
        options.max_depth_m = p.max_depth_m;
        options.invalid_m = p.invalid_m;
        const mvde_stats_request request{sizeof(mvde_stats_request), p.patch, p.num_columns, columns, p.stats, INT64_MAX};
        if (mvde_postprocess(&raw, &options, p.depth_output ? &depth : nullptr, p.num_columns ? &request : nullptr, nullptr))
            std::abort();
    });
}

cudaError_t mvde_cuda::enqueue_preprocess(const PreprocessParams &p, cudaStream_t stream) {
    return enqueue(stream, [p] {
        const auto rounded = [](long long sum) {
            return static_cast<int>(std::clamp((sum + (1 << 21)) >> kWeightBits, 0LL, 255LL));
        };
        const auto along_x = [&](int y, int column, int channel) {
            long long sum = 0;
            for (int k = 0; k < p.columns.counts[column]; ++k) {
                const int x = p.source_left + p.columns.firsts[column] + k;
                sum += static_cast<long long>(p.columns.weights[column * p.columns.most + k]) *
                       p.source[(p.source_top + y) * p.source_pitch + 3 * x + channel];
            }
            return rounded(sum);
        };
        for (int y = 0; y < p.height; ++y)
            for (int x = 0; x < 3 * p.width; ++x) {
                const int row = y - p.box_top, column = x / 3 - p.box_left;
                unsigned char &out = p.target[y * p.target_pitch + x];
                out = p.fill[x % 3];
                if (row < 0 || row >= p.box_height || column < 0 || column >= p.box_width) continue;
                long long sum = 0;
                for (int k = 0; k < p.rows.counts[row]; ++k)
                    sum += static_cast<long long>(p.rows.weights[row * p.rows.most + k]) *
                           along_x(p.rows.firsts[row] + k, column, x % 3);
                out = static_cast<unsigned char>(rounded(sum));
            }
    });
}

// ---- plan

namespace mvde::internal::gpu {

struct Plan::Library {
    const std::uint8_t *images;
    float *depth;
    std::int64_t num_pixels;
};

Plan::Plan(const mvde_backend_request &request, std::uint8_t *images, float *depth)
    : library_(new Library{images, depth, request.height * request.width}) {
    if (std::string(request.input_name) != "image" || std::string(request.output_name) != "depth")
        throw Failure(MVDE_ERROR_INCOMPATIBLE, "it has no such tensors");
}
Plan::~Plan() = default;
std::string Plan::library_version() { return "10.3.0.26"; }

void Plan::enqueue(cudaStream_t stream) {
    ::enqueue(stream, [plan = *library_] {
        for (std::int64_t i = 0; i < plan.num_pixels; ++i)
            plan.depth[i] = 0.5F + static_cast<float>(plan.images[3 * i] + plan.images[3 * i + 1] + plan.images[3 * i + 2]) /
                                       192.0F;
    });
}

}  // namespace mvde::internal::gpu
