// Sky, masks and confidence in every implementation: against double, pixel by pixel, and against scalar bit for bit.
#include "harness.hpp"
#include "kernels.hpp"
#include "reference.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace {

constexpr int32_t kStats[] = {MVDE_MEAN, MVDE_VAR, MVDE_GRAD, MVDE_MIN, MVDE_MAX, MVDE_VALID, MVDE_CONF};
constexpr int kNumStats = 7;
constexpr float kThreshold = 0.5F, kInvalid = -3.0F;
const float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

// Maps of one size, with a gap between the pixels of the mask if `is_gapped`.
struct Case {
    int height, width, patch;
    bool is_gapped;
    std::vector<float> raw, mask, confidence;
};

Case make_case(int patch, int masked_percent, unsigned seed) {
    std::mt19937 random(seed);
    Case c{};
    c.patch = patch;
    c.height = patch * (1 + static_cast<int>(random() % 3));
    c.width = patch * (1 + static_cast<int>(random() % (patch < 20 ? 30 : 3)));
    c.is_gapped = random() % 2;
    const float special[] = {kNaN, kInfinity, -kInfinity, 0.0F, -1.0F};
    for (int i = 0; i < c.height * c.width; ++i) {
        c.raw.push_back(random() % 50 ? 0.5F + static_cast<float>(random() % 4096) / 512.0F : special[random() % 5]);
        c.confidence.push_back(random() % 50 ? static_cast<float>(random() % 4096) / 4096.0F : special[random() % 3]);
        const bool is_high = static_cast<int>(random() % 100) < masked_percent;
        for (int gap = 0; gap < (c.is_gapped ? 2 : 1); ++gap)
            c.mask.push_back(random() % 60 ? (is_high ? kThreshold : 0.25F) : kNaN);
    }
    return c;
}

struct Result {
    std::vector<float> depth, stats;
    std::vector<std::uint16_t> millimetres;
};

Result results(Case &c, int32_t role, float invalid_m, bool wants_depth) {
    const int num_patches = c.height / c.patch * (c.width / c.patch);
    Result result;
    result.depth.assign(c.raw.size(), -7.0F);
    result.millimetres.assign(c.raw.size(), 7);
    result.stats.assign(static_cast<std::size_t>(num_patches * kNumStats), -7.0F);
    const int64_t pixel = c.is_gapped ? 8 : 4;
    const mvde_map raw{c.raw.data(), MVDE_FLOAT32, 0, 1, c.height, c.width, 0, 0, 0},
        mask{c.mask.data(), MVDE_FLOAT32, 0, 1, c.height, c.width, 0, pixel * c.width, pixel},
        confidence{c.confidence.data(), MVDE_FLOAT32, 0, 1, c.height, c.width, 0, 0, 0},
        depth{result.depth.data(), MVDE_FLOAT32, 0, 1, c.height, c.width, 0, 0, 0},
        millimetres{result.millimetres.data(), MVDE_UINT16, 0, 1, c.height, c.width, 0, 0, 0};
    mvde_postprocess_options options;
    mvde_postprocess_defaults(&options);
    options.mask = &mask;
    options.mask_role = role;
    options.mask_threshold = kThreshold;
    options.confidence = &confidence;
    options.invalid_m = invalid_m;
    mvde_stats_request request;
    mvde_stats_request_defaults(&request);
    request.patch_size = c.patch;
    request.num_stats = kNumStats;
    request.stats = kStats;
    request.out = result.stats.data();
    request.capacity = static_cast<int64_t>(result.stats.size());
    CHECK(mvde_postprocess(&raw, &options, wants_depth ? &depth : nullptr, &request, nullptr) == MVDE_OK, "%s",
          mvde_last_error());
    CHECK(mvde_postprocess(&raw, &options, &millimetres, nullptr, nullptr) == MVDE_OK, "%s", mvde_last_error());
    return result;
}

bool same_bits(const Result &a, const Result &b) {
    return std::memcmp(a.depth.data(), b.depth.data(), a.depth.size() * 4) == 0 &&
           std::memcmp(a.stats.data(), b.stats.data(), a.stats.size() * 4) == 0 && a.millimetres == b.millimetres;
}

