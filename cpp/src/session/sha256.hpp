// SHA-256 (FIPS 180-4) of a file's content, for comparison with its manifest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace mvde::internal {

class Sha256 {
public:
    void update(const void *data, std::size_t num_bytes);
    std::string hexadecimal();  // 64 lower-case digits; finishes the hash

private:
    void block(const std::uint8_t *bytes);

    std::uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                               0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::uint8_t pending_[64] = {};
    std::size_t num_pending_ = 0;
    std::uint64_t num_bytes_ = 0;
};

}  // namespace mvde::internal
