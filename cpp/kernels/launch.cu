#include "launch.h"

#include "postprocess.cu"
#include "preprocess.cu"

namespace {

using mvde_cuda::LaunchPlan;
using mvde_cuda::PostprocessParams;
using mvde_cuda::PreprocessParams;

using PostprocessKernel = void (*)(PostprocessParams);

constexpr int kLargestGridYz = 65535;

struct KernelsOfType {
    PostprocessKernel patch_per_warp, patch_per_block, convert_depth;
};

// Indexed by RawType.
constexpr KernelsOfType kPostprocess[] = {
    {mvde_postprocess_patch_per_warp_f32, mvde_postprocess_patch_per_block_f32, mvde_convert_depth_f32},
    {mvde_postprocess_patch_per_warp_f16, mvde_postprocess_patch_per_block_f16, mvde_convert_depth_f16},
    {mvde_postprocess_patch_per_warp_bf16, mvde_postprocess_patch_per_block_bf16, mvde_convert_depth_bf16},
};

template <class Params>
cudaError_t launch(void (*kernel)(Params), const LaunchPlan &plan, const Params &params, cudaStream_t stream) {
    kernel<<<dim3(plan.grid_x, plan.grid_y, plan.grid_z), plan.block_threads, plan.shared_bytes, stream>>>(params);
    return cudaGetLastError();
}

bool has_tiling(const PostprocessParams &p) {
    return p.patch > 0 && p.height % p.patch == 0 && p.width % p.patch == 0 && p.num_columns <= mvde_cuda::kMaxColumns;
}

}  // namespace

cudaError_t mvde_cuda::enqueue_postprocess(RawType raw_type, const PostprocessParams &params, cudaStream_t stream) {
    const PostprocessParams &p = params;
    const bool fits = raw_type >= kRawFloat32 && raw_type <= kRawBFloat16 && p.batch > 0 && p.height > 0 && p.width > 0 &&
                      p.batch <= kLargestGridYz && p.height <= kLargestGridYz;
    if (!fits || (p.num_columns == 0 && p.depth_output == kNoDepth)) return cudaErrorInvalidValue;
    const KernelsOfType &kernels = kPostprocess[raw_type];
    if (p.num_columns == 0) {
        return launch(kernels.convert_depth, plan_convert_depth(p.batch, p.height, p.width), p, stream);
    }
    if (!has_tiling(p)) return cudaErrorInvalidValue;
    const LaunchPlan plan = plan_postprocess(p.batch, p.height, p.width, p.patch);
    return launch(plan.patch_per_block ? kernels.patch_per_block : kernels.patch_per_warp, plan, p, stream);
}

cudaError_t mvde_cuda::enqueue_preprocess(const PreprocessParams &params, cudaStream_t stream) {
    const unsigned columns = (static_cast<unsigned>(params.width) + kTileColumns - 1) / kTileColumns;
    const unsigned rows = (static_cast<unsigned>(params.height) + kTileRows - 1) / kTileRows;
    if (params.width <= 0 || params.height <= 0 || rows > kLargestGridYz) return cudaErrorInvalidValue;
    const LaunchPlan plan = {columns, rows, 1, kPreprocessThreads, kPreprocessSharedBytes, 0};
    return launch(mvde_preprocess, plan, params, stream);
}
