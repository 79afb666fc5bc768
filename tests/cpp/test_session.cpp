// Sessions with the fake backend: errors on opening, results of a frame, no allocation per frame.
#include "counting_allocator.hpp"
#include "engine_folder.hpp"
#include "harness.hpp"
#include "session_frame.hpp"

#include <mvde/mvde.hpp>

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <clocale>
#include <locale>
#include <string>
#include <thread>
#include <vector>

namespace {

using engine_folder::Folder;

void expect_refused(const std::string &path, int32_t status, const std::string &words, int line) {
    auto session = mvde::Session::open(path);
    CHECK(!session, "line %d: it was opened", line);
    if (session) return;
    const std::string message = session.error().message;
    CHECK(session.error().status == status, "line %d: got %d: %s", line, session.error().status, message.c_str());
    CHECK(message.find(words) != std::string::npos, "line %d: '%s' is not in '%s'", line, words.c_str(), message.c_str());
}

#define EXPECT_REFUSED(path, status, words) expect_refused(path, status, words, __LINE__)

}  // namespace

TEST(an_artefact_that_does_not_fit_is_refused) {
    EXPECT_REFUSED("", MVDE_ERROR_ARGUMENT, "engine_path is NULL or empty");
    EXPECT_REFUSED("/nowhere/engine", MVDE_ERROR_ARTIFACT, "there is no engine at /nowhere/engine; `mvde build` writes");
    const Folder folder;
    const std::string path = folder.path.string();
    const auto expect = [&](const char *from, const char *to, int32_t status, const char *words, int line) {
        folder.spoil(from, to);
        expect_refused(path, status, words, line);
    };
    expect("\"size_bytes\": 18", "\"size_bytes\": 19", MVDE_ERROR_HASH,
           "has 18 bytes, but its manifest states 19 (truncated", __LINE__);
    expect("\"openvino\"", "\"onnxruntime\"", MVDE_ERROR_BACKEND,
           "no onnxruntime engines; use openvino, tensorrt or tensorrt-rtx", __LINE__);
    expect("\"openvino\"", "\"tensorrt-rtx\"", MVDE_ERROR_BACKEND, "libmvde_tensorrt_rtx.so cannot be loaded (", __LINE__);
    expect("[]", "[\"avx9000\", \"magic\"]", MVDE_ERROR_INCOMPATIBLE,
           "was built for a CPU with avx9000, magic, which this one lacks; build it again here: mvde build --engine "
           "openvino:fp32 --name tiny --res 32x48",
           __LINE__);
    expect("\"1.2.3\"", "\"1.2.4\"", MVDE_ERROR_INCOMPATIBLE, "was built with openvino 1.2.4, but 1.2.3 is installed",
           __LINE__);
    expect("\"executed_precision\": \"fp32\"", "\"executed_precision\": \"bf16\"", MVDE_ERROR_INCOMPATIBLE,
           "was built to compute in bf16, but computes in fp32 here", __LINE__);
    expect(engine_folder::kMeasured, engine_folder::kUnmeasured, MVDE_ERROR_INCOMPATIBLE,
           "has parity not measured: no device when it was built; measure it on this machine: mvde prove ", __LINE__);
    expect(R"("openvino:fp32", "backend": "openvino")", R"("openvino:fp32", "backend": "openvino", "facts": {})",
           MVDE_ERROR_MANIFEST, "unknown key engine.facts; known keys: id, backend", __LINE__);
    expect("\"stats\": [", "\"stats\": [\"min\", \"max\", \"valid\", \"mean\",", MVDE_ERROR_MANIFEST,
           "stats is ('min', 'max', 'valid', 'mean', 'mean', 'var', 'grad'), but expected some of mean, var,", __LINE__);
    expect("\"stats\": [\"mean\", \"var\", \"grad\"]", "\"stats\": []", MVDE_ERROR_MANIFEST,
           "stats is (), but expected some of mean, var,", __LINE__);
    expect("[1, 32, 48]", "[1, 32, 32]", MVDE_ERROR_MANIFEST,
           "outputs[0].shape is (1, 32, 32), but expected (1, 32, 48), batch, height and width of the input", __LINE__);
    expect("\"uint8\"", "\"float32\"", MVDE_ERROR_MANIFEST, "inputs[0].dtype is 'float32', but expected uint8", __LINE__);
    expect("\"grad\"", "\"median\"", MVDE_ERROR_MANIFEST, "stats is ('mean', 'var', 'median'), but expected", __LINE__);
    expect("\"stats_patch\": 16, \"grid\": [2, 3]", "\"stats_patch\": 16, \"grid\": [3, 2]", MVDE_ERROR_MANIFEST,
           "grid is (3, 2)", __LINE__);
}

