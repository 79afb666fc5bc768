// Scans of analytic scenes, and settings that leave nothing to see.
#include <mvde_ros/image.hpp>
#include <mvde_ros/scanner.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace {

using mvde_ros::FrameCamera;
using mvde_ros::Refused;
using mvde_ros::Scan;
using mvde_ros::Scanner;

FrameCamera camera() {
    FrameCamera camera;
    camera.camera = {160, 160, 159.5, 119.5, 240, 320};
    camera.is_rectified = true;
    return camera;
}

constexpr mvde_box kWhole{0, 0, 240, 320};

// A file of settings for the lifetime of a test.
class Settings {
public:
    explicit Settings(const std::string &text) : path_(testing::TempDir() + "mvde_ros_scan.yaml") {
        std::ofstream(path_) << text;
    }
    ~Settings() { std::remove(path_.c_str()); }
    const std::string &path() const { return path_; }

private:
    std::string path_;
};

std::string refusal(const std::string &path, const FrameCamera &camera) {
    try {
        Scanner(path, camera, kWhole);
    } catch (const Refused &refused) {
        return refused.what();
    }
    return "";
}

TEST(Scanner, sees_a_wall_with_a_post_before_it) {
    const Settings settings("height_m: 0.5\n");
    Scanner scanner(settings.path(), camera(), kWhole);
    std::vector<float> depth_m(240 * 320, 3.0F);
    // A post at 1 m, 20 columns to the left: at (x - cx) / f = -60 / 160 and on.
    for (std::size_t y = 0; y < 240; ++y)
        for (std::size_t x = 90; x < 110; ++x) depth_m[y * 320 + x] = 1.0F;
    const Scan &scan = scanner.scan(depth_m);
    for (std::size_t i = 0; i < scan.ranges.size(); ++i) {
        const double bearing = scan.angle_min + static_cast<double>(i) * scan.angle_increment;  // positive: left
        const double column = 159.5 - 160 * std::tan(bearing);
        const bool is_post = column > 94 && column < 106,
                   is_wall = (column > 4 && column < 86) || (column > 114 && column < 316);
        if (is_post) EXPECT_NEAR(scan.ranges[i], 1 / std::cos(bearing), 0.03 / std::cos(bearing)) << bearing;
        if (is_wall) EXPECT_NEAR(scan.ranges[i], 3 / std::cos(bearing), 0.09 / std::cos(bearing)) << bearing;
    }
}

TEST(Scanner, of_a_level_camera_turns_its_optical_frame_upright) {
    const Settings settings("height_m: 0.5\n");
    std::vector<float> depth_m(240 * 320, 1.0F);
    const Scan scan = Scanner(settings.path(), camera(), kWhole).scan(depth_m);
    // REP 103: x forward, y left and z up, seen from x right, y down and z forward.
    const std::array<double, 4> upright{0.5, -0.5, 0.5, 0.5};
    for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(scan.rotation[i], upright[i], 1e-12);
}

TEST(Scanner, refuses_what_leaves_nothing_to_see) {
    EXPECT_NE(refusal("absent.yaml", camera()).find("absent.yaml"), std::string::npos);
    const Settings above("height_m: 0.5\nmin_height_m: 50\nmax_height_m: 60\n");
    EXPECT_NE(refusal(above.path(), camera()), "");
    FrameCamera unknown = camera();
    unknown.problem = "the distortion model is \"fov\"";
    EXPECT_NE(refusal(above.path(), unknown).find("needs the rays"), std::string::npos);
}

}  // namespace
