// Handles that remain detectable after their object is destroyed: a handle is a number, never an address, so that a stale
// or invalid one is an error instead of a crash. Lookup is lock-free.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>

namespace mvde::internal {

// Objects behind handles of the opaque C type `Opaque`; at most `kCapacity` at once, a power of two.
template <class Object, class Opaque, std::uint64_t kCapacity>
class Handles {
    static_assert((kCapacity & (kCapacity - 1)) == 0 && sizeof(Opaque *) == 8, "handles are 64-bit numbers");

    // State of a slot: generation (odd while an object is open), number of readers, exclusive bit.
    static constexpr std::uint64_t kBusy = 1, kReader = 2, kReaders = 0xFFFE, kGeneration = 0x10000;

    struct Slot {
        std::atomic<bool> is_taken{false};
        std::atomic<std::uint64_t> state{0};
        std::unique_ptr<Object> object;
    };

public:
    enum class Access { granted, busy, closed };

    // Access of one call to an object; released on destruction.
    class Hold {
    public:
        Hold(Access access, Slot *slot, std::uint64_t held) : access_(access), slot_(slot), held_(held) {}
        Hold(const Hold &) = delete;
        Hold &operator=(const Hold &) = delete;
        ~Hold() {
            if (access_ == Access::granted) slot_->state.fetch_sub(held_);
        }
        Access access() const { return access_; }
        Object &operator*() const { return *slot_->object; }
        Object *operator->() const { return slot_->object.get(); }

    private:
        Access access_;
        Slot *slot_;
        std::uint64_t held_;
    };

    // Returns a handle that owns the object, or nullptr if `kCapacity` handles are open.
    Opaque *add(std::unique_ptr<Object> object) {
        for (std::uint64_t index = 0; index < kCapacity; ++index) {
            Slot &slot = slots_[index];
            if (slot.is_taken.exchange(true)) continue;
            slot.object = std::move(object);
            const std::uint64_t state = slot.state.fetch_add(kGeneration) + kGeneration;
            return reinterpret_cast<Opaque *>(state / kGeneration * kCapacity + index);
        }
        return nullptr;
    }

    // Exclusive access, for a call that modifies the object.
    Hold change(const Opaque *handle) { return hold(handle, kBusy); }

    // Shared access, for a call that reads immutable state.
    Hold read(const Opaque *handle) { return hold(handle, kReader); }

    // Invalidates the handle and destroys its object, after calls in progress have returned. False if the handle is not
    // open.
    bool close(const Opaque *handle) {
        Slot &slot = slot_of(handle);
        std::uint64_t idle = generation_of(handle) * kGeneration;
        if (generation_of(handle) % 2 == 0) return false;
        while (!slot.state.compare_exchange_strong(idle, idle + kGeneration)) {
            if (idle / kGeneration != generation_of(handle)) return false;
            idle = generation_of(handle) * kGeneration;
            std::this_thread::sleep_for(std::chrono::microseconds(50));
        }
        slot.object.reset();
        slot.is_taken.store(false);
        return true;
    }

    // For a forked child, where calls in progress on other threads never return.
    void drop_holds() {
        for (Slot &slot : slots_)
            if (const std::uint64_t state = slot.state.load(); state % kGeneration)
                slot.state.store(state - state % kGeneration);
    }

private:
    static std::uint64_t generation_of(const Opaque *handle) { return reinterpret_cast<std::uint64_t>(handle) / kCapacity; }
    Slot &slot_of(const Opaque *handle) { return slots_[reinterpret_cast<std::uint64_t>(handle) % kCapacity]; }

    Hold hold(const Opaque *handle, std::uint64_t wanted) {
        Slot &slot = slot_of(handle);
        std::uint64_t state = slot.state.load();
        do {
            const bool is_open = state / kGeneration == generation_of(handle) && generation_of(handle) % 2 == 1;
            if (!is_open) return {Access::closed, &slot, 0};
            const bool is_free = wanted == kBusy ? !(state & kBusy) : (state & kReaders) != kReaders;
            if (!is_free) return {Access::busy, &slot, 0};
        } while (!slot.state.compare_exchange_weak(state, state + wanted));
        return {Access::granted, &slot, wanted};
    }

    Slot slots_[kCapacity];
};

}  // namespace mvde::internal
