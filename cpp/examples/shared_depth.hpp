// The latest depth and statistics in shared memory: one publisher, any number of readers, no blocking.
//
// A ring of slots, each with a sequence lock. The publisher writes to the slot after the latest one, so a reader has three
// frame periods to copy before its slot is overwritten; a reader that is too slow detects it and retries. In terms of the
// C++ memory model: every word is atomic, stored with release and loaded with acquire, so that a reader that has seen a
// word of a new frame also sees the slot's new sequence number. Readers in other languages (read_depth.py) cannot order
// their loads and also compare a checksum of the words.
//
// Layout in 64-bit words: kHeaderWords of header, then kNumSlots slots of slot_words each.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace shared_depth {

using Word = std::atomic<std::uint64_t>;
static_assert(Word::is_always_lock_free && sizeof(Word) == 8, "words are shared with other processes");

constexpr std::uint64_t kMagic = 0x3130687470656476;  // "vdepth01" in ASCII
constexpr std::uint64_t kNumSlots = 4;
enum HeaderWord { kMagicWord, kSlotWordsWord, kHeight, kWidth, kRows, kColumns, kNumStats, kNewest, kHeaderWords = 16 };
enum SlotWord { kSequence, kTimeNs, kSum, kSlotHeaderWords = 8 };  // then depth [height, width] and stats [patches, stats]

struct Sizes {
    std::int64_t height = 0, width = 0, grid_rows = 0, grid_columns = 0, num_stats = 0;
    std::size_t num_depths() const { return static_cast<std::size_t>(height * width); }
    std::size_t num_floats() const { return num_depths() + static_cast<std::size_t>(grid_rows * grid_columns * num_stats); }
    std::size_t slot_words() const { return kSlotHeaderWords + (num_floats() + 1) / 2; }
};

