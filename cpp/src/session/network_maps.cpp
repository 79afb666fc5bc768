#include "session/network_maps.hpp"

#include <algorithm>
#include <limits>

namespace mvde::internal {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

}  // namespace

NetworkMaps::NetworkMaps(const Manifest &manifest, const std::vector<std::int32_t> &stats)
    : height_(manifest.height()), width_(manifest.width()), sky_(mask_of(manifest, "sky")),
      valid_(mask_of(manifest, "mask")) {
    const bool has_column = std::find(stats.begin(), stats.end(), MVDE_CONF) != stats.end();
    for (std::size_t i = 1; i < manifest.outputs.size(); ++i) {
        const std::string &role = manifest.outputs[i].role;
        others_ += (others_.empty() ? "" : ", ") + role;
        if (role == "confidence" && has_column) confidence_ = i;
    }
}

std::optional<NetworkMaps::Mask> NetworkMaps::mask_of(const Manifest &manifest, const char *role) const {
    for (std::size_t i = 0; i < manifest.outputs.size(); ++i)
        if (manifest.outputs[i].role == role) return Mask{i, static_cast<float>(*manifest.outputs[i].threshold)};
    return std::nullopt;
}

mvde_map NetworkMaps::map_of(float *values) const { return {values, MVDE_FLOAT32, 0, 1, height_, width_, 0, 0, 0}; }

void NetworkMaps::clear_bars(float *depth, const mvde_box &seen) const {
    for (std::int64_t y = 0; y < height_; ++y) {
        float *row = depth + y * width_;
        const bool is_bar = y < seen.top || y >= seen.bottom;
        std::fill(row, row + (is_bar ? width_ : seen.left), kNone);
        std::fill(row + seen.right, row + width_, kNone);
    }
}

void NetworkMaps::mask_depth(float *const *maps) const {
    if (!sky_ || !valid_) return;
    const float *const mask = maps[valid_->output];
    for (std::int64_t i = 0; i < height_ * width_; ++i)
        if (!(mask[i] >= valid_->threshold)) maps[0][i] = kNone;
}

void NetworkMaps::set_options(float *const *maps, mvde_postprocess_options &options) {
    if (const std::optional<Mask> &mask = sky_ ? sky_ : valid_) {
        mask_map_ = map_of(maps[mask->output]);
        options.mask = &mask_map_;
        options.mask_role = sky_ ? MVDE_MASK_SKY : MVDE_MASK_VALID;
        options.mask_threshold = mask->threshold;
    }
    if (!confidence_) return;
    confidence_map_ = map_of(maps[*confidence_]);
    options.confidence = &confidence_map_;
}

void NetworkMaps::mark_invalid(float *const *maps, float *depth) const {
    if (!valid_) return;
    const float *const mask = maps[valid_->output], *const sky = sky_ ? maps[sky_->output] : nullptr;
    for (std::int64_t i = 0; i < height_ * width_; ++i)
        if (!(mask[i] >= valid_->threshold) && !(sky && sky[i] >= sky_->threshold)) depth[i] = kNone;
}

}  // namespace mvde::internal
