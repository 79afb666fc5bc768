// mvde_resize and mvde_depth_to_source: resample along x into an intermediate image, then along y.
#include "kernel/dispatch.hpp"
#include "error.hpp"
#include "float_environment.hpp"
#include "forks.hpp"
#include "image/filter.hpp"
#include "image/frame.hpp"
#include "handles.hpp"
#include "image/resizer.hpp"
#include "workers.hpp"

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>

namespace mvde::internal {
namespace {

constexpr std::int64_t kBand = 8;  // rows that one work unit converts and resamples, a multiple of kRgbRows
constexpr std::int64_t kMaxSide = 1 << 16;

std::int64_t height_of(const mvde_box &box) { return box.bottom - box.top; }
std::int64_t width_of(const mvde_box &box) { return box.right - box.left; }

// A box of about `height` x `width`, centred in the outer size; multiples of whole pixels, at least one.
mvde_box centred(std::int64_t outer_height, std::int64_t outer_width, double height, double width,
                 std::int64_t multiple = 1) {
    const auto side = [multiple](double wanted, std::int64_t most) {  // nearbyint: ties to even, like Python's round
        const auto count = static_cast<std::int64_t>(std::nearbyint(wanted / static_cast<double>(multiple)));
        return std::min(std::max(count * multiple, multiple), most);
    };
    const std::int64_t h = side(height, outer_height), w = side(width, outer_width);
    const std::int64_t top = (outer_height - h) / 2, left = (outer_width - w) / 2;
    return {top, left, top + h, left + w};
}

struct Placement {
    mvde_box source, target;
};

Placement place(std::int64_t source_height, std::int64_t source_width, std::int64_t target_height, std::int64_t target_width,
                const mvde_resizer_options &options) {
    Placement placement{{0, 0, source_height, source_width}, {0, 0, target_height, target_width}};
    const auto real = [](std::int64_t x) { return static_cast<double>(x); };
    const double along_y = real(target_height) / real(source_height), along_x = real(target_width) / real(source_width);
    if (options.fit == MVDE_LETTERBOX) {
        const double scale = std::min(along_y, along_x);
        placement.target = centred(target_height, target_width, real(source_height) * scale, real(source_width) * scale,
                                   options.multiple);
    } else if (options.fit == MVDE_CROP) {
        const double scale = std::max(along_y, along_x);
        placement.source = centred(source_height, source_width, real(target_height) / scale, real(target_width) / scale);
    }
    return placement;
}

int check_target(std::int64_t height, std::int64_t width) {
    if (height < 1 || width < 1 || height > kMaxSide || width > kMaxSide)
        return fail(MVDE_ERROR_SHAPE, "the target is %" PRId64 "x%" PRId64 " (HxW): expected 1 to %" PRId64 " each", height,
                    width, kMaxSide);
    return MVDE_OK;
}

int check_resampling(const mvde_resizer_options &options) {
    if (options.interpolation != MVDE_BILINEAR && options.interpolation != MVDE_BICUBIC)
        return fail(MVDE_ERROR_ARGUMENT, "options.interpolation is %d: expected a mvde_interpolation",
                    options.interpolation);
    const bool is_known = options.bicubic_coefficient == -0.5F || options.bicubic_coefficient == -0.75F;
    if (options.interpolation == MVDE_BICUBIC && !is_known)
        return fail(MVDE_ERROR_ARGUMENT, "options.bicubic_coefficient is %g: expected -0.5 or -0.75",
                    static_cast<double>(options.bicubic_coefficient));
    for (const std::int32_t flag : {options.antialias, options.align_corners})
        if (flag != 0 && flag != 1)
            return fail(MVDE_ERROR_ARGUMENT, "options.antialias and align_corners: expected 0 or 1, but got %d", flag);
    if (options.align_corners && options.antialias)
        return fail(MVDE_ERROR_ARGUMENT, "options.align_corners is defined without antialiasing only");
    if (options.padding < 0 || options.padding > 255)
        return fail(MVDE_ERROR_ARGUMENT, "options.padding is %d: expected 0 to 255", options.padding);
    return MVDE_OK;
}

int check_options(const mvde_resizer_options &options, std::int64_t target_height, std::int64_t target_width) {
    if (options.struct_size != sizeof options)
        return fail(MVDE_ERROR_ARGUMENT, "options.struct_size is %u: start from mvde_resizer_defaults()",
                    options.struct_size);
    if (options.fit < MVDE_STRETCH || options.fit > MVDE_CROP)
        return fail(MVDE_ERROR_ARGUMENT, "fit is %d: expected MVDE_STRETCH, MVDE_LETTERBOX or MVDE_CROP", options.fit);
    if (const int status = check_resampling(options)) return status;
    if (options.multiple < 1 || options.multiple > kMaxSide)
        return fail(MVDE_ERROR_ARGUMENT, "options.multiple is %d: expected 1 to %" PRId64, options.multiple, kMaxSide);
    if (options.fit == MVDE_LETTERBOX && (target_height % options.multiple || target_width % options.multiple))
        return fail(MVDE_ERROR_SHAPE,
                    "a letterbox with sides of multiples of %d pixels does not fit into %" PRId64 "x%" PRId64
                    ", whose sides are no multiples; use stretch or crop",
                    options.multiple, target_height, target_width);
    return MVDE_OK;
}

Resampling resampling_of(const mvde_resizer_options &options) {
    return {options.interpolation == MVDE_BICUBIC, options.antialias == 1, options.align_corners == 1,
            static_cast<double>(options.bicubic_coefficient)};
}

}  // namespace

namespace {

struct Resizer {
    Resizer(std::int32_t pixel_format, std::int64_t height, std::int64_t width, std::int64_t to_height,
            std::int64_t to_width, const mvde_resizer_options &options)
        : format(pixel_format), source_height(height), source_width(width), target_height(to_height), target_width(to_width),
          padding(static_cast<std::uint8_t>(options.padding)), placement(place(height, width, to_height, to_width, options)),
          image_x(width_of(placement.source), width_of(placement.target), resampling_of(options)),
          image_y(height_of(placement.source), height_of(placement.target), resampling_of(options)),
          depth_x(width_of(placement.target), width_of(placement.source)),
          depth_y(height_of(placement.target), height_of(placement.source)) {
        const std::int64_t rgb_bytes = height_of(placement.source) * width_of(placement.target) * 3;
        const std::int64_t num_depths = height_of(placement.target) * width_of(placement.source);
        intermediate.reset(new float[static_cast<std::size_t>(std::max(rgb_bytes / 4 + 1, num_depths))]);
        hole_weights.reset(new float[static_cast<std::size_t>(2 * num_depths)]);
        has_holes.reset(new std::uint8_t[static_cast<std::size_t>(height_of(placement.target))]);
        if (format == MVDE_RGB) return;
        const std::int64_t bands = (height_of(placement.source) + kBand - 1) / kBand;
        rows.reset(new std::uint8_t[static_cast<std::size_t>(bands * kRgbRows * width_of(placement.source) * 3)]);
    }

