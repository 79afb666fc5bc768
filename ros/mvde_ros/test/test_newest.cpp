// The worker takes the newest item, drops what it overtakes, and ends after the call in progress.
#include <mvde_ros/newest.hpp>

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <vector>

namespace {

TEST(Newest, takes_the_newest_of_those_that_wait) {
    std::vector<int> seen;
    std::promise<void> begun, go_on, done;
    std::shared_future<void> may_go_on(go_on.get_future());
    {
        mvde_ros::Newest<int> worker([&](int item) {
            seen.push_back(item);
            if (item == 1) {
                begun.set_value();
                may_go_on.wait();
            }
            if (item == 4) done.set_value();
        });
        EXPECT_FALSE(worker.put(1));
        begun.get_future().wait();
        EXPECT_FALSE(worker.put(2));
        EXPECT_TRUE(worker.put(3));
        EXPECT_TRUE(worker.put(4));
        EXPECT_EQ(worker.num_dropped(), 2);
        go_on.set_value();
        done.get_future().wait();
    }
    EXPECT_EQ(seen, (std::vector<int>{1, 4}));
}

TEST(Newest, ends_after_the_call_in_progress_and_releases_what_waits) {
    std::promise<void> begun;
    std::vector<int> seen;
    auto first = std::make_shared<int>(1), waiting = std::make_shared<int>(2);
    {
        mvde_ros::Newest<std::shared_ptr<int>> worker([&](std::shared_ptr<int> item) {
            begun.set_value();
            std::this_thread::sleep_for(std::chrono::milliseconds(50));  // longer than the lines below take
            seen.push_back(*item);
        });
        worker.put(first);
        begun.get_future().wait();
        worker.put(waiting);
    }
    EXPECT_EQ(seen, (std::vector<int>{1}));
    EXPECT_EQ(waiting.use_count(), 1);
}

}  // namespace
