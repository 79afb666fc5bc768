// A libmvde session that follows the images' format, size and camera. Without ROS.
#ifndef MVDE_ROS_ESTIMATOR_HPP
#define MVDE_ROS_ESTIMATOR_HPP

#include <mvde_ros/camera.hpp>
#include <mvde_ros/image.hpp>
#include <mvde_ros/scanner.hpp>

#include <mvde/mvde.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mvde_ros {

struct Settings {
    std::string engine_path;       // of `mvde build`: folder, file or manifest
    std::string fit = "default";   // default (the engine's own), stretch, letterbox or crop
    std::string calibration_path;  // of `mvde calibrate`; empty: none
    std::string scan_path;         // settings of scans; empty: none
    int64_t num_threads = 0;       // for resizing and statistics; 0: one per CPU, at most 4
    std::vector<double> camera;    // fx, fy, cx, cy of the images; empty: that of camera_info
};

// One value per patch, NaN where a patch has no valid pixel (but 0 in the column `valid`).
struct PatchImage {
    std::string name;
    std::vector<float> values;  // [grid_rows, grid_columns]
};

// Depth of images in one engine. Serves one call at a time.
class Estimator {
public:
    // Throws Refused for settings that are no settings; the engine is opened with the first image.
    explicit Estimator(Settings settings);

    // The camera of frames of `size` that the settings give; std::nullopt if they leave it to camera_info.
    std::optional<FrameCamera> given_camera(mvde::Size size) const;

    // Opens the engine for images of this encoding and size and for this camera (std::nullopt: the model's is assumed), unless
    // it is open for them. Throws Refused.
    const mvde_session_info &open(const Image &image, const std::optional<FrameCamera> &camera);

    // Computes what `outputs` has views for, of an image that the engine is open for; with `has_colours`, points get the
    // image's colours. Throws Refused.
    void infer(const Image &image, mvde::Outputs &outputs, bool has_colours = false);

    // Number of values of an open engine's outputs.
    std::size_t num_depths() const { return session_->num_depths(); }
    std::size_t num_stats() const { return session_->num_stats(); }
    std::size_t num_point_values(int32_t step, bool has_colours) const {
        return session_->num_point_values(step, has_colours);
    }

    mvde::Size grid() const { return {info_.grid_rows, info_.grid_columns}; }  // of patches

    // Whether an open engine's maps are in metres.
    bool is_metric() const { return std::string(info_.unit) == "m"; }

    // Camera of the frames of an open engine: as given or assumed; std::nullopt where there is neither.
    std::optional<FrameCamera> camera() const;

    // The scan of depth at the pixels of an open engine's images; the settings have a file for it. Throws Refused.
    const Scan &scan(mvde::View<const float> depth_m);

    // The columns of `stats` (num_stats() values) as images.
    std::vector<PatchImage> patch_images(const std::vector<float> &stats) const;

private:
    struct Opened {
        mvde::PixelFormat format{};
        mvde::Size size;
        std::optional<FrameCamera> camera;
        bool is_for(mvde::PixelFormat other_format, mvde::Size other_size, const std::optional<FrameCamera> &other) const;
    };

    const Settings settings_;
    mvde::Fit fit_;
    ImageReader reader_;
    std::optional<mvde::Session> session_;
    std::optional<Scanner> scanner_;  // of the open engine's camera, from its first scan on
    mvde_session_info info_{};
    Opened opened_;
};

}  // namespace mvde_ros

#endif