    // Buffer of row `y + i` of the source, converted to RGB: one of those of its band; nullptr where none is needed.
    std::uint8_t *converted_row(std::int64_t y, int i) const {
        if (!rows) return nullptr;
        return &rows[static_cast<std::size_t>((y / kBand * kRgbRows + i) * width_of(placement.source) * 3)];
    }

    std::uint8_t *intermediate_rgb() const { return reinterpret_cast<std::uint8_t *>(intermediate.get()); }
    DepthRows intermediate_depth() const {
        const std::int64_t num_depths = height_of(placement.target) * width_of(placement.source);
        return {intermediate.get(), hole_weights.get(), hole_weights.get() + num_depths, has_holes.get()};
    }

    const std::int32_t format;
    const std::int64_t source_height, source_width, target_height, target_width;
    const std::uint8_t padding;
    const Placement placement;
    const Filter image_x, image_y, depth_x, depth_y;
    std::unique_ptr<float[]> intermediate;  // an image or depth map resampled along x
    std::unique_ptr<float[]> hole_weights;  // both weights of DepthRows; their pages are untouched without holes
    std::unique_ptr<std::uint8_t[]> has_holes, rows;  // of each row of depth; kRgbRows RGB rows per band
};

using Resizers = Handles<Resizer, mvde_resizer, 4096>;

Resizers &resizers() {
    static Resizers &all = *new Resizers;
    static const bool watches = (at_fork([] { all.drop_holds(); }), true);
    static_cast<void>(watches);
    return all;
}

int refuse(Resizers::Access access) {
    if (access == Resizers::Access::busy)
        return fail(MVDE_ERROR_BUSY, "the resizer is in use by another call: give each thread its own");
    return fail(MVDE_ERROR_CLOSED, "the resizer was destroyed, or did not come from mvde_resizer_create");
}

// Checks that the frame has the resizer's format and size.
int check_fits(const Resizer &resizer, const mvde_frame &frame) {
    if (frame.format == resizer.format && frame.height == resizer.source_height && frame.width == resizer.source_width)
        return MVDE_OK;
    return fail(MVDE_ERROR_SHAPE,
                "the frame is %" PRId64 "x%" PRId64 " (HxW) in format %d: this resizer is for %" PRId64 "x%" PRId64
                " in format %d",
                frame.height, frame.width, frame.format, resizer.source_height, resizer.source_width, resizer.format);
}

struct Resize {
    const Resizer &resizer;
    const Kernel &kernel;
    mvde_frame frame;
    std::uint8_t *rgb;
    std::int64_t row_stride;

