// The TensorRT backend's sources on a fake GPU: buffers, graphs and their fallback, ordering, device memory.
#include "counting_allocator.hpp"
#include "engine_folder.hpp"
#include "harness.hpp"
#include "session_frame.hpp"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

using engine_folder::kMeasured;
using engine_folder::kUnmeasured;
using engine_folder::with;

constexpr mvde::Size kFrame{60, 60};  // into 32x48: letterboxed to 32x32, padded left and right

struct Folder : engine_folder::Folder {
    explicit Folder(const char *interpolation = R"("bilinear", "antialias": true)") {
        std::string text = engine_folder::manifest(content);
        text = with(text, R"("bilinear", "antialias": true)", interpolation);
        text = with(text, "\"id\": \"openvino:fp32\", \"backend\": \"openvino\"",
                    "\"id\": \"tensorrt:fp32\", \"backend\": \"tensorrt\"");
        text = with(text, "\"onnx_sha256\": \"\"",
                    R"("onnx_sha256": "", "cuda": {"cuda_major": "13", "driver_cuda": "13.0", "gpu": null, "build_s": 4,
                    "compute_capabilities": ["7.5", "8.7"], "network": {"num_layers": 9, "num_by_dtype": {"fp32": 9},
                    "products_by_dtype": {"fp32": 2}, "num_attention": 1, "num_softmax": 0, "num_layer_norm": 2}})");
        write("engine.json", with(text, "\"1.2.3\"", "\"10.3.0\""));
    }
};

mvde::Result<mvde::Session> open(const Folder &folder, const char *gpu, mvde::Fit fit = mvde::Fit::letterbox) {
    setenv("FAKE_GPU", gpu, 1);
    mvde::SessionOptions options;
    options.frame = kFrame;
    options.fit = fit;
    options.invalid_m = 0.0F;  // NaN is not equal to itself
    return mvde::Session::open(folder.path.string(), options);
}

struct Results {
    explicit Results(std::size_t num_depths) : depth(num_depths, -1.0F), stats(18, -1.0F) {}
    bool operator==(const Results &other) const { return depth == other.depth && stats == other.stats; }
    std::vector<float> depth, stats;
};

// The CPU's results for the same frame: libmvde's resizing, the plan's depth, libmvde's statistics.
template <class Options>
Results reference(const Frame &frame, const Options &options) {
    auto resizer = mvde::Resizer::create(mvde::PixelFormat::rgb, kFrame, {32, 48}, options);
    std::vector<uint8_t> rgb(32 * 48 * 3);
    CHECK(resizer->resize(frame.view, rgb));
    std::vector<float> depth(32 * 48);
    for (std::size_t i = 0; i < depth.size(); ++i)
        depth[i] = 0.5F + static_cast<float>(rgb[3 * i] + rgb[3 * i + 1] + rgb[3 * i + 2]) / 192.0F;
    const mvde_box box = resizer->target_box();
    for (int64_t i = 0; i < 32 * 48; ++i)
        if (i % 48 < box.left || i % 48 >= box.right || i / 48 < box.top || i / 48 >= box.bottom)
            depth[static_cast<std::size_t>(i)] = 0.0F;
    Results results(60 * 60);
    CHECK(mvde::patch_stats(mvde::depth_map(depth.data(), {32, 48}), 16, {MVDE_MEAN, MVDE_VAR, MVDE_GRAD}, results.stats));
    CHECK(resizer->depth_to_source(depth, results.depth, 0.0F));
    return results;
}

}  // namespace

TEST(frames_of_the_host_give_the_cpus_results_on_every_kind_of_gpu) {
    const Folder folder;
    for (const char *gpu : {"discrete", "integrated", "uncapturable"})
        for (const mvde::Fit fit : {mvde::Fit::stretch, mvde::Fit::letterbox, mvde::Fit::crop}) {
            auto session = open(folder, gpu, fit);
            CHECK(session, "%s", session.error().message.c_str());
            if (!session) return;
            const mvde_session_info info = session->info();
            const std::string how = info.execution,
                              expected = std::string(gpu) == "uncapturable" ? "CUDA stream, because" : "CUDA graph";
            CHECK(how.find(expected) == 0, "%s", how.c_str());
            CHECK(std::string(info.device) == "Fake GPU" && std::string(info.library_version) == "10.3.0.26");
            Frame frame(kFrame);
            for (int i = 0; i < 3; ++i) {
                Results results(60 * 60);
                frame.bytes[static_cast<std::size_t>(50 * i)] = 200;
                if (i == 1) CHECK(session->infer_async(frame.view) && session->wait(results.depth, results.stats, 1000));
                else CHECK(session->infer(frame.view, results.depth, results.stats));
                CHECK(results == reference(frame, fit), "%s, frame %d", gpu, i);
            }
        }
}