#if defined(__x86_64__)
TEST(an_engine_of_features_that_a_cap_switches_off_says_so) {
    const Folder folder;
    folder.spoil("[]", "[\"sse4_2\", \"avx\"]");
    setenv("ONEDNN_MAX_CPU_ISA", " sse41", 1);
    EXPECT_REFUSED(folder.path.string(), MVDE_ERROR_INCOMPATIBLE,
                   "was built for a CPU with avx, which ONEDNN_MAX_CPU_ISA=sse41 switches off; unset it, or build it again "
                   "here: mvde build --engine openvino:fp32 --name tiny --res 32x48");
    setenv("ONEDNN_MAX_CPU_ISA", "AVX", 1);
    setenv("DNNL_MAX_CPU_ISA", "SSE41", 1);  // the older name counts only without the newer one
    CHECK(mvde::Session::open(folder.path.string()));
    unsetenv("ONEDNN_MAX_CPU_ISA");
    unsetenv("DNNL_MAX_CPU_ISA");
}
#endif

TEST(a_program_keeps_its_locale) {
    const Folder folder;
    const std::locale before;
    const std::string c_before = std::setlocale(LC_ALL, nullptr);
    CHECK(mvde::Session::open(folder.path.string()));
    CHECK(std::locale() == before && std::setlocale(LC_ALL, nullptr) == c_before);
    mvde::SessionOptions options;
    options.frame = {48, -1234567};
    EXPECT_REFUSED(folder.path.string() + "/none", MVDE_ERROR_ARTIFACT, "there is no engine at");
    const std::string message = mvde::Session::open(folder.path.string(), options).error().message;
    CHECK(message.find("-1234567") != std::string::npos, "%s", message.c_str());
}

TEST(sizes_that_no_memory_holds_are_refused) {
    const Folder folder;
    const std::string path = folder.path.string();
    for (const std::string side : {"65552", "4611686018427387904", "9223372036854775792"}) {
        const std::string rows = std::to_string(std::stoll(side) / 16);
        std::string text = engine_folder::with(engine_folder::manifest(folder.content), "[1, 32, 48, 3]",
                                               "[1, " + side + ", " + side + ", 3]");
        text = engine_folder::with(text, "[1, 32, 48]", "[1, " + side + ", " + side + "]");
        folder.write("engine.json", engine_folder::with(text, "[2, 3]", "[" + rows + ", " + rows + "]"));
        EXPECT_REFUSED(path, MVDE_ERROR_MANIFEST, "sides up to 65536 and at most 1073741824 pixels in a call");
    }
    folder.write("engine.json", engine_folder::manifest(folder.content));
    for (const int64_t side : {int64_t{-1}, int64_t{65537}, INT64_MAX, INT64_MIN}) {
        mvde::SessionOptions options;
        options.frame = {48, side};
        auto session = mvde::Session::open(path, options);
        CHECK(!session && session.error().status == MVDE_ERROR_SHAPE, "%s", session.error().message.c_str());
    }
}

TEST(an_engine_for_several_images_a_call_is_refused) {
    const Folder folder;
    std::string text = engine_folder::manifest(folder.content);
    text = engine_folder::with(text, "[1, 32, 48, 3]", "[2, 32, 48, 3]");
    folder.write("engine.json", engine_folder::with(text, "[1, 32, 48]", "[2, 32, 48]"));
    EXPECT_REFUSED(folder.path.string(), MVDE_ERROR_MANIFEST, "2 images per call, but a session one");
}