// The system's monotonic clock in nanoseconds, common to all processes.
inline std::uint64_t now_ns() {
    return static_cast<std::uint64_t>(std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

// A mapping of words; empty if mapping failed.
class Mapping {
public:
    Mapping() = default;
    Mapping(int file, std::size_t num_words, int protection) : size_(num_words * sizeof(Word)) {
        void *mapped = mmap(nullptr, size_, protection, MAP_SHARED, file, 0);
        words_ = mapped == MAP_FAILED ? nullptr : static_cast<Word *>(mapped);
    }
    ~Mapping() {
        if (words_) munmap(words_, size_);
    }
    Mapping(Mapping &&other) noexcept : words_(std::exchange(other.words_, nullptr)), size_(other.size_) {}
    Mapping &operator=(Mapping &&other) noexcept {
        std::swap(words_, other.words_);
        std::swap(size_, other.size_);
        return *this;
    }
    explicit operator bool() const { return words_ != nullptr; }
    Word *words() const { return words_; }

private:
    Word *words_ = nullptr;
    std::size_t size_ = 0;
};

class Publisher {
public:
    // Creates /dev/shm/NAME, replacing that of an earlier run, whose readers notice by the age of its last frame.
    Publisher(const std::string &name, const Sizes &sizes) : sizes_(sizes) {
        shm_unlink(("/" + name).c_str());
        const int file = shm_open(("/" + name).c_str(), O_CREAT | O_EXCL | O_RDWR, 0644);
        if (file < 0) return;
        const std::size_t num_words = kHeaderWords + kNumSlots * sizes.slot_words();
        if (!ftruncate(file, static_cast<off_t>(num_words * sizeof(Word))))
            mapping_ = Mapping(file, num_words, PROT_READ | PROT_WRITE);
        close(file);
        if (!mapping_) return;
        const std::int64_t header[] = {static_cast<std::int64_t>(sizes.slot_words()),
                                       sizes.height,
                                       sizes.width,
                                       sizes.grid_rows,
                                       sizes.grid_columns,
                                       sizes.num_stats};
        for (std::size_t i = 0; i < std::size(header); ++i)
            mapping_.words()[kSlotWordsWord + i].store(static_cast<std::uint64_t>(header[i]));
        mapping_.words()[kMagicWord].store(kMagic);  // last: marks the memory as initialised
    }
    explicit operator bool() const { return static_cast<bool>(mapping_); }

    // Publishes a frame taken at `time_ns`, without allocating or blocking.
    void publish(std::uint64_t time_ns, const std::vector<float> &depth_m, const std::vector<float> &stats) {
        ++number_;
        Word *slot = mapping_.words() + kHeaderWords + number_ % kNumSlots * sizes_.slot_words();
        slot[kSequence].store(2 * number_ - 1, std::memory_order_relaxed);
        slot[kTimeNs].store(time_ns, std::memory_order_release);
        slot[kSum].store(store(depth_m, stats, slot + kSlotHeaderWords), std::memory_order_release);
        slot[kSequence].store(2 * number_, std::memory_order_release);
        mapping_.words()[kNewest].store(number_, std::memory_order_release);
    }

private:
    // Stores both arrays as one sequence of floats, two per word, and returns the sum of the words.
    static std::uint64_t store(const std::vector<float> &first, const std::vector<float> &second, Word *out) {
        std::uint64_t sum = 0;
        const std::size_t size = first.size() + second.size();
        const auto at = [&](std::size_t i) {
            return i < first.size() ? first[i] : i < size ? second[i - first.size()] : 0.0F;
        };
        for (std::size_t i = 0; i < size; i += 2) {
            const float pair[] = {at(i), at(i + 1)};
            std::uint64_t word;
            std::memcpy(&word, pair, sizeof word);
            (out++)->store(word, std::memory_order_release);
            sum += word;
        }
        return sum;
    }

    Sizes sizes_;
    Mapping mapping_;
    std::uint64_t number_ = 0;
};

class Reader {
public:
    explicit Reader(const std::string &name) {
        const int file = shm_open(("/" + name).c_str(), O_RDONLY, 0);
        if (file < 0) return;
        struct stat about{};
        const bool is_whole = !fstat(file, &about) && about.st_size >= static_cast<off_t>(kHeaderWords * sizeof(Word));
        if (is_whole) mapping_ = Mapping(file, static_cast<std::size_t>(about.st_size) / sizeof(Word), PROT_READ);
        close(file);
        if (mapping_ && mapping_.words()[kMagicWord].load() != kMagic) mapping_ = Mapping();
        if (!mapping_) return;
        const auto word = [&](std::size_t i) { return static_cast<std::int64_t>(mapping_.words()[i].load()); };
        sizes_ = {word(kHeight), word(kWidth), word(kRows), word(kColumns), word(kNumStats)};
    }
    explicit operator bool() const { return static_cast<bool>(mapping_); }
    const Sizes &sizes() const { return sizes_; }

    // Copies the latest frame's time, depth and statistics (concatenated, num_floats() in total) and returns its number; 0
    // before the first frame.
    std::uint64_t read(std::vector<float> &floats, std::uint64_t &time_ns) const {
        floats.resize((sizes_.num_floats() + 1) / 2 * 2);
        while (const std::uint64_t number = mapping_.words()[kNewest].load(std::memory_order_acquire)) {
            const Word *slot = mapping_.words() + kHeaderWords + number % kNumSlots * sizes_.slot_words();
            if (slot[kSequence].load(std::memory_order_acquire) != 2 * number) continue;
            time_ns = slot[kTimeNs].load(std::memory_order_acquire);
            for (std::size_t i = 0; i < floats.size(); i += 2) {
                const std::uint64_t word = slot[kSlotHeaderWords + i / 2].load(std::memory_order_acquire);
                std::memcpy(&floats[i], &word, sizeof word);
            }
            if (slot[kSequence].load(std::memory_order_relaxed) == 2 * number) return number;
        }
        return 0;
    }

private:
    Sizes sizes_;
    Mapping mapping_;
};

}  // namespace shared_depth
