#include "session/sealed_file.hpp"

#include "session/refused.hpp"
#include "session/sha256.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <mutex>
#include <system_error>
#include <vector>

namespace mvde::internal {
namespace {

constexpr std::size_t kChunkBytes = 1 << 20;

[[noreturn]] void fail_with_errno() { throw std::system_error(errno, std::generic_category()); }

class Descriptor {
public:
    explicit Descriptor(int number) : number_(number) {}
    ~Descriptor() {
        if (number_ >= 0) ::close(number_);
    }
    Descriptor(const Descriptor &) = delete;
    Descriptor &operator=(const Descriptor &) = delete;
    int get() const { return number_; }

private:
    int number_;
};

// Opens a regular file; never blocks on a FIFO without a writer.
int open_regular(const std::string &path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) fail_with_errno();
    struct stat about;
    if (::fstat(descriptor, &about) == 0 && S_ISREG(about.st_mode)) return descriptor;
    ::close(descriptor);
    throw std::runtime_error("it is not a regular file");
}

std::size_t read_some(int source, void *out, std::size_t room) {
    for (;;) {
        const ssize_t count = ::read(source, out, room);
        if (count >= 0) return static_cast<std::size_t>(count);
        if (errno != EINTR) fail_with_errno();
    }
}

void write_all(int target, const char *bytes, std::size_t num_bytes) {
    while (num_bytes) {
        const ssize_t count = ::write(target, bytes, num_bytes);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail_with_errno();
        bytes += count;
        num_bytes -= static_cast<std::size_t>(count);
    }
}

// Creates sealable memory (memfd); -1 if the system lacks it or a sandbox forbids it.
int create_memory() {
#if defined(MFD_ALLOW_SEALING)
    return ::memfd_create("mvde-engine", MFD_CLOEXEC | MFD_ALLOW_SEALING);
#else
    return -1;
#endif
}

void seal([[maybe_unused]] int memory) {
#if defined(F_ADD_SEALS)
    if (::fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)) fail_with_errno();
#endif
}

std::uint8_t *mapped(std::size_t num_bytes, int flags, int descriptor) {
    void *const memory = ::mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, flags, descriptor, 0);
    if (memory == MAP_FAILED) fail_with_errno();
    return static_cast<std::uint8_t *>(memory);
}

}  // namespace

SealedFile::SealedFile(const std::string &path) {
    try {
        const Descriptor source(open_regular(path));
        read(source.get());
    } catch (const std::system_error &error) {
        throw Refused(MVDE_ERROR_ARTIFACT, "cannot read " + path + ": " + error.code().message());
    } catch (const std::runtime_error &error) {
        throw Refused(MVDE_ERROR_ARTIFACT, "cannot read " + path + ": " + error.what());
    }
    Sha256 digest;
    digest.update(data_, size_bytes_);
    sha256_ = digest.hexadecimal();
}

SealedFile::~SealedFile() {
    if (data_) ::munmap(data_, size_bytes_);
}

void SealedFile::read(int source) {
    std::vector<char> chunk(kChunkBytes);
    const Descriptor memory(create_memory());
    if (memory.get() >= 0) {
        while (const std::size_t count = read_some(source, chunk.data(), chunk.size()))
            write_all(memory.get(), chunk.data(), count), size_bytes_ += count;
        seal(memory.get());
        if (size_bytes_) data_ = mapped(size_bytes_, MAP_PRIVATE, memory.get());
        return;
    }
    struct stat about;
    if (::fstat(source, &about)) fail_with_errno();
    const auto room = static_cast<std::size_t>(about.st_size);  // growth in the meantime is cut off: the hash will differ
    if (!room) return;
    data_ = mapped(room, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    size_bytes_ = room;
    for (std::size_t at = 0; at < room;) {
        const std::size_t count = read_some(source, data_ + at, std::min(kChunkBytes, room - at));
        if (!count) break;
        at += count;
    }
}

std::shared_ptr<const SealedFile> sealed_file(const std::string &path) {
    static std::mutex mutex;
    static auto &kept = *new std::map<std::string, std::weak_ptr<const SealedFile>>;  // outlives sessions at exit
    auto opened = std::make_shared<const SealedFile>(path);
    const std::lock_guard<std::mutex> lock(mutex);
    for (auto one = kept.begin(); one != kept.end();) one = one->second.expired() ? kept.erase(one) : std::next(one);
    std::weak_ptr<const SealedFile> &same = kept[opened->sha256()];
    if (auto earlier = same.lock()) return earlier;
    same = opened;
    return opened;
}

std::string read_small(const std::string &path, std::size_t max_bytes) {
    const Descriptor source(open_regular(path));
    std::string content;
    std::vector<char> chunk(std::min(kChunkBytes, max_bytes + 1));
    while (const std::size_t count = read_some(source.get(), chunk.data(), chunk.size())) {
        content.append(chunk.data(), count);
        if (content.size() > max_bytes) throw std::runtime_error("it has more than " + std::to_string(max_bytes) + " bytes");
    }
    return content;
}

}  // namespace mvde::internal
