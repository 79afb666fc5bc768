// The digest of a manifest, its last key: SHA-256 of the whole file with the digest's own 64 digits as zeros. It detects
// accidents (a flipped bit, an edit by hand, a file cut off), not attackers.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mvde::internal {

// Where the digest's 64 digits begin; npos where the text does not end in one.
std::size_t digest_at(std::string_view text);

// What the 64 digits that begin at `at` should be.
std::string digest_of(std::string_view text, std::size_t at);

}  // namespace mvde::internal
