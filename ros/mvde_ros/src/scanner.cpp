#include <mvde_ros/image.hpp>
#include <mvde_ros/scanner.hpp>

#include <algorithm>

namespace mvde_ros {
namespace {

void check(int32_t status, const std::string &what) {
    if (status) throw Refused(what + mvde_last_error());
}

}  // namespace

Scanner::Scanner(const std::string &settings_path, const FrameCamera &camera, const mvde_box &box)
    : num_pixels_(static_cast<std::size_t>(camera.camera.height * camera.camera.width)) {
    if (!camera.problem.empty()) throw Refused("a scan needs the rays of the images: " + camera.problem);
    mvde_scan_settings settings;
    mvde_scan_defaults(&settings);
    check(mvde_scan_read(settings_path.c_str(), &settings), "the parameter scan: ");
    mvde_rays *rays = nullptr;
    check(mvde_rays_create(&camera.camera, camera.distortion ? &*camera.distortion : nullptr, &rays), "");
    const std::unique_ptr<mvde_rays, Destroy> owned(rays);
    mvde_scanner *handle = nullptr;
    check(mvde_scanner_create(rays, &box, &settings, &handle), settings_path + ": ");
    handle_.reset(handle);

    mvde_scan_info info{};
    info.struct_size = sizeof info;
    check(mvde_scanner_query(handle, &info), "");
    scan_ = {info.angle_min, info.angle_increment, info.range_min, info.range_max, {}, {}};
    scan_.ranges.resize(static_cast<std::size_t>(info.num_bearings));
    std::copy(std::begin(info.rotation), std::end(info.rotation), scan_.rotation.begin());
}

const Scan &Scanner::scan(mvde::View<const float> depth_m) {
    if (depth_m.size() != num_pixels_)
        throw Refused("the map has " + std::to_string(depth_m.size()) + " pixels, but the camera's images have " +
                      std::to_string(num_pixels_));
    check(mvde_scan(handle_.get(), depth_m.data(), 0, scan_.ranges.data(), static_cast<int64_t>(scan_.ranges.size())), "");
    return scan_;
}

}  // namespace mvde_ros