TEST(the_gpu_resamples_as_the_manifest_says) {
    const Folder folder(R"("bicubic", "bicubic_coefficient": -0.75, "antialias": false)");
    mvde_resizer_options options;
    mvde_resizer_defaults(&options);
    options.fit = MVDE_LETTERBOX;
    options.interpolation = MVDE_BICUBIC;
    options.bicubic_coefficient = -0.75F;
    options.antialias = 0;
    auto session = open(folder, "discrete");
    CHECK(session, "%s", session.error().message.c_str());
    Frame frame(kFrame);
    for (std::size_t i = 0; i < frame.bytes.size(); ++i) frame.bytes[i] = static_cast<uint8_t>(i * 31 % 253);
    Results results(60 * 60);
    CHECK(session && session->infer(frame.view, results.depth, results.stats));
    CHECK(results == reference(frame, options));
    CHECK(!(results == reference(frame, mvde::Fit::letterbox)));
}

TEST(a_frame_on_the_gpu_has_a_time_limit_and_allocates_nothing) {
    const Folder folder;
    auto session = open(folder, "integrated");
    Frame frame(kFrame);
    Results results(60 * 60);
    CHECK(session->infer_async(frame.view));
    CHECK(session->wait(results.depth, results.stats, 0).error().status == MVDE_ERROR_TIMEOUT);
    CHECK(session->wait(results.depth, results.stats));
    CHECK(results == reference(frame, mvde::Fit::letterbox));
}

TEST(frames_in_device_memory_are_queued_on_the_callers_stream) {
    const Folder folder;
    for (const char *gpu : {"discrete", "uncapturable"}) {
        auto session = open(folder, gpu);
        Frame frame(kFrame);
        Results results(32 * 48), host(60 * 60);
        CHECK(session->infer_device(nullptr).error().status == MVDE_ERROR_IDLE, "nothing is bound");
        CHECK(session->bind_device(frame.view, results.depth, results.stats), "%s", mvde_last_error());
        frame.fill(64);
        results.stats.assign(18, -1.0F);
        CHECK(session->infer_device(nullptr));
        CHECK(results.stats[3] == -1.0F, "it was only queued");
        CHECK(session->infer(frame.view, host.depth, host.stats), "a frame of the host comes after it");
        CHECK(results.stats == reference(frame, mvde::Fit::letterbox).stats &&
              host == reference(frame, mvde::Fit::letterbox));
        CHECK(results.depth[24] == 1.5F && results.depth[0] == 0.0F, "the middle is image, the left a bar");
        CHECK(std::string(session->info().execution).find(std::string(gpu) == "discrete" ? "CUDA graph" : "CUDA stream") ==
              0);
        Frame other({32, 32});
        CHECK(session->bind_device(other.view, results.depth, results.stats).error().status == MVDE_ERROR_SHAPE);
        CHECK(session->bind_device(frame.view, {results.depth.data(), 7}, {}).error().status == MVDE_ERROR_CAPACITY);
    }
}