void check_against_double(const Case &c, const Result &got, int32_t role, float invalid_m) {
    reference::Image image{c.height, c.width, {}};
    for (std::size_t i = 0; i < c.raw.size(); ++i) {
        const float mask = c.mask[c.is_gapped ? 2 * i : i];
        const bool is_sky = role == MVDE_MASK_SKY && mask >= kThreshold;
        const bool is_valid = std::isfinite(c.raw[i]) && c.raw[i] > 0 &&
                              (role == MVDE_MASK_SKY ? !is_sky : mask >= kThreshold);
        image.metres.push_back(is_valid ? static_cast<double>(c.raw[i]) : std::nan(""));
        const float depth = is_valid ? c.raw[i] : is_sky && invalid_m != 0.0F ? kInfinity : invalid_m;
        CHECK(got.depth[i] == depth || (std::isnan(depth) && std::isnan(got.depth[i])), "pixel %zu: got %g, expected %g", i,
              static_cast<double>(got.depth[i]), static_cast<double>(depth));
        const auto mm = static_cast<std::uint16_t>(is_valid ? std::nearbyint(static_cast<double>(c.raw[i]) * 1000) : 0.0);
        CHECK(got.millimetres[i] == mm, "pixel %zu: got %d mm, expected %d", i, got.millimetres[i], mm);
    }
    std::size_t at = 0;
    for (int top = 0; top < c.height; top += c.patch)
        for (int left = 0; left < c.width; left += c.patch, at += kNumStats) {
            std::vector<double> expected = reference::patch_stats(image, top, left, c.patch);
            double sum = 0, count = 0;
            for (int y = top; y < top + c.patch; ++y)
                for (int x = left; x < left + c.patch; ++x) {
                    if (std::isnan(image.at(y, x))) continue;
                    const float confidence = c.confidence[static_cast<std::size_t>(y * c.width + x)];
                    sum += std::isfinite(confidence) ? static_cast<double>(confidence) : 0.0;
                    ++count;
                }
            expected.push_back(count > 0 ? sum / count : 0.0);
            for (std::size_t s = 0; s < kNumStats; ++s)
                CHECK(std::abs(static_cast<double>(got.stats[at + s]) - expected[s]) <= 1e-5 * std::abs(expected[s]) + 1e-9,
                      "column %zu of the patch of %d at (%d, %d): got %.9g, expected %.9g", s, c.patch, top, left,
                      static_cast<double>(got.stats[at + s]), expected[s]);
        }
}

}  // namespace

TEST(masked_pixels_have_no_depth_and_confidence_is_averaged_over_the_others) {
    for (const int patch : {1, 3, 8, 14, 16, 24, 40, 100, 260})
        for (const int masked : {0, 3, 50, 100})
            for (const int32_t role : {MVDE_MASK_SKY, MVDE_MASK_VALID})
                for (const float invalid_m : {kNaN, 0.0F, kInvalid}) {
                    Case c = make_case(patch, masked, static_cast<unsigned>(100 * patch + masked));
                    mvde::internal::force_kernel(&mvde::internal::kScalarKernel);
                    const Result scalar = results(c, role, invalid_m, true), alone = results(c, role, invalid_m, false);
                    check_against_double(c, scalar, role, invalid_m);
                    CHECK(std::memcmp(scalar.stats.data(), alone.stats.data(), scalar.stats.size() * 4) == 0,
                          "statistics without depth, patch %d", patch);
                    for (const mvde::internal::Kernel *kernel : testable_kernels()) {
                        mvde::internal::force_kernel(kernel);
                        CHECK(same_bits(results(c, role, invalid_m, true), scalar), "%s differs, patch %d of %dx%d",
                              kernel->name, patch, c.height, c.width);
                    }
                    mvde::internal::force_kernel(nullptr);
                }
}

TEST(confidence_alone_leaves_the_other_columns_alone) {
    Case c = make_case(14, 0, 5);
    for (float &value : c.raw) value = 1.0F;  // all valid: read in place
    for (float &value : c.mask) value = 0.0F;
    const Result with_mask = results(c, MVDE_MASK_SKY, kNaN, false);
    const mvde_map raw{c.raw.data(), MVDE_FLOAT32, 0, 1, c.height, c.width, 0, 0, 0},
        confidence{c.confidence.data(), MVDE_FLOAT32, 0, 1, c.height, c.width, 0, 0, 0};
    mvde_postprocess_options options;
    mvde_postprocess_defaults(&options);
    options.confidence = &confidence;
    std::vector<float> stats(with_mask.stats.size());
    const mvde_stats_request request{sizeof(mvde_stats_request),        c.patch, kNumStats, kStats, stats.data(),
                                     static_cast<int64_t>(stats.size())};
    CHECK(mvde_postprocess(&raw, &options, nullptr, &request, nullptr) == MVDE_OK, "%s", mvde_last_error());
    CHECK(std::memcmp(stats.data(), with_mask.stats.data(), stats.size() * 4) == 0);
}

TEST(a_request_takes_sixteen_columns) {
    std::vector<float> raw(14 * 28, 2.0F), stats(2 * MVDE_MAX_STATS);
    std::vector<int32_t> columns(MVDE_MAX_STATS, MVDE_MAX);
    columns.back() = MVDE_VALID;
    const mvde_map map{raw.data(), MVDE_FLOAT32, 0, 1, 14, 28, 0, 0, 0};
    const mvde_stats_request request{sizeof(mvde_stats_request), 14, MVDE_MAX_STATS, columns.data(), stats.data(),
                                     2 * MVDE_MAX_STATS};
    CHECK(mvde_patch_stats(&map, 0.0F, kInfinity, &request, nullptr) == MVDE_OK, "%s", mvde_last_error());
    CHECK(stats[14] == 2.0F && stats[15] == 1.0F && stats[30] == 2.0F && stats[31] == 1.0F);
}

int main() { return harness::run_all(); }
