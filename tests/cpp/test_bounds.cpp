// No shape causes accesses outside the caller's memory: each map is placed next to a protected page, once at its end and
// once at its beginning.
#include "harness.hpp"
#include "kernels.hpp"

#include <mvde/mvde.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

namespace {

constexpr int32_t kStats[] = {MVDE_MEAN, MVDE_VAR, MVDE_GRAD, MVDE_MIN};
constexpr int32_t kStatsWithConfidence[] = {MVDE_MEAN, MVDE_CONF, MVDE_GRAD, MVDE_CONF};
constexpr std::size_t kRoom = std::size_t{1} << 20;

// kRoom bytes between two protected pages.
class Guarded {
public:
    Guarded() : page_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
        void *all = mmap(nullptr, kRoom + 2 * page_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        first_ = all == MAP_FAILED ? nullptr : static_cast<unsigned char *>(all);
        ok_ = first_ && mprotect(first_ + page_, kRoom, PROT_READ | PROT_WRITE) == 0;
    }
    ~Guarded() {
        if (first_) munmap(first_, kRoom + 2 * page_);
    }
    Guarded(const Guarded &) = delete;
    Guarded &operator=(const Guarded &) = delete;

    bool ok() const { return ok_; }
    // Address of `size` bytes adjacent to the protected page before or after.
    unsigned char *place(std::size_t size, bool at_end) const { return first_ + page_ + (at_end ? kRoom - size : 0); }

private:
    std::size_t page_;
    unsigned char *first_ = nullptr;
    bool ok_ = false;
};

void fill(unsigned char *data, std::size_t size, int32_t dtype) {
    const float one = 1.5F;
    const std::uint16_t half = dtype == MVDE_FLOAT16 ? 0x3E00 : 0x3FC0;
    for (std::size_t i = 0; i < size; ++i)
        data[i] = dtype == MVDE_FLOAT32 ? reinterpret_cast<const unsigned char *>(&one)[i % 4]
                                        : reinterpret_cast<const unsigned char *>(&half)[i % 2];
}

}  // namespace

TEST(maps_of_any_shape_are_left_alone_outside) {
    const Guarded in_memory, depth_memory, stats_memory, mask_memory;
    CHECK(in_memory.ok() && depth_memory.ok() && stats_memory.ok() && mask_memory.ok());
    std::mt19937 random(11);
    const int patches[] = {1, 2, 3, 5, 8, 13, 14, 15, 16, 17, 24, 31, 32, 33, 100, 255, 256, 257};
    for (int round = 0; round < 600; ++round) {
        const int patch = patches[random() % 18];
        const int64_t limit = std::max(1, 300 / patch);
        const int64_t height = patch * (1 + static_cast<int64_t>(random()) % std::min<int64_t>(limit, 3));
        const int64_t width = patch * (1 + static_cast<int64_t>(random()) % limit);
        const int32_t dtype = static_cast<int32_t>(random() % 3), depth_dtype = random() % 2 ? MVDE_FLOAT32 : MVDE_UINT16;
        const int64_t element = dtype == MVDE_FLOAT32 ? 4 : 2, depth_element = depth_dtype == MVDE_FLOAT32 ? 4 : 2;
        const bool at_end = random() % 2, upside_down = random() % 2, wants_depth = random() % 2;
        const auto in_bytes = static_cast<std::size_t>(height * width * element);
        const auto depth_bytes = static_cast<std::size_t>(height * width * depth_element);
        unsigned char *in = in_memory.place(in_bytes, at_end), *depth = depth_memory.place(depth_bytes, at_end);
        fill(in, in_bytes, dtype);
        if (random() % 3 == 0)  // an invalid pixel sends patches through another path
            std::fill_n(in + static_cast<std::int64_t>(random()) % (height * width) * element, element,
                        static_cast<unsigned char>(255));
        const int64_t row = width * element;
        const mvde_map raw{
            upside_down ? in + (height - 1) * row : in, dtype, 0, 1, height, width, 0, upside_down ? -row : row, 0};
        const mvde_map out{depth, depth_dtype, 0, 1, height, width, 0, 0, 0};
        const int64_t num_floats = mvde_num_patch_stats(1, height, width, patch, 4);
        auto *stats = reinterpret_cast<float *>(stats_memory.place(static_cast<std::size_t>(num_floats) * 4, at_end));
        const mvde_stats_request request{sizeof(mvde_stats_request), patch, 4, kStats, stats, num_floats};
        const auto mask_bytes = static_cast<std::size_t>(height * width * 4);
        const mvde_map mask{mask_memory.place(mask_bytes, at_end), MVDE_FLOAT32, 0, 1, height, width, 0, 0, 0};
        std::fill_n(static_cast<float *>(mask.data), height * width, 0.25F);
        static_cast<float *>(mask.data)[random() % static_cast<unsigned>(height * width)] = 0.75F;
        mvde_postprocess_options masked;
        mvde_postprocess_defaults(&masked);
        masked.mask = masked.confidence = &mask;
        masked.mask_role = static_cast<int32_t>(random() % 2);
        mvde_stats_request with_confidence = request;
        with_confidence.stats = kStatsWithConfidence;
        for (const mvde::internal::Kernel *kernel : testable_kernels()) {
            mvde::internal::force_kernel(kernel);
            int32_t status = wants_depth ? mvde_postprocess(&raw, nullptr, &out, random() % 4 ? &request : nullptr, nullptr)
                                         : mvde_patch_stats(&raw, 0, INFINITY, &request, nullptr);
            if (!status) status = mvde_postprocess(&raw, &masked, wants_depth ? &out : nullptr, &with_confidence, nullptr);
            CHECK(status == MVDE_OK, "patch %d, %dx%d: %s", patch, static_cast<int>(height), static_cast<int>(width),
                  mvde_last_error());
        }
    }
    mvde::internal::force_kernel(nullptr);
}

