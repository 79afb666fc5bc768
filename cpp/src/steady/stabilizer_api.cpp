// The C API of stabilizers: handles and argument checks. No exception escapes.
#include "error.hpp"
#include "float_environment.hpp"
#include "forks.hpp"
#include "handles.hpp"
#include "image/frame.hpp"
#include "kernel/dispatch.hpp"
#include "kernel/map.hpp"
#include "steady/stabilizer.hpp"

#include <cinttypes>
#include <limits>
#include <memory>
#include <new>

namespace mvde::internal {
namespace {

constexpr std::int64_t kMaxSide = 1 << 16;
constexpr std::int64_t kMaxPixels = 1 << 28;

using Stabilizers = Handles<Stabilizer, mvde_stabilizer, 1024>;

Stabilizers &stabilizers() {
    static Stabilizers &all = *new Stabilizers;  // never destroyed, as sessions
    static const bool watches = (at_fork([] { all.drop_holds(); }), true);
    static_cast<void>(watches);
    return all;
}

std::int32_t refuse(Stabilizers::Access access) {
    if (access == Stabilizers::Access::busy)
        return fail(MVDE_ERROR_BUSY, "the stabilizer is in use by another call: give each stream its own");
    return fail(MVDE_ERROR_CLOSED, "the stabilizer was destroyed, or did not come from mvde_stabilizer_create");
}

// Rows of a picture or a map in the caller's memory.
struct Rows {
    const char *name;
    const void *data;
    std::int64_t height, width, stride, pixel_bytes, alignment;
};

std::int32_t check_rows(Rows &rows, Extent &extent) {
    if (!rows.data) return fail(MVDE_ERROR_ARGUMENT, "%s is NULL", rows.name);
    const bool has_size = rows.height >= 1 && rows.width >= 1 && rows.height <= kMaxSide && rows.width <= kMaxSide &&
                          rows.height * rows.width <= kMaxPixels;
    if (!has_size)
        return fail(MVDE_ERROR_SHAPE,
                    "%s is %" PRId64 "x%" PRId64 " (HxW): expected 1 to %" PRId64 " each, and at most 2^28 pixels",
                    rows.name, rows.height, rows.width, kMaxSide);
    const std::int64_t bytes = rows.width * rows.pixel_bytes;
    if (!rows.stride) rows.stride = bytes;
    if (!is_row_stride(rows.stride, bytes))
        return fail(MVDE_ERROR_SHAPE, "%s: the row stride is %" PRId64 " bytes, but a row has %" PRId64, rows.name,
                    rows.stride, bytes);
    const auto address = reinterpret_cast<std::uintptr_t>(rows.data);
    if (address % static_cast<std::uintptr_t>(rows.alignment) || rows.stride % rows.alignment)
        return fail(MVDE_ERROR_ALIGNMENT, "%s: its pointer and stride must be multiples of %" PRId64 " bytes", rows.name,
                    rows.alignment);
    const std::uintptr_t last = address + static_cast<std::uintptr_t>((rows.height - 1) * rows.stride);
    extent = {std::min(address, last), std::max(address, last) + static_cast<std::uintptr_t>(bytes)};
    return MVDE_OK;
}

std::int32_t stabilize(Stabilizer &stabilizer, const mvde_steady_frame &frame, float *steady, std::int64_t steady_stride,
                       std::int32_t *num_steady) {
    if (frame.struct_size != sizeof frame)
        return fail(MVDE_ERROR_ARGUMENT, "frame.struct_size is %u: start from mvde_steady_frame_defaults()",
                    frame.struct_size);
    Rows picture{"rgb", frame.rgb, frame.picture_height, frame.picture_width, frame.picture_row_stride, 3, 1};
    Rows map{"map", frame.map, frame.height, frame.width, frame.row_stride, sizeof(float), alignof(float)};
    Rows out{"steady", steady, frame.height, frame.width, steady_stride, sizeof(float), alignof(float)};
    Extent seen, read, written;
    if (const std::int32_t status = check_rows(picture, seen)) return status;
    if (const std::int32_t status = check_rows(map, read)) return status;
    if (const std::int32_t status = check_rows(out, written)) return status;
    const bool is_same = out.data == map.data && out.stride == map.stride;
    if (overlaps(seen, written) || (!is_same && overlaps(read, written)))
        return fail(MVDE_ERROR_OVERLAP,
                    "steady overlaps the picture, or a part of the map: give the map's memory, or other");
    if (const std::int32_t status = stabilizer.check_time(frame.time_s)) return status;
    const Kernel *const kernel = active_kernel();
    if (!kernel) return MVDE_ERROR_KERNEL;
    constexpr auto kFloat = static_cast<std::int64_t>(sizeof(float));
    try {
        stabilizer.update(*kernel, {frame.rgb, picture.height, picture.width, picture.stride},
                          {frame.map, map.height, map.width, map.stride / kFloat}, frame.view, frame.time_s, steady,
                          out.stride / kFloat);
    } catch (const std::bad_alloc &) {
        return fail(MVDE_ERROR_MEMORY, "no memory to stabilize maps of %" PRId64 "x%" PRId64, map.height, map.width);
    }
    if (num_steady) *num_steady = stabilizer.num_frames();
    return MVDE_OK;
}

}  // namespace
}  // namespace mvde::internal

