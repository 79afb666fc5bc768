#include "session/columns.hpp"

#include "session/refused.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace mvde::internal {
namespace {

struct Column {
    const char *name;
    int power;  // of the map's unit
};
constexpr Column kColumns[] = {{"mean", 1},  {"var", 2},  {"grad", 1}, {"min", 1}, {"max", 1},
                               {"valid", 0}, {"conf", 0}, {"lo", 1},   {"hi", 1},  {"near", 1}};  // mvde_stat
constexpr std::int32_t kNumColumns = sizeof kColumns / sizeof *kColumns;

}  // namespace

const char *name_of(std::int32_t stat) { return kColumns[stat].name; }

std::int32_t stat_of(const std::string &name) {
    for (std::int32_t stat = 0; stat <= MVDE_CONF; ++stat)
        if (name == kColumns[stat].name) return stat;
    return -1;
}

std::vector<std::int32_t> chosen_columns(const mvde_session_options &options, const Manifest &manifest) {
    std::vector<std::int32_t> columns;
    if (options.num_stats == 0) {
        for (const std::string &name : manifest.stats) columns.push_back(stat_of(name));
        return columns;
    }
    if (options.num_stats < 0 || options.num_stats > MVDE_MAX_STATS || !options.stats)
        throw Refused(MVDE_ERROR_ARGUMENT, "options.num_stats is " + std::to_string(options.num_stats) +
                                               (options.stats ? "" : " and options.stats NULL") + ": expected 1 to " +
                                               std::to_string(MVDE_MAX_STATS) +
                                               " columns, or 0 for the manifest's statistics");
    columns.assign(options.stats, options.stats + options.num_stats);
    std::string names;
    for (const std::int32_t column : columns) {
        if (column < 0 || column >= kNumColumns)
            throw Refused(MVDE_ERROR_ARGUMENT, "options.stats has " + std::to_string(column) + ": expected a mvde_stat");
        const auto &outputs = manifest.outputs;
        if (column == MVDE_CONF && std::none_of(outputs.begin(), outputs.end(),
                                                [](const TensorSpec &output) { return output.role == "confidence"; }))
            throw Refused(MVDE_ERROR_ARGUMENT, "options.stats has MVDE_CONF, which needs a network's confidence, but " +
                                                   manifest.name + " has none");
        names += (names.empty() ? "" : ", ") + std::string(kColumns[column].name);
    }
    std::vector<std::int32_t> sorted = columns;
    std::sort(sorted.begin(), sorted.end());
    if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
        throw Refused(MVDE_ERROR_ARGUMENT, "options.stats names a column twice: " + names + "; give each once");
    return columns;
}

void scale_stats(float *stats, std::int64_t num_patches, const std::vector<std::int32_t> &columns, double factor) {
    std::array<float, MVDE_MAX_STATS> powers{};
    for (std::size_t i = 0; i < columns.size(); ++i)
        powers[i] = static_cast<float>(std::pow(factor, kColumns[columns[i]].power));
    for (std::int64_t patch = 0; patch < num_patches; ++patch)
        for (std::size_t i = 0; i < columns.size(); ++i) *stats++ *= powers[i];
}

}  // namespace mvde::internal
