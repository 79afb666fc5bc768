// Cameras as sensor_msgs/CameraInfo describes them. Without ROS.
#ifndef MVDE_ROS_CAMERA_HPP
#define MVDE_ROS_CAMERA_HPP

#include <mvde/mvde.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mvde_ros {

// The fields of a sensor_msgs/CameraInfo that say how the camera projects.
struct CameraInfo {
    int64_t height = 0, width = 0;  // of the calibrated image, in pixels
    std::string distortion_model;
    std::vector<double> d;
    std::array<double, 9> k{};
    std::array<double, 12> p{};
    int64_t binning_x = 0, binning_y = 0;
    int64_t roi_x = 0, roi_y = 0, roi_height = 0, roi_width = 0;  // 0: the whole image
};

// Camera of a topic's frames.
struct FrameCamera {
    mvde_camera camera{};
    std::optional<mvde_distortion> distortion;
    bool is_rectified = false;
    std::string problem;  // why the lens's distortion is left out although there is some, or ""; points and scans need it
};

// Whether a topic is of rectified images by its name, as image_proc names them: .../image_rect or .../image_rect_color.
bool is_rectified_topic(const std::string &topic);

// Camera of frames of `size`: from P if they are rectified, which the topic says or the lack of distortion, else from K. Binning
// and region of interest are applied as image_geometry does. std::nullopt for an uncalibrated camera, whose K is 0. Throws
// Refused for numbers that are no camera and for a camera of another size.
std::optional<FrameCamera> frame_camera(const CameraInfo &info, mvde::Size size, bool is_rectified_topic);

// CameraInfo of a camera that was given or assumed.
CameraInfo info_of(const FrameCamera &camera);

// CameraInfo of the patch grid, in which one pixel is one patch, from that of the frame. Distortion acts before K and stays.
CameraInfo grid_info(const CameraInfo &info, const mvde_session_info &session);

}  // namespace mvde_ros

#endif
