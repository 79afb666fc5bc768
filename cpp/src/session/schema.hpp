// Records in JSON, validated as strictly as dataclasses in mvde/schema.py: exactly the declared keys and types.
#pragma once

#include "session/json.hpp"

#include <string>
#include <vector>

namespace mvde::internal {

struct Record;

// Type of a key's value, as annotated in Python's dataclass.
struct Type {
    enum class Element { anything, text, integer, real, flag, choice, record };
    enum class Container { none, list, pair, triple, by_name };

    Element element;
    Container container = Container::none;
    bool may_be_null = false;
    const Record *record = nullptr;                     // for Element::record
    const std::vector<const char *> *choices = nullptr;  // for Element::choice
};

constexpr Type kText{Type::Element::text}, kInteger{Type::Element::integer}, kReal{Type::Element::real};
constexpr Type kFlag{Type::Element::flag}, kAnything{Type::Element::anything};

constexpr Type inside(Type element, Type::Container container) {
    element.container = container;
    return element;
}
constexpr Type list_of(Type element) { return inside(element, Type::Container::list); }
constexpr Type pair_of(Type element) { return inside(element, Type::Container::pair); }
constexpr Type triple_of(Type element) { return inside(element, Type::Container::triple); }
constexpr Type by_name(Type element) { return inside(element, Type::Container::by_name); }
constexpr Type nullable(Type type) {
    type.may_be_null = true;
    return type;
}

struct Field {
    const char *name;
    Type type;
    bool is_required = true;
};

struct Record {
    std::vector<Field> fields;
    // Checks that the values are consistent, after their types; throws Refused as __post_init__ raises.
    void (*check_values)(const Json &value, const std::string &where) = nullptr;
    const char *remedy = "export or build the artefact again";  // of a missing key
};

inline Type record_of(const Record &record) {
    return {Type::Element::record, Type::Container::none, false, &record, nullptr};
}

[[noreturn]] void refuse(const std::string &message);  // with MVDE_ERROR_MANIFEST

// Throws Refused (MVDE_ERROR_MANIFEST) naming the missing, unknown or invalid key; `where` is the file's name, `prefix` the
// position in it ("engine.").
void check_record(const Json &value, const Record &record, const std::string &where, const std::string &prefix = "");

// Throws Refused, stating what `key` is and what was expected, unless the condition holds.
void expect(bool holds, const std::string &where, const char *key, const std::string &got, const std::string &expected);

}  // namespace mvde::internal
