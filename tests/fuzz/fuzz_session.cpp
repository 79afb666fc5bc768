// Arbitrary bytes as an engine folder: the manifest, the engine's file and the graph's manifest, separated by zero bytes.
// mvde_open returns a session or an error with a message; a session runs a frame. The backend is
// tests/cpp/fake_backend.cpp.
#include "../cpp/engine_folder.hpp"

#include "session/manifest.hpp"
#include "mvde/mvde.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

// Skips sessions for images that need more memory than the fuzzer has.
bool is_small(const std::string &text) {
    try {
        const mvde::internal::AnyManifest any = mvde::internal::parse_manifest(text, "");
        const mvde::internal::Manifest &manifest = common(any);
        constexpr std::int64_t kMost = 1 << 10;
        return manifest.batch() <= 4 && manifest.height() <= kMost && manifest.width() <= kMost;
    } catch (const mvde::internal::Refused &) {
        return true;
    }
}

void run_frame(mvde_session *session) {
    mvde_session_info info{};
    info.struct_size = sizeof info;
    if (mvde_session_query(session, &info) != MVDE_OK) std::abort();
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(info.frame_height * info.frame_width * 3), 64);
    std::vector<float> depth(static_cast<std::size_t>(info.frame_height * info.frame_width));
    std::vector<float> stats(static_cast<std::size_t>(info.grid_rows * info.grid_columns * info.num_stats));
    const mvde_frame frame = mvde::frame(bytes.data(), mvde::PixelFormat::rgb, {info.frame_height, info.frame_width});
    std::vector<std::uint16_t> depth_mm(depth.size());
    mvde_outputs outputs;
    mvde_outputs_defaults(&outputs);
    outputs.depth_m = depth.data();
    outputs.stats = stats.data();
    outputs.depth_capacity = outputs.depth_mm_capacity = static_cast<std::int64_t>(depth.size());
    outputs.stats_capacity = static_cast<std::int64_t>(stats.size());
    if (info.unit[0] == 'm') outputs.depth_mm = depth_mm.data();
    if (mvde_infer(session, &frame, &outputs) != MVDE_OK && !*mvde_session_error(session)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    static const engine_folder::Folder folder;
    const std::string all(reinterpret_cast<const char *>(data), size);
    const std::size_t first = std::min(all.find('\0'), all.size()), second = std::min(all.find('\0', first + 1), all.size());
    const std::string manifest = all.substr(0, first);
    if (!is_small(manifest)) return 0;
    folder.write("engine.json", manifest);
    folder.write("engine.blob", first < all.size() ? all.substr(first + 1, second - first - 1) : folder.content);
    const auto graph = folder.root / "export";
    std::filesystem::create_directories(graph);
    if (second < all.size()) folder.write("../../export/tiny-32x48.json", all.substr(second + 1));
    else std::filesystem::remove(graph / "tiny-32x48.json");

    mvde_session *session = nullptr;
    mvde_session_options options;
    mvde_session_defaults(&options);
    const mvde_camera camera{size % 7 * 100.0, 140, 97, 63, 32, 48};  // of other frames than most manifests'
    if (size % 2) options.camera = &camera;
    const std::int32_t status = mvde_open(folder.path.c_str(), &options, &session);
    if ((status == MVDE_OK) != (session != nullptr) || (status != MVDE_OK && !*mvde_last_error())) std::abort();
    if (session) run_frame(session);
    mvde_close(session);
    return 0;
}
