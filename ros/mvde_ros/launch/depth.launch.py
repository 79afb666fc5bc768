"""Depth of one camera's images, in a component container of its own or in one that runs already.

ros2 launch mvde_ros depth.launch.py engine:=/path/of/an/engine camera:=/camera image:=image_rect
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition, UnlessCondition
from launch.substitutions import LaunchConfiguration, PythonExpression
from launch_ros.actions import ComposableNodeContainer, LoadComposableNodes
from launch_ros.descriptions import ComposableNode


def generate_launch_description() -> LaunchDescription:
    """Arguments, and the node in the camera's namespace, with zero-copy transport inside its container."""
    share = Path(get_package_share_directory("mvde_ros"))
    camera, container = LaunchConfiguration("camera"), LaunchConfiguration("container")
    has_container = PythonExpression(["'", container, "' != ''"])
    node = ComposableNode(
        package="mvde_ros",
        plugin="mvde_ros::DepthNode",
        name="depth",
        namespace=camera,
        parameters=[LaunchConfiguration("params"), {"engine": LaunchConfiguration("engine")}],
        remappings=[("image", LaunchConfiguration("image"))],
        extra_arguments=[{"use_intra_process_comms": True}],
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("engine", description="Engine of `mvde build`: folder, file or manifest."),
            DeclareLaunchArgument("camera", default_value="/camera", description="Namespace of the camera."),
            DeclareLaunchArgument("image", default_value="image_rect", description="Topic of the images in it."),
            DeclareLaunchArgument(
                "params", default_value=str(share / "config" / "depth.yaml"), description="File of parameters."
            ),
            DeclareLaunchArgument(
                "container", default_value="", description="Container to load the node into; empty: one of its own."
            ),
            ComposableNodeContainer(
                name="mvde_container",
                namespace=camera,
                package="rclcpp_components",
                executable="component_container",
                composable_node_descriptions=[node],
                output="screen",
                condition=UnlessCondition(has_container),
            ),
            LoadComposableNodes(
                target_container=container,
                composable_node_descriptions=[node],
                condition=IfCondition(has_container),
            ),
        ]
    )
