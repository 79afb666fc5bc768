// Converts a camera frame (RGB, BGR, grey, NV12 or YUYV, any row pitch) to the model's uint8 RGB input: the selected part
// of the frame, resized into a box of the target and surrounded by a constant colour.
//
// Weights come from tables (mvde/resampling.py). The fixed-point arithmetic is that of Pillow's Image.resize: first along
// rows with rounding to 8 bits, then along columns. With its BILINEAR or BICUBIC tables bit-identical to Pillow at any
// scale, except where Pillow 13 reverses the order (height shrinks much more than width); values then differ by at most one.
// Firsts and ends of taps must not decrease from one target pixel to the next. A block
// computes 32 x 16 target pixels; the source rows it needs pass through shared memory in bands, already resized along x, so
// that shared memory does not grow with the scale.
#include "device_common.cuh"
#include "preprocess_params.h"

namespace mvde_cuda {

struct Pixel {
    int red, green, blue;
};

__device__ __forceinline__ int clip8(int value) { return value < 0 ? 0 : (value > 255 ? 255 : value); }

__device__ __forceinline__ Pixel rgb_from_yuv(const YuvMatrix &m, int y, int u, int v) {
    const int luma = m.luma_gain * (y < m.luma_offset ? 0 : y - m.luma_offset) + (1 << (kYuvBits - 1));
    u -= 128;
    v -= 128;
    return {clip8((luma + m.red_of_v * v) >> kYuvBits), clip8((luma + m.green_of_u * u + m.green_of_v * v) >> kYuvBits),
            clip8((luma + m.blue_of_u * u) >> kYuvBits)};
}

__device__ __forceinline__ Pixel source_pixel(const PreprocessParams &p, int y, int x) {
    const unsigned char *row = p.source + y * p.source_pitch;
    if (p.pixel_format == kNv12) {
        const unsigned char *pair = p.chroma + (y / 2) * p.chroma_pitch + (x / 2) * 2;
        return rgb_from_yuv(p.yuv, row[x], pair[0], pair[1]);
    }
    if (p.pixel_format == kYuyv) {
        const unsigned char *pair = row + (x / 2) * 4ll;
        return rgb_from_yuv(p.yuv, row[2ll * x], pair[1], pair[3]);
    }
    if (p.pixel_format == kGrey) return {row[x], row[x], row[x]};
    const unsigned char *bytes = row + 3ll * x;
    return p.pixel_format == kBgr ? Pixel{bytes[2], bytes[1], bytes[0]} : Pixel{bytes[0], bytes[1], bytes[2]};
}

__device__ __forceinline__ int rounded_weight_sum(int sum) { return clip8((sum + (1 << (kWeightBits - 1))) >> kWeightBits); }

// Pixel at `column` of the box, in source row `y`, resized along x: three bytes in one word.
__device__ __forceinline__ unsigned resized_along_x(const PreprocessParams &p, int y, int column) {
    const int *weights = p.columns.weights + static_cast<long long>(column) * p.columns.most;
    const int first = p.source_left + p.columns.firsts[column], count = p.columns.counts[column];
    int red = 0, green = 0, blue = 0;
    for (int k = 0; k < count; ++k) {
        const Pixel pixel = source_pixel(p, p.source_top + y, first + k);
        red += weights[k] * pixel.red;
        green += weights[k] * pixel.green;
        blue += weights[k] * pixel.blue;
    }
    return static_cast<unsigned>(rounded_weight_sum(red)) | static_cast<unsigned>(rounded_weight_sum(green)) << 8 |
           static_cast<unsigned>(rounded_weight_sum(blue)) << 16;
}

struct Interval {
    int first, end;
};

__device__ __forceinline__ Interval overlap(int first, int end, int other_first, int other_end) {
    return {first > other_first ? first : other_first, end < other_end ? end : other_end};
}

__device__ __forceinline__ void store_pixel(const PreprocessParams &p, int y, int x, int red, int green, int blue) {
    unsigned char *target = p.target + y * p.target_pitch + 3ll * x;
    target[0] = static_cast<unsigned char>(red);
    target[1] = static_cast<unsigned char>(green);
    target[2] = static_cast<unsigned char>(blue);
}

__device__ __forceinline__ void resize_tile(const PreprocessParams &p) {
    constexpr int kRowsPerThread = kTileRows * kTileColumns / kPreprocessThreads;
    constexpr int kRowStep = kPreprocessThreads / kTileColumns;
    const int x = blockIdx.x * kTileColumns + threadIdx.x % kTileColumns;
    const int top = blockIdx.y * kTileRows, first_y = top + threadIdx.x / kTileColumns;
    const int column = x - p.box_left;
    const bool in_columns = column >= 0 && column < p.box_width;
    SharedPointer<unsigned> staged = dynamic_shared<unsigned>(0);

    // Box rows of this tile, and the source rows that they need; both increase with the row.
    const Interval rows = overlap(top - p.box_top, top + kTileRows - p.box_top, 0, p.box_height);
    const bool has_rows = rows.first < rows.end;
    const int first_source = has_rows ? p.rows.firsts[rows.first] : 0;
    const int end_source = has_rows ? p.rows.firsts[rows.end - 1] + p.rows.counts[rows.end - 1] : 0;

    int red[kRowsPerThread] = {}, green[kRowsPerThread] = {}, blue[kRowsPerThread] = {};
#pragma unroll 1
    for (int band = first_source; band < end_source; band += kBandRows) {
        if (in_columns) {
#pragma unroll 1
            for (int item = threadIdx.x; item < kBandRows * kTileColumns; item += kPreprocessThreads) {
                const int y = band + item / kTileColumns;
                if (y < end_source) staged[item] = resized_along_x(p, y, column);
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kRowsPerThread; ++i) {
            const int row = first_y + i * kRowStep - p.box_top;
            if (!in_columns || row < 0 || row >= p.box_height) continue;
            const int first = p.rows.firsts[row];
            const int *weights = p.rows.weights + static_cast<long long>(row) * p.rows.most;
            const Interval ys = overlap(first, first + p.rows.counts[row], band, band + kBandRows);
            for (int y = ys.first; y < ys.end; ++y) {
                const unsigned word = staged[(y - band) * kTileColumns + static_cast<int>(threadIdx.x % kTileColumns)];
                const int weight = weights[y - first];
                red[i] += weight * static_cast<int>(word & 255u);
                green[i] += weight * static_cast<int>(word >> 8 & 255u);
                blue[i] += weight * static_cast<int>(word >> 16);
            }
        }
        __syncthreads();  // before the next band overwrites what is read here
    }

#pragma unroll
    for (int i = 0; i < kRowsPerThread; ++i) {
        const int y = first_y + i * kRowStep, row = y - p.box_top;
        if (x >= p.width || y >= p.height) continue;
        if (in_columns && row >= 0 && row < p.box_height) {
            store_pixel(p, y, x, rounded_weight_sum(red[i]), rounded_weight_sum(green[i]), rounded_weight_sum(blue[i]));
        } else {
            store_pixel(p, y, x, p.fill[0], p.fill[1], p.fill[2]);
        }
    }
}

}  // namespace mvde_cuda

extern "C" __global__ void __launch_bounds__(256) mvde_preprocess(const mvde_cuda::PreprocessParams params) {
    mvde_cuda::resize_tile(params);
}
