// mvde_postprocess and mvde_patch_stats: validate arguments, then hand rows of patches to the kernel in use.
#include "kernel/dispatch.hpp"
#include "error.hpp"
#include "float_environment.hpp"
#include "kernel/map.hpp"
#include "workers.hpp"

#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstring>

namespace mvde::internal {
namespace {

thread_local const char *last_kernel = "";

// Upper limit of valid depth: sums of squares of larger values would overflow.
constexpr float kLargestDepth = MVDE_LARGEST_DEPTH;

float limited(float max_depth_m) { return max_depth_m < kLargestDepth ? max_depth_m : kLargestDepth; }

int check_bounds(float min_depth_m, float max_depth_m) {
    if (min_depth_m >= 0.0F && min_depth_m < max_depth_m && min_depth_m < kLargestDepth) return MVDE_OK;  // not NaN
    return fail(MVDE_ERROR_ARGUMENT, "bounds are [%g, %g] m: expected 0 <= min_depth_m < max_depth_m, and below %g",
                static_cast<double>(min_depth_m), static_cast<double>(max_depth_m), static_cast<double>(kLargestDepth));
}

// The kernels compare bit patterns, so absent bounds become the smallest and the largest float.
void set_bounds(PostprocessJob &job, float min_depth_m, float max_depth_m) {
    job.lower_m = min_depth_m > FLT_TRUE_MIN ? min_depth_m : FLT_TRUE_MIN;
    job.upper_m = max_depth_m < FLT_MAX ? max_depth_m : FLT_MAX;
}

int set_options(const mvde_postprocess_options &options, PostprocessJob &job) {
    if (options.struct_size != sizeof options)
        return fail(MVDE_ERROR_ARGUMENT, "options.struct_size is %u: expected %u; start from mvde_postprocess_defaults()",
                    options.struct_size, static_cast<unsigned>(sizeof options));
    if (options.conversion < MVDE_LINEAR || options.conversion > MVDE_LOG_SIGMOID)
        return fail(MVDE_ERROR_ARGUMENT, "options.conversion is %d: expected a mvde_conversion", options.conversion);
    if (options.range != MVDE_REJECT && options.range != MVDE_CLAMP)
        return fail(MVDE_ERROR_ARGUMENT, "options.range is %d: expected a mvde_range", options.range);
    if (!std::isfinite(options.scale) || !std::isfinite(options.shift) || options.scale == 0.0F)
        return fail(MVDE_ERROR_ARGUMENT, "options.scale %g and shift %g: expected finite numbers, scale not 0",
                    static_cast<double>(options.scale), static_cast<double>(options.shift));
    if (options.mask && options.mask_role != MVDE_MASK_SKY && options.mask_role != MVDE_MASK_VALID)
        return fail(MVDE_ERROR_ARGUMENT, "options.mask_role is %d: expected a mvde_mask", options.mask_role);
    if (options.mask && !std::isfinite(options.mask_threshold))
        return fail(MVDE_ERROR_ARGUMENT, "options.mask_threshold is %g: expected a finite number",
                    static_cast<double>(options.mask_threshold));
    if (const int status = check_bounds(options.min_depth_m, options.max_depth_m)) return status;
    if (options.conversion == MVDE_LOG_SIGMOID) {
        if (!(options.min_depth_m > 0.0F) || !std::isfinite(options.max_depth_m))
            return fail(MVDE_ERROR_ARGUMENT, "MVDE_LOG_SIGMOID needs min_depth_m > 0 and a finite max_depth_m");
        const double log_min = std::log(static_cast<double>(options.min_depth_m));
        job.log_min = static_cast<float>(log_min);
        job.log_span = static_cast<float>(std::log(static_cast<double>(options.max_depth_m)) - log_min);
    }
    job.conversion = options.conversion;
    job.clamps = options.range == MVDE_CLAMP;
    job.scale = options.scale;
    job.shift = options.shift;
    job.invalid_m = options.invalid_m;
    job.mask_is_sky = options.mask_role == MVDE_MASK_SKY;
    job.mask_threshold = options.mask_threshold;
    set_bounds(job, options.min_depth_m, limited(options.max_depth_m));
    return MVDE_OK;
}

int set_raw(const mvde_map *raw, const char *name, PostprocessJob &job, Extent &extent) {
    if (!raw) return fail(MVDE_ERROR_ARGUMENT, "%s is NULL", name);
    if (const int status = check_map(*raw, name, false, job.raw, extent)) return status;
    job.batch = raw->batch;
    job.height = raw->height;
    job.width = raw->width;
    return MVDE_OK;
}

// A map beside `raw`, if given.
int set_companion(const mvde_map *map, const char *name, const PostprocessJob &job, Plane &plane, Extent &extent) {
    if (!map) return MVDE_OK;
    if (const int status = check_map(*map, name, false, plane, extent)) return status;
    if (map->batch == job.batch && map->height == job.height && map->width == job.width) return MVDE_OK;
    return fail(MVDE_ERROR_SHAPE, "%s is %lldx%lldx%lld (batch, height, width): expected the shape of raw, %lldx%lldx%lld",
                name, static_cast<long long>(map->batch), static_cast<long long>(map->height),
                static_cast<long long>(map->width), static_cast<long long>(job.batch), static_cast<long long>(job.height),
                static_cast<long long>(job.width));
}

int set_depth(const mvde_map &depth, PostprocessJob &job, Extent &extent) {
    if (const int status = check_map(depth, "depth", true, job.depth, extent)) return status;
    if (depth.dtype != MVDE_FLOAT32 && depth.dtype != MVDE_UINT16)
        return fail(MVDE_ERROR_ARGUMENT, "depth.dtype is %d: expected MVDE_FLOAT32 or MVDE_UINT16", depth.dtype);
    if (depth.batch != job.batch || depth.height != job.height || depth.width != job.width)
        return fail(MVDE_ERROR_SHAPE, "depth has another shape than raw");
    const std::int64_t row_bytes = depth.width * element_size(depth.dtype);
    if (job.depth.pixel_stride != element_size(depth.dtype) ||
        (depth.height > 1 && std::abs(job.depth.row_stride) < row_bytes))
        return fail(MVDE_ERROR_ARGUMENT, "depth: its pixels must be dense within a row, and its rows must not overlap");
    return MVDE_OK;
}

int set_request(const mvde_stats_request &request, PostprocessJob &job, Extent &extent) {
    if (request.struct_size != sizeof request)
        return fail(MVDE_ERROR_ARGUMENT, "request.struct_size is %u: expected %u; start from mvde_stats_request_defaults()",
                    request.struct_size, static_cast<unsigned>(sizeof request));
    std::int64_t num_floats;
    if (const int status = check_grid(job.batch, job.height, job.width, request.patch_size, request.num_stats, num_floats))
        return status;
    if (!request.stats || !request.out) return fail(MVDE_ERROR_ARGUMENT, "request.stats or request.out is NULL");
    const auto address = reinterpret_cast<std::uintptr_t>(request.out);
    if (address % alignof(float)) return fail(MVDE_ERROR_ALIGNMENT, "request.out is not aligned to 4 bytes");
    if (request.capacity < num_floats)
        return fail(MVDE_ERROR_CAPACITY, "request.out holds %lld floats: expected %lld",
                    static_cast<long long>(request.capacity), static_cast<long long>(num_floats));
    for (int i = 0; i < request.num_stats; ++i) {
        if (request.stats[i] < MVDE_MEAN || request.stats[i] > MVDE_CONF)
            return fail(MVDE_ERROR_ARGUMENT, "request.stats[%d] is %d: expected a mvde_stat", i, request.stats[i]);
        if (request.stats[i] == MVDE_CONF && !job.confidence.data)
            return fail(MVDE_ERROR_ARGUMENT,
                        "request.stats[%d] is MVDE_CONF: it needs a confidence map, as options.confidence of"
                        " mvde_postprocess",
                        i);
        job.stats[i] = request.stats[i];
    }
    job.patch_size = request.patch_size;
    job.num_stats = request.num_stats;
    job.stats_out = request.out;
    extent = {address, address + static_cast<std::uintptr_t>(num_floats) * sizeof(float)};
    return MVDE_OK;
}

struct Call {
    const PostprocessJob &job;
    const Kernel &kernel;
    std::atomic<const char *> executed{""};  // by the last thread; all run the same kernel
};

void run_chunk(void *data, std::int64_t first, std::int64_t last) {
    Call &call = *static_cast<Call *>(data);
    const char *executed = "";
    call.kernel.run(call.job, first, last, &executed);
    call.executed.store(executed, std::memory_order_relaxed);
}

int run(const PostprocessJob &job, mvde_workers *workers) {
    const Kernel *kernel = active_kernel();
    if (!kernel) return MVDE_ERROR_KERNEL;
    Call call{job, *kernel};
    const std::int64_t units = (job.height + job.patch_size - 1) / job.patch_size * job.batch;
    if (const int status = run_units(workers, run_chunk, &call, units, 1)) return status;
    last_kernel = call.executed.load(std::memory_order_relaxed);
    return MVDE_OK;
}

// Rounds a bound to the map's dtype, so that depth clamped to it in that dtype is within it.
float rounded_to(std::int32_t dtype, float bound) {
    if (dtype == MVDE_FLOAT32 || !std::isfinite(bound)) return bound;
    std::uint32_t bits;
    std::memcpy(&bits, &bound, sizeof bits);
    const int dropped = dtype == MVDE_BFLOAT16 ? 16 : 13;
    if (dtype == MVDE_FLOAT16 && bound < 0x1p-14F) {  // denormal halves are multiples of 2^-24
        return std::nearbyint(bound * 0x1p24F) * 0x1p-24F;
    }
    bits += (1U << (dropped - 1)) - 1U + (bits >> dropped & 1U);  // to nearest, ties to even
    bits &= ~0U << dropped;
    std::memcpy(&bound, &bits, sizeof bits);
    return dtype == MVDE_FLOAT16 && bound > 65504.0F ? 65504.0F : bound;
}

}  // namespace

}  // namespace mvde::internal

