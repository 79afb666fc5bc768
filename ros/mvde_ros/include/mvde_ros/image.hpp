// Images as ROS messages describe them, read as libmvde's frames. Without ROS.
#ifndef MVDE_ROS_IMAGE_HPP
#define MVDE_ROS_IMAGE_HPP

#include <mvde/mvde.hpp>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace mvde_ros {

// What a message holds, or what was asked for, cannot be used. The message says what was given, what was expected and what to
// do.
struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The fields of a sensor_msgs/Image, over the message's memory.
struct Image {
    std::string encoding;
    int64_t height = 0, width = 0;
    std::size_t step = 0;  // bytes from row to row
    const uint8_t *data = nullptr;
    std::size_t num_bytes = 0;
    int64_t stamp_ns = 0;
};

// Format of the frames that an encoding is read as. Throws Refused for encodings that are no 8-bit colour or grey.
mvde::PixelFormat format_of(const std::string &encoding);

// Reads images as frames: in place where libmvde knows the encoding, else through a buffer that it keeps.
class ImageReader {
public:
    // The frame of an image, valid as long as the image's memory and until the next call. Throws Refused for an encoding of
    // another kind (see format_of), and for data that is too short for its size.
    mvde_frame read(const Image &image);

private:
    std::vector<uint8_t> converted_;
};

}  // namespace mvde_ros

#endif
