// Formats and parses numbers as in C ("2026.4", not "2.026,4"), whatever the program's locale.
#pragma once

#include <clocale>
#include <locale.h>
#include <locale>
#include <mutex>
#include <string>

namespace mvde::internal {

// Sets the C locale for the calling thread's C functions, for the lifetime of the object.
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

// The same for C++ streams, including those of inference libraries: OpenVINO formats its own version through one and would
// otherwise reject its own engines. Streams use the process-wide locale, so a locale that formats numbers differently is
// replaced while any thread is inside, and restored when the last one leaves.
class ClassicNumbers {
public:
    ClassicNumbers() {
        Replaced &replaced = process();
        const std::lock_guard<std::mutex> lock(replaced.mutex);
        if (replaced.num_inside == 0) {
            if (are_classic(std::locale())) return;
            replaced.before = std::locale();
            if (const char *name = std::setlocale(LC_ALL, nullptr)) replaced.c_before = name;
            // An unnamed locale leaves the C locale alone.
            std::locale::global(std::locale(replaced.before, new std::numpunct<char>));
        }
        ++replaced.num_inside;
        is_inside_ = true;
    }
    ~ClassicNumbers() {
        if (!is_inside_) return;
        Replaced &replaced = process();
        const std::lock_guard<std::mutex> lock(replaced.mutex);
        if (--replaced.num_inside > 0) return;
        std::locale::global(replaced.before);
        std::setlocale(LC_ALL, replaced.c_before.c_str());  // the line above also sets it if the locale has a name
    }
    ClassicNumbers(const ClassicNumbers &) = delete;
    ClassicNumbers &operator=(const ClassicNumbers &) = delete;

private:
    // The process's original locale, while `num_inside` threads have replaced it.
    struct Replaced {
        std::mutex mutex;
        int num_inside = 0;
        std::locale before;
        std::string c_before;
    };
    static Replaced &process() {
        static Replaced &one = *new Replaced;  // never freed: a thread may be inside when the process exits
        return one;
    }
    static bool are_classic(const std::locale &locale) {
        const auto &numbers = std::use_facet<std::numpunct<char>>(locale);
        return numbers.grouping().empty() && numbers.decimal_point() == '.';
    }

    const ClassicCNumbers c_;
    bool is_inside_ = false;
};

}  // namespace mvde::internal
