// The C API of engines with a deadline: handles and argument checks. No exception escapes.
#include "error.hpp"
#include "float_environment.hpp"
#include "forks.hpp"
#include "handles.hpp"
#include "session/classic_numbers.hpp"
#include "session/frame_camera.hpp"
#include "session/group.hpp"
#include "session/session_options.hpp"

#include <cinttypes>
#include <cmath>
#include <exception>
#include <memory>
#include <new>

namespace mvde::internal {
namespace {

using Deadlines = Handles<DeadlinePolicy, mvde_deadline, 1024>;
using Groups = Handles<Group, mvde_group, 256>;

// Never destroyed, as the sessions of session_api.cpp.
template <class All>
All &all() {
    static All &made = *new All;
    static const bool watches = (at_fork([] { made.drop_holds(); }), true);
    static_cast<void>(watches);
    return made;
}

template <class All>
std::int32_t refuse(typename All::Access access, const char *what, const char *made_by) {
    if (access == All::Access::busy) return fail(MVDE_ERROR_BUSY, "the %s is in use by another call", what);
    return fail(MVDE_ERROR_CLOSED, "the %s was closed, or did not come from %s", what, made_by);
}

std::int32_t refuse_policy(Deadlines::Access access) { return refuse<Deadlines>(access, "policy", "mvde_deadline_create"); }

std::int32_t refuse_group(Groups::Access access) { return refuse<Groups>(access, "group", "mvde_group_open"); }

std::int32_t check_time(const char *name, double value_ms) {
    if (value_ms >= 0.0 && std::isfinite(value_ms)) return MVDE_OK;
    return fail(MVDE_ERROR_ARGUMENT, "%s is %g: expected milliseconds, 0 or more", name, value_ms);
}

void count(const DeadlinePolicy &policy, mvde_deadline_counters &counters) {
    counters.level = policy.level();
    counters.is_unheld = policy.is_unheld();
    counters.num_frames = policy.num_frames();
    counters.num_late = policy.num_late();
    counters.num_unheld = policy.num_unheld();
    counters.num_switches = policy.num_switches();
}

std::int32_t check_counters(const mvde_deadline_counters *counters) {
    if (!counters) return fail(MVDE_ERROR_ARGUMENT, "counters is NULL");
    if (counters->struct_size != sizeof *counters)
        return fail(MVDE_ERROR_ARGUMENT, "counters.struct_size is %u: expected sizeof(mvde_deadline_counters)",
                    counters->struct_size);
    return MVDE_OK;
}

// Makes an object and its handle; `what` it is, for messages.
template <class All, class Handle, class Make>
std::int32_t add(Handle **handle, const char *what, Make make) {
    try {
        const ClassicNumbers classic;
        *handle = all<All>().add(make());
        return *handle ? MVDE_OK : fail(MVDE_ERROR_MEMORY, "too many are open, no room for another %s: close one", what);
    } catch (const Refused &error) {
        return fail(error.status, "%s", error.what());
    } catch (const std::bad_alloc &) {
        return fail(MVDE_ERROR_MEMORY, "no memory for a %s", what);
    } catch (const std::exception &error) {
        return fail(MVDE_ERROR_ARTIFACT, "cannot make a %s: %s", what, error.what());
    }
}

}  // namespace
}  // namespace mvde::internal

using namespace mvde::internal;

