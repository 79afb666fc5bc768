// Launching and scheduling for cuda_shim.h. Include it in exactly one translation unit.
#pragma once

#include <csetjmp>
#include <csignal>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cuda_shim.h"

namespace shim {

Dim3 thread_index, block_index, block_size, grid_size;

constexpr std::size_t kStackBytes = 128 * 1024;
constexpr int kWarp = 32;
constexpr int kMostWarps = 32;

struct Options {
    int order = 0;           // 0: threads in order, 1: reversed, else: seed of a new shuffle at each step
    int dropped_barrier = -1;  // index of the __syncthreads() to skip, or -1
};

enum class State { kReady, kAtBarrier, kAtWarp, kDone };

// Started by ucontext; switched by setjmp, which makes no system call.
struct Fiber {
    ucontext_t context{};
    jmp_buf resume;
    bool started = false;
    State state = State::kDone;
    Site site{};
    unsigned mask = 0;
    std::uint32_t value = 0, result = 0;
    int lane_mask = 0;
    std::vector<unsigned char> stack = std::vector<unsigned char>(kStackBytes);
};

// Accesses to a location in shared memory since the block's last barrier. Accesses by lanes of one warp are ordered by a
// __syncwarp() between them; a shuffle orders nothing.
struct Location {
    unsigned write_epoch = 0;  // 0: never
    int writer = -1;
    unsigned writer_warp_epoch = 0;
    struct Readers {
        unsigned epoch = 0, warp_epoch = 0, lanes = 0;
    };
    std::array<Readers, kMostWarps> readers{};  // by warp
};

struct Machine {
    Options options;
    std::vector<Fiber> fibers;
    jmp_buf scheduler;
    int current = -1;
    std::string error;
    std::function<void()> kernel;

    // In 16-byte units, for the alignment of the device.
    std::vector<float4> storage;
    std::vector<Location> locations;
    unsigned epoch = 0, first_epoch_of_block = 0;
    std::vector<unsigned> warp_epochs;
    sigjmp_buf fault{};

