// The 8-bit linear layer against integer arithmetic, for sizes that fill no panel and operands at their limits. Skipped, with
// the reason, on a CPU without AVX2.
#include "attention_avx2.hpp"
#include "harness.hpp"
#include "linear_avx2.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

namespace {

using namespace mvde::internal::linear;

constexpr int kSkipped = 77;  // CTest's SKIP_RETURN_CODE

struct Problem {
    std::size_t num_rows, depth, columns;
    float step = 1.0F;
    std::vector<float> rows;
    std::vector<std::int8_t> weights;  // [depth][columns]
    std::vector<float> scale, bias;

    Problem(std::size_t some_rows, std::size_t some_depth, std::size_t some_columns)
        : num_rows(some_rows), depth(some_depth), columns(some_columns), rows(num_rows * depth), weights(depth * columns),
          scale(columns, 1.0F), bias(columns, 0.0F) {
        std::mt19937 bits(static_cast<unsigned>(depth * 31 + columns));
        for (float &row : rows) row = static_cast<float>(static_cast<int>(bits() % 300) - 150);  // beyond -128 and 127
        for (std::int8_t &weight : weights) weight = static_cast<std::int8_t>(static_cast<int>(bits() % 127) - 63);
    }

    std::vector<float> multiplied(std::size_t rows_at_a_time) const {
        const std::size_t depths = (depth + kDepths - 1) / kDepths * kDepths;
        // Exactly as large as required, so that AddressSanitizer detects overruns.
        const std::unique_ptr<std::int8_t[]> packed(new std::int8_t[packed_size(depth, columns)]());
        std::vector<std::int32_t> excess(columns, 0);
        for (std::size_t d = 0; d < depth; ++d)
            for (std::size_t column = 0; column < columns; ++column) {
                const std::int8_t weight = weights[d * columns + column];
                packed[column / kColumns * kColumns * depths + d / kDepths * kColumns * kDepths +
                       column % kColumns * kDepths + d % kDepths] = weight;
                excess[column] += 128 * weight;
            }
        const Layer layer{depth, columns, step, packed.get(), excess.data(), scale.data(), bias.data()};
        std::vector<float> out(num_rows * columns, std::nanf(""));
        std::unique_ptr<std::uint8_t[], void (*)(void *)> scratch(
            static_cast<std::uint8_t *>(::operator new[](scratch_size(depth), std::align_val_t{32})),
            [](void *memory) { ::operator delete[](memory, std::align_val_t{32}); });
        for (std::size_t row = 0; row < num_rows; row += rows_at_a_time)
            multiply(layer, rows.data() + row * depth, std::min(rows_at_a_time, num_rows - row), scratch.get(),
                     out.data() + row * columns);
        return out;
    }

    // In integers; the sums of these tests are below 2^24, which float32 holds exactly.
    std::vector<float> exact() const {
        std::vector<float> out;
        for (std::size_t row = 0; row < num_rows; ++row)
            for (std::size_t column = 0; column < columns; ++column) {
                long sum = 0;
                for (std::size_t d = 0; d < depth; ++d) {
                    const double steps = std::nearbyint(static_cast<double>(rows[row * depth + d]) / step);
                    sum += std::lround(std::clamp(steps, -128.0, 127.0)) * weights[d * columns + column];
                }
                out.push_back(static_cast<float>(sum) * scale[column] + bias[column]);
            }
        return out;
    }
};

TEST(sizes_that_fill_no_panel) {
    for (const std::size_t depth : {1, 4, 7, 8, 31, 64})
        for (const std::size_t columns : {1, 8, 23, 24, 25, 50})
            for (const std::size_t num_rows : {1, 3, 5, 50}) {
                const Problem problem(num_rows, depth, columns);
                CHECK(problem.multiplied(1U << 20) == problem.exact(), "%zu x %zu x %zu", num_rows, depth, columns);
            }
}

// Two products of 255 and 63 are the most that 16 bits have to hold.
TEST(operands_at_their_limits_do_not_saturate) {
    for (const int weight : {-63, 63})
        for (const float row : {-128.0F, 127.0F}) {
            Problem problem(3, 768, 24);
            std::fill(problem.rows.begin(), problem.rows.end(), row);
            std::fill(problem.weights.begin(), problem.weights.end(), static_cast<std::int8_t>(weight));
            CHECK(problem.multiplied(3) == problem.exact(), "%d %g", weight, static_cast<double>(row));
        }
}

TEST(ties_go_to_the_even_step) {
    Problem problem(1, 4, 1);
    problem.step = 0.25F;
    problem.rows = {0.125F, 0.375F, -0.125F, 0.625F};  // 0.5, 1.5, -0.5 and 2.5 steps: 0, 2, 0 and 2
    problem.weights = {1, 5, 25, 7};
    CHECK(problem.multiplied(1)[0] == 24.0F, "%g", static_cast<double>(problem.multiplied(1)[0]));
}

TEST(scale_and_bias_are_per_column) {
    Problem problem(2, 16, 30);
    for (std::size_t column = 0; column < 30; ++column) {
        problem.scale[column] = 0.5F * static_cast<float>(column);
        problem.bias[column] = 100.0F - static_cast<float>(column);
    }
    CHECK(problem.multiplied(2) == problem.exact());
}

TEST(any_split_of_the_rows_gives_the_same_bits) {
    Problem problem(101, 36, 48);
    problem.step = 0.7F;
    std::fill(problem.scale.begin(), problem.scale.end(), 0.013F);
    const std::vector<float> whole = problem.multiplied(101);
    for (const std::size_t rows : {1, 7, 50}) CHECK(problem.multiplied(rows) == whole);
}

}  // namespace

int main() {
    if (const char *reason = mvde::internal::attention::avx2::unavailable(); *reason) {
        std::printf("skipped: %s\n", reason);
        return kSkipped;
    }
    return harness::run_all();
}
