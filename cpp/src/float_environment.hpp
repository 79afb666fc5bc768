// The floating-point environment that the library computes in, whatever the caller's is.
#pragma once

#include <cfenv>

namespace mvde::internal {

// The default environment for the life of this object: rounding to nearest, denormal numbers, no traps. Then the caller's
// again, with the flags that it had. Every entry that computes has one, as have threads, which begin in the environment of
// the one that starts them, the inference library's included.
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
