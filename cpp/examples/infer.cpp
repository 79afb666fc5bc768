// Depth and patch statistics of one photograph:
//
//     infer ENGINE_FOLDER PHOTO.ppm DEPTH.f32 STATS.f32 [stretch|letterbox|crop|default [FX,FY,CX,CY]]
//
// PHOTO.ppm is binary 8-bit RGB (P6). Writes float32 [height, width] in the model's unit, at the photograph's resolution, to
// DEPTH.f32 and float32 [patches, statistics] to STATS.f32. The camera is in pixels of the photograph; without one, the
// model's is assumed.
#include <mvde/mvde.hpp>

#include <cstdio>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

int report(const std::string &message) {
    std::fprintf(stderr, "infer: %s\n", message.c_str());
    return 1;
}

struct Photograph {
    int64_t height = 0, width = 0;
    std::vector<uint8_t> rgb;
};

bool read_ppm(const char *path, Photograph &photograph) {
    std::ifstream stream(path, std::ios::binary);
    std::string magic;
    int64_t most = 0;
    stream >> magic >> photograph.width >> photograph.height >> most;
    stream.get();
    if (!stream || magic != "P6" || most != 255) return false;
    if (photograph.height < 1 || photograph.width < 1 || photograph.height > 65536 || photograph.width > 65536) return false;
    photograph.rgb.resize(static_cast<std::size_t>(photograph.height * photograph.width * 3));
    stream.read(reinterpret_cast<char *>(photograph.rgb.data()), static_cast<std::streamsize>(photograph.rgb.size()));
    return static_cast<bool>(stream);
}

bool write(const char *path, const std::vector<float> &values) {
    std::ofstream stream(path, std::ios::binary);
    stream.write(reinterpret_cast<const char *>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
    return static_cast<bool>(stream.flush());
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 5 || argc > 7)
        return report("usage: infer ENGINE_FOLDER PHOTO.ppm DEPTH.f32 STATS.f32 [stretch|letterbox|crop|default "
                      "[FX,FY,CX,CY]]");
    Photograph photograph;
    if (!read_ppm(argv[2], photograph)) return report(std::string(argv[2]) + " is not a binary 8-bit RGB PPM file (P6)");
    const std::string_view fit = argc >= 6 ? argv[5] : "default";
    mvde::SessionOptions options;
    options.frame = {photograph.height, photograph.width};
    if (fit != "default")  // otherwise as the engine's manifest states
        options.fit = fit == "crop" ? mvde::Fit::crop : fit == "letterbox" ? mvde::Fit::letterbox : mvde::Fit::stretch;
    if (argc == 7) {
        mvde_camera camera{0, 0, 0, 0, photograph.height, photograph.width};
        if (std::sscanf(argv[6], "%lf,%lf,%lf,%lf", &camera.fx, &camera.fy, &camera.cx, &camera.cy) != 4)
            return report(std::string(argv[6]) + " is not a camera: give FX,FY,CX,CY in pixels");
        options.camera = camera;
    }

    auto session = mvde::Session::open(argv[1], options);
    if (!session) return report(session.error().message);
    const mvde_session_info info = session->info();
    std::vector<float> depth(session->num_depths()), stats(session->num_stats());
    const mvde_frame frame = mvde::frame(photograph.rgb.data(), mvde::PixelFormat::rgb,
                                         {photograph.height, photograph.width});
    if (auto done = session->infer(frame, depth, stats); !done) return report(done.error().message);
    if (!write(argv[3], depth) || !write(argv[4], stats)) return report("cannot write the results");
    std::printf("%s %s (%s %s, computes in %s): %lldx%lld patches of %d, unit %s\n", info.name, info.engine_id, info.backend,
                info.library_version, info.executed_precision, static_cast<long long>(info.grid_rows),
                static_cast<long long>(info.grid_columns), info.patch_size, info.unit);
    if (info.camera_assumed) std::printf("camera assumed: give FX,FY,CX,CY for that of the photograph\n");
    return 0;
}
