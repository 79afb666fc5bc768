// What a network's sky, mask and confidence outputs do to depth and statistics (mvde/runtime/masks.py).
#pragma once

#include "mvde/mvde.h"
#include "session/manifest.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mvde::internal {

// The outputs of one frame at the network's resolution, in the engine's buffers.
class NetworkMaps {
public:
    // `stats` are the session's columns (mvde_stat).
    NetworkMaps(const Manifest &manifest, const std::vector<std::int32_t> &stats);

    // Whether depth or the columns need more than depth, which only libmvde's own kernels take.
    bool needs_others() const { return sky_ || valid_ || confidence_; }
    // Roles of the outputs besides depth, for messages.
    const std::string &others() const { return others_; }

    // Makes depth invalid outside the part of the input that the frame fills, so that padding has no statistics.
    void clear_bars(float *depth, const mvde_box &seen) const;
    // Makes depth invalid where a mask beside a sky says so: the kernel takes one mask. Sky wins.
    void mask_depth(float *const *maps) const;
    // Points `options` to the mask and the confidence; valid until the next frame.
    void set_options(float *const *maps, mvde_postprocess_options &options);
    // Sets depth to NaN where a mask says that it is not valid and there is no sky: in inverse maps, whose 0 is far.
    void mark_invalid(float *const *maps, float *depth) const;

private:
    struct Mask {
        std::size_t output;
        float threshold;
    };
    std::optional<Mask> mask_of(const Manifest &manifest, const char *role) const;
    mvde_map map_of(float *values) const;

    std::int64_t height_, width_;
    std::optional<Mask> sky_, valid_;
    std::optional<std::size_t> confidence_;  // only where a column needs it
    std::string others_;
    mvde_map mask_map_{}, confidence_map_{};
};

}  // namespace mvde::internal
