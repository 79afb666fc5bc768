// Arbitrary arguments of mvde_postprocess, mvde_patch_stats, mvde_resize and mvde_points, on buffers guarded by AddressSanitizer. Calls
// that claim more memory than exists must be invalid for another reason, or are skipped: the library cannot know the size
// of its caller's buffers.
#include "mvde/mvde.h"

#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace {

constexpr std::size_t kBytes = 1 << 14;
using Wide = __int128;

// A size or stride: mostly small, so that calls succeed, sometimes arbitrary.
std::int64_t number(FuzzedDataProvider &data, std::int64_t low, std::int64_t high) {
    return data.ConsumeIntegralInRange(0, 15) ? data.ConsumeIntegralInRange(low, high)
                                              : data.ConsumeIntegral<std::int64_t>();
}

// A stride of `elements`, wrapping around on overflow.
std::int64_t stride(std::int64_t elements, std::int64_t element) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(elements) * static_cast<std::uint64_t>(element));
}

// Lowest and highest byte, relative to the pointer, of a map with these sizes and strides.
struct Reach {
    Wide low = 0, high = 0;
    void step(std::int64_t count, std::int64_t stride) {
        if (count < 1) return;
        (stride < 0 ? low : high) += static_cast<Wide>(count - 1) * stride;
    }
    // Required offset of the pointer in a buffer of kBytes; -1: does not fit.
    std::int64_t place(std::int64_t element) const {
        return high - low + element <= static_cast<Wide>(kBytes) ? static_cast<std::int64_t>(-low) : -1;
    }
};

std::int64_t element_of(std::int32_t dtype) { return dtype == MVDE_FLOAT32 ? 4 : 2; }

bool place(mvde_map &map, std::vector<float> &memory) {
    const std::int64_t element = element_of(map.dtype);
    map.data = memory.data();
    constexpr std::int64_t kMostPixels = std::int64_t{1} << 40;  // always rejected, as are sides below 1
    for (const std::int64_t side : {map.batch, map.height, map.width})
        if (side < 1 || side > kMostPixels) return true;
    const std::int64_t pixel = map.pixel_stride ? map.pixel_stride : element;
    const Wide row = map.row_stride ? map.row_stride : static_cast<Wide>(map.width) * element;  // 0: dense
    const Wide image = map.batch_stride ? map.batch_stride : static_cast<Wide>(map.height) * map.width * element;
    constexpr Wide kMost = Wide{1} << 60;
    if (row > kMost || row < -kMost || image > kMost || image < -kMost) return false;
    Reach reach;
    reach.step(map.width, pixel);
    reach.step(map.height, static_cast<std::int64_t>(row));
    reach.step(map.batch, static_cast<std::int64_t>(image));
    const std::int64_t at = reach.place(element);
    if (at < 0) return false;
    map.data = reinterpret_cast<unsigned char *>(memory.data()) + at;
    return true;
}

mvde_map map_of(FuzzedDataProvider &data) {
    mvde_map map{};
    map.dtype = static_cast<std::int32_t>(number(data, 0, 3));
    map.batch = number(data, 1, 2);
    map.height = number(data, 1, 48);
    map.width = number(data, 1, 80);
    const std::int64_t element = element_of(map.dtype);
    if (data.ConsumeBool()) map.pixel_stride = stride(number(data, -3, 3), element);
    if (data.ConsumeBool()) map.row_stride = stride(number(data, -100, 100), element);
    if (data.ConsumeBool()) map.batch_stride = stride(number(data, -4000, 4000), element);
    return map;
}

void check(std::int32_t status) {
    if (status != MVDE_OK && !*mvde_last_error()) std::abort();
}

