// Cameras of camera_info: rectified or not, binned, cut out, and of the patch grid.
#include <mvde_ros/camera.hpp>
#include <mvde_ros/image.hpp>

#include <gtest/gtest.h>

#include <string>

namespace {

using mvde_ros::CameraInfo;
using mvde_ros::frame_camera;
using mvde_ros::FrameCamera;
using mvde_ros::Refused;

CameraInfo raw_info() {
    CameraInfo info;
    info.height = 480;
    info.width = 640;
    info.distortion_model = "plumb_bob";
    info.d = {-0.3, 0.1, 0.001, -0.002, 0};
    info.k = {500, 0, 320, 0, 510, 240, 0, 0, 1};
    info.p = {400, 0, 310, -40, 0, 410, 230, 0, 0, 0, 1, 0};
    return info;
}

std::string refusal(const CameraInfo &info, mvde::Size size) {
    try {
        frame_camera(info, size, false);
    } catch (const Refused &refused) {
        return refused.what();
    }
    return "";
}

TEST(Camera, of_raw_images_is_k_with_its_distortion) {
    const FrameCamera found = frame_camera(raw_info(), {480, 640}, false).value();
    EXPECT_FALSE(found.is_rectified);
    EXPECT_EQ(found.camera.fx, 500);
    EXPECT_EQ(found.camera.cy, 240);
    ASSERT_TRUE(found.distortion);
    EXPECT_EQ(found.distortion->model, MVDE_PLUMB_BOB);
    EXPECT_EQ(found.distortion->coefficients[3], -0.002);
}

TEST(Camera, of_rectified_images_is_p) {
    const FrameCamera found = frame_camera(raw_info(), {480, 640}, true).value();
    EXPECT_TRUE(found.is_rectified);
    EXPECT_EQ(found.camera.fx, 400);
    EXPECT_EQ(found.camera.cy, 230);
    EXPECT_FALSE(found.distortion);
    CameraInfo undistorted = raw_info();
    undistorted.d.assign(5, 0);
    EXPECT_EQ(frame_camera(undistorted, {480, 640}, false)->camera.fx, 400);
}

TEST(Camera, follows_binning_and_region) {
    CameraInfo info = raw_info();
    info.binning_x = 2;
    info.binning_y = 4;
    info.roi_x = 100;
    info.roi_y = 40;
    info.roi_width = 320;
    info.roi_height = 240;
    const FrameCamera found = frame_camera(info, {60, 160}, false).value();
    EXPECT_EQ(found.camera.fx, 250);
    EXPECT_EQ(found.camera.cx, 110);  // (320 - 100) / 2, as image_geometry does
    EXPECT_EQ(found.camera.fy, 127.5);
    EXPECT_EQ(found.camera.cy, 50);
}

TEST(Camera, that_is_not_calibrated_is_none) {
    CameraInfo info = raw_info();
    info.k[0] = 0;
    EXPECT_FALSE(frame_camera(info, {480, 640}, false));
}

TEST(Camera, of_another_size_or_without_numbers_is_refused) {
    EXPECT_NE(refusal(raw_info(), {240, 320}).find("images of 480x640, but the image is 240x320"), std::string::npos);
    CameraInfo info = raw_info();
    info.k[4] = -510;
    EXPECT_NE(refusal(info, {480, 640}).find("500 and -510"), std::string::npos);
}

TEST(Camera, of_an_unknown_lens_says_why_its_distortion_is_left_out) {
    CameraInfo info = raw_info();
    info.distortion_model = "thin_prism_fisheye";
    const FrameCamera found = frame_camera(info, {480, 640}, false).value();
    EXPECT_FALSE(found.distortion);
    EXPECT_NE(found.problem.find("\"thin_prism_fisheye\", but plumb_bob"), std::string::npos);
    info.distortion_model = "rational_polynomial";
    info.d = {1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0};
    EXPECT_EQ(frame_camera(info, {480, 640}, false)->distortion->coefficients[7], 8);
    info.d[8] = 0.1;  // of a thin prism
    EXPECT_FALSE(frame_camera(info, {480, 640}, false)->distortion);
}

TEST(Camera, of_the_grid_sees_a_patchs_centre_where_the_frame_does) {
    // A letterbox: the frame's 480x640 fill rows 28 to 196 of 224x224, in patches of 14.
    mvde_session_info session{};
    session.source_box = {0, 0, 480, 640};
    session.target_box = {28, 0, 196, 224};
    session.patch_size = 14;
    session.grid_rows = session.grid_columns = 16;
    const CameraInfo grid = grid_info(raw_info(), session);
    EXPECT_EQ(grid.height, 16);
    EXPECT_EQ(grid.width, 16);
    const double row = 5, column = 11;
    const double model_x = (column + 0.5) * 14 - 0.5, model_y = (row + 0.5) * 14 - 0.5;  // the patch's centre
    const double frame_x = (model_x + 0.5) * 640 / 224 - 0.5, frame_y = (model_y + 0.5 - 28) * 480 / 168 - 0.5;
    EXPECT_NEAR((column - grid.k[2]) / grid.k[0], (frame_x - 320) / 500, 1e-12);
    EXPECT_NEAR((row - grid.k[5]) / grid.k[4], (frame_y - 240) / 510, 1e-12);
    EXPECT_NEAR((column - grid.p[2]) / grid.p[0], (frame_x - 310) / 400, 1e-12);
    EXPECT_NEAR(grid.p[3] / grid.p[0], -40.0 / 400, 1e-12);  // a stereo camera's baseline stays
}

TEST(Camera, topics_of_image_proc_are_rectified_by_name) {
    EXPECT_TRUE(mvde_ros::is_rectified_topic("/camera/image_rect"));
    EXPECT_TRUE(mvde_ros::is_rectified_topic("/camera/image_rect_color"));
    EXPECT_TRUE(mvde_ros::is_rectified_topic("image_rect"));
    EXPECT_FALSE(mvde_ros::is_rectified_topic("/image_rect/image_raw"));
    EXPECT_FALSE(mvde_ros::is_rectified_topic("/camera/image"));
}

}  // namespace
