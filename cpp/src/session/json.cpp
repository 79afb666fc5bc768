#include "session/json.hpp"

#include <charconv>
#include <cmath>
#include <system_error>
#include <unordered_set>

namespace mvde::internal {
namespace {

constexpr int kMaxNesting = 64;

class Parser {
public:
    explicit Parser(std::string_view text) : text_(text) {}

    Json document() {
        Json value = any(0);
        skip_space();
        if (at_ != text_.size()) refuse("Extra data");
        return value;
    }

private:
    [[noreturn]] void refuse(const char *what) const {
        std::size_t line = 1, column = 1;
        for (const char c : text_.substr(0, at_)) {
            ++column;
            if (c == '\n') ++line, column = 1;
        }
        throw JsonError(std::string(what) + ": line " + std::to_string(line) + " column " + std::to_string(column) +
                        " (char " + std::to_string(at_) + ")");
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    void skip_space() {
        while (at_ < text_.size() && std::string_view(" \t\n\r").find(text_[at_]) != std::string_view::npos) ++at_;
    }

    bool take(char wanted) {
        skip_space();
        if (at_ >= text_.size() || text_[at_] != wanted) return false;
        ++at_;
        return true;
    }

    bool take_word(std::string_view word) {
        if (text_.substr(at_, word.size()) != word) return false;
        at_ += word.size();
        return true;
    }

    Json any(int depth) {
        if (depth > kMaxNesting) throw JsonDepthError();
        skip_space();
        Json value;
        const char first = peek();
        if (first == '{') return object(depth);
        if (first == '[') return list(depth);
        if (first == '"') {
            value.kind = Json::Kind::text;
            value.text = text();
        } else if (first == '-' || (first >= '0' && first <= '9')) {
            return number();
        } else if (take_word("true") || take_word("false")) {
            value.kind = Json::Kind::boolean;
            value.flag = first == 't';
        } else if (!take_word("null")) {
            refuse("Expecting value");
        }
        return value;
    }

    Json object(int depth) {
        Json value;
        value.kind = Json::Kind::object;
        ++at_;
        if (take('}')) return value;
        std::unordered_set<std::string> seen;
        do {
            skip_space();
            if (peek() != '"') refuse("Expecting property name enclosed in double quotes");
            value.keys.push_back(text());
            if (!seen.insert(value.keys.back()).second) refuse("Duplicate property name");
            if (!take(':')) refuse("Expecting ':' delimiter");
            value.items.push_back(any(depth + 1));
        } while (take(','));
        if (!take('}')) refuse("Expecting ',' delimiter");
        return value;
    }

    Json list(int depth) {
        Json value;
        value.kind = Json::Kind::list;
        ++at_;
        if (take(']')) return value;
        do value.items.push_back(any(depth + 1));
        while (take(','));
        if (!take(']')) refuse("Expecting ',' delimiter");
        return value;
    }

    void digits() {
        if (peek() < '0' || peek() > '9') refuse("Expecting digit");
        while (peek() >= '0' && peek() <= '9') ++at_;
    }

    Json number() {
        const std::size_t begin = at_;
        Json value;
        value.kind = Json::Kind::integer;
        if (peek() == '-') ++at_;
        if (peek() == '0') ++at_;
        else digits();
        if (peek() == '.') {
            value.kind = Json::Kind::real;
            ++at_;
            digits();
        }
        if (peek() == 'e' || peek() == 'E') {
            value.kind = Json::Kind::real;
            ++at_;
            if (peek() == '+' || peek() == '-') ++at_;
            digits();
        }
        const char *first = text_.data() + begin, *last = text_.data() + at_;
        const auto result = value.kind == Json::Kind::integer ? std::from_chars(first, last, value.integer)
                                                              : std::from_chars(first, last, value.real);
        if (result.ec != std::errc() || result.ptr != last) refuse("Number out of range");
        return value;
    }

    unsigned hexadecimal() {
        unsigned value = 0;
        const char *first = text_.data() + at_;
        if (text_.size() - at_ < 4) refuse("Invalid \\uXXXX escape");
        const auto result = std::from_chars(first, first + 4, value, 16);
        if (result.ec != std::errc() || result.ptr != first + 4) refuse("Invalid \\uXXXX escape");
        at_ += 4;
        return value;
    }

    void escape(std::string &out) {
        const char kind = peek();
        const std::size_t which = std::string_view("\"\\/bfnrt").find(kind);
        ++at_;
        if (kind && which != std::string_view::npos) {
            out += "\"\\/\b\f\n\r\t"[which];
            return;
        }
        if (kind != 'u') refuse("Invalid \\escape");
        unsigned code = hexadecimal();
        if (code >= 0xD800 && code < 0xE000) {
            if (code >= 0xDC00 || !take_word("\\u")) refuse("Unpaired surrogate");
            const unsigned low = hexadecimal();
            if (low < 0xDC00 || low >= 0xE000) refuse("Unpaired surrogate");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        append_utf8(code, out);
    }

    static void append_utf8(unsigned code, std::string &out) {
        if (code < 0x80) {
            out += static_cast<char>(code);
            return;
        }
        const int num_following = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        const unsigned lead = num_following == 1 ? 0xC0 : num_following == 2 ? 0xE0 : 0xF0;
        out += static_cast<char>(lead | code >> (6 * num_following));
        for (int i = num_following - 1; i >= 0; --i) out += static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3F));
    }

