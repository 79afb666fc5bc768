#include "tensorrt_plan.hpp"

#include "cuda_device.hpp"

#include <NvInferRuntime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

namespace mvde::internal::gpu {
namespace {

// Keeps the library's last error message; prints nothing.
class Logger : public nvinfer1::ILogger {
public:
    void log(Severity severity, const char *message) noexcept override {
        if (severity > Severity::kERROR) return;
        const std::lock_guard<std::mutex> lock(mutex_);
        std::snprintf(text_, sizeof text_, "%s", message);
    }
    std::string complaint() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return text_[0] ? text_ : "the library gave no reason";
    }

private:
    std::mutex mutex_;  // the library logs from its own threads
    char text_[400] = "";
};

std::string text_of(const nvinfer1::Dims &shape) {
    std::string text = "[";
    for (std::int32_t i = 0; i < shape.nbDims; ++i) text += (i ? ", " : "") + std::to_string(shape.d[i]);
    return text + "]";
}

bool same(const nvinfer1::Dims &shape, const std::vector<std::int64_t> &sides) {
    return shape.nbDims == static_cast<std::int32_t>(sides.size()) && std::equal(sides.begin(), sides.end(), shape.d);
}

bool has_option(const mvde_backend_request &request, const char *name) {
    for (std::size_t i = 0; i < request.num_options; ++i)
        if (!std::strcmp(request.options[i].name, name)) return !std::strcmp(request.options[i].value, "True");
    return false;
}

}  // namespace

struct Plan::Library {
    Logger logger;
    std::unique_ptr<nvinfer1::IRuntime> runtime;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
    std::unique_ptr<nvinfer1::IExecutionContext> context;

    [[noreturn]] void refuse(const std::string &what) {
        throw Failure(MVDE_ERROR_INCOMPATIBLE, what + ": " + logger.complaint());
    }

    void load(const mvde_backend_request &request) {
        runtime.reset(nvinfer1::createInferRuntime(logger));
        if (!runtime) refuse("cannot create a runtime");
        // A version-compatible plan contains host code of the library that wrote it; its hash has been checked.
        if (has_option(request, "version_compatible")) runtime->setEngineHostCodeAllowed(true);
        engine.reset(runtime->deserializeCudaEngine(request.content, request.size_bytes));
        if (!engine) refuse("cannot deserialise the plan");
        context.reset(engine->createExecutionContext());
        if (!context) refuse("cannot create an execution context");
    }

    // A manifest may describe the plan's tensors wrongly.
    void check_tensor(const char *name, nvinfer1::TensorIOMode mode, nvinfer1::DataType dtype, const char *expected,
                      const std::vector<std::int64_t> &sides) const {
        if (engine->getTensorIOMode(name) != mode)
            throw Failure(MVDE_ERROR_INCOMPATIBLE, std::string("it has no tensor '") + name + "', which its manifest names");
        const nvinfer1::Dims shape = engine->getTensorShape(name);
        const bool is_linear = engine->getTensorFormat(name) == nvinfer1::TensorFormat::kLINEAR;
        if (engine->getTensorDataType(name) != dtype || !is_linear || !same(shape, sides))
            throw Failure(MVDE_ERROR_INCOMPATIBLE, std::string("its tensor '") + name + "' is " + text_of(shape) +
                                                       ", or of another type or format than " + expected +
                                                       " of the manifest's size");
    }

    void check_tensors(const mvde_backend_request &request) const {
        const std::int32_t num_tensors = engine->getNbIOTensors();
        if (num_tensors != 1 + request.num_outputs)
            throw Failure(MVDE_ERROR_INCOMPATIBLE, "it has " + std::to_string(num_tensors) +
                                                       " tensors, but its manifest states an input and " +
                                                       std::to_string(request.num_outputs) + " outputs");
        check_tensor(request.input_name, nvinfer1::TensorIOMode::kINPUT, nvinfer1::DataType::kUINT8,
                     "dense uint8 [1, H, W, 3]", {request.batch, request.height, request.width, 3});
        for (std::int32_t i = 0; i < request.num_outputs; ++i)
            check_tensor(request.output_names[i], nvinfer1::TensorIOMode::kOUTPUT, nvinfer1::DataType::kFLOAT,
                         "dense float32 [1, H, W]", {request.batch, request.height, request.width});
    }
};

Plan::Plan(const mvde_backend_request &request, std::uint8_t *images, const std::vector<float *> &maps)
    : library_(std::make_unique<Library>()) {
    library_->load(request);
    library_->check_tensors(request);
    bool is_bound = library_->context->setTensorAddress(request.input_name, images);
    for (std::size_t i = 0; i < maps.size(); ++i)
        is_bound = is_bound && library_->context->setTensorAddress(request.output_names[i], maps[i]);
    if (!is_bound) library_->refuse("cannot bind its buffers");
}

Plan::~Plan() = default;

std::string Plan::library_version() {
    const std::int32_t parts[] = {getInferLibMajorVersion(), getInferLibMinorVersion(), getInferLibPatchVersion(),
                                  getInferLibBuildVersion()};
    std::string text;
    for (const std::int32_t part : parts) text += (text.empty() ? "" : ".") + std::to_string(part);
    return text;
}

void Plan::enqueue(cudaStream_t stream) {
    if (!library_->context->enqueueV3(stream)) throw Failure(MVDE_ERROR_BACKEND, library_->logger.complaint());
}

}  // namespace mvde::internal::gpu
