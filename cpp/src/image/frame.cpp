#include "image/frame.hpp"

#include "error.hpp"
#include "image/yuv.hpp"

#include <cinttypes>
#include <limits>

namespace mvde::internal {
namespace {

constexpr std::int64_t kMaxSide = 1 << 16;

std::int64_t row_bytes(std::int32_t format, std::int64_t width) {
    if (format == MVDE_RGB || format == MVDE_BGR) return 3 * width;
    return format == MVDE_YUYV ? 2 * width : width;
}

Extent extent_of(const std::uint8_t *data, std::int64_t height, std::int64_t stride, std::int64_t bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    const std::int64_t reach = (height - 1) * stride;  // check_frame bounds both
    const std::uintptr_t last = address + static_cast<std::uintptr_t>(reach);
    return {reach < 0 ? last : address, (reach < 0 ? address : last) + static_cast<std::uintptr_t>(bytes)};
}

std::uint8_t to_byte(int value) { return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value); }

void write_rgb(const YuvToRgb &matrix, int luma, int cb, int cr, std::uint8_t *rgb) {
    constexpr int kHalf = 1 << (kYuvBits - 1);
    const int above = luma < matrix.luma_offset ? 0 : luma - matrix.luma_offset;
    const int y = above * matrix.luma_gain + kHalf, u = cb - 128, v = cr - 128;
    rgb[0] = to_byte((y + matrix.red_of_v * v) >> kYuvBits);
    rgb[1] = to_byte((y + matrix.green_of_v * v + matrix.green_of_u * u) >> kYuvBits);
    rgb[2] = to_byte((y + matrix.blue_of_u * u) >> kYuvBits);
}

}  // namespace

int check_frame_size(std::int32_t format, std::int64_t height, std::int64_t width) {
    if (format < MVDE_RGB || format > MVDE_YUYV)
        return fail(MVDE_ERROR_ARGUMENT, "the frame's format is %d: expected a mvde_pixel_format", format);
    if (height < 1 || width < 1 || height > kMaxSide || width > kMaxSide)
        return fail(MVDE_ERROR_SHAPE, "the frame is %" PRId64 "x%" PRId64 " (HxW): expected 1 to %" PRId64 " each", height,
                    width, kMaxSide);
    const bool odd_width = width % 2 && (format == MVDE_NV12 || format == MVDE_YUYV);
    if (odd_width || (height % 2 && format == MVDE_NV12))
        return fail(MVDE_ERROR_SHAPE, "the frame is %" PRId64 "x%" PRId64 " (HxW): this format needs even sides", height,
                    width);
    return MVDE_OK;
}

int check_frame(const mvde_frame &frame, mvde_frame &complete, Extent &luma, Extent &chroma) {
    if (frame.struct_size != sizeof frame)
        return fail(MVDE_ERROR_ARGUMENT, "frame.struct_size is %u: expected %u; start from mvde_frame_defaults()",
                    frame.struct_size, static_cast<unsigned>(sizeof frame));
    if (const int status = check_frame_size(frame.format, frame.height, frame.width)) return status;
    if (frame.matrix < MVDE_BT601 || frame.matrix > MVDE_BT709)
        return fail(MVDE_ERROR_ARGUMENT, "frame.matrix is %d: expected MVDE_BT601 or MVDE_BT709", frame.matrix);
    if (frame.full_range != 0 && frame.full_range != 1)
        return fail(MVDE_ERROR_ARGUMENT, "frame.full_range is %d: expected 0 or 1", frame.full_range);
    if (!frame.data) return fail(MVDE_ERROR_ARGUMENT, "frame.data is NULL");
    const std::int64_t bytes = row_bytes(frame.format, frame.width);
    complete = frame;
    if (!complete.row_stride) complete.row_stride = bytes;
    if (!complete.chroma_row_stride) complete.chroma_row_stride = complete.row_stride;
    if (!is_row_stride(complete.row_stride, bytes) || !is_row_stride(complete.chroma_row_stride, bytes))
        return fail(MVDE_ERROR_SHAPE,
                    "frame.row_stride is %" PRId64 " and chroma_row_stride %" PRId64 ": a row has %" PRId64 " bytes",
                    complete.row_stride, complete.chroma_row_stride, bytes);
    luma = extent_of(complete.data, frame.height, complete.row_stride, bytes);
    chroma = {};
    if (frame.format == MVDE_NV12) {
        if (!complete.chroma) complete.chroma = complete.data + frame.height * complete.row_stride;
        chroma = extent_of(complete.chroma, frame.height / 2, complete.chroma_row_stride, bytes);
    }
    return MVDE_OK;
}

const std::uint8_t *rgb_row(const mvde_frame &frame, std::int64_t y, std::int64_t left, std::int64_t width,
                            std::uint8_t *buffer) {
    const std::uint8_t *row = frame.data + y * frame.row_stride;
    const YuvToRgb matrix = yuv_to_rgb(frame.matrix, frame.full_range != 0);
    switch (frame.format) {
        case MVDE_BGR:
            for (std::int64_t x = 0; x < width; ++x)
                for (int c = 0; c < 3; ++c) buffer[3 * x + c] = row[3 * (left + x) + 2 - c];
            return buffer;
        case MVDE_GREY:
            for (std::int64_t x = 0; x < width; ++x)
                for (int c = 0; c < 3; ++c) buffer[3 * x + c] = row[left + x];
            return buffer;
        case MVDE_NV12: {
            const std::uint8_t *chroma = frame.chroma + y / 2 * frame.chroma_row_stride;
            for (std::int64_t x = 0; x < width; ++x) {
                const std::int64_t pair = (left + x) / 2 * 2;
                write_rgb(matrix, row[left + x], chroma[pair], chroma[pair + 1], buffer + 3 * x);
            }
            return buffer;
        }
        case MVDE_YUYV:
            for (std::int64_t x = 0; x < width; ++x) {
                const std::uint8_t *pair = row + (left + x) / 2 * 4;
                write_rgb(matrix, row[2 * (left + x)], pair[1], pair[3], buffer + 3 * x);
            }
            return buffer;
        default: return row + 3 * left;
    }
}

}  // namespace mvde::internal

extern "C" void mvde_frame_defaults(mvde_frame *frame) {
    if (!frame) return;
    *frame = {};
    frame->struct_size = sizeof *frame;
    frame->format = MVDE_RGB;
    frame->matrix = MVDE_BT601;
    frame->time_s = std::numeric_limits<double>::quiet_NaN();
}
