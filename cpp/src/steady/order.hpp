// Medians and cells, as mvde/runtime/picture_motion.py has them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace mvde::internal {

// The middle value, the lower of two. Reorders the values, of which there must be one.
template <class Value>
Value lower_median(Value *values, std::int64_t count) {
    Value *const middle = values + (count - 1) / 2;
    std::nth_element(values, middle, values + count);
    return *middle;
}

// Pixels [first, last) of cell `index` of `side` along `length` pixels: a single one where there are fewer pixels than cells.
struct Cell {
    std::int64_t first, last;
    std::int64_t size() const { return last - first; }
};

inline Cell cell_of(std::int64_t index, std::int64_t length, std::int64_t side) {
    const std::int64_t first = index * length / side, next = index + 1 < side ? (index + 1) * length / side : length;
    return {first, next > first ? next : first + 1};
}

}  // namespace mvde::internal
