#include "gpu_frame.hpp"

#include "image/yuv.hpp"

#include <limits>

namespace mvde::internal::gpu {
namespace {

static_assert(kYuvBits == mvde_cuda::kYuvBits);

mvde_cuda::YuvMatrix matrix_of(const mvde_frame &frame) {
    const YuvToRgb yuv = yuv_to_rgb(frame.matrix, frame.full_range != 0);
    return {yuv.luma_offset, yuv.luma_gain, yuv.red_of_v, yuv.green_of_u, yuv.green_of_v, yuv.blue_of_u};
}

std::vector<std::int32_t> packed(const Taps &taps) {
    std::vector<std::int32_t> all(taps.first, taps.first + taps.num_outputs);
    all.insert(all.end(), taps.count, taps.count + taps.num_outputs);
    all.insert(all.end(), taps.fixed, taps.fixed + taps.num_outputs * taps.stride);
    return all;
}

std::size_t packed_size(const Taps &taps) { return static_cast<std::size_t>(taps.num_outputs * (2 + taps.stride)); }

void upload(const std::vector<std::int32_t> &table, std::int32_t *device) {
    const std::size_t size = table.size() * sizeof(std::int32_t);
    check(cudaMemcpy(device, table.data(), size, cudaMemcpyHostToDevice), "upload a table");
}

mvde_cuda::Taps unpacked(const std::int32_t *device, std::int64_t num_outputs, std::int64_t most) {
    return {device, device + num_outputs, device + 2 * num_outputs, static_cast<int>(most)};
}

void clear(float *first, std::int64_t pitch, std::int64_t height, std::int64_t width, cudaStream_t stream) {
    if (height <= 0 || width <= 0) return;
    constexpr std::size_t kFloat = sizeof(float);
    const std::size_t pitch_bytes = static_cast<std::size_t>(pitch) * kFloat,
                      row_bytes = static_cast<std::size_t>(width) * kFloat;
    const cudaError_t queued = cudaMemset2DAsync(first, pitch_bytes, 0, row_bytes, static_cast<std::size_t>(height), stream);
    check(queued, "clear the bars");
}

}  // namespace

Resize::Resize(const mvde_backend_request &request)
    : source_(request.source), target_(request.target), padding_(request.padding), height_(request.height),
      width_(request.width), most_columns_(request.columns.stride), most_rows_(request.rows.stride),
      columns_(packed_size(request.columns)), rows_(packed_size(request.rows)) {
    upload(packed(request.columns), columns_.get());
    upload(packed(request.rows), rows_.get());
}

mvde_cuda::PreprocessParams Resize::params(const mvde_frame &frame, std::uint8_t *target) const {
    const auto pixels = [](std::int64_t size) { return static_cast<int>(size); };  // at most 65536
    const std::int64_t box_height = target_.bottom - target_.top, box_width = target_.right - target_.left;
    mvde_cuda::PreprocessParams params{};
    params.source = frame.data;
    params.chroma = frame.chroma;
    params.target = target;
    params.source_pitch = frame.row_stride;
    params.chroma_pitch = frame.chroma_row_stride;
    params.target_pitch = 3 * width_;
    params.columns = unpacked(columns_.get(), box_width, most_columns_);
    params.rows = unpacked(rows_.get(), box_height, most_rows_);
    params.source_top = pixels(source_.top);
    params.source_left = pixels(source_.left);
    params.height = pixels(height_);
    params.width = pixels(width_);
    params.box_top = pixels(target_.top);
    params.box_left = pixels(target_.left);
    params.box_height = pixels(box_height);
    params.box_width = pixels(box_width);
    params.pixel_format = frame.format;
    params.yuv = matrix_of(frame);
    for (unsigned char &channel : params.fill) channel = padding_;
    return params;
}

mvde_cuda::PostprocessParams statistics_params(const mvde_backend_request &request, const float *raw, float *depth,
                                               float *stats, float scale) {
    mvde_cuda::PostprocessParams params{};
    params.raw = raw;
    params.depth = depth;
    params.stats = stats;
    params.raw_row_stride = params.depth_row_stride = request.width;
    params.raw_batch_stride = params.depth_batch_stride = request.height * request.width;
    params.batch = 1;
    params.height = static_cast<int>(request.height);
    params.width = static_cast<int>(request.width);
    params.patch = request.patch_size;
    params.depth_output = depth ? mvde_cuda::kDepthMetres : mvde_cuda::kNoDepth;
    params.conversion = mvde_cuda::kLinear;
    params.range = mvde_cuda::kReject;
    params.scale = scale;
    params.max_depth_m = std::numeric_limits<float>::infinity();
    params.num_columns = stats ? request.num_stats : 0;
    for (std::int32_t column = 0; stats && column < request.num_stats; ++column)
        params.columns |= static_cast<unsigned>(request.stats[column]) << (4 * column);
    return params;
}

void clear_bars(float *depth, std::int64_t height, std::int64_t width, const mvde_box &seen, cudaStream_t stream) {
    clear(depth, width, seen.top, width, stream);
    clear(depth + seen.bottom * width, width, height - seen.bottom, width, stream);
    clear(depth, width, height, seen.left, stream);
    clear(depth + seen.right, width, height, width - seen.right, stream);
}

}  // namespace mvde::internal::gpu