TEST(results_in_device_memory_are_for_the_frames_camera) {
    const Folder folder;
    std::ifstream stream(folder.path / "engine.json");
    const std::string text((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    folder.write(
        "engine.json",
        engine_folder::with(text, R"("depth_kind": "metric")",
                            R"("depth_kind": "metric_focal", "canonical_focal": 0.5, "focal_convention": "horizontal")"));
    setenv("FAKE_GPU", "discrete", 1);
    mvde::SessionOptions options;
    options.frame = kFrame;
    options.camera = mvde_camera{60, 60, 30, 30, 60, 60};  // twice the canonical focal length
    auto session = mvde::Session::open(folder.path.string(), options);
    CHECK(session, "%s", session.error().message.c_str());
    if (!session) return;
    Frame frame(kFrame);
    frame.fill(64);
    Results results(32 * 48), host(60 * 60);
    CHECK(session->bind_device(frame.view, results.depth, results.stats) && session->infer_device(nullptr));
    CHECK(session->infer(frame.view, host.depth, host.stats), "%s", mvde_last_error());
    CHECK(results.depth[24] == 3.0F && results.stats[3] == 3.0F, "%g %g", results.depth[24], results.stats[3]);
    CHECK(host.depth[24] == 3.0F && host.stats[3] == 3.0F, "%g %g", host.depth[24], host.stats[3]);
}

TEST(a_machine_without_a_gpu_and_a_manifest_that_lies_have_their_own_errors) {
    const Folder folder;
    auto none = open(folder, "none");
    CHECK(!none && none.error().status == MVDE_ERROR_NO_DEVICE, "%d", none.error().status);
    CHECK(none.error().message.find("TensorRT cannot run " + folder.path.string() +
                                    "/engine.blob: there is no CUDA device: "
                                    "cudaErrorNoDevice") == 0,
          "%s", none.error().message.c_str());
    std::ifstream stream(folder.path / "engine.json");
    const std::string good(std::istreambuf_iterator<char>(stream), {});
    const auto expect = [&](const char *from, const char *to, int32_t status, const char *words) {
        folder.write("engine.json", with(good, from, to));
        auto refused = open(folder, "discrete");
        CHECK(!refused && refused.error().status == status, "%s: %d", words, refused.error().status);
        CHECK(refused.error().message.find(words) != std::string::npos, "%s", refused.error().message.c_str());
    };
    expect("\"name\": \"depth\"", "\"name\": \"deep\"", MVDE_ERROR_INCOMPATIBLE, "it has no such tensors; build it again");
    expect(
        "\"10.3.0\"", "\"10.4.0\"", MVDE_ERROR_INCOMPATIBLE,
        "/tiny cannot run here: it was built with TensorRT 10.4.0, but 10.3.0.26 is installed; build it again here: mvde");
    expect(
        "\"7.5\", \"8.7\"", "\"7.5\", \"8.6\"", MVDE_ERROR_INCOMPATIBLE,
        "/tiny cannot run here: it was built for compute capability 7.5, 8.6, but Fake GPU has 8.7; build it again here: ");
    expect(kMeasured, kUnmeasured, MVDE_ERROR_INCOMPATIBLE,
           "/tiny has parity not measured: no device when it was built; measure it on this machine: mvde prove ");
    const auto measured_on = [](const char *gpu) {
        return std::string(kMeasured) + R"(, "measured_on": {"gpu": ")" + gpu +
               R"(", "compute_capability": "8.7", "driver_cuda": "13.0"})";
    };
    expect(kMeasured, measured_on("Other GPU").c_str(), MVDE_ERROR_INCOMPATIBLE,
           "/tiny was measured on Other GPU, 8.7, but this machine has Fake GPU, 8.7; measure it on this");
    folder.write("engine.json", with(good, kMeasured, measured_on("Fake GPU")));
    CHECK(open(folder, "discrete"), "%s", mvde_last_error());
    folder.write("engine.json", with(good, "\"10.3.0\"", "\"10.3.0.26\""));
    CHECK(open(folder, "discrete"), "%s", mvde_last_error());
}

TEST(a_version_compatible_plan_runs_in_later_versions_of_its_major) {
    const Folder folder;
    std::ifstream stream(folder.path / "engine.json");
    const std::string good = with({std::istreambuf_iterator<char>(stream), {}}, "\"INFERENCE_NUM_THREADS\": 1",
                                  "\"version_compatible\": true");
    for (const auto &[version, runs] : {std::pair{"10.1.0", true}, {"10.3.0.27", false}, {"9.9.9", false}, {"", false}}) {
        folder.write("engine.json", with(good, "\"10.3.0\"", std::string("\"") + version + "\""));
        CHECK(static_cast<bool>(open(folder, "discrete")) == runs, "'%s'", version);
    }
}

int main() { return harness::run_all_and_in_german(); }
