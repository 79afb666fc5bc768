#include "scan/settings.hpp"

#include "session/json.hpp"
#include "session/refused.hpp"
#include "session/sealed_file.hpp"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <limits>
#include <optional>
#include <string_view>
#include <system_error>
#include <vector>

namespace mvde::internal {
namespace {

constexpr std::size_t kMaxBytes = 1 << 16;
constexpr double kMinHeightShare = 0.2, kMinHeightM = 0.05;  // their reason: mvde/runtime/scan_settings.py

struct Setting {
    const char *name;
    double mvde_scan_settings::*value;
    double low, high;
};

const Setting kSettings[] = {
    {"height_m", &mvde_scan_settings::height_m, 0.01, 100.0},
    {"pitch_deg", &mvde_scan_settings::pitch_deg, -80.0, 80.0},
    {"roll_deg", &mvde_scan_settings::roll_deg, -180.0, 180.0},
    {"min_height_m", &mvde_scan_settings::min_height_m, -100.0, 100.0},
    {"max_height_m", &mvde_scan_settings::max_height_m, -100.0, 100.0},
    {"range_min_m", &mvde_scan_settings::range_min_m, 0.01, 1000.0},
    {"range_max_m", &mvde_scan_settings::range_max_m, 0.01, 1000.0},
    {"increment_deg", &mvde_scan_settings::increment_deg, 0.1, 10.0},
    {"support_deg2", &mvde_scan_settings::support_deg2, 0.001, 100.0},
    {"margin", &mvde_scan_settings::margin, 0.0, 1.0},
};

[[noreturn]] void refuse(const std::string &message) { throw Refused(MVDE_ERROR_ARGUMENT, message); }

std::string text_of(double value) {
    if (std::isnan(value)) return "nan";
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

void check_order(const char *low_name, double low, const char *high_name, double high) {
    if (!(low < high))
        refuse(std::string(low_name) + " of a scan is " + text_of(low) + " and " + high_name + " " + text_of(high) +
               ": expected the first below the second");
}

bool is_blank(char c) { return c == ' ' || c == '\t'; }

std::string_view without_blanks(std::string_view text) {
    while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
    return text;
}

// A line without its comment, which begins at the line's start or after a blank.
std::string_view bare_line(std::string_view line) {
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    for (std::size_t i = 0; i < line.size(); ++i)
        if (line[i] == '#' && (i == 0 || is_blank(line[i - 1]))) return without_blanks(line.substr(0, i));
    return without_blanks(line);
}

// A finite decimal number, such as -1.5e3.
std::optional<double> number_of(std::string_view text) {
    if (!text.empty() && text[0] == '+') {
        text.remove_prefix(1);
        if (!text.empty() && text[0] == '-') return std::nullopt;
    }
    if (text.find_first_not_of("0123456789+-.eE") != std::string_view::npos) return std::nullopt;  // not inf, nan, hex
    double value;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (end != text.data() + text.size()) return std::nullopt;
    if (error == std::errc()) return value;
    // Out of range: too large, or so small that it is 0.
    const auto exponent = text.find_first_of("eE");
    const bool is_small = exponent != std::string_view::npos && text[exponent + 1] == '-';
    return error == std::errc::result_out_of_range && is_small ? std::optional<double>(0.0) : std::nullopt;
}

bool is_name(std::string_view text) {
    return !text.empty() && text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_0123456789") == std::string_view::npos;
}

// The name and the number of a line NAME: NUMBER.
std::optional<std::pair<std::string_view, double>> setting_of(std::string_view line) {
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    const std::string_view name = without_blanks(line.substr(0, colon));
    std::string_view rest = line.substr(colon + 1);
    if (rest.empty() || !is_blank(rest[0])) return std::nullopt;
    while (!rest.empty() && is_blank(rest[0])) rest.remove_prefix(1);
    const auto value = number_of(rest);
    return is_name(name) && value ? std::optional(std::pair(name, *value)) : std::nullopt;
}

// The first `count` characters of text in UTF-8.
std::string beginning(std::string_view text, std::size_t count) {
    std::size_t end = 0;
    while (end < text.size() && (count || (text[end] & 0xC0) == 0x80)) {
        count -= (text[end] & 0xC0) != 0x80;
        ++end;
    }
    return std::string(text.substr(0, end));
}

bool is_utf8(std::string_view text) {
    for (std::size_t i = 0; i < text.size();) {
        const auto lead = static_cast<unsigned char>(text[i]);
        const std::size_t length = lead < 0x80   ? 1
                                   : lead < 0xC2 ? 0
                                   : lead < 0xE0 ? 2
                                   : lead < 0xF0 ? 3
                                   : lead < 0xF5 ? 4
                                                 : 0;
        if (!length || i + length > text.size()) return false;
        for (std::size_t k = 1; k < length; ++k)
            if ((text[i + k] & 0xC0) != 0x80) return false;
        const auto second = length > 2 ? static_cast<unsigned char>(text[i + 1]) : 0;
        const bool is_overlong = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
        const bool is_outside = (lead == 0xED && second > 0x9F) || (lead == 0xF4 && second > 0x8F);
        if (is_overlong || is_outside) return false;
        i += length;
    }
    return true;
}

std::string content_of(const char *path) {
    try {
        const std::string content = read_small(path, kMaxBytes + 1);
        if (content.size() <= kMaxBytes) return content;
    } catch (const std::system_error &error) {
        refuse("cannot be read: " + error.code().message());
    } catch (const std::runtime_error &error) {
        if (std::string_view(error.what()).find("more than") == std::string_view::npos)
            refuse("is not a file; expected the settings of a scan, such as height_m: 0.6");
    }
    refuse("is larger than 65536 bytes, too large for the settings of a scan");
}

const Setting *find_setting(std::string_view name) {
    for (const Setting &setting : kSettings)
        if (name == setting.name) return &setting;
    return nullptr;
}

std::string all_names() {
    std::string names;
    for (const Setting &setting : kSettings) names += (names.empty() ? "" : ", ") + std::string(setting.name);
    return names;
}

void read_line(std::string_view line, int number, mvde_scan_settings &settings, bool (&is_set)[std::size(kSettings)]) {
    const std::string where = "line " + std::to_string(number);
    const auto found = setting_of(line);
    if (!found) refuse(where + " is " + repr(beginning(line, 40)) + ", but expected NAME: NUMBER, such as height_m: 0.6");
    const std::string name(found->first);
    const Setting *const setting = find_setting(name);
    if (!setting) refuse(where + " sets " + beginning(name, 40) + ", which a scan does not have; it has " + all_names());
    bool &is_already = is_set[setting - kSettings];
    if (is_already) refuse(where + " sets " + name + " again");
    is_already = true;
    settings.*setting->value = found->second;
}

}  // namespace

void check_settings(const mvde_scan_settings &settings) {
    for (const Setting &setting : kSettings) {
        const double value = settings.*setting.value;
        if (setting.value == &mvde_scan_settings::min_height_m && std::isnan(value)) continue;
        if (!(setting.low <= value && value <= setting.high))
            refuse(std::string(setting.name) + " of a scan lies between " + text_of(setting.low) + " and " +
                   text_of(setting.high) + ", but got " + text_of(value));
    }
    check_order("min_height_m", lowest_m(settings), "max_height_m", settings.max_height_m);
    check_order("range_min_m", settings.range_min_m, "range_max_m", settings.range_max_m);
}

double lowest_m(const mvde_scan_settings &settings) {
    return std::isnan(settings.min_height_m) ? kMinHeightShare * settings.height_m + kMinHeightM : settings.min_height_m;
}

mvde_scan_settings read_settings(const char *path) {
    const std::string content = content_of(path);
    if (!is_utf8(content)) refuse("is not text in UTF-8");
    mvde_scan_settings settings;
    mvde_scan_defaults(&settings);
    bool is_set[std::size(kSettings)] = {};
    std::string_view rest = content;
    for (int number = 1;; ++number) {
        const std::size_t end = rest.find('\n');
        const std::string_view line = bare_line(rest.substr(0, end));
        if (!line.empty() && line != "---" && line != "...") read_line(line, number, settings, is_set);
        if (end == std::string_view::npos) break;
        rest.remove_prefix(end + 1);
    }
    if (!is_set[0]) refuse("lacks height_m, the height of the camera over the floor in metres");
    return settings;
}

}  // namespace mvde::internal
