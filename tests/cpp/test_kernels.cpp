// Every implementation against the reference in double, and against scalar bit for bit.
#include "harness.hpp"
#include "kernels.hpp"
#include "reference.hpp"

#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>

namespace {

constexpr int32_t kAllStats[] = {MVDE_MEAN, MVDE_VAR, MVDE_GRAD, MVDE_MIN, MVDE_MAX, MVDE_VALID};
const float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

// Maps with gaps between pixels, rows and images, to exercise every stride.
struct Case {
    int batch, height, width, patch;
    int pixel_gap, row_gap;  // in elements
    int32_t dtype;
    std::vector<float> buffer;            // float32 maps
    std::vector<std::uint16_t> halves;    // 16-bit maps
    std::vector<double> exact;            // dense, what the elements mean

    std::int64_t element() const { return dtype == MVDE_FLOAT32 ? 4 : 2; }
    std::int64_t row_elements() const { return static_cast<std::int64_t>(width) * (1 + pixel_gap) + row_gap; }
    mvde_map map() {
        void *data = dtype == MVDE_FLOAT32 ? static_cast<void *>(buffer.data()) : static_cast<void *>(halves.data());
        return {data,
                dtype,
                0,
                batch,
                height,
                width,
                element() * row_elements() * height,
                element() * row_elements(),
                element() * (1 + pixel_gap)};
    }
};

double from_half(std::uint16_t h) {
    const int exponent = h >> 10 & 31, digits = h & 1023;
    const double sign = h & 0x8000 ? -1.0 : 1.0;
    if (exponent == 31) return digits ? std::numeric_limits<double>::quiet_NaN() : sign * kInfinity;
    return sign * (exponent ? std::ldexp(1024 + digits, exponent - 25) : std::ldexp(digits, -24));
}

double from_bfloat(std::uint16_t h) {
    const std::uint32_t bits = static_cast<std::uint32_t>(h) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

using Random = std::mt19937;

float sample(Random &random, float offset, float spread, int special_percent) {
    static const float special[] = {kNaN, -kNaN, kInfinity, -kInfinity, 0.0F, -0.0F, -1.0F, 1e-42F, 1e-30F, 60.0F, 1e4F};
    if (static_cast<int>(random() % 100) < special_percent) return special[random() % 11];
    return offset + spread * static_cast<float>(random() % 65536) / 65536.0F;
}

Case make_case(Random &random, int32_t dtype, int patch, float offset, float spread, int special_percent) {
    Case c{};
    c.batch = 1 + static_cast<int>(random() % 2);
    c.patch = patch;
    const int limit = patch > 64 ? 2 : 4;
    c.height = patch * (1 + static_cast<int>(random() % limit));
    c.width = patch * (1 + static_cast<int>(random() % (patch < 20 ? 40 : limit)));
    c.pixel_gap = random() % 3 ? 0 : 1;
    c.row_gap = static_cast<int>(random() % 5);
    c.dtype = dtype;
    const std::size_t total = static_cast<std::size_t>(c.row_elements()) * c.height * c.batch;
    (dtype == MVDE_FLOAT32 ? (c.buffer.resize(total), void()) : c.halves.resize(total));
    for (int b = 0; b < c.batch; ++b)
        for (int y = 0; y < c.height; ++y)
            for (int x = 0; x < c.width; ++x) {
                const std::size_t at = static_cast<std::size_t>(
                    (static_cast<std::int64_t>(b) * c.height + y) * c.row_elements() + x * (1 + c.pixel_gap));
                if (dtype == MVDE_FLOAT32) {
                    c.buffer[at] = sample(random, offset, spread, special_percent);
                    c.exact.push_back(static_cast<double>(c.buffer[at]));
                } else {  // arbitrary bits: the conversions are exact
                    const bool half = dtype == MVDE_FLOAT16;
                    const unsigned base = half ? 0x3C00 : 0x3F80, span = half ? 0x1000 : 0x200;
                    c.halves[at] = static_cast<std::uint16_t>(
                        static_cast<int>(random() % 100) < special_percent ? random() : base + random() % span);
                    c.exact.push_back(half ? from_half(c.halves[at]) : from_bfloat(c.halves[at]));
                }
            }
    return c;
}

std::vector<float> stats_of(Case &c, float low, float high, mvde_workers *workers = nullptr) {
    std::vector<float> out(static_cast<std::size_t>(mvde_num_patch_stats(c.batch, c.height, c.width, c.patch, 6)), -7.0F);
    const mvde_stats_request request{sizeof(mvde_stats_request),      c.patch, 6, kAllStats, out.data(),
                                     static_cast<int64_t>(out.size())};
    const mvde_map map = c.map();
    CHECK(mvde_patch_stats(&map, low, high, &request, workers) == MVDE_OK, "%s", mvde_last_error());
    return out;
}

bool close(double got, double expected, double relative, double absolute) {
    return std::abs(got - expected) <= relative * std::abs(expected) + absolute;
}

// u = 2^-24. A lane sums 16 rows of up to 256 / 16 chunks, followed by four levels of a tree, each rounding by u; each term
// carries three more roundings. The mean is a shift plus the mean deviation from it, rounded once, so only the deviations
// carry those errors. Cancellation in the variance costs at most a factor 5 (see block_shift). Squares below 1e-38 are
// denormal, hence the absolute terms.
void check_close(const Case &c, const std::vector<float> &got, double low, double high, const char *kernel) {
    constexpr double kUnit = 0x1p-24;
    const double terms = 16 * std::max(1, std::min(c.patch, 256) / 16) + 4 + 3;
    std::size_t at = 0;
    for (int b = 0; b < c.batch; ++b) {
        const auto begin = c.exact.begin() + static_cast<std::ptrdiff_t>(b) * c.height * c.width;
        reference::Image image{c.height, c.width, {begin, begin + static_cast<std::ptrdiff_t>(c.height) * c.width}};
        for (double &depth : image.metres)
            if (!(std::isfinite(depth) && depth > 0 && depth >= low && depth <= high)) depth = std::nan("");
        for (int y = 0; y < c.height; y += c.patch)
            for (int x = 0; x < c.width; x += c.patch, at += 6) {
                const std::vector<double> expected = reference::patch_stats(image, y, x, c.patch);
                const double relative[] = {2 * kUnit, 5 * terms * kUnit, terms * kUnit, 0, 0, kUnit};
                // With an offset far above the spread, differences between depths are exact, but the shift is rounded by u.
                const double deviation = std::sqrt(5 * expected[1]);  // upper bound, from the shift
                const double absolute[] = {
                    1e-44 + terms * kUnit * deviation, 1e-37 + std::pow(kUnit * expected[4], 2), 2e-22, 0, 0, 0};
                for (int s = 0; s < 6; ++s)
                    CHECK(close(static_cast<double>(got[at + s]), expected[s], relative[s], absolute[s]),
                          "%s, stat %d, patch %d at (%d, %d) of %dx%d: got %.9g, expected %.9g", kernel, s, c.patch, y, x,
                          c.height, c.width, static_cast<double>(got[at + s]), expected[s]);
            }
    }
}

bool same_bits(const std::vector<float> &a, const std::vector<float> &b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_everywhere(Case &c, float low, float high) {
    mvde::internal::force_kernel(&mvde::internal::kScalarKernel);
    const std::vector<float> scalar = stats_of(c, low, high);
    check_close(c, scalar, static_cast<double>(low), static_cast<double>(high), "scalar");
    for (const mvde::internal::Kernel *kernel : testable_kernels()) {
        mvde::internal::force_kernel(kernel);
        CHECK(same_bits(stats_of(c, low, high), scalar), "%s differs from scalar: patch %d, %dx%d, dtype %d", kernel->name,
              c.patch, c.height, c.width, c.dtype);
        CHECK(std::strcmp(mvde_last_kernel(), kernel->name) == 0, "ran %s", mvde_last_kernel());
    }
    mvde::internal::force_kernel(nullptr);
}

}  // namespace

TEST(statistics_match_the_specification_and_have_the_same_bits_everywhere) {
    Random random(1);
    for (const int patch : {1, 2, 7, 8, 14, 15, 16, 17, 24, 32, 40, 100, 256, 300}) {
        for (const int special : {0, 3, 60, 100}) {
            Case c = make_case(random, MVDE_FLOAT32, patch, 0.5F, 9.5F, special);
            check_everywhere(c, 0.0F, kInfinity);
            check_everywhere(c, 0.7F, 5.0F);
        }
    }
}

TEST(half_precision_maps_are_read_exactly) {
    Random random(2);
    for (const int32_t dtype : {MVDE_FLOAT16, MVDE_BFLOAT16})
        for (const int patch : {5, 14, 16})
            for (const int special : {0, 5, 100}) {
                Case c = make_case(random, dtype, patch, 0, 0, special);
                check_everywhere(c, 0.0F, 1e15F);  // random bfloat16 bits reach 1e38, whose squares are infinite
            }
}

TEST(depths_whose_squares_overflow_are_invalid_and_the_largest_are_finite) {
    for (const char *kernel : {"scalar", "avx2", "avx512", "neon"}) {
        if (!mvde_kernel_is_available(kernel)) continue;
        CHECK(mvde_set_kernel(kernel) == MVDE_OK);
        for (const float far : {1e38F, std::nextafter(MVDE_LARGEST_DEPTH, kInfinity), MVDE_LARGEST_DEPTH})
            for (const int patch : {14, 16, 64}) {
                Random random(6);
                Case c = make_case(random, MVDE_FLOAT32, patch, 1.0F, 0, 0);
                c.pixel_gap = c.row_gap = 0;
                for (std::size_t i = 0; i < c.buffer.size(); ++i) c.buffer[i] = i % 2 ? 1.0F : far;
                const std::vector<float> out = stats_of(c, 0.0F, kInfinity);
                const bool is_valid = far <= MVDE_LARGEST_DEPTH;
                for (std::size_t i = 0; i < out.size(); i += 6) {
                    CHECK(std::isfinite(out[i]) && std::isfinite(out[i + 1]) && std::isfinite(out[i + 2]), "%s", kernel);
                    CHECK(out[i + 4] == (is_valid ? far : 1.0F) && std::abs(out[i + 5] - (is_valid ? 1.0F : 0.5F)) < 1e-6F,
                          "%s, %g m", kernel, static_cast<double>(far));
                }
            }
    }
    mvde_set_kernel(nullptr);
}

TEST(millimetres_survive_an_offset_of_ten_kilometres) {
    Random random(3);
    for (const int patch : {14, 16, 64}) {
        Case c = make_case(random, MVDE_FLOAT32, patch, 1e4F, 0.01F, 0);
        check_everywhere(c, 0.0F, kInfinity);
        CHECK(stats_of(c, 0.0F, kInfinity)[1] > 1e-6F);
    }
}

TEST(constant_planes_have_no_variance_and_no_slope) {
    for (const float depth : {0.1F, 3.3F, 1e4F}) {
        Random random(4);
        Case c = make_case(random, MVDE_FLOAT32, 14, depth, 0, 0);
        const std::vector<float> out = stats_of(c, 0.0F, kInfinity);
        for (std::size_t i = 0; i < out.size(); i += 6)
            CHECK(out[i] == depth && out[i + 1] == 0 && out[i + 2] == 0 && out[i + 5] == 1);
    }
}

TEST(results_do_not_depend_on_the_number_of_threads) {
    Random random(5);
    Case c = make_case(random, MVDE_FLOAT32, 14, 1, 3, 2);
    const std::vector<float> alone = stats_of(c, 0.0F, kInfinity);
    for (const int num_threads : {1, 2, 3, 8}) {
        mvde_workers *workers = nullptr;
        CHECK(mvde_workers_create(num_threads, &workers) == MVDE_OK);
        for (int repeat = 0; repeat < 20; ++repeat) CHECK(same_bits(stats_of(c, 0.0F, kInfinity, workers), alone));
        mvde_workers_destroy(workers);
    }
}

// Dense float32 maps are read in place, all others through tiles; a patch next to an invalid pixel leaves the in-place
// path.
TEST(how_a_map_is_read_does_not_change_a_bit) {
    Random random(6);
    for (const int patch : {1, 3, 8, 14, 16, 20, 40, 250, 260})
        for (const int special : {0, 1, 30}) {
            Case gapped = make_case(random, MVDE_FLOAT32, patch, 0.5F, 9.5F, special);
            Case dense = gapped;
            dense.pixel_gap = dense.row_gap = 0;
            dense.buffer.assign(dense.exact.begin(), dense.exact.end());
            gapped.pixel_gap = 1;
            gapped.buffer.assign(static_cast<std::size_t>(gapped.row_elements()) * gapped.height * gapped.batch, kNaN);
            for (std::size_t i = 0; i < dense.buffer.size(); ++i) {
                const std::size_t row = i / static_cast<std::size_t>(dense.width),
                                  column = i % static_cast<std::size_t>(dense.width);
                gapped.buffer[row * static_cast<std::size_t>(gapped.row_elements()) + 2 * column] = dense.buffer[i];
            }
            for (const mvde::internal::Kernel *kernel : testable_kernels()) {
                mvde::internal::force_kernel(kernel);
                for (const float high : {kInfinity, 8.0F})
                    CHECK(same_bits(stats_of(dense, 0.0F, high), stats_of(gapped, 0.0F, high)), "%s, patch %d, %dx%d",
                          kernel->name, patch, dense.height, dense.width);
            }
            mvde::internal::force_kernel(nullptr);
        }
}

// Statistics are those of the written depth, in each format, and both are as if computed separately.
TEST(depth_and_statistics_together_have_the_bits_of_each_alone) {
    Random random(7);
    for (const int patch : {1, 8, 14, 16, 20, 260})
        for (const int special : {0, 1, 100}) {
            Case c = make_case(random, MVDE_FLOAT32, patch, -0.2F, 9.5F, special);
            std::vector<float> depth(c.exact.size()), stats(stats_of(c, 0, 1).size());
            const mvde_map in = c.map(), out{depth.data(), MVDE_FLOAT32, 0, c.batch, c.height, c.width, 0, 0, 0};
            const mvde_stats_request request{sizeof(mvde_stats_request),        c.patch, 6, kAllStats, stats.data(),
                                             static_cast<int64_t>(stats.size())};
            mvde_postprocess_options options;
            mvde_postprocess_defaults(&options);
            options.range = MVDE_CLAMP;
            options.min_depth_m = 0.125F;
            options.max_depth_m = 8.0F;
            for (const mvde::internal::Kernel *kernel : testable_kernels()) {
                mvde::internal::force_kernel(kernel);
                CHECK(mvde_postprocess(&in, &options, &out, &request, nullptr) == MVDE_OK, "%s", mvde_last_error());
                Case written = c;
                written.pixel_gap = written.row_gap = 0;
                written.buffer = depth;
                CHECK(same_bits(stats_of(written, 0.125F, 8.0F), stats), "%s, patch %d", kernel->name, patch);
                std::vector<float> alone(depth.size());
                const mvde_map out_alone{alone.data(), MVDE_FLOAT32, 0, c.batch, c.height, c.width, 0, 0, 0};
                CHECK(mvde_postprocess(&in, &options, &out_alone, nullptr, nullptr) == MVDE_OK);
                CHECK(same_bits(alone, depth), "%s, patch %d", kernel->name, patch);
            }
            mvde::internal::force_kernel(nullptr);
        }
}

int main() { return harness::run_all(); }