using namespace mvde::internal;

extern "C" {

const char *mvde_last_kernel(void) { return last_kernel; }

void mvde_postprocess_defaults(mvde_postprocess_options *options) {
    if (!options) return;
    *options = {};
    options->struct_size = sizeof *options;
    options->conversion = MVDE_LINEAR;
    options->scale = 1.0F;
    options->range = MVDE_REJECT;
    options->max_depth_m = INFINITY;
    options->invalid_m = NAN;
    options->mask_role = MVDE_MASK_SKY;
    options->mask_threshold = 0.5F;
}

void mvde_stats_request_defaults(mvde_stats_request *request) {
    if (!request) return;
    *request = {};
    request->struct_size = sizeof *request;
}

int64_t mvde_num_patch_stats(int64_t batch, int64_t height, int64_t width, int32_t patch_size, int32_t num_stats) {
    std::int64_t num_floats = 0;
    const int status = check_grid(batch, height, width, patch_size, num_stats, num_floats);
    return status ? status : num_floats;
}

int32_t mvde_postprocess(const mvde_map *raw, const mvde_postprocess_options *options, const mvde_map *depth,
                         const mvde_stats_request *request, mvde_workers *workers) {
    const FloatEnvironment environment;
    mvde_postprocess_options defaults;
    mvde_postprocess_defaults(&defaults);
    const mvde_postprocess_options &chosen = options ? *options : defaults;  // read after its size is checked
    PostprocessJob job;
    Extent raw_extent, mask_extent, confidence_extent, depth_extent, stats_extent;
    job.patch_size = 16;  // without a request: rows per work unit
    if (const int status = set_raw(raw, "raw", job, raw_extent)) return status;
    if (const int status = set_options(chosen, job)) return status;
    if (const int status = set_companion(chosen.mask, "options.mask", job, job.mask, mask_extent)) return status;
    if (const int status = set_companion(chosen.confidence, "options.confidence", job, job.confidence, confidence_extent))
        return status;
    if (!depth && !request) return fail(MVDE_ERROR_ARGUMENT, "depth and request are both NULL: nothing to compute");
    if (depth)
        if (const int status = set_depth(*depth, job, depth_extent)) return status;
    if (request)
        if (const int status = set_request(*request, job, stats_extent)) return status;
    job.marks_sky = job.mask.data && job.mask_is_sky && job.depth.dtype == MVDE_FLOAT32 && job.invalid_m != 0.0F;
    if (overlaps(raw_extent, depth_extent) || overlaps(raw_extent, stats_extent) || overlaps(depth_extent, stats_extent))
        return fail(MVDE_ERROR_OVERLAP, "raw, depth and request.out overlap: each needs memory of its own");
    for (const Extent written : {depth_extent, stats_extent})
        if (overlaps(mask_extent, written) || overlaps(confidence_extent, written))
            return fail(MVDE_ERROR_OVERLAP, "options.mask or options.confidence overlaps depth or request.out");
    return run(job, workers);
}

int32_t mvde_patch_stats(const mvde_map *depth, float min_depth_m, float max_depth_m, const mvde_stats_request *request,
                         mvde_workers *workers) {
    const FloatEnvironment environment;
    PostprocessJob job;
    Extent depth_extent, stats_extent;
    if (const int status = set_raw(depth, "depth", job, depth_extent)) return status;
    if (const int status = check_bounds(min_depth_m, max_depth_m)) return status;
    set_bounds(job, rounded_to(depth->dtype, min_depth_m), rounded_to(depth->dtype, limited(max_depth_m)));
    if (!request) return fail(MVDE_ERROR_ARGUMENT, "request is NULL");
    if (const int status = set_request(*request, job, stats_extent)) return status;
    if (overlaps(depth_extent, stats_extent))
        return fail(MVDE_ERROR_OVERLAP, "depth and request.out overlap: each needs memory of its own");
    return run(job, workers);
}

}  // extern "C"
