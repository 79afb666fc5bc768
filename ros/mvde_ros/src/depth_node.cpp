#include "depth_node.hpp"

#include <rclcpp_components/register_node_macro.hpp>

#include <algorithm>
#include <utility>
#include <vector>

namespace mvde_ros {
namespace {

using std::chrono::steady_clock;

double milliseconds_since(steady_clock::time_point start) {
    return std::chrono::duration<double, std::milli>(steady_clock::now() - start).count();
}

rcl_interfaces::msg::ParameterDescriptor described(const std::string &description) {
    rcl_interfaces::msg::ParameterDescriptor descriptor;
    descriptor.description = description;
    descriptor.read_only = true;
    return descriptor;
}

}  // namespace

DepthNode::DepthNode(const rclcpp::NodeOptions &options) : rclcpp::Node("depth", options) {
    declare();
    diagnostics_ = create_publisher<diagnostic_msgs::msg::DiagnosticArray>("/diagnostics", rclcpp::SystemDefaultsQoS());
    timer_ = create_wall_timer(std::chrono::seconds(1), [this] { diagnose(); });
    worker_ = std::make_unique<Newest<Arrived>>([this](Arrived arrived) { process(arrived); });

    rclcpp::SubscriptionOptions overridable;
    overridable.qos_overriding_options = rclcpp::QosOverridingOptions::with_default_policies();
    infos_ = create_subscription<InfoMessage>(
        "camera_info", rclcpp::SensorDataQoS(),
        [this](InfoMessage::ConstSharedPtr message) {
            const std::lock_guard<std::mutex> lock(info_mutex_);
            newest_info_ = std::move(message);
        },
        overridable);
    images_ = create_subscription<ImageMessage>(
        "image", rclcpp::SensorDataQoS(),
        [this](ImageMessage::ConstSharedPtr message) {
            if (worker_->put({std::move(message), steady_clock::now()})) health_->add_dropped();
        },
        overridable);
    is_rectified_topic_ = is_rectified_topic(images_->get_topic_name());
}

void DepthNode::declare() {
    Settings settings;
    settings.engine_path = declare_parameter("engine", "", described("Engine of `mvde build`: folder, file or manifest."));
    settings.fit = declare_parameter(
        "fit", "default",
        described("How images enter the network: default (the engine's own), stretch, letterbox or crop."));
    settings.calibration_path = declare_parameter("calibration", "",
                                                  described("File of `mvde calibrate`, which makes depth metric."));
    settings.scan_path = declare_parameter(
        "scan", "", described("File of settings of distances by bearing (height_m and more), or empty: no scan."));
    has_scan_ = !settings.scan_path.empty();
    settings.num_threads = declare_parameter(
        "num_threads", 0,
        described("Threads for resizing and statistics; 0: one per CPU, at most 4. Inference has its own."));
    settings.camera = declare_parameter("camera", std::vector<double>{},
                                        described("fx, fy, cx, cy of rectified images in pixels, in place of camera_info."));
    assumes_camera_ = declare_parameter(
        "assume_camera", false, described("Assume the model's camera where there is no camera_info, instead of waiting."));
    const std::string encoding = declare_parameter("depth_encoding", "32FC1",
                                                   described("32FC1 in metres, or 16UC1 in millimetres (REP 118)."));
    points_step_ = declare_parameter("points_step", 2,
                                     described("A point for every n-th row and column of the image; 0: no points."));
    has_colours_ = declare_parameter("points_rgb", true, described("Give points the image's colours."));
    const int64_t latency_ms = declare_parameter(
        "deadline_ms", 0, described("A result that comes later than this after its image arrived is late; 0: none."));
    const int64_t age_ms = declare_parameter(
        "max_age_ms", 0, described("A result that comes later than this after its image's stamp is too old; 0: none."));
    if (encoding != "32FC1" && encoding != "16UC1")
        throw Refused("the parameter depth_encoding is \"" + encoding + "\", but 32FC1 or 16UC1 was expected");
    if (points_step_ < 0 || points_step_ > 65536 || latency_ms < 0 || age_ms < 0)
        throw Refused("points_step is 0 to 65536, deadline_ms and max_age_ms 0 or more, but got " +
                      std::to_string(points_step_) + ", " + std::to_string(latency_ms) + " and " + std::to_string(age_ms));
    is_16_bit_ = encoding == "16UC1";
    estimator_ = std::make_unique<Estimator>(std::move(settings));
    health_ = std::make_unique<Health>(Limits{latency_ms, age_ms});
}

void DepthNode::process(const Arrived &arrived) {
    try {
        if (outputs_ && !has_subscriber()) return health_->set_note("nothing is computed: no topic has a subscriber");
        estimate(*arrived.image);
        const double age_ms = (now() - rclcpp::Time(arrived.image->header.stamp, get_clock()->get_clock_type())).seconds() *
                              1e3;
        health_->add_result(milliseconds_since(arrived.at), age_ms);
    } catch (const std::exception &error) {
        health_->add_failure(error.what());
        RCLCPP_ERROR_THROTTLE(get_logger(), *get_clock(), 5000, "%s", error.what());
    }
}

void DepthNode::estimate(const ImageMessage &message) {
    const Image image = view_of(message);
    const mvde::Size size{image.height, image.width};
    InfoMessage::ConstSharedPtr info_message;
    {
        const std::lock_guard<std::mutex> lock(info_mutex_);
        info_message = newest_info_;
    }
    std::optional<FrameCamera> camera = estimator_->given_camera(size);
    const bool is_given = camera.has_value();
    if (!is_given && info_message) camera = frame_camera(read(*info_message), size, is_rectified_topic_);
    if (!camera && !assumes_camera_)
        throw Refused(std::string(info_message ? "the camera is not calibrated: K of the camera_info is 0"
                                               : "no camera_info has come on ") +
                      (info_message ? "" : infos_->get_topic_name()) +
                      "; remap camera_info, set the parameter camera, or assume_camera:=true for the model's own");

    const mvde_session_info &session = estimator_->open(image, camera);
    if (!outputs_) advertise(session, camera ? camera->is_rectified : is_rectified_topic_);
    health_->set_note(camera ? camera->problem : "the camera is assumed: there is no camera_info");

    const auto &header = message.header;
    mvde::Outputs wanted;
    std::unique_ptr<ImageMessage> depth;
    if (outputs_->depth->get_subscription_count() > 0) {
        depth = blank_image(header, is_16_bit_ ? "16UC1" : "32FC1", size, is_16_bit_ ? 2 : 4);
        if (is_16_bit_) wanted.depth_mm = values_of<uint16_t>(depth->data);
        else wanted.depth_m = values_of<float>(depth->data);
    }
    std::unique_ptr<CloudMessage> points;
    const std::optional<FrameCamera> used = estimator_->camera();
    const bool has_rays = used && used->problem.empty();
    if (has_rays && outputs_->points && outputs_->points->get_subscription_count() > 0) {
        const int64_t step = points_step_;
        points = blank_cloud(header, {(size.height + step - 1) / step, (size.width + step - 1) / step}, has_colours_);
        wanted.points = values_of<float>(points->data);
        wanted.points_step = static_cast<int32_t>(step);
    }
    // A scan reads depth in metres, in the message's memory if that has it.
    const bool has_scan = outputs_->scan && outputs_->scan->get_subscription_count() > 0;
    std::vector<float> depth_m(has_scan && !wanted.depth_m.size() ? estimator_->num_depths() : 0);
    if (!depth_m.empty()) wanted.depth_m = depth_m;
    std::vector<float> stats(has_patch_subscriber() ? estimator_->num_stats() : 0);
    wanted.stats = stats;
    if (depth || points || has_scan || !stats.empty()) estimator_->infer(image, wanted, has_colours_);

    if (has_scan) publish_scan({wanted.depth_m.data(), wanted.depth_m.size()}, header);
    if (depth) outputs_->depth->publish(std::move(depth));
    if (points) outputs_->points->publish(std::move(points));
    if (used) {
        const bool has_message = info_message && !is_given && camera;
        const CameraInfo info = has_message ? read(*info_message) : info_of(*used);
        const InfoMessage like = has_message ? *info_message : InfoMessage();
        outputs_->camera_info->publish(written(info, like, header));
        outputs_->patch_info->publish(written(grid_info(info, session), like, header));
    }
    if (!stats.empty()) publish_patches(stats, header);
}

void DepthNode::advertise(const mvde_session_info &session, bool is_rectified) {
    const bool is_metric = estimator_->is_metric();
    if (!is_metric && is_16_bit_)
        throw Refused(std::string("16UC1 holds millimetres, but the engine's map is in the unit ") + session.unit +
                      ": set depth_encoding to 32FC1, or give depth metres by the parameter calibration (mvde calibrate)");
    Outputs outputs;
    const std::string place = is_metric ? "depth" : "relative";
    outputs.depth = publisher<ImageMessage>(place + (!is_metric ? "/image" : is_rectified ? "/image_rect" : "/image_raw"));
    outputs.camera_info = publisher<InfoMessage>(place + "/camera_info");
    outputs.patch_info = publisher<InfoMessage>(place + "/patch/camera_info");
    if (is_metric && points_step_ > 0) outputs.points = publisher<CloudMessage>(place + "/points");
    if (has_scan_) {
        if (!is_metric)
            throw Refused(std::string("a scan needs depth in metres, but the engine's map is in the unit ") + session.unit +
                          ": set the parameter calibration (mvde calibrate), or leave scan empty");
        outputs.scan = publisher<sensor_msgs::msg::LaserScan>(place + "/scan");
        static_transforms_ = create_publisher<tf2_msgs::msg::TFMessage>(
            "/tf_static", rclcpp::QoS(rclcpp::KeepLast(1)).reliable().transient_local());
    }
    for (const PatchImage &column : estimator_->patch_images(std::vector<float>(estimator_->num_stats())))
        outputs.patches[column.name] = publisher<ImageMessage>(place + "/patch/" + column.name);
    outputs_ = std::move(outputs);
    const std::lock_guard<std::mutex> lock(info_mutex_);
    hardware_id_ = std::string(session.name) + " " + session.engine_id + " on " + session.device;
    RCLCPP_INFO(get_logger(), "%s computes in %s; depth in %s on %s", hardware_id_.c_str(), session.executed_precision,
                session.unit, outputs_->depth->get_topic_name());
}

template <class Message>
typename rclcpp::Publisher<Message>::SharedPtr DepthNode::publisher(const std::string &topic) {
    rclcpp::PublisherOptions overridable;
    overridable.qos_overriding_options = rclcpp::QosOverridingOptions::with_default_policies();
    return create_publisher<Message>(topic, rclcpp::SensorDataQoS(), overridable);
}

bool DepthNode::has_patch_subscriber() const {
    return std::any_of(outputs_->patches.begin(), outputs_->patches.end(),
                       [](const auto &one) { return one.second->get_subscription_count() > 0; });
}

bool DepthNode::has_subscriber() const {
    return outputs_->depth->get_subscription_count() + outputs_->camera_info->get_subscription_count() +
                   outputs_->patch_info->get_subscription_count() >
               0 ||
           (outputs_->scan && outputs_->scan->get_subscription_count() > 0) ||
           (outputs_->points && outputs_->points->get_subscription_count() > 0) || has_patch_subscriber();
}

void DepthNode::publish_scan(mvde::View<const float> depth_m, const std_msgs::msg::Header &header) {
    const Scan &scan = estimator_->scan(depth_m);
    if (levelled_frame_ != header.frame_id) {
        static_transforms_->publish(level_transform(scan, header));
        levelled_frame_ = header.frame_id;
    }
    outputs_->scan->publish(laser_scan_of(scan, header));
}

void DepthNode::publish_patches(const std::vector<float> &stats, const std_msgs::msg::Header &header) {
    for (const PatchImage &column : estimator_->patch_images(stats)) {
        const auto &topic = outputs_->patches.at(column.name);
        if (topic->get_subscription_count() == 0) continue;
        auto message = blank_image(header, "32FC1", estimator_->grid(), sizeof(float));
        std::copy(column.values.begin(), column.values.end(), values_of<float>(message->data).data());
        topic->publish(std::move(message));
    }
}

void DepthNode::diagnose() {
    const double seconds = milliseconds_since(last_report_) / 1e3;
    last_report_ = steady_clock::now();
    std::string hardware_id;
    {
        const std::lock_guard<std::mutex> lock(info_mutex_);
        hardware_id = hardware_id_;
    }
    diagnostics_->publish(
        diagnostics_of(health_->report(seconds), std::string(get_fully_qualified_name()) + ": depth", hardware_id, now()));
}

}  // namespace mvde_ros

RCLCPP_COMPONENTS_REGISTER_NODE(mvde_ros::DepthNode)
