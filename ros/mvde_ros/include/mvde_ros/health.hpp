// What became of the frames, for diagnostics. Without ROS.
#ifndef MVDE_ROS_HEALTH_HPP
#define MVDE_ROS_HEALTH_HPP

#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace mvde_ros {

// Levels of diagnostic_msgs/DiagnosticStatus.
enum class Level : uint8_t { ok = 0, warn = 1, error = 2, stale = 3 };

struct Report {
    Level level = Level::stale;
    std::string message;
    std::vector<std::pair<std::string, std::string>> values;
};

// Limits that a result's age is compared with, in milliseconds; 0: none.
struct Limits {
    int64_t latency_ms = 0;  // from the image's arrival to its results
    int64_t age_ms = 0;      // from the image's stamp to its results: latency, and what driver and network took before
};

// Counts results, late ones, dropped images and failures. Thread-safe.
class Health {
public:
    explicit Health(Limits limits) : limits_(limits) {}

    void add_result(double latency_ms, double age_ms);
    void add_dropped();
    void add_failure(const std::string &message);
    // Something that is not as it should be and lasts, such as a missing camera_info; "" if nothing is.
    void set_note(const std::string &note);

    // What happened since the last report, which was `seconds` ago, and the sums since the start.
    //   error  the last image failed
    //   warn   a result was late or older than the limits, or there is a note
    //   stale  no image came
    Report report(double seconds);

private:
    struct Counts {
        int64_t num_results = 0, num_late = 0, num_old = 0, num_dropped = 0, num_failures = 0;
        double latency_sum_ms = 0, latency_max_ms = 0, age_sum_ms = 0, age_max_ms = 0;
    };

    const Limits limits_;
    std::mutex mutex_;
    Counts since_report_, in_all_;
    std::string failure_, note_;
};

}  // namespace mvde_ros

#endif
