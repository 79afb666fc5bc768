// The attention kernels in bfloat16 against softmax in double, for sizes that do not fill blocks, scores of any magnitude, and
// any split of the work. Skipped, with the reasons, on a CPU that runs none of them where none is emulated.
#include "attention_amx.hpp"
#include "attention_avx512.hpp"
#include "harness.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#if defined(MVDE_TEST_SIMDE)
namespace mvde::internal::attention::avx512_emulated {  // attention_avx512.cpp on SIMD Everywhere
std::size_t packed_elements(const Shape &shape);
void pack(const Shape &shape, const Bf16 *keys, const Bf16 *values, std::size_t first, std::size_t last, Bf16 *packed);
void attend(const Shape &shape, float scale, const Bf16 *queries, std::size_t num_queries, const Bf16 *packed, Bf16 *out);
}  // namespace mvde::internal::attention::avx512_emulated
#endif

namespace {

using namespace mvde::internal::attention;

constexpr int kSkipped = 77;  // CTest's SKIP_RETURN_CODE

struct Kernel {
    const char *name;
    std::size_t num_queries;
    std::size_t (*packed_elements)(const Shape &);
    void (*pack)(const Shape &, const Bf16 *, const Bf16 *, std::size_t, std::size_t, Bf16 *);
    void (*attend)(const Shape &, float, const Bf16 *, std::size_t, const Bf16 *, Bf16 *);
};

void attend_with_tiles(const Shape &shape, float scale, const Bf16 *queries, std::size_t num_queries, const Bf16 *packed,
                       Bf16 *out) {
    const amx::Tiles tiles;
    amx::attend(shape, scale, queries, num_queries, packed, out);
}

// All that this test executable can run: those that the CPU has, by themselves, and emulated ones.
std::vector<Kernel> testable_kernels() {
    std::vector<Kernel> kernels;
    const auto amx_elements = [](const Shape &shape) { return amx::Packed(shape).elements(); };
    if (!*amx::unavailable()) kernels.push_back({"amx", amx::kQueries, amx_elements, amx::pack, attend_with_tiles});
    if (!*avx512::unavailable())
        kernels.push_back({"avx512", avx512::kQueries, avx512::packed_elements, avx512::pack, avx512::attend});
#if defined(MVDE_TEST_SIMDE)
    kernels.push_back({"emulated avx512", avx512::kQueries, avx512_emulated::packed_elements, avx512_emulated::pack,
                       avx512_emulated::attend});
#endif
    return kernels;
}

double wide(Bf16 value) {
    const std::uint32_t bits = static_cast<std::uint32_t>(value) << 16;
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return static_cast<double>(number);
}

Bf16 narrow(float number) {
    std::uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    return static_cast<Bf16>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

struct Room {  // exactly as large as required, so that AddressSanitizer detects overruns
    std::unique_ptr<Bf16[], void (*)(void *)> elements;

    explicit Room(std::size_t count)
        : elements(static_cast<Bf16 *>(::operator new[](count * sizeof(Bf16), std::align_val_t{64})),
                   [](void *memory) { ::operator delete[](memory, std::align_val_t{64}); }) {}
};

struct Problem {
    Shape shape;
    std::vector<Bf16> queries, keys, values;

    Problem(const Shape &sizes, float spread) : shape(sizes) {
        std::mt19937 bits(static_cast<unsigned>(sizes.tokens * 131 + sizes.depth));
        std::normal_distribution<float> normal;
        for (auto *tensor : {&queries, &keys, &values}) {
            const float size = tensor == &queries ? spread : 1.0F;
            for (std::size_t i = 0; i < sizes.batch * sizes.tokens * sizes.width(); ++i)
                tensor->push_back(narrow(normal(bits) * size));
        }
    }

    float scale() const { return 1.0F / std::sqrt(static_cast<float>(shape.depth)); }
    std::size_t start(std::size_t batch, std::size_t head) const {
        return batch * shape.tokens * shape.width() + head * shape.depth;
    }

    std::vector<Bf16> attended(const Kernel &kernel) const { return attended(kernel, kernel.num_queries, 1U << 20); }

    // Runs the kernel, with queries in blocks of `block` and keys packed in slices of `slice`.
    std::vector<Bf16> attended(const Kernel &kernel, std::size_t block, std::size_t slice) const {
        std::vector<Bf16> out(queries.size(), 0x7fc0);
        const Room packed(kernel.packed_elements(shape));
        for (std::size_t batch = 0; batch < shape.batch; ++batch)
            for (std::size_t head = 0; head < shape.heads; ++head) {
                const std::size_t at = start(batch, head);
                for (std::size_t first = 0; first < shape.tokens; first += slice)
                    kernel.pack(shape, keys.data() + at, values.data() + at, first, std::min(first + slice, shape.tokens),
                                packed.elements.get());
                for (std::size_t query = 0; query < shape.tokens; query += block)
                    kernel.attend(shape, scale(), queries.data() + at + query * shape.width(),
                                  std::min(block, shape.tokens - query), packed.elements.get(),
                                  out.data() + at + query * shape.width());
            }
        return out;
    }
};

// One query's result in double, and the weighted mean of |value|, to which rounding errors are proportional.
void exact(const Problem &problem, std::size_t at, std::size_t query, std::vector<double> &out, std::vector<double> &size) {
    const Shape &shape = problem.shape;
    const auto element = [&](const std::vector<Bf16> &tensor, std::size_t token, std::size_t d) {
        return wide(tensor[at + token * shape.width() + d]);
    };
    std::vector<double> scores(shape.tokens, 0.0);
    for (std::size_t key = 0; key < shape.tokens; ++key)
        for (std::size_t d = 0; d < shape.depth; ++d)
            scores[key] += element(problem.queries, query, d) * element(problem.keys, key, d) *
                           static_cast<double>(problem.scale());
    const double most = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    out.assign(shape.depth, 0.0);
    size.assign(shape.depth, 0.0);
    for (std::size_t key = 0; key < shape.tokens; ++key) {
        const double weight = std::exp(scores[key] - most);
        sum += weight;
        for (std::size_t d = 0; d < shape.depth; ++d) {
            out[d] += weight * element(problem.values, key, d);
            size[d] += weight * std::fabs(element(problem.values, key, d));
        }
    }
    for (std::size_t d = 0; d < shape.depth; ++d) {
        out[d] /= sum;
        size[d] /= sum;
    }
}

// The result is rounded to 8 bits, with an error of at most 2^-8, and so is each weight; dividing by the sum of the rounded
// weights cancels their common error. Powers and sums in float32 add 2^-12.
constexpr double kTolerance = 2 * 0x1p-8 + 0x1p-12;

void check_against_double(const Problem &problem) {
    const Shape &shape = problem.shape;
    const std::vector<Kernel> kernels = testable_kernels();
    std::vector<std::vector<Bf16>> results;
    for (const Kernel &kernel : kernels) results.push_back(problem.attended(kernel));
    std::vector<double> wanted, size, worst(kernels.size(), 0.0);
    for (std::size_t batch = 0; batch < shape.batch; ++batch)
        for (std::size_t head = 0; head < shape.heads; ++head)
            for (std::size_t query = 0; query < shape.tokens; query += shape.tokens > 200 ? 7 : 1) {
                const std::size_t at = problem.start(batch, head);
                exact(problem, at, query, wanted, size);
                for (std::size_t i = 0; i < kernels.size(); ++i)
                    for (std::size_t d = 0; d < shape.depth; ++d) {
                        const double error = std::fabs(wide(results[i][at + query * shape.width() + d]) - wanted[d]);
                        worst[i] = std::isfinite(error) ? std::max(worst[i], error / size[d]) : error;
                    }
            }
    for (std::size_t i = 0; i < kernels.size(); ++i)
        CHECK(worst[i] <= kTolerance, "%s, %zu tokens of %zu: off by %g", kernels[i].name, shape.tokens, shape.depth,
              worst[i]);
}

TEST(sizes_that_fill_no_block) {
    for (const std::size_t depth : {1, 16, 32, 64, 72, 80, 128})
        for (const std::size_t tokens : {1, 15, 31, 32, 33, 64, 65, 100, 197})
            check_against_double(Problem({1, tokens, 2, depth}, 1.0F));
    check_against_double(Problem({2, 50, 3, 64}, 1.0F));
    check_against_double(Problem({1, 784, 3, 64}, 2.0F));
}

// Scores whose powers exceed float32's range: the largest is found and subtracted.
TEST(large_scores) {
    for (const float spread : {20.0F, 100.0F, 400.0F}) check_against_double(Problem({1, 99, 2, 64}, spread));
    Problem problem({1, 70, 1, 32}, 1.0F);  // all scores are -300, where all powers would be 0
    for (std::size_t i = 0; i < problem.queries.size(); ++i) {
        problem.queries[i] = narrow(-300.0F / std::sqrt(32.0F));
        problem.keys[i] = narrow(1.0F);
    }
    check_against_double(problem);
}

TEST(equal_scores_give_the_mean) {
    Problem problem({1, 45, 1, 64}, 1.0F);
    std::fill(problem.queries.begin(), problem.queries.end(), Bf16{0});
    std::fill(problem.values.begin(), problem.values.end(), narrow(3.0F));
    for (const Kernel &kernel : testable_kernels())
        for (const Bf16 value : problem.attended(kernel)) CHECK(wide(value) == 3.0, "%s: %g", kernel.name, wide(value));
}

// Threads divide the work into blocks of queries and slices of keys.
TEST(any_split_gives_the_same_bits) {
    for (const float spread : {1.0F, 100.0F}) {
        const Problem problem({1, 203, 2, 72}, spread);
        for (const Kernel &kernel : testable_kernels()) {
            const std::vector<Bf16> whole = problem.attended(kernel);
            CHECK(problem.attended(kernel, 32, 32) == whole, "%s", kernel.name);
            CHECK(problem.attended(kernel, 16, 64) == whole, "%s", kernel.name);
            CHECK(problem.attended(kernel, 7, 96) == whole, "%s", kernel.name);
            CHECK(problem.attended(kernel, 1, 1U << 20) == whole, "%s", kernel.name);
        }
    }
}

TEST(not_a_number_is_handed_on) {
    Problem problem({1, 40, 1, 64}, 1.0F);
    problem.queries[3 * 64] = 0x7fc0;
    for (const Kernel &kernel : testable_kernels()) {
        const std::vector<Bf16> out = problem.attended(kernel);
        CHECK(std::isnan(wide(out[3 * 64 + 5])), "%s", kernel.name);
        CHECK(std::isfinite(wide(out[4 * 64 + 5])), "%s", kernel.name);
    }
}

// The kernel must restore the tile configuration: oneDNN sets it once.
TEST(the_threads_tiles_are_as_before) {
    if (*amx::unavailable()) return;
    alignas(64) std::uint8_t before[64] = {1}, after[64];
    before[16] = before[18] = 32;
    before[48] = before[49] = 7;
    asm volatile("ldtilecfg %0" : : "m"(before));
    Problem({1, 40, 1, 64}, 1.0F).attended(testable_kernels().front());
    asm volatile("sttilecfg %0\n\ttilerelease" : "=m"(after));
    CHECK(!std::memcmp(before, after, sizeof after));
}

}  // namespace

int main() {
    for (const Kernel &kernel : testable_kernels()) std::printf("kernel: %s\n", kernel.name);
    if (!testable_kernels().empty()) return harness::run_all();
    std::printf("skipped: %s; %s\n", amx::unavailable(), avx512::unavailable());
    return kSkipped;
}
