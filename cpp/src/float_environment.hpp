// The library's own floating-point environment, independent of the caller's.
#pragma once

#include <cfenv>

namespace mvde::internal {

// Sets the default environment (round to nearest, denormals enabled, no traps) and restores the caller's, flags included,
// on destruction. Used by every entry point that computes and by every thread: a new thread inherits its creator's
// environment, and so do the inference library's threads.
class FloatEnvironment {
public:
    FloatEnvironment() {
        std::fegetenv(&callers_);
        std::fesetenv(FE_DFL_ENV);
    }
    ~FloatEnvironment() { std::fesetenv(&callers_); }
    FloatEnvironment(const FloatEnvironment &) = delete;
    FloatEnvironment &operator=(const FloatEnvironment &) = delete;

private:
    std::fenv_t callers_;
};

}  // namespace mvde::internal
