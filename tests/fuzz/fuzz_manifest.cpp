// Arbitrary bytes as a manifest: parsed or rejected with a message, and a parsed one satisfies its invariants.
#include "session/manifest.hpp"

#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    try {
        const mvde::internal::AnyManifest any = mvde::internal::parse_manifest({reinterpret_cast<const char *>(data), size},
                                                                               "engine.json");
        const mvde::internal::Manifest &manifest = common(any);
        const bool is_sound = manifest.input.shape.size() == 4 && manifest.stats_patch > 0 && !manifest.outputs.empty() &&
                              manifest.grid_rows * manifest.stats_patch == manifest.height() &&
                              manifest.grid_columns * manifest.stats_patch == manifest.width() &&
                              manifest.min_valid < manifest.max_valid && !manifest.stem().empty() &&
                              manifest.file.name.find('/') == std::string::npos;
        if (!is_sound) std::abort();
    } catch (const mvde::internal::Refused &error) {
        if (error.status != MVDE_ERROR_MANIFEST || !*error.what()) std::abort();
    }
    return 0;
}