    static void along_x(void *data, std::int64_t first, std::int64_t last) {
        const Resize &call = *static_cast<const Resize *>(data);
        const Resizer &resizer = call.resizer;
        const mvde_box &box = resizer.placement.source;
        const std::int64_t out_bytes = width_of(resizer.placement.target) * 3;
        const Taps taps = resizer.image_x.taps();
        const PairedTaps paired = resizer.image_x.paired();
        const std::int64_t end = std::min(last * kBand, height_of(box));
        for (std::int64_t y = first * kBand; y < end; y += kRgbRows) {
            RgbRows rows{{},
                         static_cast<int>(std::min<std::int64_t>(end - y, kRgbRows)),
                         resizer.intermediate_rgb() + y * out_bytes,
                         out_bytes};
            for (int i = 0; i < rows.count; ++i)
                rows.in[i] = rgb_row(call.kernel, call.frame, box.top + y + i, box.left, width_of(box),
                                     resizer.converted_row(y, i));
            call.kernel.resample_rows_rgb(rows, taps, paired);
        }
    }

    static void along_y(void *data, std::int64_t first, std::int64_t last) {
        const Resize &call = *static_cast<const Resize *>(data);
        const Resizer &resizer = call.resizer;
        const mvde_box &box = resizer.placement.target;
        const std::int64_t left_bytes = box.left * 3, bytes = width_of(box) * 3, all_bytes = resizer.target_width * 3;
        for (std::int64_t y = first * kBand; y < std::min(last * kBand, resizer.target_height); ++y) {
            std::uint8_t *row = call.rgb + y * call.row_stride;
            if (y < box.top || y >= box.bottom) {
                std::memset(row, resizer.padding, static_cast<std::size_t>(all_bytes));
                continue;
            }
            std::memset(row, resizer.padding, static_cast<std::size_t>(left_bytes));
            call.kernel.resample_column_bytes(resizer.intermediate_rgb(), bytes, resizer.image_y.taps(), y - box.top,
                                              row + left_bytes);
            std::memset(row + left_bytes + bytes, resizer.padding, static_cast<std::size_t>(all_bytes - left_bytes - bytes));
        }
    }
};

struct MapBack {
    const Resizer &resizer;
    const Kernel &kernel;
    const float *depth;
    std::int64_t depth_stride;
    float *source;
    std::int64_t source_stride;
    float invalid_m;

