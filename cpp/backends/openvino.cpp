// libmvde_openvino.so: OpenVINO behind libmvde's sessions, with the calls that mvde/engines/openvino.py makes.
#include "backend.hpp"

#include <openvino/openvino.hpp>

#include <cstdio>
#include <exception>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

namespace {

constexpr const char *kDevice = "CPU";

struct Engine {
    ov::Core core;
    ov::CompiledModel compiled;
    ov::InferRequest request;
    std::string executed_precision;
};

// The message on one line, bounded as Python bounds it.
std::int32_t fail(const std::string &message, char *out, std::size_t capacity) {
    std::istringstream words(message);
    std::string line;
    for (std::string word; words >> word && line.size() < 500;) line += (line.empty() ? "" : " ") + word;
    std::snprintf(out, capacity, "%s", line.substr(0, 500).c_str());
    return 1;
}

std::string precision_name(const std::string &hint) {
    return hint == "f32" ? "fp32" : hint == "f16" ? "fp16" : hint;
}

// Nothing, if the port has that type and shape; a manifest may lie about both.
void check_port(const ov::Output<const ov::Node> &port, const char *what, ov::element::Type type, const ov::Shape &shape) {
    if (port.get_element_type() == type && port.get_partial_shape() == ov::PartialShape(shape)) return;
    std::ostringstream message;
    message << "its " << what << " is " << port.get_element_type() << " " << port.get_partial_shape()
            << ", but its manifest states " << type << " " << shape;
    throw std::runtime_error(message.str());
}

std::unique_ptr<Engine> load_engine(const mvde_backend_request &request) {
    auto engine = std::make_unique<Engine>();
    ov::AnyMap options;
    for (std::size_t i = 0; i < request.num_options; ++i) options[request.options[i].name] = std::string(request.options[i].value);
    std::ifstream blob(request.path, std::ios::binary);
    engine->compiled = engine->core.import_model(blob, kDevice, options);
    engine->executed_precision =
        precision_name(engine->compiled.get_property("INFERENCE_PRECISION_HINT").as<std::string>());
    if (engine->compiled.inputs().size() != 1 || engine->compiled.outputs().empty())
        throw std::runtime_error("it has not one input and an output");
    const auto side = [](std::int64_t size) { return static_cast<std::size_t>(size); };
    const ov::Shape images{side(request.batch), side(request.height), side(request.width), 3};
    const ov::Shape depth{side(request.batch), side(request.height), side(request.width)};
    check_port(engine->compiled.input(0), "input", ov::element::u8, images);
    check_port(engine->compiled.output(0), "output", ov::element::f32, depth);
    engine->request = engine->compiled.create_infer_request();
    engine->request.set_input_tensor(0, ov::Tensor(ov::element::u8, images, request.images));
    engine->request.set_output_tensor(0, ov::Tensor(ov::element::f32, depth, request.depth));
    return engine;
}

const char *library_version() {
    static const std::string version = [] {
        const std::string whole = ov::get_openvino_version().buildNumber;
        return whole.substr(0, whole.find('-'));
    }();
    return version.c_str();
}

std::int32_t load(const mvde_backend_request *request, void **engine, char *message, std::size_t capacity) {
    try {
        *engine = load_engine(*request).release();
        return 0;
    } catch (const std::exception &error) {
        return fail(error.what(), message, capacity);
    }
}

std::int32_t infer(void *engine, char *message, std::size_t capacity) {
    try {
        static_cast<Engine *>(engine)->request.infer();
        return 0;
    } catch (const std::exception &error) {
        return fail(error.what(), message, capacity);
    }
}

const char *executed_precision(void *engine) { return static_cast<Engine *>(engine)->executed_precision.c_str(); }

void close(void *engine) { delete static_cast<Engine *>(engine); }

}  // namespace

extern "C" __attribute__((visibility("default"))) const mvde_backend *mvde_backend_entry() {
    static const mvde_backend backend{MVDE_BACKEND_VERSION, library_version, load, executed_precision, infer, close};
    return &backend;
}
