// postprocess.cu on the CPU, as a shared library for the tests.
#include "cuda_shim.h"

#include "postprocess.cu"

#include "scheduler.h"

namespace {

std::string message;

template <class Kernel>
const char *run(Kernel kernel, const mvde_cuda::LaunchPlan &plan, const mvde_cuda::PostprocessParams &params,
                const shim::Options &options) {
    const Dim3 grid = {plan.grid_x, plan.grid_y, plan.grid_z};
    message = shim::launch(grid, {plan.block_threads, 1, 1}, plan.shared_bytes, options, [&] { kernel(params); });
    return message.c_str();
}

using Kernel = void (*)(const mvde_cuda::PostprocessParams);
constexpr Kernel kPatchPerWarp[] = {mvde_postprocess_patch_per_warp_f32, mvde_postprocess_patch_per_warp_f16,
                                    mvde_postprocess_patch_per_warp_bf16};
constexpr Kernel kPatchPerBlock[] = {mvde_postprocess_patch_per_block_f32, mvde_postprocess_patch_per_block_f16,
                                     mvde_postprocess_patch_per_block_bf16};
constexpr Kernel kConvertDepth[] = {mvde_convert_depth_f32, mvde_convert_depth_f16, mvde_convert_depth_bf16};

}  // namespace

// Returns "" or an error message. `order` and `dropped_barrier`: see shim::Options.
extern "C" const char *shim_postprocess(int raw_type, const mvde_cuda::PostprocessParams *params, int order,
                                        int dropped_barrier) {
    const mvde_cuda::PostprocessParams &p = *params;
    const shim::Options options{order, dropped_barrier};
    if (p.num_columns == 0) {
        return run(kConvertDepth[raw_type], mvde_cuda::plan_convert_depth(p.batch, p.height, p.width), p, options);
    }
    const mvde_cuda::LaunchPlan plan = mvde_cuda::plan_postprocess(p.batch, p.height, p.width, p.patch);
    return run(plan.patch_per_block ? kPatchPerBlock[raw_type] : kPatchPerWarp[raw_type], plan, p, options);
}

extern "C" void shim_plan_postprocess(int batch, int height, int width, int patch, mvde_cuda::LaunchPlan *plan) {
    *plan = mvde_cuda::plan_postprocess(batch, height, width, patch);
}

extern "C" std::size_t shim_sizeof_params() { return sizeof(mvde_cuda::PostprocessParams); }

// The barriers executed by the last launch, one bit each.
extern "C" std::uint64_t shim_executed_barriers() { return shim::machine.executed_barriers; }