    static void along_x(void *data, std::int64_t first, std::int64_t last) {
        const MapBack &call = *static_cast<const MapBack *>(data);
        const Resizer &resizer = call.resizer;
        const mvde_box &box = resizer.placement.target;
        const Taps taps = resizer.depth_x.taps();
        const GroupedTaps grouped = resizer.depth_x.grouped();
        for (std::int64_t y = first * kBand; y < std::min(last * kBand, height_of(box)); ++y) {
            const auto *row = reinterpret_cast<const float *>(reinterpret_cast<const unsigned char *>(call.depth) +
                                                              (box.top + y) * call.depth_stride);
            call.kernel.resample_row_depth(row + box.left, width_of(box), taps, grouped, y, resizer.intermediate_depth());
        }
    }

    static void along_y(void *data, std::int64_t first, std::int64_t last) {
        const MapBack &call = *static_cast<const MapBack *>(data);
        const Resizer &resizer = call.resizer;
        const mvde_box &box = resizer.placement.source;
        for (std::int64_t y = first * kBand; y < std::min(last * kBand, resizer.source_height); ++y) {
            auto *row = reinterpret_cast<float *>(reinterpret_cast<unsigned char *>(call.source) + y * call.source_stride);
            const bool is_seen = y >= box.top && y < box.bottom;
            std::fill(row, row + (is_seen ? box.left : resizer.source_width), call.invalid_m);
            if (!is_seen) continue;
            std::fill(row + box.right, row + resizer.source_width, call.invalid_m);
            call.kernel.resample_column_depth(resizer.intermediate_depth(), width_of(box), resizer.depth_y.taps(),
                                              y - box.top, call.invalid_m, row + box.left);
        }
    }
};

std::int64_t num_bands(std::int64_t height) { return (height + kBand - 1) / kBand; }

template <class Call>
int run_both(Call &call, std::int64_t rows_along_x, std::int64_t rows_along_y, mvde_workers *workers) {
    if (const int status = run_units(workers, Call::along_x, &call, num_bands(rows_along_x), 1)) return status;
    return run_units(workers, Call::along_y, &call, num_bands(rows_along_y), 1);
}

// Checks a plane of rows, fills in its dense stride and computes its address range.
int check_rows(const void *data, const char *name, std::int64_t height, std::int64_t bytes, std::int64_t element,
               std::int64_t &stride, Extent &extent) {
    if (!data) return fail(MVDE_ERROR_ARGUMENT, "%s is NULL", name);
    if (!stride) stride = bytes;
    if (!is_row_stride(stride, bytes))
        return fail(MVDE_ERROR_SHAPE, "%s: the row stride is %" PRId64 " bytes, but a row has %" PRId64, name, stride,
                    bytes);
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    if (address % static_cast<std::uintptr_t>(element) || stride % element)
        return fail(MVDE_ERROR_ALIGNMENT, "%s: its pointer and stride must be multiples of %d bytes", name,
                    static_cast<int>(element));
    const std::uintptr_t last = address + static_cast<std::uintptr_t>((height - 1) * stride);
    extent = {std::min(address, last), std::max(address, last) + static_cast<std::uintptr_t>(bytes)};
    return MVDE_OK;
}

}  // namespace

ResizePlan plan_of(const mvde_resizer *handle) {
    const Resizers::Hold resizer = resizers().read(handle);
    return {resizer->placement.source, resizer->placement.target, resizer->image_x.taps(), resizer->image_y.taps(),
            resizer->padding};
}

int check_fits(const mvde_resizer *handle, const mvde_frame &frame) {
    const Resizers::Hold resizer = resizers().read(handle);
    return resizer.access() == Resizers::Access::granted ? check_fits(*resizer, frame) : refuse(resizer.access());
}

}  // namespace mvde::internal

using namespace mvde::internal;

