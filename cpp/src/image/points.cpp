// mvde_rays_* and mvde_points: the rays of a camera, and depth times rays.
#include "image/points.hpp"

#include "error.hpp"
#include "float_environment.hpp"
#include "forks.hpp"
#include "image/all_rays.hpp"
#include "image/frame.hpp"
#include "image/rays.hpp"
#include "kernel/dispatch.hpp"
#include "session/frame_camera.hpp"
#include "session/refused.hpp"
#include "workers.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstring>
#include <memory>
#include <new>

namespace mvde::internal {

AllRays &all_rays() {
    static AllRays &all = *new AllRays;
    static const bool watches = (at_fork([] { all.drop_holds(); }), true);
    static_cast<void>(watches);
    return all;
}

int refuse(AllRays::Access access) {
    if (access == AllRays::Access::busy)
        return fail(MVDE_ERROR_BUSY, "the rays are in use by 32767 calls: let one return first");
    return fail(MVDE_ERROR_CLOSED, "the rays were destroyed, or did not come from mvde_rays_create");
}

namespace {

constexpr std::int64_t kMaxSide = 1 << 16, kMaxPixels = 1 << 28;
constexpr std::int64_t kBand = 8;    // rows of a work unit
constexpr std::int64_t kPart = 512;  // pixels of a row at once: their copies and colours stay in the first cache

struct Call {
    const Rays &rays;
    const Kernel &kernel;
    const float *depth;
    std::int64_t depth_stride, step;
    const mvde_frame *colours;  // complete; nullptr: none
    float *out;

    std::int64_t height() const { return points_along(rays.height(), step); }
    std::int64_t width() const { return points_along(rays.width(), step); }

    static void run(void *data, std::int64_t first, std::int64_t last) {
        const Call &call = *static_cast<const Call *>(data);
        const std::int64_t bottom = std::min(last * kBand, call.height());
        // Row by row, as memory is prefetched; where columns are left out, a band at once, for which rays are copied once.
        const std::int64_t rows = call.step == 1 ? 1 : kBand;
        for (std::int64_t top = first * kBand; top < bottom; top += rows)
            for (std::int64_t left = 0; left < call.width(); left += kPart)
                call.write(top, std::min(top + rows, bottom), left, std::min(kPart, call.width() - left));
    }

    // Points [left, left + count) of rows [top, bottom) of points.
    void write(std::int64_t top, std::int64_t bottom, std::int64_t left, std::int64_t count) const {
        const std::int64_t x = left * step;
        float depths[kPart], rays_x[kPart], rays_y[kPart], colour_bits[kPart];
        PointRow part{};
        part.count = count;
        part.colours = colours ? colour_bits : nullptr;
        if (!rays.is_distorted()) part.ray_x = every(rays.x(0) + x, count, rays_x);
        for (std::int64_t row = top; row < bottom; ++row) {
            const std::int64_t y = row * step;
            const auto *depth_row = reinterpret_cast<const float *>(reinterpret_cast<const unsigned char *>(depth) +
                                                                    y * depth_stride);
            part.depth = every(depth_row + x, count, depths);
            if (rays.is_distorted()) {
                part.ray_x = every(rays.x(y) + x, count, rays_x);
                part.ray_y = every(rays.y(y) + x, count, rays_y);
            } else {
                part.constant_y = *rays.y(y);
            }
            if (colours) pack_colours(y, x, count, colour_bits);
            part.out = out + (row * width() + left) * (colours ? 4 : 3);
            kernel.point_row(part);
        }
    }

    // Every `step`-th of `values`, in place or copied.
    const float *every(const float *values, std::int64_t count, float *copy) const {
        switch (step) {
            case 1: return values;
            case 2: return copied<2>(values, count, copy);  // vectorised
            case 4: return copied<4>(values, count, copy);
            default:
                for (std::int64_t i = 0; i < count; ++i) copy[i] = values[i * step];
                return copy;
        }
    }
    template <int kStep>
    static const float *copied(const float *values, std::int64_t count, float *copy) {
        for (std::int64_t i = 0; i < count; ++i) copy[i] = values[i * kStep];
        return copy;
    }

