"""The robot's own data: logs (MCAP, rosbag2, ROS 1 bags), live sources and viewers, without ROS."""