extern "C" {

int32_t mvde_deadline_create(const double *costs_ms, int32_t num_engines, double deadline_ms, mvde_deadline **policy) {
    if (!policy) return fail(MVDE_ERROR_ARGUMENT, "policy is NULL: expected the address of a handle");
    *policy = nullptr;
    if (!costs_ms) return fail(MVDE_ERROR_ARGUMENT, "costs_ms is NULL: expected what each engine takes alone");
    const FloatEnvironment environment;
    return add<Deadlines>(policy, "policy",
                          [&] { return std::make_unique<DeadlinePolicy>(costs_ms, num_engines, deadline_ms); });
}

void mvde_deadline_destroy(mvde_deadline *policy) {
    if (policy) all<Deadlines>().close(policy);
}

int32_t mvde_deadline_choose(mvde_deadline *policy, double age_ms, int32_t *index) {
    if (!policy || !index) return fail(MVDE_ERROR_ARGUMENT, "policy or index is NULL");
    if (const int32_t status = check_time("age_ms", age_ms)) return status;
    const Deadlines::Hold open = all<Deadlines>().change(policy);
    if (open.access() != Deadlines::Access::granted) return refuse_policy(open.access());
    const FloatEnvironment environment;
    *index = open->choose(age_ms);
    return MVDE_OK;
}

int32_t mvde_deadline_observe(mvde_deadline *policy, int32_t index, double network_ms, double latency_ms, double age_ms) {
    if (!policy) return fail(MVDE_ERROR_ARGUMENT, "policy is NULL: make one with mvde_deadline_create");
    if (const int32_t status = check_time("network_ms", network_ms)) return status;
    if (const int32_t status = check_time("latency_ms", latency_ms)) return status;
    if (const int32_t status = check_time("age_ms", age_ms)) return status;
    const Deadlines::Hold open = all<Deadlines>().change(policy);
    if (open.access() != Deadlines::Access::granted) return refuse_policy(open.access());
    if (index < 0 || index >= open->num_engines())
        return fail(MVDE_ERROR_ARGUMENT, "index is %d: there are %" PRId64 " engines", index, open->num_engines());
    const FloatEnvironment environment;
    open->observe(index, network_ms, latency_ms, age_ms);
    return MVDE_OK;
}

int32_t mvde_deadline_count(const mvde_deadline *policy, mvde_deadline_counters *counters) {
    if (const int32_t status = check_counters(counters)) return status;
    const Deadlines::Hold open = all<Deadlines>().read(policy);
    if (open.access() != Deadlines::Access::granted) return refuse_policy(open.access());
    count(*open, *counters);
    return MVDE_OK;
}

int32_t mvde_group_open(const char *const *engine_paths, int32_t num_engines, const mvde_session_options *options,
                        double deadline_ms, int64_t grid_rows, int64_t grid_columns, mvde_group **group) {
    if (!group) return fail(MVDE_ERROR_ARGUMENT, "group is NULL: expected the address of a handle");
    *group = nullptr;
    if (!engine_paths || num_engines < 1)
        return fail(MVDE_ERROR_ARGUMENT, "engine_paths is NULL, or num_engines, %d, below 1", num_engines);
    for (int32_t i = 0; i < num_engines; ++i)
        if (!engine_paths[i] || !*engine_paths[i]) return fail(MVDE_ERROR_ARGUMENT, "engine_paths[%d] is NULL or empty", i);
    if (grid_rows < 0 || grid_columns < 0 || !grid_rows != !grid_columns)
        return fail(MVDE_ERROR_ARGUMENT, "the grid is %" PRId64 "x%" PRId64 ": give rows and columns, or 0 for both",
                    grid_rows, grid_columns);
    const FloatEnvironment environment;
    mvde_session_options chosen;
    mvde_session_defaults(&chosen);
    if (options) chosen = *options;
    if (const int32_t status = check_options(chosen)) return status;
    return add<Groups>(group, "group", [&] {
        if (chosen.camera) check_camera(*chosen.camera);
        return std::make_unique<Group>(engine_paths, num_engines, chosen, deadline_ms, PatchGrid{grid_rows, grid_columns});
    });
}

void mvde_group_close(mvde_group *group) {
    if (group) all<Groups>().close(group);
}

int32_t mvde_group_infer(mvde_group *group, const mvde_frame *frame, double age_ms, mvde_outputs *outputs, int32_t *index) {
    if (!group || !frame || !outputs) return fail(MVDE_ERROR_ARGUMENT, "group, frame or outputs is NULL");
    if (const int32_t status = check_time("age_ms", age_ms)) return status;
    const Groups::Hold open = all<Groups>().change(group);
    if (open.access() != Groups::Access::granted) return refuse_group(open.access());
    const FloatEnvironment environment;
    if (open->session(0).is_inherited())
        return fail(MVDE_ERROR_FORKED, "the group was opened before this process was forked: open groups in children only");
    int32_t used = 0;
    const int32_t status = open->infer(*frame, age_ms, *outputs, used);
    if (index) *index = used;
    return status;
}

int32_t mvde_group_reset(mvde_group *group) {
    if (!group) return fail(MVDE_ERROR_ARGUMENT, "group is NULL: open one with mvde_group_open");
    const Groups::Hold open = all<Groups>().change(group);
    if (open.access() != Groups::Access::granted) return refuse_group(open.access());
    return open->reset();
}

int32_t mvde_group_query(const mvde_group *group, int32_t index, mvde_session_info *info, mvde_group_engine *engine) {
    if (!group) return fail(MVDE_ERROR_ARGUMENT, "group is NULL: open one with mvde_group_open");
    if (info && info->struct_size != sizeof *info)
        return fail(MVDE_ERROR_ARGUMENT, "info.struct_size is %u: expected sizeof(mvde_session_info)", info->struct_size);
    if (engine && engine->struct_size != sizeof *engine)
        return fail(MVDE_ERROR_ARGUMENT, "engine.struct_size is %u: expected sizeof(mvde_group_engine)",
                    engine->struct_size);
    const Groups::Hold open = all<Groups>().read(group);
    if (open.access() != Groups::Access::granted) return refuse_group(open.access());
    if (index < 0 || index >= open->num_engines())
        return fail(MVDE_ERROR_ARGUMENT, "index is %d: there are %" PRId64 " engines", index, open->num_engines());
    const FloatEnvironment environment;
    if (info) open->session(index).describe(*info);
    if (!engine) return MVDE_OK;
    engine->cost_ms = open->policy().cost_ms(index);
    engine->memory_bytes = open->memory_bytes(index);
    engine->num_frames = open->num_frames(index);
    return MVDE_OK;
}

int32_t mvde_group_count(const mvde_group *group, mvde_deadline_counters *counters) {
    if (const int32_t status = check_counters(counters)) return status;
    const Groups::Hold open = all<Groups>().read(group);
    if (open.access() != Groups::Access::granted) return refuse_group(open.access());
    count(open->policy(), *counters);
    return MVDE_OK;
}

}  // extern "C"
