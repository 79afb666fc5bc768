#include <mvde_ros/image.hpp>

#include <array>
#include <cstring>

namespace mvde_ros {
namespace {

// How the bytes of an encoding become those of the frame's format.
enum class Repacking { none, drop_alpha, swap_pairs };

struct Encoding {
    const char *name;
    mvde::PixelFormat format;
    std::size_t pixel_bytes;  // of a row, or of the luma plane's rows
    Repacking repacking;
};

// Names of sensor_msgs/image_encodings.hpp; nv12 is what camera drivers add to them.
constexpr std::array<Encoding, 12> kEncodings{{
    {"rgb8", mvde::PixelFormat::rgb, 3, Repacking::none},
    {"bgr8", mvde::PixelFormat::bgr, 3, Repacking::none},
    {"mono8", mvde::PixelFormat::grey, 1, Repacking::none},
    {"8UC1", mvde::PixelFormat::grey, 1, Repacking::none},
    {"rgba8", mvde::PixelFormat::rgb, 4, Repacking::drop_alpha},
    {"bgra8", mvde::PixelFormat::bgr, 4, Repacking::drop_alpha},
    {"yuv422_yuy2", mvde::PixelFormat::yuyv, 2, Repacking::none},
    {"yuyv", mvde::PixelFormat::yuyv, 2, Repacking::none},
    {"yuv422", mvde::PixelFormat::yuyv, 2, Repacking::swap_pairs},
    {"uyvy", mvde::PixelFormat::yuyv, 2, Repacking::swap_pairs},
    {"nv12", mvde::PixelFormat::nv12, 1, Repacking::none},
    {"NV12", mvde::PixelFormat::nv12, 1, Repacking::none},
}};

const Encoding &encoding_of(const std::string &name) {
    std::string known;
    for (const Encoding &one : kEncodings) {
        if (name == one.name) return one;
        known += (known.empty() ? "" : ", ") + std::string(one.name);
    }
    const bool is_bayer = name.rfind("bayer_", 0) == 0;
    throw Refused("the image's encoding is \"" + name + "\", but one of " + known + " was expected" +
                  (is_bayer ? ": let image_proc debayer it and subscribe to its image_color or image_rect_color"
                            : ": let the camera's driver, or image_transport, publish one of these"));
}

void drop_alpha(const uint8_t *source, int64_t width, uint8_t *target) {
    for (int64_t x = 0; x < width; ++x, source += 4, target += 3) std::memcpy(target, source, 3);
}

void swap_pairs(const uint8_t *source, int64_t width, uint8_t *target) {
    for (int64_t x = 0; x < width; ++x, source += 2, target += 2) {
        target[0] = source[1];
        target[1] = source[0];
    }
}

}  // namespace

mvde::PixelFormat format_of(const std::string &encoding) { return encoding_of(encoding).format; }

mvde_frame ImageReader::read(const Image &image) {
    const Encoding &encoding = encoding_of(image.encoding);
    if (image.height < 1 || image.width < 1 || image.height > 65536 || image.width > 65536)
        throw Refused("the image is " + std::to_string(image.height) + "x" + std::to_string(image.width) +
                      " pixels, but sides of 1 to 65536 were expected");
    const auto height = static_cast<std::size_t>(image.height), width = static_cast<std::size_t>(image.width);
    const std::size_t row_bytes = width * encoding.pixel_bytes;
    const std::size_t num_rows = encoding.format == mvde::PixelFormat::nv12 ? height + height / 2 : height;
    const std::size_t wanted = image.step * (num_rows - 1) + row_bytes;
    if (!image.data || image.step < row_bytes || image.num_bytes < wanted)
        throw Refused("the image has " + std::to_string(image.num_bytes) + " bytes in rows of " +
                      std::to_string(image.step) + ", but " + std::to_string(height) + "x" + std::to_string(width) +
                      " pixels of " + image.encoding + " take rows of " + std::to_string(row_bytes) + " bytes or more and " +
                      std::to_string(row_bytes * num_rows) + " in all: its publisher fills the message wrongly");

    mvde_frame frame = mvde::frame(image.data, encoding.format, {image.height, image.width});
    frame.row_stride = static_cast<int64_t>(image.step);
    frame.tag.timestamp_ns = image.stamp_ns;
    if (encoding.format == mvde::PixelFormat::nv12) {
        frame.chroma = image.data + image.step * height;
        frame.chroma_row_stride = frame.row_stride;
    }
    if (encoding.repacking == Repacking::none) return frame;

    const bool has_alpha = encoding.repacking == Repacking::drop_alpha;
    const std::size_t target_row = width * (has_alpha ? 3 : 2);
    converted_.resize(target_row * height);
    for (std::size_t y = 0; y < height; ++y)
        (has_alpha ? drop_alpha : swap_pairs)(image.data + y * image.step, image.width, converted_.data() + y * target_row);
    frame.data = converted_.data();
    frame.row_stride = static_cast<int64_t>(target_row);
    return frame;
}

}  // namespace mvde_ros
