#include "messages.hpp"

#include <sensor_msgs/msg/point_field.hpp>

#include <algorithm>

namespace mvde_ros {

Image view_of(const sensor_msgs::msg::Image &message) {
    Image image;
    image.encoding = message.encoding;
    image.height = message.height;
    image.width = message.width;
    image.step = message.step;
    image.data = message.data.data();
    image.num_bytes = message.data.size();
    image.stamp_ns = int64_t{message.header.stamp.sec} * 1'000'000'000 + message.header.stamp.nanosec;
    return image;
}

CameraInfo read(const sensor_msgs::msg::CameraInfo &message) {
    CameraInfo info;
    info.height = message.height;
    info.width = message.width;
    info.distortion_model = message.distortion_model;
    info.d = message.d;
    std::copy(message.k.begin(), message.k.end(), info.k.begin());
    std::copy(message.p.begin(), message.p.end(), info.p.begin());
    info.binning_x = message.binning_x;
    info.binning_y = message.binning_y;
    info.roi_x = message.roi.x_offset;
    info.roi_y = message.roi.y_offset;
    info.roi_height = message.roi.height;
    info.roi_width = message.roi.width;
    return info;
}

sensor_msgs::msg::CameraInfo written(const CameraInfo &info, const sensor_msgs::msg::CameraInfo &like,
                                     const std_msgs::msg::Header &header) {
    sensor_msgs::msg::CameraInfo message = like;
    message.header = header;
    message.height = static_cast<uint32_t>(info.height);
    message.width = static_cast<uint32_t>(info.width);
    message.distortion_model = info.distortion_model;
    message.d = info.d;
    std::copy(info.k.begin(), info.k.end(), message.k.begin());
    std::copy(info.p.begin(), info.p.end(), message.p.begin());
    message.binning_x = static_cast<uint32_t>(info.binning_x);
    message.binning_y = static_cast<uint32_t>(info.binning_y);
    message.roi.x_offset = static_cast<uint32_t>(info.roi_x);
    message.roi.y_offset = static_cast<uint32_t>(info.roi_y);
    message.roi.height = static_cast<uint32_t>(info.roi_height);
    message.roi.width = static_cast<uint32_t>(info.roi_width);
    if (like.k[0] == 0) message.r = {1, 0, 0, 0, 1, 0, 0, 0, 1};  // of a camera that no message described
    return message;
}

std::unique_ptr<sensor_msgs::msg::Image> blank_image(const std_msgs::msg::Header &header, const std::string &encoding,
                                                     mvde::Size size, uint32_t pixel_bytes) {
    auto message = std::make_unique<sensor_msgs::msg::Image>();
    message->header = header;
    message->encoding = encoding;
    message->height = static_cast<uint32_t>(size.height);
    message->width = static_cast<uint32_t>(size.width);
    message->step = message->width * pixel_bytes;
    message->data.resize(static_cast<std::size_t>(message->step) * message->height);
    return message;
}

std::unique_ptr<sensor_msgs::msg::PointCloud2> blank_cloud(const std_msgs::msg::Header &header, mvde::Size size,
                                                           bool has_colours) {
    auto message = std::make_unique<sensor_msgs::msg::PointCloud2>();
    message->header = header;
    message->height = static_cast<uint32_t>(size.height);
    message->width = static_cast<uint32_t>(size.width);
    for (const char *name : {"x", "y", "z", "rgb"}) {
        if (!has_colours && message->fields.size() == 3) break;
        sensor_msgs::msg::PointField field;
        field.name = name;
        field.offset = static_cast<uint32_t>(4 * message->fields.size());
        field.datatype = sensor_msgs::msg::PointField::FLOAT32;
        field.count = 1;
        message->fields.push_back(field);
    }
    message->point_step = static_cast<uint32_t>(4 * message->fields.size());
    message->row_step = message->point_step * message->width;
    message->is_dense = false;  // NaN where there is no depth
    message->data.resize(static_cast<std::size_t>(message->row_step) * message->height);
    return message;
}

std::string level_frame(const std::string &frame_id) { return frame_id + "_level"; }

sensor_msgs::msg::LaserScan laser_scan_of(const Scan &scan, const std_msgs::msg::Header &header) {
    sensor_msgs::msg::LaserScan message;
    message.header.stamp = header.stamp;
    message.header.frame_id = level_frame(header.frame_id);
    message.angle_min = static_cast<float>(scan.angle_min);
    message.angle_max = static_cast<float>(scan.angle_min +
                                           static_cast<double>(scan.ranges.size() - 1) * scan.angle_increment);
    message.angle_increment = static_cast<float>(scan.angle_increment);
    message.range_min = static_cast<float>(scan.range_min);
    message.range_max = static_cast<float>(scan.range_max);
    message.ranges = scan.ranges;
    return message;
}

tf2_msgs::msg::TFMessage level_transform(const Scan &scan, const std_msgs::msg::Header &header) {
    geometry_msgs::msg::TransformStamped transform;
    transform.header = header;
    transform.child_frame_id = level_frame(header.frame_id);
    transform.transform.rotation.x = scan.rotation[0];
    transform.transform.rotation.y = scan.rotation[1];
    transform.transform.rotation.z = scan.rotation[2];
    transform.transform.rotation.w = scan.rotation[3];
    tf2_msgs::msg::TFMessage message;
    message.transforms.push_back(transform);
    return message;
}

diagnostic_msgs::msg::DiagnosticArray diagnostics_of(const Report &report, const std::string &name,
                                                     const std::string &hardware_id,
                                                     const builtin_interfaces::msg::Time &stamp) {
    diagnostic_msgs::msg::DiagnosticArray message;
    message.header.stamp = stamp;
    diagnostic_msgs::msg::DiagnosticStatus status;
    status.level = static_cast<uint8_t>(report.level);
    status.name = name;
    status.message = report.message;
    status.hardware_id = hardware_id;
    for (const auto &[key, value] : report.values) {
        diagnostic_msgs::msg::KeyValue entry;
        entry.key = key;
        entry.value = value;
        status.values.push_back(entry);
    }
    message.status.push_back(status);
    return message;
}

}  // namespace mvde_ros
