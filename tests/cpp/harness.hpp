// A minimal test harness: tests register themselves; each executable runs all of its own and reports failed checks.
#pragma once

#include <clocale>
#include <cstdio>
#include <locale>
#include <string>
#include <vector>

namespace harness {

struct Test {
    const char *name;
    void (*run)();
};

inline std::vector<Test> &tests() {
    static std::vector<Test> all;
    return all;
}

inline int &num_failures() {
    static int count = 0;
    return count;
}

struct Registration {
    Registration(const char *name, void (*run)()) { tests().push_back({name, run}); }
};

inline int run_all() {
    for (const Test &test : tests()) {
        const int before = num_failures();
        test.run();
        std::printf("%s %s\n", num_failures() == before ? "ok    " : "FAILED", test.name);
    }
    return num_failures() ? 1 : 0;
}

// German number format, 2.026,5; does not require an installed locale.
struct GermanNumbers : std::numpunct<char> {
    char do_thousands_sep() const override { return '.'; }
    char do_decimal_point() const override { return ','; }
    std::string do_grouping() const override { return "\3"; }
};

// Runs all tests twice: in the C locale, and with German number formatting, which must not change anything.
inline int run_all_and_in_german() {
    const int in_c = run_all();
    std::locale::global(std::locale(std::locale(), new GermanNumbers));
    std::setlocale(LC_ALL, "de_DE.UTF-8");  // if installed
    return run_all() | in_c;
}

}  // namespace harness

#define TEST(name)                                                          \
    static void name();                                                     \
    static const harness::Registration registration_of_##name(#name, name); \
    static void name()

// Prints only the first 20 failures.
#define CHECK(condition, ...)                                           \
    do {                                                                \
        if (!(condition) && ++harness::num_failures() <= 20) {          \
            std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
            std::printf("" __VA_ARGS__);                                \
            std::printf("\n");                                          \
        }                                                               \
    } while (false)
