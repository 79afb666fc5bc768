// Diagnostics: the level says whether somebody has to look, the values count since the start.
#include <mvde_ros/health.hpp>

#include <gtest/gtest.h>

#include <string>

namespace {

using mvde_ros::Health;
using mvde_ros::Level;
using mvde_ros::Report;

std::string value_of(const Report &report, const std::string &key) {
    for (const auto &[name, value] : report.values)
        if (name == key) return value;
    return "absent";
}

TEST(Health, counts_and_averages_since_the_last_report) {
    Health health({0, 0});
    health.add_result(10, 40);
    health.add_result(30, 60);
    health.add_dropped();
    const Report first = health.report(2);
    EXPECT_EQ(first.level, Level::ok);
    EXPECT_EQ(value_of(first, "results per second"), "1.0");
    EXPECT_EQ(value_of(first, "latency mean (ms)"), "20.0");
    EXPECT_EQ(value_of(first, "age max (ms)"), "60.0");
    health.add_result(50, 50);
    const Report second = health.report(1);
    EXPECT_EQ(value_of(second, "latency mean (ms)"), "50.0");
    EXPECT_EQ(value_of(second, "results"), "3");
    EXPECT_EQ(value_of(second, "dropped"), "1");
}

TEST(Health, warns_of_late_and_of_old_results) {
    Health late({33, 0});
    late.add_result(34, 10);
    EXPECT_EQ(late.report(1).level, Level::warn);
    late.add_result(33, 1000);
    EXPECT_EQ(late.report(1).level, Level::ok);
    EXPECT_EQ(value_of(late.report(1), "late"), "1");
    Health old({0, 100});
    old.add_result(1, 101);
    EXPECT_EQ(old.report(1).level, Level::warn);
    EXPECT_EQ(value_of(old.report(1), "too old"), "1");
}

TEST(Health, shows_a_failure_until_an_image_succeeds) {
    Health health({0, 0});
    health.add_failure("the encoding is wrong");
    EXPECT_EQ(health.report(1).message, "the encoding is wrong");
    const Report later = health.report(1);
    EXPECT_EQ(later.level, Level::error);
    health.add_result(1, 1);
    EXPECT_EQ(health.report(1).level, Level::ok);
}

TEST(Health, is_stale_without_images_and_says_why_nothing_is_computed) {
    Health health({0, 0});
    EXPECT_EQ(health.report(1).level, Level::stale);
    EXPECT_EQ(health.report(1).message, "no image received");
    health.set_note("no topic has a subscriber");
    EXPECT_EQ(health.report(1).message, "no topic has a subscriber");
    health.add_result(1, 1);
    EXPECT_EQ(health.report(1).level, Level::warn);
    health.set_note("");
    health.add_result(1, 1);
    EXPECT_EQ(health.report(1).level, Level::ok);
}

}  // namespace
