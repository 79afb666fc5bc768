// The attention kernel against softmax in double, for sizes that do not fill blocks, scores of any magnitude, and any split
// of the work. Skipped, with the reason, on a CPU without AMX.
#include "attention_amx.hpp"
#include "harness.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

namespace {

using namespace mvde::internal::attention;

constexpr int kSkipped = 77;  // CTest's SKIP_RETURN_CODE

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

    // Runs the kernel, with queries in blocks of `block` and keys packed in slices of `slice`.
    std::vector<Bf16> attended(std::size_t block = kQueries, std::size_t slice = 1U << 20) const {
        std::vector<Bf16> out(queries.size(), 0x7fc0);
        const Room packed(Packed(shape).elements());
        const Tiles tiles;
        for (std::size_t batch = 0; batch < shape.batch; ++batch)
            for (std::size_t head = 0; head < shape.heads; ++head) {
                const std::size_t at = start(batch, head);
                for (std::size_t first = 0; first < shape.tokens; first += slice)
                    pack(shape, keys.data() + at, values.data() + at, first, std::min(first + slice, shape.tokens),
                         packed.elements.get());
                for (std::size_t query = 0; query < shape.tokens; query += block)
                    attend(shape, scale(), queries.data() + at + query * shape.width(),
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
    const std::vector<Bf16> out = problem.attended();
    std::vector<double> wanted, size;
    double worst = 0;
    for (std::size_t batch = 0; batch < shape.batch; ++batch)
        for (std::size_t head = 0; head < shape.heads; ++head)
            for (std::size_t query = 0; query < shape.tokens; query += shape.tokens > 200 ? 7 : 1) {
                const std::size_t at = problem.start(batch, head);
                exact(problem, at, query, wanted, size);
                for (std::size_t d = 0; d < shape.depth; ++d) {
                    const double error = std::fabs(wide(out[at + query * shape.width() + d]) - wanted[d]);
                    worst = std::max(worst, error / size[d]);
                    if (!std::isfinite(error)) worst = error;
                }
            }
    CHECK(worst <= kTolerance, "%zu tokens of %zu: off by %g", shape.tokens, shape.depth, worst);
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
    for (const Bf16 value : problem.attended()) CHECK(wide(value) == 3.0, "%g", wide(value));
}

// Threads divide the work into blocks of queries and slices of keys.
TEST(any_split_gives_the_same_bits) {
    for (const float spread : {1.0F, 100.0F}) {
        const Problem problem({1, 203, 2, 72}, spread);
        const std::vector<Bf16> whole = problem.attended();
        CHECK(problem.attended(32, 32) == whole);
        CHECK(problem.attended(16, 64) == whole);
        CHECK(problem.attended(7, 96) == whole);
        CHECK(problem.attended(1) == whole);
    }
}

TEST(not_a_number_is_handed_on) {
    Problem problem({1, 40, 1, 64}, 1.0F);
    problem.queries[3 * 64] = 0x7fc0;
    const std::vector<Bf16> out = problem.attended();
    CHECK(std::isnan(wide(out[3 * 64 + 5])));
    CHECK(std::isfinite(wide(out[4 * 64 + 5])));
}

// The kernel must restore the tile configuration: oneDNN sets it once.
TEST(the_threads_tiles_are_as_before) {
    alignas(64) std::uint8_t before[64] = {1}, after[64];
    before[16] = before[18] = 32;
    before[48] = before[49] = 7;
    asm volatile("ldtilecfg %0" : : "m"(before));
    Problem({1, 40, 1, 64}, 1.0F).attended();
    asm volatile("sttilecfg %0\n\ttilerelease" : "=m"(after));
    CHECK(!std::memcmp(before, after, sizeof after));
}

}  // namespace

int main() {
    if (const char *reason = unavailable(); *reason) {
        std::printf("skipped: %s\n", reason);
        return kSkipped;
    }
    return harness::run_all();
}
