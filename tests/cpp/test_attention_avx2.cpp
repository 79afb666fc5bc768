// The float32 attention kernel against softmax in double, for sizes that do not fill blocks, scores of any magnitude, and any
// split of the work. Skipped, with the reason, on a CPU without AVX2.
#include "attention_avx2.hpp"
#include "harness.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <vector>

namespace {

using mvde::internal::attention::Shape;
using namespace mvde::internal::attention::avx2;

constexpr int kSkipped = 77;  // CTest's SKIP_RETURN_CODE

struct Problem {
    Shape shape;
    std::vector<float> queries, keys, values;

    Problem(const Shape &sizes, float spread) : shape(sizes) {
        std::mt19937 bits(static_cast<unsigned>(sizes.tokens * 131 + sizes.depth));
        std::normal_distribution<float> normal;
        for (auto *tensor : {&queries, &keys, &values}) {
            const float size = tensor == &queries ? spread : 1.0F;
            for (std::size_t i = 0; i < sizes.batch * sizes.tokens * sizes.width(); ++i)
                tensor->push_back(normal(bits) * size);
        }
    }

    float scale() const { return 1.0F / std::sqrt(static_cast<float>(shape.depth)); }
    std::size_t start(std::size_t batch, std::size_t head) const {
        return batch * shape.tokens * shape.width() + head * shape.depth;
    }

    // Runs the kernel, with keys packed in slices of `slice`.
    std::vector<float> attended(std::size_t slice = 1U << 20) const {
        std::vector<float> out(queries.size(), std::numeric_limits<float>::quiet_NaN());
        const std::unique_ptr<float[]> packed(new float[packed_elements(shape)]);  // AddressSanitizer detects overruns
        for (std::size_t batch = 0; batch < shape.batch; ++batch)
            for (std::size_t head = 0; head < shape.heads; ++head) {
                const std::size_t at = start(batch, head);
                for (std::size_t first = 0; first < shape.tokens; first += slice)
                    pack(shape, keys.data() + at, values.data() + at, first, std::min(first + slice, shape.tokens),
                         packed.get());
                for (std::size_t query = 0; query < shape.tokens; query += kQueries)
                    attend(shape, scale(), queries.data() + at + query * shape.width(),
                           std::min(kQueries, shape.tokens - query), packed.get(), out.data() + at + query * shape.width());
            }
        return out;
    }
};

// The worst error of a head over some queries, relative to the weighted mean of |value|, to which rounding is proportional.
double worst_error(const Problem &problem, const std::vector<float> &out, std::size_t at, std::size_t step) {
    const Shape &shape = problem.shape;
    double worst = 0;
    for (std::size_t query = 0; query < shape.tokens; query += step) {
        std::vector<double> scores(shape.tokens, 0.0);
        for (std::size_t key = 0; key < shape.tokens; ++key)
            for (std::size_t d = 0; d < shape.depth; ++d)
                scores[key] += static_cast<double>(problem.queries[at + query * shape.width() + d]) *
                               static_cast<double>(problem.keys[at + key * shape.width() + d]) *
                               static_cast<double>(problem.scale());
        const double most = *std::max_element(scores.begin(), scores.end());
        double sum = 0;
        for (double &score : scores) sum += score = std::exp(score - most);
        for (std::size_t d = 0; d < shape.depth; ++d) {
            double wanted = 0, size = 0;
            for (std::size_t key = 0; key < shape.tokens; ++key) {
                const auto value = static_cast<double>(problem.values[at + key * shape.width() + d]);
                wanted += scores[key] * value;
                size += scores[key] * std::fabs(value);
            }
            const double error = std::fabs(static_cast<double>(out[at + query * shape.width() + d]) - wanted / sum);
            worst = std::isfinite(error) ? std::max(worst, error / (size / sum)) : std::numeric_limits<double>::infinity();
            if (!std::isfinite(worst)) return worst;
        }
    }
    return worst;
}

// A score is rounded by about 2^-23 of its size, which is the relative error of its probability.
void check_against_double(const Problem &problem, double tolerance) {
    const Shape &shape = problem.shape;
    const std::vector<float> out = problem.attended();
    for (std::size_t batch = 0; batch < shape.batch; ++batch)
        for (std::size_t head = 0; head < shape.heads; ++head) {
            const double worst = worst_error(problem, out, problem.start(batch, head), shape.tokens > 200 ? 61 : 1);
            CHECK(worst <= tolerance, "%zu tokens of %zu: off by %g", shape.tokens, shape.depth, worst);
        }
}

TEST(sizes_that_fill_no_block) {
    for (const std::size_t depth : {1, 3, 64, 72})
        for (const std::size_t tokens : {1, 4, 23, 25, 65, 100})
            check_against_double(Problem({1, tokens, 2, depth}, 1.0F), 4e-6);
    check_against_double(Problem({2, 50, 3, 128}, 1.0F), 4e-6);
    check_against_double(Problem({1, 784, 2, 64}, 2.0F), 4e-6);
}

// Scores whose powers exceed float32's range: the largest is found and subtracted.
TEST(large_scores) {
    for (const float spread : {20.0F, 100.0F, 400.0F})
        check_against_double(Problem({1, 99, 2, 64}, spread), 2e-6 * static_cast<double>(spread));
    Problem problem({1, 70, 1, 32}, 1.0F);  // all scores are -300, where all powers would be 0
    std::fill(problem.queries.begin(), problem.queries.end(), -300.0F / std::sqrt(32.0F));
    std::fill(problem.keys.begin(), problem.keys.end(), 1.0F);
    check_against_double(problem, 4e-6);
}

// The others of the block keep their bits: a query's result does not depend on its neighbours.
TEST(a_query_with_large_scores_leaves_its_neighbours_alone) {
    Problem problem({1, 60, 1, 64}, 1.0F);
    const std::vector<float> before = problem.attended();
    for (std::size_t d = 0; d < 64; ++d) problem.queries[5 * 64 + d] *= 300.0F;
    const std::vector<float> after = problem.attended();
    CHECK(std::equal(before.begin(), before.begin() + 5 * 64, after.begin()));
    CHECK(std::equal(before.begin() + 6 * 64, before.end(), after.begin() + 6 * 64));
    check_against_double(problem, 2e-6 * 300);
}

TEST(equal_scores_give_the_mean) {
    Problem problem({1, 45, 1, 64}, 1.0F);
    std::fill(problem.queries.begin(), problem.queries.end(), 0.0F);
    std::fill(problem.values.begin(), problem.values.end(), 3.0F);
    for (const float value : problem.attended()) CHECK(std::fabs(value - 3.0F) < 2e-6F, "%g", static_cast<double>(value));
}

// Threads divide the packing into slices of keys.
TEST(any_split_gives_the_same_bits) {
    const Problem problem({1, 203, 2, 72}, 1.0F);
    const std::vector<float> whole = problem.attended();
    for (const std::size_t slice : {4, 32, 96}) CHECK(problem.attended(slice) == whole);
}

TEST(not_a_number_is_handed_on) {
    Problem problem({1, 40, 1, 64}, 1.0F);
    problem.queries[3 * 64] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> out = problem.attended();
    CHECK(std::isnan(out[3 * 64 + 5]));
    CHECK(std::isfinite(out[4 * 64 + 5]));
    problem = Problem({1, 40, 1, 64}, 1.0F);
    problem.values[7 * 64 + 2] = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(problem.attended()[9 * 64 + 2]));
}

}  // namespace

int main() {
    if (const char *reason = unavailable(); *reason) {
        std::printf("skipped: %s\n", reason);
        return kSkipped;
    }
    return harness::run_all();
}
