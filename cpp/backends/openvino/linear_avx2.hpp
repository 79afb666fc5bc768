// 8-bit linear layers with results in float32 for CPUs with AVX2 and without VNNI. Independent of any inference library.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mvde::internal::linear {

constexpr std::size_t kColumns = 24;  // of a panel of weights
constexpr std::size_t kDepths = 4;    // input channels that are multiplied together

// Rows [rows, depth] times weights [depth, columns]: every product is (row / step, rounded and clipped to 8 bits) times a
// weight, exact in integers; then result = sum * scale + bias, with one scale and bias per column.
struct Layer {
    std::size_t depth, columns;
    float step;                  // of the quantised rows
    const std::int8_t *weights;  // [columns / kColumns][depth / kDepths][kColumns][kDepths], padded with zeros; -63 to 63
    const std::int32_t *excess;  // [columns]: 128 times the sum of a column's weights
    const float *scale, *bias;
};

// Numbers of bytes of the packed weights, and of `multiply`'s scratch memory.
std::size_t packed_size(std::size_t depth, std::size_t columns);
std::size_t scratch_size(std::size_t depth);

// Computes `num_rows` rows; a row's result does not depend on the others. `scratch` is aligned to 32 bytes.
void multiply(const Layer &layer, const float *rows, std::size_t num_rows, std::uint8_t *scratch, float *out);

}  // namespace mvde::internal::linear