using namespace mvde::internal;

extern "C" {

void mvde_stabilization_defaults(mvde_stabilization *settings) {
    if (!settings) return;
    *settings = {sizeof *settings, 0.5, 0.15, 0.4, 0.25, 0.1, 0.3, 0.8, 0.03, 0.33, 1.0};
}

void mvde_steady_frame_defaults(mvde_steady_frame *frame) {
    if (!frame) return;
    *frame = {};
    frame->struct_size = sizeof *frame;
    frame->time_s = std::numeric_limits<double>::quiet_NaN();
}

int32_t mvde_stabilizer_create(int32_t depth_kind, const mvde_stabilization *settings, mvde_stabilizer **stabilizer) {
    if (!stabilizer) return fail(MVDE_ERROR_ARGUMENT, "stabilizer is NULL: expected the address of a handle");
    *stabilizer = nullptr;
    if (depth_kind < MVDE_METRIC || depth_kind > MVDE_INVERSE_RELATIVE)
        return fail(MVDE_ERROR_ARGUMENT, "depth_kind is %d: expected a mvde_depth_kind", depth_kind);
    const FloatEnvironment environment;
    mvde_stabilization chosen;
    mvde_stabilization_defaults(&chosen);
    if (settings) chosen = *settings;
    if (const int32_t status = check_stabilization(chosen)) return status;
    try {
        *stabilizer = stabilizers().add(std::make_unique<Stabilizer>(static_cast<mvde_depth_kind>(depth_kind), chosen));
        return *stabilizer ? MVDE_OK : fail(MVDE_ERROR_MEMORY, "1024 stabilizers exist: destroy one first");
    } catch (const std::bad_alloc &) {
        return fail(MVDE_ERROR_MEMORY, "no memory for a stabilizer");
    }
}

void mvde_stabilizer_destroy(mvde_stabilizer *stabilizer) {
    if (stabilizer) stabilizers().close(stabilizer);
}

int32_t mvde_stabilize(mvde_stabilizer *handle, const mvde_steady_frame *frame, float *steady, int64_t steady_row_stride,
                       int32_t *num_steady) {
    if (!handle || !frame) return fail(MVDE_ERROR_ARGUMENT, "stabilizer or frame is NULL");
    const FloatEnvironment environment;
    const Stabilizers::Hold stabilizer = stabilizers().change(handle);
    if (stabilizer.access() != Stabilizers::Access::granted) return refuse(stabilizer.access());
    return stabilize(*stabilizer, *frame, steady, steady_row_stride, num_steady);
}

int32_t mvde_stabilizer_reset(mvde_stabilizer *handle) {
    if (!handle) return fail(MVDE_ERROR_ARGUMENT, "stabilizer is NULL");
    const Stabilizers::Hold stabilizer = stabilizers().change(handle);
    if (stabilizer.access() != Stabilizers::Access::granted) return refuse(stabilizer.access());
    stabilizer->reset();
    return MVDE_OK;
}

}  // extern "C"
