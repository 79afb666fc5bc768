#include <mvde_ros/health.hpp>

#include <algorithm>
#include <cstdio>

namespace mvde_ros {
namespace {

std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f", value);
    return text;
}

}  // namespace

void Health::add_result(double latency_ms, double age_ms) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Counts *counts : {&since_report_, &in_all_}) {
        ++counts->num_results;
        counts->num_late += limits_.latency_ms > 0 && latency_ms > static_cast<double>(limits_.latency_ms);
        counts->num_old += limits_.age_ms > 0 && age_ms > static_cast<double>(limits_.age_ms);
        counts->latency_sum_ms += latency_ms;
        counts->latency_max_ms = std::max(counts->latency_max_ms, latency_ms);
        counts->age_sum_ms += age_ms;
        counts->age_max_ms = std::max(counts->age_max_ms, age_ms);
    }
    failure_.clear();
}

void Health::add_dropped() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++since_report_.num_dropped;
    ++in_all_.num_dropped;
}

void Health::add_failure(const std::string &message) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++since_report_.num_failures;
    ++in_all_.num_failures;
    failure_ = message;
}

void Health::set_note(const std::string &note) {
    const std::lock_guard<std::mutex> lock(mutex_);
    note_ = note;
}

Report Health::report(double seconds) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Counts counts = since_report_;
    since_report_ = Counts{};
    const double rate = seconds > 0 ? static_cast<double>(counts.num_results) / seconds : 0;
    const double divisor = static_cast<double>(std::max<int64_t>(1, counts.num_results));

    Report report;
    if (!failure_.empty()) {
        report.level = Level::error;
        report.message = failure_;
    } else if (counts.num_results + counts.num_dropped == 0) {
        report.level = Level::stale;
        report.message = note_.empty() ? "no image received" : note_;
    } else if (counts.num_late > 0 || counts.num_old > 0) {
        report.level = Level::warn;
        report.message = std::to_string(counts.num_late) + " results later than " + std::to_string(limits_.latency_ms) +
                         " ms after their image, " + std::to_string(counts.num_old) + " older than " +
                         std::to_string(limits_.age_ms) + " ms";
    } else if (!note_.empty()) {
        report.level = Level::warn;
        report.message = note_;
    } else {
        report.level = Level::ok;
        report.message = number(rate) + " results a second";
    }
    report.values = {{"results per second", number(rate)},
                     {"latency mean (ms)", number(counts.latency_sum_ms / divisor)},
                     {"latency max (ms)", number(counts.latency_max_ms)},
                     {"age mean (ms)", number(counts.age_sum_ms / divisor)},
                     {"age max (ms)", number(counts.age_max_ms)},
                     {"results", std::to_string(in_all_.num_results)},
                     {"late", std::to_string(in_all_.num_late)},
                     {"too old", std::to_string(in_all_.num_old)},
                     {"dropped", std::to_string(in_all_.num_dropped)},
                     {"failures", std::to_string(in_all_.num_failures)}};
    return report;
}

}  // namespace mvde_ros
