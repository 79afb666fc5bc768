// Distances by bearing of depth at the images' pixels. Without ROS.
#ifndef MVDE_ROS_SCANNER_HPP
#define MVDE_ROS_SCANNER_HPP

#include <mvde_ros/camera.hpp>

#include <mvde/mvde.hpp>

#include <array>
#include <memory>
#include <string>
#include <vector>

namespace mvde_ros {

// The fields of a sensor_msgs/LaserScan, in a level frame at the camera's centre: x forward, y left, z up.
struct Scan {
    double angle_min = 0, angle_increment = 0;  // radians, counter-clockwise from straight ahead
    double range_min = 0, range_max = 0;        // metres
    std::vector<float> ranges;                  // +inf: free; NaN: too little was seen
    std::array<double, 4> rotation{};           // x, y, z, w: of the static transform from the optical frame to its child
};

// Scans of one camera, in the mounting that a file of settings describes. Serves one call at a time.
class Scanner {
public:
    // `box`: the part of the images that has depth. Throws Refused for settings that cannot be read, and for a camera that sees
    // nothing between their heights.
    Scanner(const std::string &settings_path, const FrameCamera &camera, const mvde_box &box);

    // The scan of a map of the camera's images, float32 metres, dense; valid until the next call. Throws Refused.
    const Scan &scan(mvde::View<const float> depth_m);

private:
    struct Destroy {
        void operator()(mvde_rays *handle) const { mvde_rays_destroy(handle); }
        void operator()(mvde_scanner *handle) const { mvde_scanner_destroy(handle); }
    };
    std::size_t num_pixels_;
    std::unique_ptr<mvde_scanner, Destroy> handle_;
    Scan scan_;
};

}  // namespace mvde_ros

#endif