TEST(frames_of_any_format_and_stride_are_left_alone_outside) {
    const Guarded in_memory, out_memory;
    CHECK(in_memory.ok() && out_memory.ok());
    std::mt19937 random(12);
    for (int round = 0; round < 300; ++round) {
        const auto format = static_cast<int32_t>(random() % 5);
        const bool is_yuv = format == MVDE_NV12 || format == MVDE_YUYV;
        const int64_t height = (1 + static_cast<int64_t>(random()) % 40) * (is_yuv ? 2 : 1);
        const int64_t width = (1 + static_cast<int64_t>(random()) % 40) * (is_yuv ? 2 : 1);
        const int64_t target_height = 1 + static_cast<int64_t>(random()) % 70,
                      target_width = 1 + static_cast<int64_t>(random()) % 70;
        const int64_t pixel = format == MVDE_YUYV ? 2 : format == MVDE_RGB || format == MVDE_BGR ? 3 : 1;
        const int64_t stride = width * pixel + static_cast<int64_t>(random()) % 3 * 7;
        const int64_t rows = format == MVDE_NV12 ? height / 2 * 3 : height;
        // The last row ends with its last pixel: its padding need not exist.
        const auto in_bytes = static_cast<std::size_t>((rows - 1) * stride + width * pixel);
        const auto out_bytes = static_cast<std::size_t>(target_height * target_width * 3);
        const bool at_end = random() % 2;
        mvde_resizer *resizer = nullptr;
        mvde_resizer_options options;
        mvde_resizer_defaults(&options);
        options.fit = static_cast<int32_t>(random() % 3);
        options.interpolation = static_cast<int32_t>(random() % 2);
        options.bicubic_coefficient = random() % 2 ? -0.5F : -0.75F;
        options.antialias = static_cast<int32_t>(random() % 2);
        options.align_corners = options.antialias ? 0 : static_cast<int32_t>(random() % 2);
        CHECK(mvde_resizer_create(format, height, width, target_height, target_width, &options, &resizer) == MVDE_OK, "%s",
              mvde_last_error());
        mvde_frame frame = mvde::frame(in_memory.place(in_bytes, at_end), static_cast<mvde::PixelFormat>(format),
                                       {height, width});
        frame.row_stride = frame.chroma_row_stride = stride;
        for (const mvde::internal::Kernel *kernel : testable_kernels()) {
            mvde::internal::force_kernel(kernel);
            CHECK(mvde_resize(resizer, &frame, out_memory.place(out_bytes, at_end), 0, nullptr) == MVDE_OK, "%s",
                  mvde_last_error());
        }
        const auto model_bytes = static_cast<std::size_t>(target_height * target_width * 4);
        const auto source_bytes = static_cast<std::size_t>(height * width * 4);
        for (const mvde::internal::Kernel *kernel : testable_kernels()) {
            mvde::internal::force_kernel(kernel);
            CHECK(mvde_depth_to_source(resizer, reinterpret_cast<float *>(in_memory.place(model_bytes, at_end)), 0,
                                       reinterpret_cast<float *>(out_memory.place(source_bytes, at_end)), 0, 0.0F,
                                       nullptr) == MVDE_OK,
                  "%s", mvde_last_error());
        }
        mvde_resizer_destroy(resizer);
    }
    mvde::internal::force_kernel(nullptr);
}

int main() { return harness::run_all(); }
