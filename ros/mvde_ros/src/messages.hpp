// Messages from and to the core's structures.
#ifndef MVDE_ROS_MESSAGES_HPP
#define MVDE_ROS_MESSAGES_HPP

#include <mvde_ros/camera.hpp>
#include <mvde_ros/health.hpp>
#include <mvde_ros/image.hpp>
#include <mvde_ros/scanner.hpp>

#include <diagnostic_msgs/msg/diagnostic_array.hpp>
#include <sensor_msgs/msg/camera_info.hpp>
#include <sensor_msgs/msg/image.hpp>
#include <sensor_msgs/msg/laser_scan.hpp>
#include <sensor_msgs/msg/point_cloud2.hpp>
#include <tf2_msgs/msg/tf_message.hpp>

#include <memory>
#include <string>
#include <vector>

namespace mvde_ros {

// The image over the message's memory.
Image view_of(const sensor_msgs::msg::Image &message);

CameraInfo read(const sensor_msgs::msg::CameraInfo &message);

// `like` with the projection of `info`, and another header.
sensor_msgs::msg::CameraInfo written(const CameraInfo &info, const sensor_msgs::msg::CameraInfo &like,
                                     const std_msgs::msg::Header &header);

// Dense image of zeros, whose pixels have `pixel_bytes` bytes.
std::unique_ptr<sensor_msgs::msg::Image> blank_image(const std_msgs::msg::Header &header, const std::string &encoding,
                                                     mvde::Size size, uint32_t pixel_bytes);

// Organised cloud of zeros: x, y, z and, with colours, rgb.
std::unique_ptr<sensor_msgs::msg::PointCloud2> blank_cloud(const std_msgs::msg::Header &header, mvde::Size size,
                                                           bool has_colours);

// Frame of the scans of images in this frame: levelled by gravity.
std::string level_frame(const std::string &frame_id);

sensor_msgs::msg::LaserScan laser_scan_of(const Scan &scan, const std_msgs::msg::Header &header);

// The static transform from the images' frame to its child, the scans'.
tf2_msgs::msg::TFMessage level_transform(const Scan &scan, const std_msgs::msg::Header &header);

// The bytes of a message as values.
template <class Value>
mvde::View<Value> values_of(std::vector<uint8_t> &bytes) {
    return {reinterpret_cast<Value *>(bytes.data()), bytes.size() / sizeof(Value)};
}

diagnostic_msgs::msg::DiagnosticArray diagnostics_of(const Report &report, const std::string &name,
                                                     const std::string &hardware_id,
                                                     const builtin_interfaces::msg::Time &stamp);

}  // namespace mvde_ros

#endif
