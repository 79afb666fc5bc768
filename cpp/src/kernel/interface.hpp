// Kernel arguments after validation: plain data, so that translation units built for different instruction sets share it
// without sharing inline functions.
#pragma once

#include "kernel/steady_job.hpp"

#include <cstdint>

namespace mvde::internal {

struct Plane {
    unsigned char *data = nullptr;  // nullptr: not wanted
    std::int32_t dtype = 0;
    std::int64_t batch_stride = 0, row_stride = 0, pixel_stride = 0;  // bytes
};

struct PostprocessJob {
    Plane raw, depth, mask, confidence;
    std::int64_t batch = 0, height = 0, width = 0;

    std::int32_t conversion = 0;
    bool clamps = false;
    float scale = 1.0F, shift = 0.0F;
    float log_min = 0.0F, log_span = 0.0F;  // of MVDE_LOG_SIGMOID
    // Valid depths as a range of bit patterns: positive floats sort like their bits, so one unsigned comparison tests
    // "finite, > 0 and within the bounds", also for NaN.
    float lower_m = 0.0F, upper_m = 0.0F;
    float invalid_m = 0.0F;
    float mask_threshold = 0.0F;
    bool mask_is_sky = false;  // else a mask of valid pixels
    bool marks_sky = false;    // in the depth map

    std::int32_t patch_size = 1;
    std::int32_t num_stats = 0;  // 0: not wanted
    std::int32_t stats[16] = {};  // MVDE_MAX_STATS
    float *stats_out = nullptr;
};

// Filter taps of each output of a resampled row: input indices and weights (`stride` weights per output).
struct Taps {
    const std::int32_t *first = nullptr, *count = nullptr;
    const std::int32_t *fixed = nullptr;  // weights of 8-bit images, times 2^22
    const double *exact = nullptr;        // weights of depth
    std::int64_t stride = 0, num_outputs = 0;
};

// Depth resampled along x, rows of `num_outputs` values. Rows in which a pixel has no depth also have, for each value, the
// weights of the taps with depth (1 if all have it) and of those at +inf; those of other rows are not written.
struct DepthRows {
    float *depth = nullptr, *weight = nullptr, *far_weight = nullptr;
    std::uint8_t *has_holes = nullptr;  // of each row
};

// Pixels of a row that become points: metres, and the ray (x/z, y/z) of each, NaN where there is none.
struct PointRow {
    const float *depth, *ray_x, *ray_y;  // ray_y: nullptr where it is `constant_y` for the whole row
    float constant_y;
    const float *colours;  // bits 0x00RRGGBB; nullptr: XYZ alone
    std::int64_t count;
    float *out;  // 3 floats a point, or 4 with colours
};

constexpr int kScanCellShift = 18;  // 2^5 cells an octave of range: mvde/runtime/scan_table.py

// Pixels of a row of a scan: depth, what gives their range and height, and the first cell of their sector.
struct ScanRow {
    const float *depth, *range_factor, *height_factor;
    const std::int32_t *sector_start;
    float height, low, high;  // of the camera, and bounds of obstacles, over the floor
    float farthest;           // range of obstacles
    std::int32_t first_cell, num_cells;
    std::int64_t count;
    std::int32_t *cells;  // written: index of each pixel's cell in the histogram
};

struct Kernel {
    const char *name;
    // Processes rows of patches [first, last), counted over the whole batch. Sets `*executed` to this implementation's
    // name.
    void (*run)(const PostprocessJob &job, std::int64_t first, std::int64_t last, const char **executed);
    // Resample one row of RGB pixels (or row `y` of `num_inputs` depths) along x; compute output `y` of `taps` over whole
    // rows of `width` bytes (or depths).
    void (*resample_row_rgb)(const std::uint8_t *row, const Taps &taps, std::uint8_t *out);
    void (*resample_row_depth)(const float *row, std::int64_t num_inputs, const Taps &taps, std::int64_t y,
                               const DepthRows &rows);
    void (*resample_column_bytes)(const std::uint8_t *rows, std::int64_t width, const Taps &taps, std::int64_t y,
                                  std::uint8_t *out);
    void (*resample_column_depth)(const DepthRows &rows, std::int64_t width, const Taps &taps, std::int64_t y,
                                  float invalid_m, float *out);
    void (*point_row)(const PointRow &row);
    void (*scan_row)(const ScanRow &row);
    const SteadyKernel *steady;
};

#if defined(MVDE_HAVE_AVX2)
extern const Kernel kAvx2Kernel;
#endif
#if defined(MVDE_HAVE_AVX512)
extern const Kernel kAvx512Kernel;
#endif
#if defined(MVDE_HAVE_NEON)
extern const Kernel kNeonKernel;
#endif
extern const Kernel kScalarKernel;

}  // namespace mvde::internal
