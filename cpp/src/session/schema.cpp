#include "session/schema.hpp"

#include "session/refused.hpp"

#include <algorithm>

namespace mvde::internal {
namespace {

// Throws unless the value is of the type that Python calls `name`.
void expect_type(bool holds, const Json &value, const char *name, const std::string &where, const std::string &key) {
    if (!holds) refuse(where + ": " + key + " must be " + name + ", but got " + type_name(value) + " " + repr(value));
}

void check_choice(const Json &value, const Type &type, const std::string &where, const std::string &key) {
    const auto &choices = *type.choices;
    const bool is_one = value.kind == Json::Kind::text && std::count(choices.begin(), choices.end(), value.text) > 0;
    std::string known;
    for (const char *choice : choices) known += (known.empty() ? "" : ", ") + std::string(choice);
    expect(is_one, where, key.c_str(), repr(value), "one of " + known);
}

void check_element(const Json &value, const Type &type, const std::string &where, const std::string &key) {
    using Kind = Json::Kind;
    switch (type.element) {
        case Type::Element::anything: return;
        case Type::Element::text: return expect_type(value.kind == Kind::text, value, "str", where, key);
        case Type::Element::integer: return expect_type(value.kind == Kind::integer, value, "int", where, key);
        case Type::Element::real:
            return expect_type(value.kind == Kind::real || value.kind == Kind::integer, value, "float", where, key);
        case Type::Element::flag: return expect_type(value.kind == Kind::boolean, value, "bool", where, key);
        case Type::Element::choice: return check_choice(value, type, where, key);
        case Type::Element::record: return check_record(value, *type.record, where, key + ".");
    }
}

void check(const Json &value, const Type &type, const std::string &where, const std::string &key) {
    const std::size_t size = type.container == Type::Container::pair ? 2 : type.container == Type::Container::triple ? 3 : 0;
    if (type.may_be_null && value.kind == Json::Kind::null) return;
    switch (type.container) {
        case Type::Container::none: return check_element(value, type, where, key);
        case Type::Container::by_name:
            expect_type(value.kind == Json::Kind::object, value, "dict", where, key);
            for (std::size_t i = 0; i < value.items.size(); ++i)
                check_element(value.items[i], type, where, key + "." + value.keys[i]);
            return;
        case Type::Container::list:
        case Type::Container::pair:
        case Type::Container::triple:
            if (value.kind != Json::Kind::list || (size && value.items.size() != size))
                refuse(where + ": " + key + " must be a list" + (size ? " of " + std::to_string(size) : "") + ", but got " +
                       repr(value));
            for (std::size_t i = 0; i < value.items.size(); ++i)
                check_element(value.items[i], type, where, key + "[" + std::to_string(i) + "]");
    }
}

}  // namespace

void refuse(const std::string &message) { throw Refused(MVDE_ERROR_MANIFEST, message); }

void check_record(const Json &value, const Record &record, const std::string &where, const std::string &prefix) {
    if (value.kind != Json::Kind::object) {
        const std::string what = prefix.empty() ? "the manifest" : prefix;
        refuse(where + ": " + what + " must be an object, but got " + type_name(value));
    }
    for (const std::string &key : value.keys) {
        std::string known;
        bool is_known = false;
        for (const Field &field : record.fields) {
            known += (known.empty() ? "" : ", ") + std::string(field.name);
            is_known = is_known || key == field.name;
        }
        if (!is_known) refuse(where + ": unknown key " + prefix + key + "; known keys: " + known);
    }
    for (const Field &field : record.fields) {
        const Json *item = value.find(field.name);
        if (item) check(*item, field.type, where, prefix + field.name);
        else if (field.is_required) refuse(where + ": the key " + prefix + field.name + " is missing; " + record.remedy);
    }
    if (record.check_values) record.check_values(value, where);
}

void expect(bool holds, const std::string &where, const char *key, const std::string &got, const std::string &expected) {
    if (!holds) refuse(where + ": " + key + " is " + got + ", but expected " + expected);
}

}  // namespace mvde::internal
