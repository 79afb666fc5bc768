// Engines of one model at several resolutions: mvde/runtime/engine_set.py in C++, with the same messages.
#pragma once

#include "session/manifest.hpp"

#include <cstdint>
#include <vector>

namespace mvde::internal {

struct PatchGrid {
    std::int64_t rows = 0, columns = 0;
};

// Throws Refused (MVDE_ERROR_ARGUMENT) unless the engines are of one model, of one kind and of resolutions that differ.
void check_one_model(const std::vector<const EngineManifest *> &manifests);

// The grid whose patches are square and of whole pixels at each resolution: `asked`, which is checked, or for {0, 0} the one
// that is nearest in fineness to the smallest engine's own. `manifests` begin with the smallest. Throws Refused likewise.
PatchGrid common_grid(const std::vector<const EngineManifest *> &manifests, PatchGrid asked);

}  // namespace mvde::internal