extern "C" {

void mvde_resizer_defaults(mvde_resizer_options *options) {
    if (options) *options = {sizeof *options, MVDE_STRETCH, MVDE_BILINEAR, -0.5F, 1, 0, 1, 128};
}

int32_t mvde_resizer_create(int32_t format, int64_t source_height, int64_t source_width, int64_t target_height,
                            int64_t target_width, const mvde_resizer_options *options, mvde_resizer **resizer) {
    if (!resizer) return fail(MVDE_ERROR_ARGUMENT, "resizer is NULL: expected the address of a handle");
    *resizer = nullptr;
    const FloatEnvironment environment;
    if (const int status = check_frame_size(format, source_height, source_width)) return status;
    if (const int status = check_target(target_height, target_width)) return status;
    mvde_resizer_options chosen;
    mvde_resizer_defaults(&chosen);
    if (options) chosen = *options;
    if (const int status = check_options(chosen, target_height, target_width)) return status;
    try {
        *resizer = resizers().add(
            std::make_unique<Resizer>(format, source_height, source_width, target_height, target_width, chosen));
        return *resizer ? MVDE_OK : fail(MVDE_ERROR_MEMORY, "4096 resizers exist: destroy one first");
    } catch (const std::bad_alloc &) {
        return fail(MVDE_ERROR_MEMORY, "no memory to resize %" PRId64 "x%" PRId64 " to %" PRId64 "x%" PRId64, source_height,
                    source_width, target_height, target_width);
    }
}

void mvde_resizer_destroy(mvde_resizer *resizer) {
    if (resizer) resizers().close(resizer);
}

int32_t mvde_resizer_boxes(const mvde_resizer *handle, mvde_box *source, mvde_box *target) {
    if (!handle) return fail(MVDE_ERROR_ARGUMENT, "resizer is NULL");
    const Resizers::Hold resizer = resizers().read(handle);
    if (resizer.access() != Resizers::Access::granted) return refuse(resizer.access());
    if (source) *source = resizer->placement.source;
    if (target) *target = resizer->placement.target;
    return MVDE_OK;
}

int32_t mvde_resize(mvde_resizer *handle, const mvde_frame *frame, uint8_t *rgb, int64_t rgb_row_stride,
                    mvde_workers *workers) {
    if (!handle || !frame) return fail(MVDE_ERROR_ARGUMENT, "resizer or frame is NULL");
    const FloatEnvironment environment;
    const Resizers::Hold resizer = resizers().change(handle);
    if (resizer.access() != Resizers::Access::granted) return refuse(resizer.access());
    const Kernel *kernel = active_kernel();
    if (!kernel) return MVDE_ERROR_KERNEL;
    Resize call{*resizer, *kernel, {}, rgb, rgb_row_stride};
    Extent luma, chroma, out;
    if (const int status = check_frame(*frame, call.frame, luma, chroma)) return status;
    if (const int status = check_fits(*resizer, *frame)) return status;
    if (const int status = check_rows(rgb, "rgb", resizer->target_height, resizer->target_width * 3, 1, call.row_stride,
                                      out))
        return status;
    if (overlaps(out, luma) || overlaps(out, chroma)) return fail(MVDE_ERROR_OVERLAP, "frame and rgb overlap");
    return run_both(call, height_of(resizer->placement.source), resizer->target_height, workers);
}

int32_t mvde_depth_to_source(mvde_resizer *handle, const float *depth_m, int64_t depth_row_stride, float *source_m,
                             int64_t source_row_stride, float invalid_m, mvde_workers *workers) {
    if (!handle) return fail(MVDE_ERROR_ARGUMENT, "resizer is NULL");
    const FloatEnvironment environment;
    const Resizers::Hold resizer = resizers().change(handle);
    if (resizer.access() != Resizers::Access::granted) return refuse(resizer.access());
    const Kernel *kernel = active_kernel();
    if (!kernel) return MVDE_ERROR_KERNEL;
    MapBack call{*resizer, *kernel, depth_m, depth_row_stride, source_m, source_row_stride, invalid_m};
    Extent in, out;
    if (const int status = check_rows(depth_m, "depth_m", resizer->target_height, resizer->target_width * 4, 4,
                                      call.depth_stride, in))
        return status;
    if (const int status = check_rows(source_m, "source_m", resizer->source_height, resizer->source_width * 4, 4,
                                      call.source_stride, out))
        return status;
    if (overlaps(in, out)) return fail(MVDE_ERROR_OVERLAP, "depth_m and source_m overlap");
    return run_both(call, height_of(resizer->placement.target), resizer->source_height, workers);
}

}  // extern "C"
