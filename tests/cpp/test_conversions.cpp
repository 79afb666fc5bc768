// Conversion of raw values to metres and millimetres in every implementation: against double, and against scalar bit for
// bit.
#include "harness.hpp"
#include "kernels.hpp"

#include <mvde/mvde.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace {

constexpr int64_t kHeight = 19, kWidth = 300;  // not a multiple of 16, and wider than a tile
constexpr float kMin = 0.2F, kMax = 12.0F;

std::vector<float> raw_values() {
    std::mt19937 random(6);
    std::vector<float> raw(kHeight * kWidth);
    for (float &x : raw) x = static_cast<float>(random() % 65536) / 8192.0F - 4.0F;
    const float special[] = {std::nanf(""),
                             std::numeric_limits<float>::infinity(),
                             -std::numeric_limits<float>::infinity(),
                             0.0F,
                             -0.0F,
                             1e-42F,
                             3e38F,
                             -3e38F,
                             -88.0F,
                             89.0F};
    for (std::size_t i = 0; i < 10; ++i) raw[i * 37] = special[i];
    return raw;
}

template <class Element>
std::vector<Element> converted(std::vector<float> raw, int32_t conversion, int32_t range, int32_t dtype) {
    std::vector<Element> out(raw.size());
    const mvde_map in{raw.data(), MVDE_FLOAT32, 0, 1, kHeight, kWidth, 0, 0, 0};
    const mvde_map depth{out.data(), dtype, 0, 1, kHeight, kWidth, 0, 0, 0};
    mvde_postprocess_options options;
    mvde_postprocess_defaults(&options);
    options.conversion = conversion;
    options.scale = 0.75F;
    options.shift = 0.5F;
    options.range = range;
    options.min_depth_m = kMin;
    options.max_depth_m = kMax;
    CHECK(mvde_postprocess(&in, &options, &depth, nullptr, nullptr) == MVDE_OK, "%s", mvde_last_error());
    return out;
}

double expected_metres(float raw, int32_t conversion) {
    const double x = static_cast<double>(raw * 0.75F + 0.5F);  // in float: its rounding is not under test
    const double low = static_cast<double>(kMin), span = std::log(static_cast<double>(kMax)) - std::log(low);
    switch (conversion) {
        case MVDE_INVERSE: return raw > 0 ? 1 / x : std::nan("");
        case MVDE_EXP: return std::isfinite(x) ? std::exp(std::min(std::max(x, -87.0), 88.0)) : std::nan("");
        case MVDE_LOG_SIGMOID: return std::isnan(x) ? x : low * std::exp(span / (1 + std::exp(-x)));
        default: return x;
    }
}

template <class Element>
bool same_bits(const std::vector<Element> &a, const std::vector<Element> &b) {
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(Element)) == 0;
}

}  // namespace

TEST(conversions_match_double_precision) {
    const std::vector<float> raw = raw_values();
    mvde::internal::force_kernel(&mvde::internal::kScalarKernel);
    for (int32_t conversion = MVDE_LINEAR; conversion <= MVDE_LOG_SIGMOID; ++conversion) {
        const std::vector<float> got = converted<float>(raw, conversion, MVDE_CLAMP, MVDE_FLOAT32);
        for (std::size_t i = 0; i < raw.size(); ++i) {
            const double metres = expected_metres(raw[i], conversion);
            const bool valid = std::isfinite(metres) && metres > 0;
            const double clamped = std::min(std::max(metres, static_cast<double>(kMin)), static_cast<double>(kMax));
            // Two exponentials of 2 ulp; the outer one's argument, up to ln(12 / 0.2) = 4.1, has rounding errors of its
            // own.
            CHECK(valid ? std::abs(static_cast<double>(got[i]) / clamped - 1) < 2e-6 : std::isnan(got[i]),
                  "conversion %d of %g: got %.9g, expected %.9g", conversion, static_cast<double>(raw[i]),
                  static_cast<double>(got[i]), clamped);
        }
    }
    mvde::internal::force_kernel(nullptr);
}

TEST(every_implementation_converts_to_the_same_bits) {
    const std::vector<float> raw = raw_values();
    for (const mvde::internal::Kernel *kernel : testable_kernels())
        for (int32_t conversion = MVDE_LINEAR; conversion <= MVDE_LOG_SIGMOID; ++conversion)
            for (const int32_t range : {MVDE_REJECT, MVDE_CLAMP}) {
                mvde::internal::force_kernel(&mvde::internal::kScalarKernel);
                const auto metres = converted<float>(raw, conversion, range, MVDE_FLOAT32);
                const auto millimetres = converted<uint16_t>(raw, conversion, range, MVDE_UINT16);
                mvde::internal::force_kernel(kernel);
                CHECK(same_bits(converted<float>(raw, conversion, range, MVDE_FLOAT32), metres), "%s, conversion %d",
                      kernel->name, conversion);
                CHECK(same_bits(converted<uint16_t>(raw, conversion, range, MVDE_UINT16), millimetres), "%s, conversion %d",
                      kernel->name, conversion);
            }
    mvde::internal::force_kernel(nullptr);
}

TEST(every_implementation_resizes_to_the_same_bits) {
    std::mt19937 random(7);
    std::vector<uint8_t> image(45 * 62 * 3);
    for (uint8_t &byte : image) byte = static_cast<uint8_t>(random());
    const mvde_frame frame = mvde::frame(image.data(), mvde::PixelFormat::rgb, {45, 62});
    std::vector<uint8_t> expected_rgb;
    std::vector<float> expected_back;
    for (const mvde::internal::Kernel *kernel : testable_kernels()) {
        mvde::internal::force_kernel(kernel);
        mvde_resizer *resizer = nullptr;
        mvde_resizer_options options;
        mvde_resizer_defaults(&options);
        options.fit = MVDE_LETTERBOX;
        options.interpolation = MVDE_BICUBIC;
        CHECK(mvde_resizer_create(MVDE_RGB, 45, 62, 112, 30, &options, &resizer) == MVDE_OK);
        std::vector<uint8_t> rgb(112 * 30 * 3);
        std::vector<float> depth(112 * 30), back(45 * 62);
        for (std::size_t i = 0; i < depth.size(); ++i) depth[i] = 1.0F + static_cast<float>(i % 97) * 0.031F;
        CHECK(mvde_resize(resizer, &frame, rgb.data(), 0, nullptr) == MVDE_OK);
        CHECK(mvde_depth_to_source(resizer, depth.data(), 0, back.data(), 0, 0.0F, nullptr) == MVDE_OK);
        std::vector<float> torn(back.size());
        for (std::size_t i = 0; i < depth.size(); i += i < 2000 ? 7 : 2)
            depth[i] = i % 3 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
        CHECK(mvde_depth_to_source(resizer, depth.data(), 0, torn.data(), 0, -2.0F, nullptr) == MVDE_OK);
        mvde_resizer_destroy(resizer);
        back.insert(back.end(), torn.begin(), torn.end());
        if (expected_rgb.empty()) expected_rgb = rgb, expected_back = back;  // scalar comes first
        CHECK(rgb == expected_rgb && back == expected_back, "%s", kernel->name);
        for (const float value : {std::numeric_limits<float>::infinity(), -2.0F})
            CHECK(std::count(torn.begin(), torn.end(), value) > 20);
    }
    mvde::internal::force_kernel(nullptr);
}

int main() { return harness::run_all(); }