void postprocess(FuzzedDataProvider &data) {
    std::vector<float> raw_memory(kBytes / 4, 1.5F), depth_memory(kBytes / 4), stats_memory;
    mvde_map raw = map_of(data), depth = map_of(data);
    if (data.ConsumeIntegralInRange(0, 7)) {
        depth.batch = raw.batch;
        depth.height = raw.height;
        depth.width = raw.width;
        depth.pixel_stride = 0;
    }
    std::int32_t stats[MVDE_MAX_STATS];
    for (std::int32_t &stat : stats) stat = data.ConsumeIntegralInRange<std::int32_t>(-1, 7);
    const auto patch = static_cast<std::int32_t>(number(data, 1, 20)),
               num_stats = static_cast<std::int32_t>(number(data, 1, MVDE_MAX_STATS));
    const std::int64_t num_floats = mvde_num_patch_stats(raw.batch, raw.height, raw.width, patch, num_stats);
    stats_memory.resize(
        num_floats > 0 && num_floats < static_cast<std::int64_t>(kBytes) ? static_cast<std::size_t>(num_floats) : 1);
    const mvde_stats_request request{sizeof(mvde_stats_request),
                                     patch,
                                     num_stats,
                                     stats,
                                     stats_memory.data(),
                                     static_cast<std::int64_t>(stats_memory.size())};
    mvde_postprocess_options options;
    mvde_postprocess_defaults(&options);
    options.conversion = data.ConsumeIntegralInRange<std::int32_t>(-1, 4);
    options.range = data.ConsumeIntegralInRange<std::int32_t>(-1, 2);
    options.scale = data.ConsumeFloatingPoint<float>();
    options.shift = data.ConsumeFloatingPoint<float>();
    options.min_depth_m = data.ConsumeFloatingPointInRange<float>(-1, 10);
    options.max_depth_m = data.ConsumeFloatingPointInRange<float>(-1, 100);
    options.mask_role = data.ConsumeIntegralInRange<std::int32_t>(-1, 2);
    options.mask_threshold = data.ConsumeFloatingPoint<float>();
    std::vector<float> mask_memory(kBytes / 4, 0.5F);
    mvde_map mask = map_of(data);
    if (data.ConsumeIntegralInRange(0, 7)) {
        mask.batch = raw.batch;
        mask.height = raw.height;
        mask.width = raw.width;
    }
    if (data.ConsumeBool()) options.mask = &mask;
    if (data.ConsumeBool()) options.confidence = &mask;
    const bool wants_depth = data.ConsumeBool(), wants_stats = data.ConsumeBool(), takes_options = data.ConsumeBool();
    if (!place(raw, raw_memory) || !place(depth, depth_memory) || !place(mask, mask_memory)) return;
    const std::vector<unsigned char> bytes = data.ConsumeRemainingBytes<unsigned char>();
    std::copy_n(bytes.begin(), std::min(bytes.size(), kBytes), reinterpret_cast<unsigned char *>(raw_memory.data()));
    check(mvde_patch_stats(&raw, options.min_depth_m, options.max_depth_m, &request, nullptr));
    check(mvde_postprocess(&raw, takes_options ? &options : nullptr, wants_depth ? &depth : nullptr,
                           wants_stats ? &request : nullptr, nullptr));
}

