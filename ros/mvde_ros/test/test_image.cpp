// Encodings: the frame is over the message's memory where it can be, and the same pixels where it cannot.
#include <mvde_ros/image.hpp>

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace {

using mvde_ros::Image;
using mvde_ros::ImageReader;
using mvde_ros::Refused;

Image image_of(const std::string &encoding, int64_t height, int64_t width, std::size_t step,
               const std::vector<uint8_t> &bytes) {
    Image image;
    image.encoding = encoding;
    image.height = height;
    image.width = width;
    image.step = step;
    image.data = bytes.data();
    image.num_bytes = bytes.size();
    image.stamp_ns = 12'345'678'901;
    return image;
}

std::string refusal(const Image &image) {
    try {
        ImageReader().read(image);
    } catch (const Refused &refused) {
        return refused.what();
    }
    return "";
}

TEST(Image, is_read_in_place_with_its_stride_and_stamp) {
    const std::vector<uint8_t> bytes(2 * 16);
    ImageReader reader;
    const mvde_frame frame = reader.read(image_of("bgr8", 2, 4, 16, bytes));
    EXPECT_EQ(frame.data, bytes.data());
    EXPECT_EQ(frame.format, MVDE_BGR);
    EXPECT_EQ(frame.row_stride, 16);
    EXPECT_EQ(frame.tag.timestamp_ns, 12'345'678'901);
}

TEST(Image, has_the_chroma_plane_of_nv12_after_the_rows_of_its_luma) {
    const std::vector<uint8_t> bytes(8 * 6);
    ImageReader reader;
    const mvde_frame frame = reader.read(image_of("nv12", 4, 6, 8, bytes));
    EXPECT_EQ(frame.chroma, bytes.data() + 32);
    EXPECT_EQ(frame.chroma_row_stride, 8);
}

TEST(Image, loses_its_alpha) {
    const std::vector<uint8_t> bytes{1, 2, 3, 99, 4, 5, 6, 99, 0, 0, 7, 8, 9, 99, 10, 11, 12, 99, 0, 0};
    ImageReader reader;
    const mvde_frame frame = reader.read(image_of("rgba8", 2, 2, 10, bytes));
    EXPECT_EQ(frame.format, MVDE_RGB);
    EXPECT_EQ(std::vector<uint8_t>(frame.data, frame.data + 12),
              (std::vector<uint8_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
    EXPECT_EQ(reader.read(image_of("bgra8", 2, 2, 10, bytes)).format, MVDE_BGR);
}

TEST(Image, of_uyvy_becomes_yuyv) {
    const std::vector<uint8_t> bytes{10, 20, 30, 40};
    ImageReader reader;
    const mvde_frame frame = reader.read(image_of("yuv422", 1, 2, 4, bytes));
    EXPECT_EQ(frame.format, MVDE_YUYV);
    EXPECT_EQ(std::vector<uint8_t>(frame.data, frame.data + 4), (std::vector<uint8_t>{20, 10, 40, 30}));
    EXPECT_EQ(reader.read(image_of("yuv422_yuy2", 1, 2, 4, bytes)).data, bytes.data());
}

TEST(Image, that_is_no_colour_or_grey_of_8_bits_is_refused_with_a_way_out) {
    const std::vector<uint8_t> bytes(64);
    EXPECT_NE(refusal(image_of("bayer_rggb8", 2, 2, 2, bytes)).find("image_proc"), std::string::npos);
    EXPECT_NE(refusal(image_of("16UC1", 2, 2, 4, bytes)).find("rgb8, bgr8, mono8"), std::string::npos);
}

TEST(Image, that_is_shorter_than_it_says_is_refused) {
    const std::vector<uint8_t> bytes(2 * 12);
    EXPECT_EQ(refusal(image_of("rgb8", 2, 4, 12, bytes)), "");
    EXPECT_NE(refusal(image_of("rgb8", 3, 4, 12, bytes)).find("24 bytes in rows of 12"), std::string::npos);
    EXPECT_NE(refusal(image_of("rgb8", 2, 4, 8, bytes)).find("rows of 12 bytes or more"), std::string::npos);
    EXPECT_NE(refusal(image_of("rgb8", 0, 4, 12, bytes)).find("1 to 65536"), std::string::npos);
    EXPECT_NE(refusal(image_of("nv12", 2, 12, 12, bytes)).find("36 in all"), std::string::npos);
}

}  // namespace