    std::map<std::string, int> barriers;  // every __syncthreads() ever executed, numbered in order of first execution
    std::uint64_t executed_barriers = 0;  // by the last launch; one bit each
    std::mt19937 random;
    float4 scrap{};
};

inline Machine machine;

inline std::string describe(Site site) {
    const std::string file = site.file;
    return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(site.line);
}

inline std::string describe_thread(int thread) {
    return "thread " + std::to_string(thread) + " of block " + std::to_string(block_index.x) + "," +
           std::to_string(block_index.y) + "," + std::to_string(block_index.z);
}

inline void fail(const std::string &message) {
    if (machine.error.empty()) machine.error = message;
}

// ------------------------------------------------------------------------------------------------------ shared memory

inline void fail_at(std::size_t offset, const std::string &what) {
    fail("shared memory at byte " + std::to_string(offset) + ": " + what);
}

inline bool inside(std::size_t offset, std::size_t size) {
    const std::size_t available = machine.locations.size();
    if (offset <= available && size <= available - offset) return true;
    const std::string limit = std::to_string(available);
    fail_at(offset, describe_thread(machine.current) + " is outside the " + limit + " bytes of the launch");
    return false;
}

inline unsigned char *shared_bytes() { return reinterpret_cast<unsigned char *>(machine.storage.data()); }

inline bool ordered_after_write(const Location &location, int thread) {
    if (location.write_epoch != machine.epoch || location.writer == thread || location.writer < 0) return true;
    const int warp = thread / kWarp;
    return location.writer / kWarp == warp && location.writer_warp_epoch != machine.warp_epochs[warp];
}

void *shared_read(std::size_t offset, std::size_t size) {
    if (!inside(offset, size)) return &machine.scrap;
    Location &location = machine.locations[offset];
    const int thread = machine.current, warp = thread / kWarp;
    if (location.write_epoch < machine.first_epoch_of_block) {
        fail_at(offset, describe_thread(thread) + " reads what nobody wrote");
    }
    if (!ordered_after_write(location, thread)) {
        const std::string writer = std::to_string(location.writer);
        fail_at(offset, "race: " + describe_thread(thread) + " reads what thread " + writer + " wrote");
    }
    auto &readers = location.readers[warp];
    if (readers.epoch != machine.epoch || readers.warp_epoch != machine.warp_epochs[warp]) {
        readers = {machine.epoch, machine.warp_epochs[warp], 0};
    }
    readers.lanes |= 1u << (thread % kWarp);
    return shared_bytes() + offset;
}

void *shared_write(std::size_t offset, std::size_t size) {
    if (!inside(offset, size)) return &machine.scrap;
    Location &location = machine.locations[offset];
    const int thread = machine.current, own_warp = thread / kWarp;
    if (!ordered_after_write(location, thread)) {
        const std::string writer = std::to_string(location.writer);
        fail_at(offset, "race: " + describe_thread(thread) + " writes over what thread " + writer + " wrote");
    }
    for (int warp = 0; warp < static_cast<int>(machine.warp_epochs.size()); ++warp) {
        const auto &readers = location.readers[warp];
        const bool unsynchronised = warp != own_warp || readers.warp_epoch == machine.warp_epochs[warp];
        const bool now = readers.epoch == machine.epoch && unsynchronised;
        const unsigned others = warp == own_warp ? readers.lanes & ~(1u << (thread % kWarp)) : readers.lanes;
        if (now && others != 0) {
            const std::string reader = "a thread of warp " + std::to_string(warp);
            fail_at(offset, "race: " + describe_thread(thread) + " writes what " + reader + " reads");
        }
    }
    location.write_epoch = machine.epoch;
    location.writer = thread;
    location.writer_warp_epoch = machine.warp_epochs[own_warp];
    return shared_bytes() + offset;
}

// ---------------------------------------------------------------------------------------------------- synchronisation

inline void yield() {
    if (_setjmp(machine.fibers[machine.current].resume) == 0) _longjmp(machine.scheduler, 1);
}

void block_barrier(Site site) {
    const auto known = machine.barriers.emplace(describe(site), static_cast<int>(machine.barriers.size()));
    machine.executed_barriers |= std::uint64_t{1} << known.first->second;
    if (known.first->second == machine.options.dropped_barrier) return;
    Fiber &fiber = machine.fibers[machine.current];
    fiber.state = State::kAtBarrier;
    fiber.site = site;
    yield();
}

inline void wait_for_warp(unsigned mask, Site site) {
    Fiber &fiber = machine.fibers[machine.current];
    if (((mask >> (machine.current % kWarp)) & 1u) == 0) fail(describe(site) + ": a lane is missing from its own mask");
    fiber.state = State::kAtWarp;
    fiber.site = site;
    fiber.mask = mask;
    yield();
}

void warp_barrier(unsigned mask, Site site) {
    machine.fibers[machine.current].lane_mask = -1;
    wait_for_warp(mask, site);
}

std::uint32_t exchange_xor(unsigned mask, std::uint32_t value, int lane_mask, Site site) {
    Fiber &fiber = machine.fibers[machine.current];
    fiber.value = value;
    fiber.lane_mask = lane_mask;
    wait_for_warp(mask, site);
    return machine.fibers[machine.current].result;
}

inline bool same_site(Site a, Site b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

// Resumes the fibers that have all reached the warp operation; returns whether there were any.
inline bool release_warp(int warp) {
    const int first = warp * kWarp, count = static_cast<int>(machine.fibers.size());
    for (int lane = 0; lane < kWarp && first + lane < count; ++lane) {
        const Fiber &fiber = machine.fibers[first + lane];
        if (fiber.state != State::kAtWarp) continue;
        bool complete = true;
        for (int other = 0; other < kWarp; ++other) {
            if (((fiber.mask >> other) & 1u) == 0) continue;
            if (first + other >= count) {
                complete = false;
                break;
            }
            const Fiber &peer = machine.fibers[first + other];
            complete = complete && peer.state == State::kAtWarp && same_site(peer.site, fiber.site) &&
                       peer.mask == fiber.mask && peer.lane_mask == fiber.lane_mask;
        }
        if (!complete) continue;
        const unsigned mask = fiber.mask;
        const int lane_mask = fiber.lane_mask;
        for (int other = 0; other < kWarp; ++other) {
            if (((mask >> other) & 1u) == 0) continue;
            Fiber &peer = machine.fibers[first + other];
            if (lane_mask >= 0) peer.result = machine.fibers[first + (other ^ lane_mask)].value;
            peer.state = State::kReady;
        }
        if (lane_mask < 0) ++machine.warp_epochs[warp];
        return true;
    }
    return false;
}

inline bool release_block() {
    Site site{};
    bool any = false;
    for (const Fiber &fiber : machine.fibers) {
        if (fiber.state == State::kDone) continue;
        if (fiber.state != State::kAtBarrier) return false;
        if (any && !same_site(fiber.site, site)) {
            fail("threads of a block wait at different barriers: " + describe(site) + " and " + describe(fiber.site));
            return false;
        }
        site = fiber.site;
        any = true;
    }
    if (!any) return false;
    for (Fiber &fiber : machine.fibers) {
        if (fiber.state == State::kAtBarrier) fiber.state = State::kReady;
    }
    ++machine.epoch;
    return true;
}

// ----------------------------------------------------------------------------------------------------------- launching

// A fiber runs one thread of every block.
inline void fiber_main() {
    for (;;) {
        machine.kernel();
        machine.fibers[machine.current].state = State::kDone;
        yield();
    }
}

inline void resume(int thread) {
    machine.current = thread;
    thread_index.x = static_cast<unsigned>(thread);
    if (_setjmp(machine.scheduler) != 0) return;
    Fiber &fiber = machine.fibers[thread];
    if (fiber.started) _longjmp(fiber.resume, 1);
    fiber.started = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
    setcontext(&fiber.context);
}

inline std::vector<int> schedule(std::size_t count) {
    std::vector<int> order(count);
    std::iota(order.begin(), order.end(), 0);
    if (machine.options.order == 1) std::reverse(order.begin(), order.end());
    if (machine.options.order > 1) std::shuffle(order.begin(), order.end(), machine.random);
    return order;
}

inline void run_block() {
    for (Fiber &fiber : machine.fibers) fiber.state = State::kReady;
    machine.first_epoch_of_block = ++machine.epoch;
    std::memset(shared_bytes(), 0xff, machine.storage.size() * sizeof(float4));  // NaN
    const int num_warps = static_cast<int>(machine.warp_epochs.size());
    for (;;) {
        for (const int thread : schedule(machine.fibers.size())) {
            if (machine.fibers[thread].state != State::kReady) continue;
            resume(thread);
        }
        if (!machine.error.empty()) return;
        bool released = false;
        for (int warp = 0; warp < num_warps; ++warp) released = release_warp(warp) || released;
        released = released || release_block();
        if (released) continue;
        for (const Fiber &fiber : machine.fibers) {
            if (fiber.state != State::kDone) fail("not every thread reaches " + describe(fiber.site));
        }
        return;
    }
}

inline void on_fault(int signal_number) {
    const bool undefined = signal_number == SIGILL;
    fail(describe_thread(machine.current) +
         (undefined ? ": undefined behaviour, such as a misaligned access" : ": access outside the buffers it was given"));
    siglongjmp(machine.fault, 1);
}

// Converts faults inside a kernel to launch errors during its lifetime. Undefined behaviour faults too if the source is
// built with -fsanitize=undefined -fsanitize-undefined-trap-on-error.
class FaultHandler {
public:
    FaultHandler() : stack_(64 * 1024) {
        stack_t alternate{};
        alternate.ss_sp = stack_.data();
        alternate.ss_size = stack_.size();
        sigaltstack(&alternate, &old_stack_);
        struct sigaction action{};
        action.sa_handler = on_fault;
        action.sa_flags = SA_ONSTACK;
        for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &action, &old_[i]);
    }
    ~FaultHandler() {
        for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &old_[i], nullptr);
        sigaltstack(&old_stack_, nullptr);
    }
    FaultHandler(const FaultHandler &) = delete;
    FaultHandler &operator=(const FaultHandler &) = delete;

private:
    static constexpr int kSignals[3] = {SIGSEGV, SIGBUS, SIGILL};
    std::vector<unsigned char> stack_;
    stack_t old_stack_{};
    struct sigaction old_[3]{};
};