    // Copies one multi-byte character if it is well-formed UTF-8.
    void copy_utf8(std::string &out) {
        const auto byte = [&](std::size_t i) -> unsigned {
            return at_ + i < text_.size() ? static_cast<unsigned char>(text_[at_ + i]) : 0U;
        };
        const unsigned lead = byte(0);
        const std::size_t num_following = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        unsigned code = num_following == 3 ? lead & 0x07 : num_following == 2 ? lead & 0x0F : lead & 0x1F;
        bool is_valid = lead >= 0xC2 && lead <= 0xF4;
        for (std::size_t i = 1; i <= num_following; ++i) {
            is_valid = is_valid && (byte(i) & 0xC0) == 0x80;
            code = code << 6 | (byte(i) & 0x3F);
        }
        is_valid = is_valid && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF) &&
                   code >= (num_following == 3   ? 0x10000U
                            : num_following == 2 ? 0x800U
                                                 : 0x80U);
        if (!is_valid) refuse("Invalid UTF-8");
        out += text_.substr(at_, num_following + 1);
        at_ += num_following + 1;
    }

    std::string text() {
        std::string out;
        ++at_;
        while (true) {
            if (at_ >= text_.size()) refuse("Unterminated string");
            const auto byte = static_cast<unsigned char>(text_[at_]);
            if (byte == '"') break;
            if (byte < 0x20) refuse("Invalid control character");
            if (byte >= 0x80) {
                copy_utf8(out);
            } else {
                ++at_;
                if (byte == '\\') escape(out);
                else out += static_cast<char>(byte);
            }
        }
        ++at_;
        return out;
    }

    std::string_view text_;
    std::size_t at_ = 0;
};

}  // namespace

const Json *Json::find(std::string_view key) const {
    for (std::size_t i = 0; i < keys.size(); ++i)
        if (keys[i] == key) return &items[i];
    return nullptr;
}

Json parse_json(std::string_view text) { return Parser(text).document(); }

std::string repr(const std::string &text) {
    const bool has_single = text.find('\'') != std::string::npos, has_double = text.find('"') != std::string::npos;
    const char quote = has_single && !has_double ? '"' : '\'';
    std::string out(1, quote);
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == quote || c == '\\') out += '\\';
        if (byte >= 0x20 && byte != 0x7F) {
            out += c;
        } else if (c == '\n' || c == '\r' || c == '\t') {
            out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
        } else {
            out += "\\x";
            out += "0123456789abcdef"[byte >> 4];
            out += "0123456789abcdef"[byte & 15];
        }
    }
    return out + quote;
}

std::string repr(double value) {
    char buffer[64];
    const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
    std::string out(buffer, result.ptr);
    return std::isfinite(value) && out.find_first_of(".e") == std::string::npos ? out + ".0" : out;
}

std::string repr(const Json &value) {
    switch (value.kind) {
        case Json::Kind::null: return "None";
        case Json::Kind::boolean: return value.flag ? "True" : "False";
        case Json::Kind::integer: return std::to_string(value.integer);
        case Json::Kind::real: return repr(value.real);
        case Json::Kind::text: return repr(value.text);
        default: break;
    }
    const bool is_list = value.kind == Json::Kind::list;
    std::string out = is_list ? "[" : "{";
    for (std::size_t i = 0; i < value.items.size(); ++i) {
        if (i) out += ", ";
        if (!is_list) out += repr(value.keys[i]) + ": ";
        out += repr(value.items[i]);
    }
    return out + (is_list ? "]" : "}");
}

const char *type_name(const Json &value) {
    switch (value.kind) {
        case Json::Kind::null: return "NoneType";
        case Json::Kind::boolean: return "bool";
        case Json::Kind::integer: return "int";
        case Json::Kind::real: return "float";
        case Json::Kind::text: return "str";
        case Json::Kind::list: return "list";
        default: return "dict";
    }
}

std::optional<Json> taken(Json &object, std::string_view key) {
    for (std::size_t i = 0; i < object.keys.size(); ++i) {
        if (object.keys[i] != key) continue;
        std::optional<Json> value = std::move(object.items[i]);
        const auto at = static_cast<std::ptrdiff_t>(i);
        object.keys.erase(object.keys.begin() + at);
        object.items.erase(object.items.begin() + at);
        return value;
    }
    return std::nullopt;
}

}  // namespace mvde::internal
