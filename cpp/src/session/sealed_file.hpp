// A file's content, read once, hashed, and kept where nobody can change it: what was hashed is what runs. A file that is
// mapped is still the file: cut off it kills the process, overwritten it gives other depth.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace mvde::internal {

class SealedFile {
public:
    // Reads the regular file at `path`. Throws Refused (MVDE_ERROR_ARTIFACT) where that fails.
    explicit SealedFile(const std::string &path);
    ~SealedFile();
    SealedFile(const SealedFile &) = delete;
    SealedFile &operator=(const SealedFile &) = delete;

    // The bytes, in memory of this process that whoever gets it may write: nobody else sees it.
    std::uint8_t *data() const { return data_; }
    std::size_t size_bytes() const { return size_bytes_; }
    const std::string &sha256() const { return sha256_; }

private:
    void read(int source);

    std::uint8_t *data_ = nullptr;
    std::size_t size_bytes_ = 0;
    std::string sha256_;
};

// The file's bytes; those of a file that some session keeps already, where they are equal: sessions that alternate on
// one engine hold its weights once.
std::shared_ptr<const SealedFile> sealed_file(const std::string &path);

// At most `max_bytes` of a small regular file. Throws std::system_error, or std::runtime_error with what is wrong.
std::string read_small(const std::string &path, std::size_t max_bytes);

}  // namespace mvde::internal
