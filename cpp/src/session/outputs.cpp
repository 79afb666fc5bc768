#include "session/outputs.hpp"

#include "error.hpp"
#include "image/frame.hpp"
#include "image/points.hpp"

#include <cinttypes>
#include <cstddef>
#include <initializer_list>

namespace mvde::internal {
namespace {

constexpr const char *kFormats[] = {"RGB", "BGR", "GREY", "NV12", "YUYV"};  // mvde_pixel_format, which check_frame checked

template <class Value>
std::int32_t check_values(const char *name, const Value *data, std::int64_t capacity, std::int64_t count, Extent &extent) {
    extent = {};
    if (!data) return MVDE_OK;
    if (capacity < count)
        return fail(MVDE_ERROR_CAPACITY, "outputs.%s_capacity is %" PRId64 ", but %s takes %" PRId64 " values", name,
                    capacity, name, count);
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    if (address % sizeof(Value))
        return fail(MVDE_ERROR_ALIGNMENT, "outputs.%s: its pointer must be a multiple of %zu bytes", name, sizeof(Value));
    extent = {address, address + static_cast<std::uintptr_t>(count) * sizeof(Value)};
    return MVDE_OK;
}

}  // namespace

std::int32_t check_outputs(const mvde_outputs &outputs, std::int64_t height, std::int64_t width, std::int64_t num_stats,
                           std::int64_t num_bearings, OutputExtents &extents) {
    if (outputs.struct_size != sizeof outputs)
        return fail(MVDE_ERROR_ARGUMENT, "outputs.struct_size is %u: start from mvde_outputs_defaults()",
                    outputs.struct_size);
    if (!outputs.depth_m && !outputs.depth_mm && !outputs.stats && !outputs.points && !outputs.ranges)
        return fail(MVDE_ERROR_ARGUMENT, "outputs.depth_m, depth_mm, stats, points and ranges are NULL: nothing to compute");
    const std::int64_t num_pixels = height * width;
    auto &[depth, depth_mm, stats, points, ranges] = extents;
    if (const auto status = check_values("depth", outputs.depth_m, outputs.depth_capacity, num_pixels, depth)) return status;
    if (const auto status = check_values("depth_mm", outputs.depth_mm, outputs.depth_mm_capacity, num_pixels, depth_mm))
        return status;
    if (const auto status = check_values("stats", outputs.stats, outputs.stats_capacity, num_stats, stats)) return status;
    if (const auto status = check_values("ranges", outputs.ranges, outputs.ranges_capacity, num_bearings, ranges))
        return status;
    points = {};
    if (outputs.points) {
        if (const auto status = check_step(outputs.points_step, "outputs.points_step")) return status;
        const std::int64_t count = mvde_num_point_values(height, width, outputs.points_step,
                                                         outputs.points_colours != nullptr);
        if (const auto status = check_values("points", outputs.points, outputs.points_capacity, count, points))
            return status;
    }
    const Extent all[] = {depth, depth_mm, stats, points, ranges};
    for (int i = 0; i < 5; ++i)
        for (int j = 0; j < i; ++j)
            if (overlaps(all[i], all[j])) return fail(MVDE_ERROR_OVERLAP, "the buffers of outputs overlap");
    return MVDE_OK;
}

std::int32_t check_apart(const mvde_frame &frame, const OutputExtents &extents, mvde_frame &complete) {
    Extent luma, chroma;
    if (const std::int32_t status = check_frame(frame, complete, luma, chroma)) return status;
    for (const Extent read : {luma, chroma})
        for (const Extent written : {extents.depth, extents.depth_mm, extents.stats, extents.points, extents.ranges})
            if (overlaps(read, written)) return fail(MVDE_ERROR_OVERLAP, "the frame and the outputs overlap");
    return MVDE_OK;
}

std::int32_t check_frame_is(const mvde_frame &frame, std::int32_t format, std::int64_t height, std::int64_t width) {
    if (frame.format == format && frame.height == height && frame.width == width) return MVDE_OK;
    return fail(MVDE_ERROR_SHAPE,
                "the frame is %" PRId64 "x%" PRId64 " (HxW) %s, but the session was opened for %" PRId64 "x%" PRId64
                " %s: open one for such frames",
                frame.height, frame.width, kFormats[frame.format], height, width, kFormats[format]);
}

}  // namespace mvde::internal
