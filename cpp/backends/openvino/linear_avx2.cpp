// Rows are quantised to unsigned bytes, 128 above their signed values: vpmaddubsw multiplies unsigned by signed bytes and adds
// two products in 16 bits, which weights of 7 bits never exceed (2 * 255 * 63). 128 times the sum of a column's weights is
// subtracted at the end.
#include "linear_avx2.hpp"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

namespace mvde::internal::linear {
namespace {

constexpr std::size_t kVectors = kColumns / 8;
constexpr std::size_t kTileRows = 3;  // nine sums, three rows, and a product in sixteen registers
constexpr std::size_t kChunkRows = 48;  // quantised at a time: 36 KiB at a depth of 768
constexpr int kZero = 128;  // of the unsigned bytes

std::size_t round_up(std::size_t size, std::size_t unit) { return (size + unit - 1) / unit * unit; }

// The nearest step to each of eight numbers, ties to even; NaN becomes the lowest.
__m256i quantised(__m256 numbers, __m256 step) {
    const __m256 scaled = _mm256_div_ps(numbers, step);
    const __m256 clipped = _mm256_min_ps(_mm256_max_ps(scaled, _mm256_set1_ps(-128.0F)), _mm256_set1_ps(127.0F));
    return _mm256_add_epi32(_mm256_cvtps_epi32(clipped), _mm256_set1_epi32(kZero));
}

void quantise(const Layer &layer, const float *row, std::uint8_t *to) {
    const __m256 step = _mm256_set1_ps(layer.step);
    const __m256i low_bytes = _mm256_set1_epi32(0x0c080400);
    const auto store = [&](__m256i steps, std::uint8_t *eight) {
        const __m256i packed = _mm256_shuffle_epi8(steps, low_bytes);
        const std::int32_t halves[2] = {_mm256_extract_epi32(packed, 0), _mm256_extract_epi32(packed, 4)};
        std::memcpy(eight, halves, sizeof halves);
    };
    std::size_t d = 0;
    for (; d + 8 <= layer.depth; d += 8) store(quantised(_mm256_loadu_ps(row + d), step), to + d);
    if (d == layer.depth) return;
    alignas(32) float last[8] = {};
    std::copy(row + d, row + layer.depth, last);
    store(quantised(_mm256_load_ps(last), step), to + d);
}

// Adds 8 by 4 bytes of weights times four of a row to 32-bit sums. The barrier keeps GCC from computing all products of a
// tile before it adds the first: there are too few registers for that, and it cost a quarter of the speed.
__m256i add_products(__m256i sum, __m256i row, __m256i weights, __m256i ones) {
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(row, weights), ones));
    asm("" : "+x"(sum));
    return sum;
}

__m256i eight_columns(const std::int8_t *from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)); }

__m256i four_bytes(const std::uint8_t *from) {
    std::int32_t bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

// What turns the sums of up to eight columns into results.
class Columns {
public:
    Columns(const Layer &layer, std::size_t first) : count_(std::min<std::size_t>(8, layer.columns - first)) {
        alignas(32) static constexpr std::int32_t kMasks[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
        mask_ = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(kMasks + 8 - count_));
        excess_ = _mm256_maskload_epi32(layer.excess + first, mask_);
        scale_ = _mm256_maskload_ps(layer.scale + first, mask_);
        bias_ = _mm256_maskload_ps(layer.bias + first, mask_);
    }

    void write(const std::int32_t *sums, float *out) const {
        const __m256i sum = _mm256_load_si256(reinterpret_cast<const __m256i *>(sums));
        const __m256 result = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(sum, excess_)), scale_, bias_);
        if (count_ == 8) _mm256_storeu_ps(out, result);
        else _mm256_maskstore_ps(out, mask_, result);
    }

private:
    std::size_t count_;
    __m256i mask_, excess_;
    __m256 scale_, bias_;
};

// A panel's results for kRows quantised rows, `stride` bytes apart.
template <std::size_t kRows>
void tile(const Layer &layer, const std::int8_t *panel, const std::uint8_t *rows, std::size_t stride, std::size_t first,
          float *out) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[kRows][kVectors];
    for (std::size_t row = 0; row < kRows; ++row)
        for (std::size_t i = 0; i < kVectors; ++i) sum[row][i] = _mm256_setzero_si256();
    for (std::size_t d = 0; d < layer.depth; d += kDepths, panel += kColumns * kDepths) {
        const __m256i first_eight = eight_columns(panel), second = eight_columns(panel + 8 * kDepths);
        const __m256i third = eight_columns(panel + 16 * kDepths);
        for (std::size_t row = 0; row < kRows; ++row) {
            const __m256i bytes = four_bytes(rows + row * stride + d);
            sum[row][0] = add_products(sum[row][0], bytes, first_eight, ones);
            sum[row][1] = add_products(sum[row][1], bytes, second, ones);
            sum[row][2] = add_products(sum[row][2], bytes, third, ones);
        }
    }
    alignas(32) std::int32_t sums[kRows][kColumns];  // through memory: a variable index would keep the sums out of registers
    for (std::size_t row = 0; row < kRows; ++row)
        for (std::size_t i = 0; i < kVectors; ++i)
            _mm256_store_si256(reinterpret_cast<__m256i *>(sums[row] + 8 * i), sum[row][i]);
    for (std::size_t i = 0; i < kColumns && first + i < layer.columns; i += 8) {
        const Columns columns(layer, first + i);
        for (std::size_t row = 0; row < kRows; ++row) columns.write(sums[row] + i, out + row * layer.columns + first + i);
    }
}

}  // namespace

std::size_t packed_size(std::size_t depth, std::size_t columns) {
    return round_up(depth, kDepths) * round_up(columns, kColumns);
}

std::size_t scratch_size(std::size_t depth) { return kChunkRows * round_up(depth, 8); }

void multiply(const Layer &layer, const float *rows, std::size_t num_rows, std::uint8_t *scratch, float *out) {
    const std::size_t stride = round_up(layer.depth, 8), panel_size = round_up(layer.depth, kDepths) * kColumns;
    for (std::size_t first = 0; first < num_rows; first += kChunkRows) {
        const std::size_t count = std::min(kChunkRows, num_rows - first);
        for (std::size_t row = 0; row < count; ++row)
            quantise(layer, rows + (first + row) * layer.depth, scratch + row * stride);
        const std::int8_t *panel = layer.weights;
        for (std::size_t column = 0; column < layer.columns; column += kColumns, panel += panel_size) {
            std::size_t row = 0;
            const auto at = [&] { return out + (first + row) * layer.columns; };
            for (; row + kTileRows <= count; row += kTileRows)
                tile<kTileRows>(layer, panel, scratch + row * stride, stride, column, at());
            for (; row < count; ++row) tile<1>(layer, panel, scratch + row * stride, stride, column, at());
        }
    }
}

}  // namespace mvde::internal::linear