void resize(FuzzedDataProvider &data) {
    const auto format = data.ConsumeIntegralInRange<std::int32_t>(-1, 5);
    mvde_resizer_options options;
    mvde_resizer_defaults(&options);
    options.fit = data.ConsumeIntegralInRange<std::int32_t>(-1, 3);
    options.interpolation = data.ConsumeIntegralInRange<std::int32_t>(-1, 2);
    options.bicubic_coefficient = data.ConsumeBool() ? -0.75F : -0.5F;
    options.antialias = data.ConsumeIntegralInRange<std::int32_t>(0, 1);
    options.align_corners = data.ConsumeIntegralInRange<std::int32_t>(0, 1);
    options.multiple = data.ConsumeIntegralInRange<std::int32_t>(0, 4);
    options.padding = data.ConsumeIntegralInRange<std::int32_t>(-1, 256);
    const std::int64_t height = number(data, 1, 30), width = number(data, 1, 30);
    const std::int64_t target_height = number(data, 1, 60), target_width = number(data, 1, 60);
    constexpr std::int64_t kLargest = 200;  // larger tables take time without finding more
    if (std::max({height, width, target_height, target_width}) > kLargest) {
        check(mvde_resizer_create(format, height, width, 1, 1, &options, nullptr));
        return;
    }
    mvde_resizer *resizer = nullptr;
    check(mvde_resizer_create(format, height, width, target_height, target_width, &options, &resizer));
    if (!resizer) return;
    const std::int64_t pixel = format == MVDE_YUYV ? 2 : format == MVDE_RGB || format == MVDE_BGR ? 3 : 1;
    const std::int64_t row_stride = width * pixel + data.ConsumeIntegralInRange<std::int64_t>(0, 9);
    const std::int64_t rows = format == MVDE_NV12 ? height / 2 * 3 : height;
    std::vector<std::uint8_t> image(static_cast<std::size_t>((rows - 1) * row_stride + width * pixel), 100);
    std::vector<std::uint8_t> rgb(static_cast<std::size_t>(target_height * target_width * 3));
    std::vector<float> depth(static_cast<std::size_t>(target_height * target_width), 2.0F);
    std::vector<float> source(static_cast<std::size_t>(height * width));
    mvde_frame frame;
    mvde_frame_defaults(&frame);
    frame.data = image.data();
    frame.format = data.ConsumeIntegralInRange(0, 7) ? format : format + 1;
    frame.height = height;
    frame.width = width;
    frame.row_stride = frame.chroma_row_stride = row_stride;
    frame.matrix = data.ConsumeIntegralInRange<std::int32_t>(-1, 2);
    frame.full_range = data.ConsumeIntegralInRange<std::int32_t>(-1, 2);
    if (frame.format == format) check(mvde_resize(resizer, &frame, rgb.data(), 0, nullptr));
    else if (mvde_resize(resizer, &frame, rgb.data(), 0, nullptr) == MVDE_OK) std::abort();
    check(mvde_depth_to_source(resizer, depth.data(), 0, source.data(), 0, 0.0F, nullptr));
    mvde_resizer_destroy(resizer);
}

void points(FuzzedDataProvider &data) {
    const auto coefficient = [&] { return data.ConsumeBool() ? data.ConsumeFloatingPointInRange(-2.0, 2.0) : 0.0; };
    mvde_camera camera{data.ConsumeFloatingPointInRange(-1.0, 100.0),
                       data.ConsumeFloatingPoint<double>(),
                       data.ConsumeFloatingPoint<double>(),
                       5.0,
                       number(data, 1, 20),
                       number(data, 1, 60)};
    mvde_distortion lens{data.ConsumeIntegralInRange<std::int32_t>(-1, 4), 0, {}};
    for (double &value : lens.coefficients) value = coefficient();
    constexpr std::int64_t kLargest = 200;  // larger tables take time without finding more
    if (std::max(camera.height, camera.width) > kLargest) {
        check(mvde_rays_create(&camera, &lens, nullptr));
        return;
    }
    mvde_rays *rays = nullptr;
    check(mvde_rays_create(&camera, data.ConsumeBool() ? &lens : nullptr, &rays));
    if (!rays) return;
    const std::int64_t row_stride = (camera.width + data.ConsumeIntegralInRange<std::int64_t>(0, 3)) * 4;
    std::vector<float> depth(static_cast<std::size_t>((camera.height - 1) * row_stride / 4 + camera.width));
    for (float &value : depth) value = data.ConsumeFloatingPoint<float>();
    std::vector<std::uint8_t> rgb(static_cast<std::size_t>(camera.height * camera.width * 3), 100);
    mvde_frame frame;
    mvde_frame_defaults(&frame);
    frame.data = rgb.data();
    frame.height = camera.height;
    frame.width = camera.width;
    mvde_points_options options{sizeof options, data.ConsumeIntegralInRange<std::int32_t>(-1, 70),
                                data.ConsumeBool() ? &frame : nullptr};
    const std::int64_t count = mvde_num_point_values(camera.height, camera.width, options.step, options.colours != nullptr);
    std::vector<float> out(static_cast<std::size_t>(std::max<std::int64_t>(count, 0)));
    check(mvde_points(rays, depth.data(), row_stride, &options, out.data(), count, nullptr));
    mvde_rays_destroy(rays);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *bytes, std::size_t size) {
    FuzzedDataProvider data(bytes, size);
    switch (data.ConsumeIntegralInRange(0, 2)) {
        case 0: postprocess(data); break;
        case 1: resize(data); break;
        default: points(data);
    }
    return 0;
}
