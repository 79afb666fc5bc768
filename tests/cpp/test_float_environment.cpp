// The caller's rounding mode, traps and denormal handling change no result bit and are restored.
#include "engine_folder.hpp"
#include "harness.hpp"
#include "session_frame.hpp"

#include <mvde/mvde.hpp>

#include <cfenv>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace {

constexpr int64_t kHeight = 64, kWidth = 96;
constexpr int32_t kStats[] = {MVDE_MEAN, MVDE_VAR, MVDE_GRAD, MVDE_MIN, MVDE_MAX, MVDE_VALID};

using Bytes = std::vector<unsigned char>;

template <class T>
void append(Bytes &bytes, const std::vector<T> &values) {
    const auto *first = reinterpret_cast<const unsigned char *>(values.data());
    bytes.insert(bytes.end(), first, first + values.size() * sizeof(T));
}

std::vector<float> raw_map() {
    std::vector<float> raw(kHeight * kWidth);
    for (std::size_t i = 0; i < raw.size(); ++i) raw[i] = static_cast<float>(i * 7919 % 1009) * 0.0123F - 1.0F;
    const float special[] = {
        std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),      1e-41F, 0.0F,
        -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::signaling_NaN(), 1e30F};
    for (std::size_t i = 0; i < raw.size(); i += 53) std::memcpy(&raw[i], &special[i % 7], sizeof(float));
    return raw;
}

// All computations of the library, with the objects they need created in the same environment.
struct Work {
    std::vector<float> raw = raw_map();
    std::vector<uint8_t> image = std::vector<uint8_t>(50 * 70 * 3), rgb = std::vector<uint8_t>(kHeight * kWidth * 3);
    std::vector<float> depth = std::vector<float>(kHeight * kWidth), back = std::vector<float>(50 * 70);
    std::vector<float> stats = std::vector<float>(4 * 6 * 6), session_depth = std::vector<float>(32 * 48),
                       session_stats = std::vector<float>(18);
    std::vector<uint16_t> millimetres = std::vector<uint16_t>(kHeight * kWidth);
    std::vector<int32_t> statuses;
    Frame frame{{32, 48}};
    Bytes bytes;

    Work() {
        for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<uint8_t>(i * 31 % 253);
    }

    void run(const std::string &engine) {
        mvde_workers *workers = nullptr;
        mvde_resizer *resizer = nullptr;
        statuses.push_back(mvde_workers_create(3, &workers));
        mvde_resizer_options resizing;
        mvde_resizer_defaults(&resizing);
        resizing.fit = MVDE_LETTERBOX;
        statuses.push_back(mvde_resizer_create(MVDE_RGB, 50, 70, kHeight, kWidth, &resizing, &resizer));
        const mvde_frame view = mvde::frame(image.data(), mvde::PixelFormat::rgb, {50, 70});
        statuses.push_back(mvde_resize(resizer, &view, rgb.data(), 0, workers));
        append(bytes, rgb);
        for (int32_t conversion : {MVDE_LINEAR, MVDE_INVERSE, MVDE_EXP, MVDE_LOG_SIGMOID}) postprocess(conversion, workers);
        statuses.push_back(mvde_depth_to_source(resizer, depth.data(), 0, back.data(), 0, 0.0F, workers));
        append(bytes, back);
        statistics(workers);
        mvde_resizer_destroy(resizer);
        mvde_workers_destroy(workers);
        session(engine);
    }

