// A strict JSON parser (RFC 8259) for manifests: bounded nesting, no duplicate keys, valid UTF-8 only.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace mvde::internal {

struct Json {
    enum class Kind { null, boolean, integer, real, text, list, object };
    Kind kind = Kind::null;
    bool flag = false;
    std::int64_t integer = 0;
    double real = 0.0;
    std::string text;
    std::vector<std::string> keys;  // of an object, in file order; keys[i] belongs to items[i]
    std::vector<Json> items;

    const Json *find(std::string_view key) const;
    double number() const { return kind == Kind::integer ? static_cast<double>(integer) : real; }
};

// A syntax error, with its position.
struct JsonError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Nesting deeper than any manifest's.
struct JsonDepthError : std::runtime_error {
    JsonDepthError() : std::runtime_error("nested too deeply") {}
};

Json parse_json(std::string_view text);

// Removes the key from the object and returns its value, if present.
std::optional<Json> taken(Json &object, std::string_view key);

// The value, and the name of its type, as Python prints them, so that both report the same messages.
std::string repr(const Json &value);
std::string repr(const std::string &text);
std::string repr(double value);
const char *type_name(const Json &value);

}  // namespace mvde::internal
