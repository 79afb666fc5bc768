// A file's content, read once, hashed, and kept in memory that nobody else can change, so that the bytes that were hashed
// are the bytes that run. A mapped file would not do: truncation kills the process, and overwriting changes the results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace mvde::internal {

class SealedFile {
public:
    // Reads the regular file at `path`. Throws Refused (MVDE_ERROR_ARTIFACT) on failure.
    explicit SealedFile(const std::string &path);
    ~SealedFile();
    SealedFile(const SealedFile &) = delete;
    SealedFile &operator=(const SealedFile &) = delete;

    // The bytes, in private memory of this process; callers may write to it without affecting the file.
    std::uint8_t *data() const { return data_; }
    std::size_t size_bytes() const { return size_bytes_; }
    const std::string &sha256() const { return sha256_; }

private:
    void read(int source);

    std::uint8_t *data_ = nullptr;
    std::size_t size_bytes_ = 0;
    std::string sha256_;
};

// Returns the file's content, shared with other sessions if they keep equal bytes: sessions that alternate on one engine
// hold its weights once.
std::shared_ptr<const SealedFile> sealed_file(const std::string &path);

// Reads at most `max_bytes` of a small regular file. Throws std::system_error, or std::runtime_error with the reason.
std::string read_small(const std::string &path, std::size_t max_bytes);

}  // namespace mvde::internal
