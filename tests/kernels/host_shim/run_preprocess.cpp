// preprocess.cu on the CPU, as a shared library for the tests.
#include "cuda_shim.h"

#include "preprocess.cu"

#include "scheduler.h"

// Returns "" or an error message. `order` and `dropped_barrier`: see shim::Options.
extern "C" const char *shim_preprocess(const mvde_cuda::PreprocessParams *params, unsigned grid_x, unsigned grid_y,
                                       int order, int dropped_barrier) {
    static std::string message;
    message = shim::launch({grid_x, grid_y, 1}, {mvde_cuda::kPreprocessThreads, 1, 1}, mvde_cuda::kPreprocessSharedBytes,
                           {order, dropped_barrier}, [&] { mvde_preprocess(*params); });
    return message.c_str();
}

extern "C" std::size_t shim_sizeof_params() { return sizeof(mvde_cuda::PreprocessParams); }

// The barriers executed by the last launch, one bit each.
extern "C" std::uint64_t shim_executed_barriers() { return shim::machine.executed_barriers; }
