// A test is a function that registers itself; an executable runs all of its own and says which check failed where.
#pragma once

#include <cstdio>
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

}  // namespace harness

#define TEST(name)                                                          \
    static void name();                                                     \
    static const harness::Registration registration_of_##name(#name, name); \
    static void name()

// Only the first 20 failures are worth reading.
#define CHECK(condition, ...)                                           \
    do {                                                                \
        if (!(condition) && ++harness::num_failures() <= 20) {          \
            std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
            std::printf("" __VA_ARGS__);                                \
            std::printf("\n");                                          \
        }                                                               \
    } while (false)
