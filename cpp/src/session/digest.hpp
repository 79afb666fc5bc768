// The digest of a manifest, its last key: SHA-256 of the whole file with the digest's 64 digits as zeros. It detects
// accidents (a flipped bit, a manual edit, truncation), not attackers.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mvde::internal {

// Offset of the digest's 64 digits; npos if the text does not end in a digest.
std::size_t digest_at(std::string_view text);

// The correct 64 digits for the digest at offset `at`.
std::string digest_of(std::string_view text, std::size_t at);

}  // namespace mvde::internal