TEST(files_that_cannot_be_read_are_refused_at_once) {
    const Folder folder;
    const std::string path = folder.path.string();
    for (const char *name : {"engine.blob", "engine.json"}) {
        std::filesystem::remove(folder.path / name);
        CHECK(mkfifo((folder.path / name).c_str(), 0600) == 0);
        EXPECT_REFUSED(path, std::string(name) == "engine.json" ? MVDE_ERROR_MANIFEST : MVDE_ERROR_HASH,
                       std::string(name) == "engine.json"
                           ? "cannot read the manifest " + path + "/engine.json: it is not a regular file"
                           : "which its manifest describes, is missing");
    }
    std::filesystem::remove(folder.path / "engine.json");
    std::filesystem::create_symlink("/dev/zero", folder.path / "engine.json");
    EXPECT_REFUSED(path, MVDE_ERROR_MANIFEST, "it is not a regular file");
    std::filesystem::remove(folder.path / "engine.json");
    folder.write("engine.json", engine_folder::manifest(folder.content));
    std::filesystem::permissions(folder.path / "engine.json", std::filesystem::perms::none);
    if (geteuid() != 0) EXPECT_REFUSED(path, MVDE_ERROR_MANIFEST, "engine.json: Permission denied");
}

TEST(files_that_are_missing_or_replaced_are_refused) {
    const Folder folder;
    const std::string path = folder.path.string();
    folder.write("engine.blob", "the compiled modem");
    EXPECT_REFUSED(path, MVDE_ERROR_HASH, "it is not the file that was measured; copy it again or run `mvde build` again");
    folder.write("other.blob", "");
    EXPECT_REFUSED(path + "/other.blob", MVDE_ERROR_MANIFEST, "there is no manifest " + path + "/other.json");
    folder.write("other.json", engine_folder::manifest(folder.content));
    EXPECT_REFUSED(path + "/other.blob", MVDE_ERROR_HASH, "other.json describes engine.blob, not other.blob");
    const std::string renamed = "engine." + engine_folder::hash(folder.content).substr(0, 8) + ".blob";
    folder.write(renamed, folder.content);  // a replacement was interrupted before its last rename
    folder.spoil("engine.blob", renamed);
    CHECK(mvde::Session::open(path) && mvde::Session::open(path + "/engine.blob"));
    folder.spoil("engine.blob", "engine.blob");
    std::filesystem::remove(folder.path / "engine.blob");
    EXPECT_REFUSED(path, MVDE_ERROR_HASH, "which its manifest describes, is missing; copy it too or run `mvde build` again");
    std::filesystem::remove(folder.path / "engine.json");
    EXPECT_REFUSED(path, MVDE_ERROR_MANIFEST, "there is no manifest");
    folder.write("engine.json", "{\"schema");
    EXPECT_REFUSED(path, MVDE_ERROR_MANIFEST, "engine.json is not valid JSON: Unterminated string");
    folder.write("engine.json", std::string(17 << 20, ' '));
    EXPECT_REFUSED(path, MVDE_ERROR_MANIFEST,
                   "cannot read the manifest " + path + "/engine.json: it has more than 16777216 bytes");
}

TEST(a_graph_that_was_exported_since_is_noticed) {
    const Folder folder;
    std::filesystem::create_directories(folder.root / "export");
    const std::string record = "\"onnx_sha256\": \"" + engine_folder::hash(folder.content) + "\"";
    folder.write("../../export/tiny-32x48.json", engine_folder::graph_manifest(folder.content));
    EXPECT_REFUSED(folder.path.string(), MVDE_ERROR_INCOMPATIBLE,
                   "tiny-32x48.onnx, which was exported since; build it again");
    folder.spoil("\"onnx_sha256\": \"\"", record);
    CHECK(mvde::Session::open(folder.path.string()));
}

TEST(a_backend_that_fails_says_why) {
    const Folder folder;
    folder.write("engine.blob", "broken");
    folder.write("engine.json", engine_folder::manifest("broken"));
    EXPECT_REFUSED(folder.path.string(), MVDE_ERROR_INCOMPATIBLE, "the blob is broken; build it again with `mvde build`");
    folder.write("engine.blob", "homeless");
    folder.write("engine.json", engine_folder::manifest("homeless"));
    EXPECT_REFUSED(folder.path.string(), MVDE_ERROR_NO_DEVICE,
                   "OpenVINO cannot run " + folder.path.string() + "/engine.blob: there");
}

