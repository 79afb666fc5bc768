// Numbers are written and read as in C ("2026.4", not "2.026,4"), whatever locale the program has.
#pragma once

#include <clocale>
#include <locale.h>
#include <locale>
#include <mutex>
#include <string>

namespace mvde::internal {

// For the C functions of this thread, while it lives.
class ClassicCNumbers {
public:
    ClassicCNumbers() : before_(uselocale(classic())) {}
    ~ClassicCNumbers() { uselocale(before_); }
    ClassicCNumbers(const ClassicCNumbers &) = delete;
    ClassicCNumbers &operator=(const ClassicCNumbers &) = delete;

private:
    static locale_t classic() {
        static const locale_t made = newlocale(LC_ALL_MASK, "C", static_cast<locale_t>(nullptr));  // never freed
        return made;
    }
    const locale_t before_;
};

// For C++ streams, too, those of inference libraries: OpenVINO writes its own version through one, and then takes an
// engine for another version's. Streams take the process's locale, so a program that writes other numbers has its own
// one replaced while this lives, and gets it back.
class ClassicNumbers {
public:
    ClassicNumbers() {
        if (are_classic(std::locale())) return;
        alone_ = std::unique_lock<std::mutex>(mutex());
        before_ = std::locale();
        if (const char *name = std::setlocale(LC_ALL, nullptr)) c_before_ = name;
        std::locale::global(std::locale(before_, new std::numpunct<char>));  // without a name: C's locale stays
    }
    ~ClassicNumbers() {
        if (!alone_) return;
        std::locale::global(before_);
        std::setlocale(LC_ALL, c_before_.c_str());  // the line before sets it, too, where the locale has a name
    }
    ClassicNumbers(const ClassicNumbers &) = delete;
    ClassicNumbers &operator=(const ClassicNumbers &) = delete;

private:
    static bool are_classic(const std::locale &locale) {
        const auto &numbers = std::use_facet<std::numpunct<char>>(locale);
        return numbers.grouping().empty() && numbers.decimal_point() == '.';
    }
    static std::mutex &mutex() {
        static std::mutex one;
        return one;
    }

    const ClassicCNumbers c_;
    std::unique_lock<std::mutex> alone_;
    std::locale before_;
    std::string c_before_;
};

}  // namespace mvde::internal