    // Bits 0x00RRGGBB of every `step`-th pixel of row `y` from `x` on.
    void pack_colours(std::int64_t y, std::int64_t x, std::int64_t count, float *bits) const {
        std::uint8_t buffer[3 * kPart];
        if (step == 1) return pack(rgb_row(kernel, *colours, y, x, count, buffer), count, bits);
        for (std::int64_t i = 0; i < count; ++i) {  // each pixel is converted by itself, for the others are left out
            const std::uint8_t *pixel = rgb_row(kernel, *colours, y, x + i * step, 1, buffer + 3 * i);
            std::memmove(buffer + 3 * i, pixel, 3);
        }
        pack(buffer, count, bits);
    }

    static void pack(const std::uint8_t *rgb, std::int64_t count, float *bits) {
        std::int64_t i = 0;
        for (; i + 1 < count; ++i) {  // four bytes at once, the last of them the next pixel's; machines are little-endian
            std::uint32_t word;
            std::memcpy(&word, rgb + 3 * i, sizeof word);
            word = __builtin_bswap32(word) >> 8;
            std::memcpy(bits + i, &word, sizeof word);
        }
        const std::uint8_t *last = rgb + 3 * i;
        const std::uint32_t word = static_cast<std::uint32_t>(last[0] << 16 | last[1] << 8 | last[2]);
        std::memcpy(bits + i, &word, sizeof word);
    }
};

// Checks depth: a plane of floats of the rays' size. Fills in its dense stride.
int check_depth(const float *depth, const Rays &rays, std::int64_t &stride, Extent &extent) {
    if (!depth) return fail(MVDE_ERROR_ARGUMENT, "depth_m is NULL");
    const std::int64_t bytes = rays.width() * static_cast<std::int64_t>(sizeof(float));
    if (!stride) stride = bytes;
    if (!is_row_stride(stride, bytes))
        return fail(MVDE_ERROR_SHAPE, "depth_m: the row stride is %" PRId64 " bytes, but a row has %" PRId64, stride, bytes);
    const auto address = reinterpret_cast<std::uintptr_t>(depth);
    if (address % sizeof(float) || stride % static_cast<std::int64_t>(sizeof(float)))
        return fail(MVDE_ERROR_ALIGNMENT, "depth_m: its pointer and stride must be multiples of 4 bytes");
    const std::uintptr_t last = address + static_cast<std::uintptr_t>((rays.height() - 1) * stride);
    extent = {std::min(address, last), std::max(address, last) + static_cast<std::uintptr_t>(bytes)};
    return MVDE_OK;
}

int check_colours(const mvde_frame &given, const Rays &rays, mvde_frame &complete, Extent &luma, Extent &chroma) {
    if (const int status = check_frame(given, complete, luma, chroma)) return status;
    if (given.height == rays.height() && given.width == rays.width()) return MVDE_OK;
    return fail(MVDE_ERROR_SHAPE,
                "the frame of the colours is %" PRId64 "x%" PRId64 " (HxW), but the camera's frames are %" PRId64 "x%" PRId64
                ": give the frame that depth is of",
                given.height, given.width, rays.height(), rays.width());
}

}  // namespace

std::int64_t points_along(std::int64_t side, std::int64_t step) { return (side + step - 1) / step; }

int check_step(std::int32_t step, const char *name) {
    if (step >= 1 && step <= kMaxSide) return MVDE_OK;
    return fail(MVDE_ERROR_ARGUMENT, "%s is %d: expected 1 (every pixel) to %" PRId64, name, step, kMaxSide);
}

int write_points(const Rays &rays, const float *depth_m, std::int64_t depth_row_stride, const mvde_points_options &options,
                 float *points, std::int64_t capacity, mvde_workers *workers) {
    const Kernel *kernel = active_kernel();
    if (!kernel) return MVDE_ERROR_KERNEL;
    if (options.struct_size != sizeof options)
        return fail(MVDE_ERROR_ARGUMENT, "options.struct_size is %u: expected %u; start from mvde_points_defaults()",
                    options.struct_size, static_cast<unsigned>(sizeof options));
    if (const int status = check_step(options.step, "options.step")) return status;
    mvde_frame complete;
    Call call{rays, *kernel, depth_m, depth_row_stride, options.step, options.colours ? &complete : nullptr, points};
    Extent depth, luma, chroma;
    if (const int status = check_depth(depth_m, rays, call.depth_stride, depth)) return status;
    if (options.colours)
        if (const int status = check_colours(*options.colours, rays, complete, luma, chroma)) return status;
    const std::int64_t num_floats = call.height() * call.width() * (options.colours ? 4 : 3);
    if (!points) return fail(MVDE_ERROR_ARGUMENT, "points is NULL");
    const auto address = reinterpret_cast<std::uintptr_t>(points);
    if (address % sizeof(float)) return fail(MVDE_ERROR_ALIGNMENT, "points is not aligned to 4 bytes");
    if (capacity < num_floats)
        return fail(MVDE_ERROR_CAPACITY, "points holds %" PRId64 " floats: expected %" PRId64, capacity, num_floats);
    const Extent written{address, address + static_cast<std::uintptr_t>(num_floats) * sizeof(float)};
    if (overlaps(written, depth) || overlaps(written, luma) || overlaps(written, chroma))
        return fail(MVDE_ERROR_OVERLAP, "points overlaps depth_m or the frame of the colours: it needs memory of its own");
    return run_units(workers, Call::run, &call, (call.height() + kBand - 1) / kBand, 1);
}

}  // namespace mvde::internal