TEST(a_frame_gives_depth_and_statistics_and_allocates_nothing) {
    const Folder folder;
    mvde::SessionOptions options;
    options.frame = {60, 60};
    options.fit = mvde::Fit::letterbox;
    options.num_threads = 2;
    auto session = mvde::Session::open(folder.path.string(), options);
    CHECK(session, "%s", session.error().message.c_str());
    if (!session) return;
    const mvde_session_info info = session->info();
    CHECK(info.grid_rows == 2 && info.grid_columns == 3 && info.num_stats == 3 && info.stats[2] == MVDE_GRAD &&
          info.stats[3] == -1);
    CHECK(info.depth_kind == MVDE_METRIC && info.max_valid == 4.0F && std::string(info.unit) == "m");
    CHECK(std::string(info.executed_precision) == "fp32" && std::string(info.library_version) == "1.2.3");
    Frame frame({60, 60});
    std::fill(frame.bytes.begin(), frame.bytes.end(), uint8_t{64});
    std::vector<float> depth(session->num_depths()), stats(session->num_stats());
    CHECK(depth.size() == 3600 && stats.size() == 18);
    CHECK(session->infer(frame.view, depth, stats), "%s", mvde_last_error());
    CHECK(std::all_of(depth.begin(), depth.end(), [](float value) { return value == 1.5F; }));
    CHECK(stats[3] == 1.5F && stats[4] == 0.0F, "the middle column of patches is all image");
    CHECK(stats[0] == 1.5F && stats[2] == 0.0F, "half of the left column is a bar, which does not count");

    const long before = num_allocations.load();
    CHECK(before > 0, "the counter does not count");
    for (int i = 0; i < 10; ++i) CHECK(session->infer(frame.view, depth, stats));
    mvde_outputs nothing = outputs_of({}, {});
    CHECK(mvde_infer(session->get(), &frame.view, &nothing) == MVDE_ERROR_ARGUMENT);  // errors do not allocate either
    CHECK(num_allocations.load() == before, "%ld allocations", num_allocations.load() - before);
}

TEST(frames_enter_as_the_manifest_says) {
    const Folder folder;
    const std::string text = engine_folder::with(
        engine_folder::manifest(folder.content),
        R"("stretch", "multiple": 1, "interpolation": "bilinear", "antialias": true)",
        R"("letterbox", "multiple": 16, "interpolation": "bicubic", "antialias": false, "bicubic_coefficient": -0.75)");
    folder.write("engine.json", text);
    mvde::SessionOptions options;
    options.frame = {60, 200};
    mvde_resizer_options resizing;
    mvde_resizer_defaults(&resizing);
    resizing.fit = MVDE_LETTERBOX;
    resizing.multiple = 16;
    resizing.interpolation = MVDE_BICUBIC;
    resizing.antialias = 0;
    resizing.bicubic_coefficient = -0.75F;
    Frame frame({60, 200});
    for (std::size_t i = 0; i < frame.bytes.size(); ++i) frame.bytes[i] = static_cast<uint8_t>(i * 31 % 253);
    for (const mvde::Fit fit : {mvde::Fit::automatic, mvde::Fit::stretch}) {
        options.fit = fit;
        if (fit == mvde::Fit::stretch) resizing.fit = MVDE_STRETCH;
        auto session = mvde::Session::open(folder.path.string(), options);
        auto resizer = mvde::Resizer::create(mvde::PixelFormat::rgb, {60, 200}, {32, 48}, resizing);
        CHECK(session && resizer, "%s", session.error().message.c_str());
        if (!session || !resizer) return;
        std::vector<uint8_t> rgb(32 * 48 * 3);
        CHECK(resizer->resize(frame.view, rgb));
        std::vector<float> depth(60 * 200), stats(18), model(32 * 48), expected(60 * 200);
        for (std::size_t i = 0; i < model.size(); ++i)  // the fake engine's depth
            model[i] = 0.5F + static_cast<float>(rgb[3 * i] + rgb[3 * i + 1] + rgb[3 * i + 2]) / 192.0F;
        CHECK(resizer->depth_to_source(model, expected));
        CHECK(session->infer(frame.view, depth, stats), "%s", mvde_last_error());
        CHECK(depth == expected);
        const mvde_box box = resizer->target_box();
        CHECK(box.bottom - box.top == (fit == mvde::Fit::stretch ? 32 : 16), "14.4 rounded to the multiple");
    }
}

