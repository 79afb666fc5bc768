#include <mvde_ros/estimator.hpp>

#include <cmath>
#include <limits>
#include <utility>

namespace mvde_ros {
namespace {

mvde::Fit fit_of(const std::string &name) {
    if (name == "default") return mvde::Fit::automatic;
    if (name == "stretch") return mvde::Fit::stretch;
    if (name == "letterbox") return mvde::Fit::letterbox;
    if (name == "crop") return mvde::Fit::crop;
    throw Refused("the parameter fit is \"" + name + "\", but default, stretch, letterbox or crop was expected");
}

const char *name_of(int32_t stat) {
    constexpr std::array<const char *, 7> kNames{"mean", "var", "grad", "min", "max", "valid", "conf"};
    return stat >= 0 && static_cast<std::size_t>(stat) < kNames.size() ? kNames[static_cast<std::size_t>(stat)] : "unknown";
}

bool is_equal(const mvde_camera &a, const mvde_camera &b) {
    return a.fx == b.fx && a.fy == b.fy && a.cx == b.cx && a.cy == b.cy && a.height == b.height && a.width == b.width;
}

bool is_equal(const std::optional<mvde_distortion> &a, const std::optional<mvde_distortion> &b) {
    if (!a || !b) return !a && !b;
    if (a->model != b->model) return false;
    for (std::size_t i = 0; i < 8; ++i)
        if (a->coefficients[i] != b->coefficients[i]) return false;
    return true;
}

}  // namespace

bool Estimator::Opened::is_for(mvde::PixelFormat other_format, mvde::Size other_size,
                               const std::optional<FrameCamera> &other) const {
    if (format != other_format || size.height != other_size.height || size.width != other_size.width) return false;
    if (!camera || !other) return !camera && !other;
    return is_equal(camera->camera, other->camera) && is_equal(camera->distortion, other->distortion);
}

Estimator::Estimator(Settings settings) : settings_(std::move(settings)), fit_(fit_of(settings_.fit)) {
    if (settings_.engine_path.empty())
        throw Refused("the parameter engine is empty, but the path of an engine was expected: build one with `mvde build`");
    if (!settings_.camera.empty() && settings_.camera.size() != 4)
        throw Refused("the parameter camera has " + std::to_string(settings_.camera.size()) +
                      " numbers, but fx, fy, cx and cy in pixels were expected, or none to use camera_info");
    if (settings_.num_threads < 0 || settings_.num_threads > 256)
        throw Refused("the parameter num_threads is " + std::to_string(settings_.num_threads) +
                      ", but 1 to 256 was expected, or 0 for one per CPU");
}

std::optional<FrameCamera> Estimator::given_camera(mvde::Size size) const {
    if (settings_.camera.empty()) return std::nullopt;
    FrameCamera given;
    const std::vector<double> &numbers = settings_.camera;
    given.camera = {numbers[0], numbers[1], numbers[2], numbers[3], size.height, size.width};
    given.is_rectified = true;
    return given;
}

const mvde_session_info &Estimator::open(const Image &image, const std::optional<FrameCamera> &camera) {
    const mvde::PixelFormat format = format_of(image.encoding);
    const mvde::Size size{image.height, image.width};
    if (session_ && opened_.is_for(format, size, camera)) return info_;
    mvde::SessionOptions options;
    options.format = format;
    options.frame = size;
    options.fit = fit_;
    options.num_threads = static_cast<int32_t>(settings_.num_threads);
    options.calibration_path = settings_.calibration_path;
    if (camera) {
        options.camera = camera->camera;
        options.distortion = camera->distortion;
    }
    scanner_.reset();
    session_.reset();  // before the next is opened: an engine may take half the memory
    auto opened = mvde::Session::open(settings_.engine_path, options);
    if (!opened) throw Refused(opened.error().message);
    session_.emplace(std::move(*opened));
    opened_ = {format, size, camera};
    info_ = session_->info();
    return info_;
}

void Estimator::infer(const Image &image, mvde::Outputs &outputs, bool has_colours) {
    const mvde_frame frame = reader_.read(image);
    outputs.points_colours = has_colours ? &frame : nullptr;
    auto done = session_->infer(frame, outputs);
    outputs.points_colours = nullptr;
    if (!done) throw Refused(done.error().message);
}

std::optional<FrameCamera> Estimator::camera() const {
    if (opened_.camera) return opened_.camera;
    if (info_.camera.fx == 0) return std::nullopt;
    FrameCamera assumed;
    assumed.camera = info_.camera;
    assumed.is_rectified = true;
    return assumed;
}

const Scan &Estimator::scan(mvde::View<const float> depth_m) {
    if (!scanner_) {
        if (!is_metric())
            throw Refused(std::string("a scan needs depth in metres, but the engine's map is in the unit ") + info_.unit +
                          ": set the parameter calibration (mvde calibrate)");
        const std::optional<FrameCamera> used = camera();
        if (!used) throw Refused("a scan needs the images' camera: remap camera_info or set the parameter camera");
        scanner_.emplace(settings_.scan_path, *used, info_.source_box);
    }
    return scanner_->scan(depth_m);
}

std::vector<PatchImage> Estimator::patch_images(const std::vector<float> &stats) const {
    const auto num_columns = static_cast<std::size_t>(info_.num_stats);
    const std::size_t num_patches = stats.size() / num_columns;
    std::optional<std::size_t> valid;
    for (std::size_t column = 0; column < num_columns; ++column)
        if (info_.stats[column] == MVDE_VALID) valid = column;

    std::vector<PatchImage> images(num_columns);
    for (std::size_t column = 0; column < num_columns; ++column)
        images[column] = {name_of(info_.stats[column]), std::vector<float>(num_patches)};
    for (std::size_t patch = 0; patch < num_patches; ++patch) {
        const float *row = stats.data() + patch * num_columns;
        bool is_empty = !valid || row[*valid] == 0;
        for (std::size_t column = 0; column < num_columns && !valid; ++column) is_empty = is_empty && row[column] == 0;
        for (std::size_t column = 0; column < num_columns; ++column)
            images[column].values[patch] = is_empty && column != valid ? std::numeric_limits<float>::quiet_NaN()
                                                                       : row[column];
    }
    return images;
}

}  // namespace mvde_ros