using namespace mvde::internal;

extern "C" {

int32_t mvde_rays_create(const mvde_camera *camera, const mvde_distortion *distortion, mvde_rays **rays) {
    if (!rays) return fail(MVDE_ERROR_ARGUMENT, "rays is NULL: expected the address of a handle");
    *rays = nullptr;
    if (!camera) return fail(MVDE_ERROR_ARGUMENT, "camera is NULL: points need the camera of the frame");
    const FloatEnvironment environment;
    try {
        check_camera(*camera);
        if (camera->height > kMaxSide || camera->width > kMaxSide || camera->height * camera->width > kMaxPixels)
            return fail(MVDE_ERROR_SHAPE,
                        "the camera's frames are %" PRId64 "x%" PRId64 " (HxW): expected at most 65536 "
                        "pixels a side and 2^28 in all",
                        camera->height, camera->width);
        if (distortion)
            if (const int status = check_lens(*distortion)) return status;
        *rays = all_rays().add(std::make_unique<Rays>(*camera, distortion));
        return *rays ? MVDE_OK : fail(MVDE_ERROR_MEMORY, "1024 tables of rays exist: destroy one first");
    } catch (const Refused &refused) {
        return fail(refused.status, "%s", refused.what());
    } catch (const std::exception &) {
        return fail(MVDE_ERROR_MEMORY, "no memory for the rays of %" PRId64 "x%" PRId64 " pixels", camera->height,
                    camera->width);
    }
}

void mvde_rays_destroy(mvde_rays *rays) {
    if (rays) all_rays().close(rays);
}

void mvde_points_defaults(mvde_points_options *options) {
    if (options) *options = {sizeof *options, 1, nullptr};
}

int64_t mvde_num_point_values(int64_t height, int64_t width, int32_t step, int32_t has_colours) {
    if (const int status = check_step(step, "step")) return status;
    if (height < 1 || width < 1 || height > kMaxSide || width > kMaxSide)
        return fail(MVDE_ERROR_SHAPE, "the frame is %" PRId64 "x%" PRId64 " (HxW): expected 1 to %" PRId64 " each", height,
                    width, kMaxSide);
    return points_along(height, step) * points_along(width, step) * (has_colours ? 4 : 3);
}

int32_t mvde_points(const mvde_rays *handle, const float *depth_m, int64_t depth_row_stride,
                    const mvde_points_options *options, float *points, int64_t capacity, mvde_workers *workers) {
    if (!handle) return fail(MVDE_ERROR_ARGUMENT, "rays is NULL: create them with mvde_rays_create");
    const FloatEnvironment environment;
    const AllRays::Hold rays = all_rays().read(handle);
    if (rays.access() != AllRays::Access::granted) return refuse(rays.access());
    mvde_points_options defaults;
    mvde_points_defaults(&defaults);
    return write_points(*rays, depth_m, depth_row_stride, options ? *options : defaults, points, capacity, workers);
}

}  // extern "C"