TEST(wrong_calls_are_refused_and_the_handle_remembers_why) {
    const Folder folder;
    auto session = mvde::Session::open(folder.path.string() + "/engine.blob");
    CHECK(session, "%s", session.error().message.c_str());
    if (!session) return;
    mvde_session *handle = session->get();
    CHECK(std::string(mvde_session_error(handle)).empty());
    Frame frame({32, 48}), other({32, 32});
    std::vector<float> depth(32 * 48), stats(18);
    const auto expect = [&](int32_t got, int32_t status, const char *words) {
        CHECK(got == status, "got %d", got);
        CHECK(std::string(mvde_session_error(handle)).find(words) != std::string::npos, "%s", mvde_session_error(handle));
    };
    mvde_outputs outputs = outputs_of(depth, stats);
    expect(mvde_infer(handle, nullptr, &outputs), MVDE_ERROR_ARGUMENT, "frame or outputs is NULL");
    expect(mvde_infer(handle, &frame.view, nullptr), MVDE_ERROR_ARGUMENT, "frame or outputs is NULL");
    expect(mvde_infer(handle, &other.view, &outputs), MVDE_ERROR_SHAPE, "the frame is 32x32");
    outputs.stats_capacity = 17;
    expect(mvde_infer(handle, &frame.view, &outputs), MVDE_ERROR_CAPACITY,
           "outputs.stats_capacity is 17, but stats takes 18 values");
    outputs.depth_capacity = 0;
    expect(mvde_infer(handle, &frame.view, &outputs), MVDE_ERROR_CAPACITY,
           "outputs.depth_capacity is 0, but depth takes 1536 values");
    outputs = outputs_of(depth, stats);
    outputs.stats = reinterpret_cast<float *>(reinterpret_cast<char *>(stats.data()) + 1);
    expect(mvde_infer(handle, &frame.view, &outputs), MVDE_ERROR_ALIGNMENT, "");
    outputs.stats = depth.data() + 32 * 48 - 1;
    expect(mvde_infer(handle, &frame.view, &outputs), MVDE_ERROR_OVERLAP, "the buffers of outputs overlap");
    outputs.stats = stats.data();
    mvde_frame within = frame.view;
    within.data = reinterpret_cast<const uint8_t *>(depth.data() + 100);
    expect(mvde_infer(handle, &within, &outputs), MVDE_ERROR_OVERLAP, "the frame and the outputs overlap");
    within.data = nullptr;
    expect(mvde_infer(handle, &within, &outputs), MVDE_ERROR_ARGUMENT, "frame.data is NULL");
    within = frame.view;
    within.row_stride = INT64_MIN;
    expect(mvde_infer(handle, &within, &outputs), MVDE_ERROR_SHAPE, "a row has 144 bytes");
    frame.bytes[0] = 255;
    expect(mvde_infer(handle, &frame.view, &outputs), MVDE_ERROR_BACKEND,
           "OpenVINO failed to run openvino:fp32: the device is on fire");
    CHECK(mvde_infer(nullptr, &frame.view, &outputs) == MVDE_ERROR_ARGUMENT);
    mvde_session_info info{};
    CHECK(mvde_session_query(handle, &info) == MVDE_ERROR_ARGUMENT &&
          mvde_session_query(handle, nullptr) == MVDE_ERROR_ARGUMENT);
    mvde_session_options options;
    mvde_session_defaults(&options);
    options.num_threads = -1;
    mvde_session *none = handle;
    CHECK(mvde_open(folder.path.c_str(), &options, &none) == MVDE_ERROR_ARGUMENT && !none);
    CHECK(mvde_open(folder.path.c_str(), nullptr, nullptr) == MVDE_ERROR_ARGUMENT);
    mvde_close(nullptr);
}

TEST(sessions_in_several_threads_do_not_see_each_other) {
    const Folder folder;
    std::atomic<int> num_wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            auto session = mvde::Session::open(folder.path.string());
            if (!session) return void(++num_wrong);
            Frame frame({32, 48});
            std::vector<float> depth(32 * 48), stats(18);
            for (int i = 0; i < 20; ++i) {
                std::fill(frame.bytes.begin(), frame.bytes.end(), static_cast<uint8_t>(64 * (1 + (t + i) % 3)));
                if (!session->infer(frame.view, depth, stats) || stats[0] != 0.5F + static_cast<float>(1 + (t + i) % 3))
                    ++num_wrong;
            }
        });
    for (std::thread &thread : threads) thread.join();
    CHECK(num_wrong.load() == 0, "%d", num_wrong.load());
}

int main() { return harness::run_all_and_in_german(); }