inline void run_grid() {
    for (block_index.z = 0; block_index.z < grid_size.z; ++block_index.z) {
        for (block_index.y = 0; block_index.y < grid_size.y; ++block_index.y) {
            for (block_index.x = 0; block_index.x < grid_size.x; ++block_index.x) {
                run_block();
                if (!machine.error.empty()) return;
            }
        }
    }
}

// Runs a kernel over a grid of blocks of block.x threads. Returns "" or an error message.
inline std::string launch(Dim3 grid, Dim3 block, std::size_t shared_size, const Options &options,
                          std::function<void()> kernel) {
    machine.options = options;
    machine.error.clear();
    machine.executed_barriers = 0;
    machine.kernel = std::move(kernel);
    machine.random.seed(static_cast<unsigned>(options.order));
    if (machine.fibers.size() != block.x) machine.fibers = std::vector<Fiber>(block.x);
    for (Fiber &fiber : machine.fibers) fiber.started = false;  // the last launch may have been aborted
    machine.warp_epochs.assign((block.x + kWarp - 1) / kWarp, 0);
    machine.storage.assign((shared_size + 15) / 16, float4{});
    machine.locations.assign(shared_size, Location{});
    machine.epoch = 0;
    block_size = block;
    grid_size = grid;
    const FaultHandler handler;
    if (sigsetjmp(machine.fault, 1) == 0) run_grid();
    return machine.error;
}

}  // namespace shim

namespace mvde_cuda {

void store_shared4(SharedPointer<float> target, float a, float b, float c, float d) {
    if (target.offset() % 16 != 0) shim::fail_at(target.offset(), "a store of 16 bytes that is not aligned");
    target[0] = a, target[1] = b, target[2] = c, target[3] = d;
}

}  // namespace mvde_cuda
