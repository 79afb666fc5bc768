#include "session/group.hpp"

#include "error.hpp"
#include "session/refused.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <string>
#include <utility>

namespace mvde::internal {
namespace {

// As in mvde/runtime/on_time.py: at least two rounds, of which the first does not count, and up to five within two seconds.
constexpr int kCostRounds = 5;
constexpr double kCostS = 2.0;

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point begun) { return std::chrono::duration<double, std::milli>(Clock::now() - begun).count(); }

// Resident memory of this process; 0 where the system does not say.
std::int64_t resident_bytes() {
    std::FILE *file = std::fopen("/proc/self/statm", "r");
    if (!file) return 0;
    std::int64_t pages = 0;
    const int found = std::fscanf(file, "%*s %" SCNd64, &pages);
    std::fclose(file);
    return found == 1 ? pages * sysconf(_SC_PAGESIZE) : 0;
}

void require(std::int32_t status) {
    if (status) throw Refused(static_cast<mvde_status>(status), mvde_last_error());
}

std::vector<Artifact> load_sorted(const char *const *paths, std::int64_t num_engines) {
    std::vector<Artifact> found;
    for (std::int64_t i = 0; i < num_engines; ++i) found.push_back(load_artifact(paths[i]));
    std::stable_sort(found.begin(), found.end(), [](const Artifact &one, const Artifact &two) {
        return std::pair(one.manifest.height(), one.manifest.width()) <
               std::pair(two.manifest.height(), two.manifest.width());
    });
    return found;
}

// The engine's file in the folder that `mvde calibrate` writes to.
std::string calibration_of(const Artifact &artifact, const std::string &folder) {
    const EngineManifest &manifest = artifact.manifest;
    const std::string size = std::to_string(manifest.height()) + "x" + std::to_string(manifest.width());
    const std::string path = folder + "/" + manifest.name + "-" + size + ".calibration.json";
    if (access(path.c_str(), F_OK) == 0) return path;
    throw Refused(MVDE_ERROR_MANIFEST, manifest.name + " " + size + " " + manifest.engine.id +
                                           " has no calibration: there is no " + path +
                                           "; each engine with a deadline needs its own, run `mvde calibrate scale` with it "
                                           "and -o " +
                                           folder);
}

}  // namespace

Group::Group(const char *const *paths, std::int64_t num_engines, const mvde_session_options &options, double deadline_ms,
             PatchGrid grid) {
    check_deadline(deadline_ms);
    if (!options.frame_height)
        throw Refused(MVDE_ERROR_ARGUMENT,
                      "options.frame_height and frame_width are 0, the model's input size, which differs from engine to "
                      "engine; give the size of the frames");
    std::vector<Artifact> artifacts = load_sorted(paths, num_engines);
    std::vector<const EngineManifest *> manifests;
    for (const Artifact &artifact : artifacts) manifests.push_back(&artifact.manifest);
    check_one_model(manifests);
    const PatchGrid shared = common_grid(manifests, grid);
    for (Artifact &artifact : artifacts) {
        artifact.manifest.stats_patch = artifact.manifest.height() / shared.rows;
        artifact.manifest.grid_rows = shared.rows;
        artifact.manifest.grid_columns = shared.columns;
        const std::string calibration = options.calibration_path ? calibration_of(artifact, options.calibration_path) : "";
        mvde_session_options own = options;
        if (options.calibration_path) own.calibration_path = calibration.c_str();
        const std::int64_t before = resident_bytes();
        auto session = std::make_unique<Session>(std::move(artifact), own);
        if (!members_.empty()) session->go_on_with(*members_[0].session);
        double unused = 0.0;  // libraries allocate most of an engine's memory with its first frame
        require(session->run_blank(unused));
        members_.push_back({std::move(session), std::max<std::int64_t>(resident_bytes() - before, 0), 0});
    }
    const std::vector<double> costs = costs_ms();
    policy_.emplace(costs.data(), this->num_engines(), deadline_ms);
}

// Shortest time of each network, measured in turns: other work makes single ones longer.
std::vector<double> Group::costs_ms() {
    std::vector<double> costs(members_.size(), 0.0);
    const Clock::time_point begun = Clock::now();
    for (int round = 0; round <= kCostRounds; ++round) {
        if (round > 2 && ms_since(begun) > kCostS * 1e3) break;
        for (std::size_t i = 0; i < members_.size(); ++i) {
            double spent_ms = 0.0;
            require(members_[i].session->run_blank(spent_ms));
            if (round == 1 || (round > 1 && spent_ms < costs[i])) costs[i] = spent_ms;
        }
    }
    for (double &cost : costs) cost = std::max(cost, 1e-6);  // the clock's resolution
    return costs;
}

std::int32_t Group::mount(const mvde_mounting *mounting) {
    for (Member &member : members_)
        if (const std::int32_t status = member.session->mount(mounting)) return status;
    return MVDE_OK;
}

// All of them share what is to be forgotten.
std::int32_t Group::reset() { return members_.back().session->reset(); }

std::int32_t Group::infer(const mvde_frame &frame, double age_ms, mvde_outputs &outputs, std::int32_t &index) {
    index = policy_->choose(age_ms);
    Member &member = members_[static_cast<std::size_t>(index)];
    const Clock::time_point begun = Clock::now();
    if (const std::int32_t status = member.session->infer(frame, outputs)) return status;
    ++member.num_frames;
    policy_->observe(index, member.session->network_ms(), ms_since(begun) + age_ms, age_ms);
    // The other columns are the same at any resolution; `grad` is per pixel of the smallest.
    if (index > 0 && outputs.stats)
        member.session->scale_grad(outputs.stats, static_cast<float>(static_cast<double>(member.session->patch_size()) /
                                                                     static_cast<double>(session(0).patch_size())));
    return MVDE_OK;
}

}  // namespace mvde::internal
