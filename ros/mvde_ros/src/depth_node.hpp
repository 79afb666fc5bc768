// The component: images and camera_info in, depth and what follows from it out.
#ifndef MVDE_ROS_DEPTH_NODE_HPP
#define MVDE_ROS_DEPTH_NODE_HPP

#include "messages.hpp"

#include <mvde_ros/estimator.hpp>
#include <mvde_ros/newest.hpp>

#include <rclcpp/rclcpp.hpp>

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace mvde_ros {

class DepthNode : public rclcpp::Node {
public:
    explicit DepthNode(const rclcpp::NodeOptions &options);

private:
    using ImageMessage = sensor_msgs::msg::Image;
    using InfoMessage = sensor_msgs::msg::CameraInfo;
    using CloudMessage = sensor_msgs::msg::PointCloud2;
    struct Arrived {
        ImageMessage::ConstSharedPtr image;
        std::chrono::steady_clock::time_point at;
    };
    // Of the worker's thread only. Empty until the first image: what there is to publish depends on the camera and the engine.
    struct Outputs {
        rclcpp::Publisher<ImageMessage>::SharedPtr depth;
        rclcpp::Publisher<InfoMessage>::SharedPtr camera_info, patch_info;
        rclcpp::Publisher<CloudMessage>::SharedPtr points;
        rclcpp::Publisher<sensor_msgs::msg::LaserScan>::SharedPtr scan;
        std::map<std::string, rclcpp::Publisher<ImageMessage>::SharedPtr> patches;
    };

    void declare();
    void process(const Arrived &arrived);
    void estimate(const ImageMessage &message);
    void advertise(const mvde_session_info &session, bool is_rectified);
    bool has_subscriber() const;
    bool has_patch_subscriber() const;
    void publish_scan(mvde::View<const float> depth_m, const std_msgs::msg::Header &header);
    void publish_patches(const std::vector<float> &stats, const std_msgs::msg::Header &header);
    void diagnose();

    template <class Message>
    typename rclcpp::Publisher<Message>::SharedPtr publisher(const std::string &topic);

    int64_t points_step_ = 0;
    bool has_scan_ = false, has_colours_ = false, assumes_camera_ = false, is_16_bit_ = false, is_rectified_topic_ = false;
    std::unique_ptr<Estimator> estimator_;
    std::unique_ptr<Health> health_;

    std::mutex info_mutex_;
    InfoMessage::ConstSharedPtr newest_info_;

    std::optional<Outputs> outputs_;
    std::string levelled_frame_;       // of the images whose static transform was published last
    std::string hardware_id_;  // of diagnostics; guarded by info_mutex_

    rclcpp::Subscription<ImageMessage>::SharedPtr images_;
    rclcpp::Subscription<InfoMessage>::SharedPtr infos_;
    rclcpp::Publisher<tf2_msgs::msg::TFMessage>::SharedPtr static_transforms_;
    rclcpp::Publisher<diagnostic_msgs::msg::DiagnosticArray>::SharedPtr diagnostics_;
    rclcpp::TimerBase::SharedPtr timer_;
    std::chrono::steady_clock::time_point last_report_ = std::chrono::steady_clock::now();
    std::unique_ptr<Newest<Arrived>> worker_;  // last: it uses the others until it has ended
};

}  // namespace mvde_ros

#endif
