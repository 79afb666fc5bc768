// A session: camera frame -> model input -> inference -> depth at the frame's pixels and patch statistics.
#pragma once

#include "forks.hpp"
#include "session/artifact.hpp"
#include "session/backend.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace mvde::internal {

// Serves one call at a time, which the handle ensures. Functions return a mvde_status and set mvde_last_error().
class Session {
public:
    // Throws Refused if the artefact, this machine or the backend is unsuitable.
    Session(const char *path, const mvde_session_options &options);
    ~Session();
    Session(const Session &) = delete;
    Session &operator=(const Session &) = delete;

    std::int32_t infer(const mvde_frame &frame, const mvde_outputs &outputs);
    std::int32_t start(const mvde_frame &frame);
    std::int32_t wait(std::int64_t timeout_ms, const mvde_outputs &outputs);
    std::int32_t bind_device(const mvde_frame &frame, const mvde_outputs &outputs);
    std::int32_t infer_device(void *stream);
    void describe(mvde_session_info &info) const;

    // Whether the session was opened by a parent process, before fork(); it can then only be closed.
    bool is_inherited() const { return forks_ != num_forks(); }
    const char *library() const { return backend_->title; }

    char last_error[MVDE_ERROR_BYTES] = "";

private:
    void require_unforked() const;
    void find_device();
    void create_resizer(const mvde_session_options &options);
    void load_engine(const mvde_session_options &options);
    std::int64_t num_stats() const;
    std::int32_t check_outputs(const mvde_outputs &outputs, std::int64_t num_pixels) const;
    std::int32_t check_idle() const;
    std::int32_t finish(const mvde_outputs &outputs);
    std::int32_t write_stats(float *out);
    std::int32_t failed(std::int32_t status, const mvde_backend_message &message) const;
    void clear_bars();

    struct CloseResizer {
        void operator()(mvde_resizer *resizer) const { mvde_resizer_destroy(resizer); }
    };
    struct CloseWorkers {
        void operator()(mvde_workers *workers) const { mvde_workers_destroy(workers); }
    };

    Artifact artifact_;
    const mvde_backend *backend_ = nullptr;
    std::string library_version_;
    mvde_backend_device device_{};  // empty on the CPU
    std::int64_t frame_height_ = 0, frame_width_ = 0;
    std::unique_ptr<mvde_resizer, CloseResizer> resizer_;
    std::unique_ptr<mvde_workers, CloseWorkers> workers_;
    mvde_box seen_{};                  // part of the model's input that the frame fills
    std::vector<std::int32_t> stats_;  // mvde_stat
    mvde_backend_engine engine_{};     // with its buffers; depth is in metres
    const unsigned forks_ = num_forks();
    bool is_in_flight_ = false;
    bool is_bound_ = false;
};

}  // namespace mvde::internal
