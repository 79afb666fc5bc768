// libmvde_openvino.so: the OpenVINO backend, with the same calls as mvde/engines/openvino.
#include "session/backend_message.hpp"

#if defined(MVDE_HAVE_ATTENTION)
#include "attention_operator.hpp"
#include "linear_operator.hpp"

#include <openvino/core/op_extension.hpp>
#endif
#include <openvino/openvino.hpp>

#include <algorithm>
#include <chrono>
#include <exception>
#include <iterator>
#include <locale>
#include <memory>
#include <regex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace mvde::internal {
namespace {

constexpr const char *kDevice = "CPU";

// One per process, never destroyed. Each ov::Core for the CPU installs its own signal stack for the thread and restores the
// previous one when destroyed; two that are not destroyed in reverse order leave an unmapped stack, and the next signal
// kills the process.
ov::Core &shared_core() {
    static ov::Core *const core = new ov::Core;
    return *core;
}

struct Engine {
    ov::CompiledModel compiled;
    ov::Tensor images;
    std::vector<ov::Tensor> maps;  // of the request's outputs
    ov::InferRequest request;
    std::string executed_precision;
};

std::string precision_name(const std::string &hint) {
    return hint == "f32" ? "fp32" : hint == "f16" ? "fp16" : hint == "i8" || hint == "u8" ? "int8" : hint;
}

// The precisions the compiled model computes in, from its executed graph: those of its matrix products, most frequent
// first, then that of most other nodes if different. The hint is used only without products: it does not change when the
// library runs a layer in another precision.
std::string executed_precision(const ov::CompiledModel &compiled) {
    const std::set<std::string> products{"Convolution", "Deconvolution", "FullyConnected", "MatMul",
                                         "ScaledDotProductAttention"};
    const std::set<std::string> floats{"f32", "bf16", "f16"};
    const std::set<std::string> computes{"Subgraph", "MVN",         "Eltwise",
                                         "Softmax",  "Interpolate", "Reference"};  // Reference: mvde's attention
    using Counts = std::vector<std::pair<std::string, int>>;  // in graph order, which breaks ties
    Counts ran, others;
    const auto count = [](Counts &counts, const std::string &name) {
        const auto found = std::find_if(counts.begin(), counts.end(), [&](const auto &one) { return one.first == name; });
        if (found == counts.end()) counts.emplace_back(name, 1);
        else ++found->second;
    };
    for (const auto &node : compiled.get_runtime_model()->get_ordered_ops()) {
        const ov::RTMap &about = node->get_rt_info();
        const auto layer = about.at("layerType").as<std::string>(), name = about.at("runtimePrecision").as<std::string>();
        if (products.count(layer)) count(ran, name);
        else if (computes.count(layer) && floats.count(name)) count(others, name);
    }
    if (ran.empty()) return precision_name(compiled.get_property("INFERENCE_PRECISION_HINT").as<std::string>());
    const auto more = [](const auto &a, const auto &b) { return a.second > b.second; };
    std::stable_sort(ran.begin(), ran.end(), more);
    std::stable_sort(others.begin(), others.end(), more);
    if (!others.empty()) ran.push_back(others.front());
    std::vector<std::string> names;
    for (const auto &one : ran)
        if (const std::string name = precision_name(one.first); std::find(names.begin(), names.end(), name) == names.end())
            names.push_back(name);
    std::string joined;
    for (const std::string &name : names) joined += (joined.empty() ? "" : "+") + name;
    return joined;
}

// Registers mvde's attention with the library, for engines whose manifest says that they use it.
void add_attention(const std::string &kind) {
    if (kind == "openvino") return;  // the library's own
#if defined(MVDE_HAVE_ATTENTION)
    struct Kernel {
        const char *kind, *title, *(*unavailable)();
    };
    static const Kernel kernels[] = {{"amx", "AMX tiles", mvde_attention_unavailable},
                                     {"avx512", "AVX-512", mvde_attention_avx512_unavailable},
                                     {"avx2", "AVX2", mvde_attention_avx2_unavailable}};
    const auto *kernel = std::find_if(std::begin(kernels), std::end(kernels),
                                      [&](const Kernel &one) { return one.kind == kind; });
    if (kernel == std::end(kernels))
        throw std::runtime_error("this libmvde has no attention \"" + kind + "\", only amx, avx512, avx2 and openvino");
    const std::string reason = kernel->unavailable();
    if (!reason.empty())
        throw std::runtime_error("it computes attention with " + std::string(kernel->title) + ": " + reason);
    static const bool added = (shared_core().add_extension(std::make_shared<ov::OpExtension<Attention>>()), true);
    static_cast<void>(added);
#else
    throw std::runtime_error("libmvde_openvino.so was compiled without mvde's attention (it needs a compiler with "
                             "-mamx-bf16 and OpenVINO's Threading component)");
#endif
}

// Registers mvde's 8-bit linear layers with the library, for engines whose manifest says that they use them.
void add_linear(const std::string &kind) {
    if (kind == "openvino") return;  // the library's own
#if defined(MVDE_HAVE_ATTENTION)
    const std::string reason = mvde_attention_avx2_unavailable();
    if (!reason.empty()) throw std::runtime_error("it computes linear layers with AVX2: " + reason);
    static const bool added = (shared_core().add_extension(std::make_shared<ov::OpExtension<QuantizedLinear>>()), true);
    static_cast<void>(added);
#else
    throw std::runtime_error("libmvde_openvino.so was compiled without mvde's operators (they need a compiler with "
                             "-mamx-bf16 and OpenVINO's Threading component)");
#endif
}

// Throws unless the port has that type and shape; a manifest may state either wrongly.
void check_port(const ov::Output<const ov::Node> &port, const char *what, ov::element::Type type, const ov::Shape &shape) {
    if (port.get_element_type() == type && port.get_partial_shape() == ov::PartialShape(shape)) return;
    std::ostringstream message;
    message.imbue(std::locale::classic());
    message << "its " << what << " is " << port.get_element_type() << " " << port.get_partial_shape()
            << ", but its manifest states " << type << " " << shape;
    throw std::runtime_error(message.str());
}

// Throws unless the outputs are those that the manifest states, in its order.
void check_outputs(const ov::CompiledModel &compiled, const mvde_backend_request &request) {
    std::string found, stated;
    bool are_same = compiled.outputs().size() == static_cast<std::size_t>(request.num_outputs);
    for (std::size_t i = 0; i < compiled.outputs().size(); ++i) {
        const auto &names = compiled.output(i).get_names();
        found += (found.empty() ? "'" : ", '") + (names.empty() ? std::string() : *names.begin()) + "'";
        are_same = are_same && names.count(request.output_names[i]);
    }
    for (std::int32_t i = 0; i < request.num_outputs; ++i)
        stated += (i ? ", '" : "'") + std::string(request.output_names[i]) + "'";
    if (!are_same) throw std::runtime_error("it has the outputs " + found + ", but its manifest states " + stated);
}

// Options that a build and its tuning set, with a pattern of their values: the table of mvde/engines/openvino/engine.py.
// Some of the library's options write files (CACHE_DIR), so a manifest of unknown origin must not choose them.
const std::pair<const char *, const char *> kOptions[] = {
    {"CPU_DENORMALS_OPTIMIZATION", "YES|NO"},
    {"ENABLE_CPU_PINNING", "YES|NO"},
    {"ENABLE_HYPER_THREADING", "YES|NO"},
    {"INFERENCE_NUM_THREADS", "[0-9]{1,4}"},
    {"INFERENCE_PRECISION_HINT", "[A-Za-z0-9_]{1,32}"},
    {"MVDE_ATTENTION", "amx|avx512|avx2|openvino"},
    {"MVDE_INT8_LINEAR", "avx2|openvino"},
    {"NUM_STREAMS", "[0-9]{1,4}"},
    {"PERFORMANCE_HINT", "LATENCY|THROUGHPUT"},
    {"SNIPPETS_MODE", "[A-Za-z0-9_]{1,32}"},
    {"TBB_PARTITIONER", "STATIC|AUTO"},
};

void check_option(const mvde_backend_option &option) {
    const std::string name = option.name, value = option.value;
    std::string known;
    for (const auto &[known_name, values] : kOptions) {
        known += (known.empty() ? "" : ", ") + std::string(known_name);
        if (name != known_name) continue;
        if (std::regex_match(value, std::regex(values))) return;
        throw std::runtime_error("its manifest states the option " + name + " as '" + value +
                                 "', but mvde sets what matches '" + values + "'");
    }
    throw std::runtime_error("its manifest states the option '" + name + "', which mvde does not set; it sets " + known);
}

std::unique_ptr<Engine> load_engine(const mvde_backend_request &request) {
    auto engine = std::make_unique<Engine>();
    ov::AnyMap options;
    for (std::size_t i = 0; i < request.num_options; ++i) {
        check_option(request.options[i]);
        const std::string name = request.options[i].name;
        if (name == "MVDE_ATTENTION") add_attention(request.options[i].value);
        else if (name == "MVDE_INT8_LINEAR") add_linear(request.options[i].value);
        else options[request.options[i].name] = std::string(request.options[i].value);
    }
    // The compiled model uses its weights in place, inside the blob. The library only accepts tensors that it may write.
    const ov::Tensor blob(ov::element::u8, {request.size_bytes}, const_cast<std::uint8_t *>(request.content));
    engine->compiled = shared_core().import_model(blob, kDevice, options);
    engine->executed_precision = executed_precision(engine->compiled);
    if (engine->compiled.inputs().size() != 1) throw std::runtime_error("it has not one input");
    check_outputs(engine->compiled, request);
    const auto side = [](std::int64_t size) { return static_cast<std::size_t>(size); };
    const ov::Shape images{side(request.batch), side(request.height), side(request.width), 3};
    const ov::Shape map{side(request.batch), side(request.height), side(request.width)};
    check_port(engine->compiled.input(0), "input", ov::element::u8, images);
    engine->images = ov::Tensor(ov::element::u8, images);
    engine->request = engine->compiled.create_infer_request();
    engine->request.set_input_tensor(0, engine->images);
    for (std::size_t i = 0; i < engine->compiled.outputs().size(); ++i) {
        check_port(engine->compiled.output(i), i ? request.output_names[i] : "output", ov::element::f32, map);
        engine->maps.emplace_back(ov::element::f32, map);
        engine->request.set_output_tensor(i, engine->maps.back());
    }
    return engine;
}

const char *library_version() {
    static const std::string version = [] {
        const std::string whole = ov::get_openvino_version().buildNumber;
        return whole.substr(0, whole.find('-'));
    }();
    return version.c_str();
}

std::int32_t load(const mvde_backend_request *request, mvde_backend_engine *loaded, mvde_backend_message *message) {
    try {
        Engine *engine = load_engine(*request).release();
        *loaded = {engine,  engine->images.data<std::uint8_t>(), {},
                   nullptr, engine->executed_precision.c_str(),  "OpenVINO request on the CPU",
                   1};
        for (std::size_t i = 0; i < engine->maps.size(); ++i) loaded->maps[i] = engine->maps[i].data<float>();
        return MVDE_OK;
    } catch (const std::exception &error) {
        return fail(MVDE_ERROR_INCOMPATIBLE, error.what(), message);
    }
}

// Calls the library; no exception escapes.
template <class Call>
std::int32_t guarded(void *engine, mvde_backend_message *message, Call call) {
    try {
        return call(static_cast<Engine *>(engine)->request);
    } catch (const std::exception &error) {
        return fail(MVDE_ERROR_BACKEND, error.what(), message);
    }
}

std::int32_t infer(void *engine, mvde_backend_message *message) {
    return guarded(engine, message, [](ov::InferRequest &request) { return request.infer(), MVDE_OK; });
}

std::int32_t start(void *engine, mvde_backend_message *message) {
    return guarded(engine, message, [](ov::InferRequest &request) { return request.start_async(), MVDE_OK; });
}

std::int32_t wait(void *engine, std::int64_t timeout_ms, mvde_backend_message *message) {
    return guarded(engine, message, [&](ov::InferRequest &request) {
        if (timeout_ms < 0) return request.wait(), MVDE_OK;
        // One day is as good as no limit, and does not overflow the library's clock.
        const std::chrono::milliseconds limit(std::min<std::int64_t>(timeout_ms, 86'400'000));
        return request.wait_for(limit) ? MVDE_OK : MVDE_ERROR_TIMEOUT;
    });
}

void close(void *engine) {
    mvde_backend_message message;
    wait(engine, -1, &message);  // its buffers must outlive a frame in flight
    delete static_cast<Engine *>(engine);
}

}  // namespace
}  // namespace mvde::internal

using namespace mvde::internal;

#define MVDE_EXPORT extern "C" __attribute__((visibility("default")))
#define MVDE_TEXT_(x) #x
#define MVDE_TEXT(x) MVDE_TEXT_(x)

// The only release that this library can be loaded with: libopenvino's SONAME changes with every patch. Python reads it from
// the file, to name the release where another is installed.
MVDE_EXPORT const char mvde_openvino_release[];
const char mvde_openvino_release[] = "MVDE_OPENVINO_RELEASE=" MVDE_TEXT(OPENVINO_VERSION_MAJOR) "." MVDE_TEXT(
    OPENVINO_VERSION_MINOR) "." MVDE_TEXT(OPENVINO_VERSION_PATCH);

MVDE_EXPORT const mvde_backend *mvde_backend_entry() {
    static const mvde_backend backend{
        MVDE_BACKEND_VERSION, "OpenVINO", library_version, nullptr, load, infer, start, wait, nullptr, nullptr, close};
    return &backend;
}
