// consumer HEIGHT WIDTH < RGB bytes > float32: resizes the image to 64x64, uses its red channel / 64 + 0.5 as depth in
// metres, and writes mean, var and grad of its 16 patches of 16x16.
#include <mvde/mvde.hpp>

#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    const mvde::Size source{std::atoi(argv[1]), std::atoi(argv[2])}, target{64, 64};
    std::vector<uint8_t> picture(static_cast<std::size_t>(source.height * source.width * 3)), rgb(64 * 64 * 3);
    if (std::fread(picture.data(), 1, picture.size(), stdin) != picture.size()) return 3;

    auto resizer = mvde::Resizer::create(mvde::PixelFormat::rgb, source, target, mvde::Fit::crop);
    if (!resizer) return std::fprintf(stderr, "%s\n", resizer.error().message.c_str()), 4;
    if (auto done = resizer->resize(mvde::frame(picture.data(), mvde::PixelFormat::rgb, source), rgb); !done)
        return std::fprintf(stderr, "%s\n", done.error().message.c_str()), 5;

    std::vector<float> depth(64 * 64), stats(16 * 3);
    for (std::size_t i = 0; i < depth.size(); ++i) depth[i] = static_cast<float>(rgb[3 * i]) / 64.0F + 0.5F;
    auto workers = mvde::Workers::create(2);
    if (!workers) return 6;
    const auto map = mvde::depth_map(depth.data(), target);
    if (auto done = mvde::patch_stats(map, 16, {MVDE_MEAN, MVDE_VAR, MVDE_GRAD}, stats, workers->get()); !done)
        return std::fprintf(stderr, "%s\n", done.error().message.c_str()), 7;
    // An invalid call returns an error, not an exception.
    if (mvde::patch_stats(map, 15, {MVDE_MEAN}, stats)) return 8;
    return std::fwrite(stats.data(), sizeof(float), stats.size(), stdout) == stats.size() ? 0 : 9;
}
