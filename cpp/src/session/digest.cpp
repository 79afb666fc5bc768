#include "session/digest.hpp"

#include "session/sha256.hpp"

namespace mvde::internal {
namespace {

constexpr std::size_t kNumDigits = 64;
constexpr std::string_view kSpace = " \t\r\n";

// Removes `wanted`, and whitespace after it, from the end of the text. Returns false if the text does not end so.
bool take_back(std::string_view &text, std::string_view wanted) {
    const std::size_t last = text.find_last_not_of(kSpace);
    if (last == std::string_view::npos) return false;
    const std::string_view rest = text.substr(0, last + 1);
    if (rest.size() < wanted.size() || rest.substr(rest.size() - wanted.size()) != wanted) return false;
    text = rest.substr(0, rest.size() - wanted.size());
    return true;
}

}  // namespace

std::size_t digest_at(std::string_view text) {
    if (!take_back(text, "}") || !take_back(text, "\"") || text.size() < kNumDigits) return std::string_view::npos;
    const std::size_t at = text.size() - kNumDigits;
    if (text.find_first_not_of("0123456789abcdef", at) != std::string_view::npos) return std::string_view::npos;
    text = text.substr(0, at);
    if (text.empty() || text.back() != '"') return std::string_view::npos;
    text.remove_suffix(1);
    return take_back(text, ":") && take_back(text, "\"digest\"") ? at : std::string_view::npos;
}

std::string digest_of(std::string_view text, std::size_t at) {
    const std::string zeros(kNumDigits, '0');
    const std::string_view after = text.substr(at + kNumDigits);
    Sha256 digest;
    digest.update(text.data(), at);
    digest.update(zeros.data(), zeros.size());
    digest.update(after.data(), after.size());
    return digest.hexadecimal();
}

}  // namespace mvde::internal