    void postprocess(int32_t conversion, mvde_workers *workers) {
        mvde_postprocess_options options;
        mvde_postprocess_defaults(&options);
        options.conversion = conversion;
        options.scale = 0.7F;
        options.shift = 0.3F;
        options.min_depth_m = 0.1F;
        options.max_depth_m = 80.0F;
        const mvde_map map{raw.data(), MVDE_FLOAT32, 0, 1, kHeight, kWidth, 0, 0, 0};
        const mvde_map metres{depth.data(), MVDE_FLOAT32, 0, 1, kHeight, kWidth, 0, 0, 0};
        const mvde_map thousandths{millimetres.data(), MVDE_UINT16, 0, 1, kHeight, kWidth, 0, 0, 0};
        const mvde_stats_request request{sizeof(mvde_stats_request),        16, 6, kStats, stats.data(),
                                         static_cast<int64_t>(stats.size())};
        statuses.push_back(mvde_postprocess(&map, &options, &thousandths, &request, workers));
        statuses.push_back(mvde_postprocess(&map, &options, &metres, &request, workers));
        append(bytes, millimetres);
        append(bytes, depth);
        append(bytes, stats);
    }

    void statistics(mvde_workers *workers) {
        const mvde_map map{raw.data(), MVDE_FLOAT32, 0, 1, kHeight, kWidth, 0, 0, 0};
        const mvde_stats_request request{sizeof(mvde_stats_request),        16, 6, kStats, stats.data(),
                                         static_cast<int64_t>(stats.size())};
        statuses.push_back(mvde_patch_stats(&map, 0.1F, 1e9F, &request, workers));
        append(bytes, stats);
    }

    void session(const std::string &engine) {
        mvde_session *session = nullptr;
        mvde_session_options options;
        mvde_session_defaults(&options);
        options.num_threads = 2;
        statuses.push_back(mvde_open(engine.c_str(), &options, &session));
        mvde_outputs outputs = outputs_of(session_depth, session_stats);
        statuses.push_back(mvde_infer(session, &frame.view, &outputs));
        append(bytes, session_depth);
        append(bytes, session_stats);
        statuses.push_back(mvde_infer_async(session, &frame.view));
        statuses.push_back(mvde_wait(session, -1, &outputs));
        append(bytes, session_depth);
        mvde_session_info info{};
        info.struct_size = sizeof info;
        statuses.push_back(mvde_session_query(session, &info));
        append(bytes, std::vector<float>{info.min_valid, info.max_valid});
        mvde_close(session);
    }
};

enum class Setting { rounding_up, rounding_down, rounding_to_zero, trapping, flushing };

// Returns false if this machine does not support the setting.
bool apply(Setting setting) {
    switch (setting) {
        case Setting::rounding_up: return std::fesetround(FE_UPWARD) == 0;
        case Setting::rounding_down: return std::fesetround(FE_DOWNWARD) == 0;
        case Setting::rounding_to_zero: return std::fesetround(FE_TOWARDZERO) == 0;
        case Setting::trapping: return feenableexcept(FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW) != -1;
        case Setting::flushing:
#if defined(__SSE2__)
            return _mm_setcsr(_mm_getcsr() | 0x8040U), true;
#else
            return false;
#endif
    }
    return false;
}

}  // namespace

TEST(every_environment_gives_the_bits_of_the_default_one) {
    const engine_folder::Folder folder;
    const std::string engine = folder.path.string();
    Work expected;
    expected.run(engine);
    for (const int32_t status : expected.statuses) CHECK(status == MVDE_OK, "%d: %s", status, mvde_last_error());
    for (const Setting setting :
         {Setting::rounding_up, Setting::rounding_down, Setting::rounding_to_zero, Setting::trapping, Setting::flushing}) {
        Work work;
        std::fenv_t normal, before, after;
        std::fegetenv(&normal);
        std::feclearexcept(FE_ALL_EXCEPT);
        if (!apply(setting)) continue;
        std::fegetenv(&before);
        work.run(engine);
        std::fegetenv(&after);
        std::fesetenv(&normal);
        CHECK(work.statuses == expected.statuses, "setting %d", static_cast<int>(setting));
        CHECK(work.bytes.size() == expected.bytes.size() && work.bytes == expected.bytes, "setting %d",
              static_cast<int>(setting));
        CHECK(std::memcmp(&before, &after, sizeof before) == 0, "setting %d: the environment changed",
              static_cast<int>(setting));
    }
}

int main() { return harness::run_all(); }
