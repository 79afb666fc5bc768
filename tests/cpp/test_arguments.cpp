// Every invalid argument returns a status and a message, and accesses no memory.
#include "harness.hpp"

#include "mvde/mvde.hpp"

#include <climits>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace {

const float kInfinity = std::numeric_limits<float>::infinity();
constexpr int32_t kStats[] = {MVDE_MEAN, MVDE_VAR};

// A valid call; each test invalidates one thing.
struct Call {
    std::vector<float> in = std::vector<float>(32 * 32, 2.0F), depth_out = std::vector<float>(32 * 32),
                       out = std::vector<float>(8);
    mvde_map raw{in.data(), MVDE_FLOAT32, 0, 1, 32, 32, 0, 0, 0};
    mvde_map depth{depth_out.data(), MVDE_FLOAT32, 0, 1, 32, 32, 0, 0, 0};
    mvde_stats_request request{sizeof(mvde_stats_request), 16, 2, kStats, out.data(), 8};
    mvde_postprocess_options options;

    Call() { mvde_postprocess_defaults(&options); }
    int32_t postprocess() { return mvde_postprocess(&raw, &options, &depth, &request, nullptr); }
    int32_t stats(float low = 0, float high = kInfinity) { return mvde_patch_stats(&raw, low, high, &request, nullptr); }
};

void expect(int32_t got, int32_t status, const char *words, int line) {
    const std::string message = mvde_last_error();
    CHECK(got == status, "line %d: got %d, expected %d: %s", line, got, status, message.c_str());
    CHECK(message.find(words) != std::string::npos, "line %d: '%s' is not in '%s'", line, words, message.c_str());
}

#define EXPECT(call, status, words) expect(call, status, words, __LINE__)

}  // namespace

TEST(a_right_call_succeeds) {
    Call call;
    CHECK(call.postprocess() == MVDE_OK, "%s", mvde_last_error());
    CHECK(call.out[0] == 2.0F && call.out[1] == 0.0F && call.depth_out[1023] == 2.0F);
}

TEST(null_pointers_are_refused) {
    Call call;
    EXPECT(mvde_patch_stats(nullptr, 0, 1, &call.request, nullptr), MVDE_ERROR_ARGUMENT, "depth is NULL");
    EXPECT(mvde_patch_stats(&call.raw, 0, 1, nullptr, nullptr), MVDE_ERROR_ARGUMENT, "request is NULL");
    EXPECT(mvde_postprocess(&call.raw, nullptr, nullptr, nullptr, nullptr), MVDE_ERROR_ARGUMENT, "nothing to compute");
    EXPECT(mvde_workers_create(2, nullptr), MVDE_ERROR_ARGUMENT, "workers is NULL");
    EXPECT(mvde_resizer_create(0, 4, 4, 4, 4, 0, nullptr), MVDE_ERROR_ARGUMENT, "resizer is NULL");
    EXPECT(mvde_resizer_boxes(nullptr, nullptr, nullptr), MVDE_ERROR_ARGUMENT, "resizer is NULL");
    EXPECT(mvde_resize(nullptr, nullptr, nullptr, 0, nullptr), MVDE_ERROR_ARGUMENT, "NULL");
    EXPECT(mvde_depth_to_source(nullptr, nullptr, 0, nullptr, 0, 0.0F, nullptr), MVDE_ERROR_ARGUMENT, "NULL");
    call.raw.data = nullptr;
    EXPECT(call.stats(), MVDE_ERROR_ARGUMENT, "depth.data is NULL");
    Call other;
    other.request.out = nullptr;
    EXPECT(other.stats(), MVDE_ERROR_ARGUMENT, "request.out is NULL");
    mvde_postprocess_defaults(nullptr);
    mvde_workers_destroy(nullptr);
    mvde_resizer_destroy(nullptr);
}

TEST(sizes_that_do_not_fit_are_refused_with_the_nearest_that_do) {
    Call call;
    call.raw.height = 30;
    EXPECT(call.stats(), MVDE_ERROR_SHAPE, "height 16 or 32 and width 32");
    for (const int64_t side : {int64_t{0}, int64_t{-1}, int64_t{INT64_MIN}, int64_t{INT64_MAX}, int64_t{1} << 40}) {
        Call bad;
        bad.raw.height = side;
        EXPECT(bad.stats(), MVDE_ERROR_SHAPE, "expected 1 to");
        bad = Call();
        bad.raw.data = bad.in.data();
        bad.raw.batch = side;
        EXPECT(bad.stats(), MVDE_ERROR_SHAPE, "expected 1 to");
        CHECK(mvde_num_patch_stats(1, side, 32, 16, 2) < 0 || side == int64_t{1} << 40);
    }
    CHECK(mvde_num_patch_stats(INT64_MAX, INT64_MAX, INT64_MAX, 1, 6) == MVDE_ERROR_SHAPE);
    CHECK(mvde_num_patch_stats(2, 32, 48, 16, 3) == 2 * 6 * 3);
}

TEST(strides_that_leave_the_address_space_are_refused) {
    for (const int64_t stride : {int64_t{INT64_MAX} / 4 * 4, int64_t{INT64_MIN}, int64_t{1} << 60, -(int64_t{1} << 60)}) {
        Call call;
        call.raw.row_stride = stride;
        EXPECT(call.stats(), MVDE_ERROR_SHAPE, "address space");
    }
    Call call;
    call.raw.height = call.raw.width = call.raw.batch = 1 << 24;
    EXPECT(call.stats(), MVDE_ERROR_SHAPE, "depth");
}

TEST(misaligned_memory_is_refused) {
    Call call;
    call.raw.data = reinterpret_cast<char *>(call.in.data()) + 2;
    EXPECT(call.stats(), MVDE_ERROR_ALIGNMENT, "multiples of 4 bytes");
    Call strided;
    strided.raw.row_stride = 130;
    EXPECT(strided.stats(), MVDE_ERROR_ALIGNMENT, "multiples of 4 bytes");
    Call out;
    out.request.out = reinterpret_cast<float *>(reinterpret_cast<char *>(out.out.data()) + 1);
    EXPECT(out.stats(), MVDE_ERROR_ALIGNMENT, "request.out");
}

TEST(overlapping_memory_is_refused) {
    Call call;
    call.depth.data = call.in.data() + 5;
    EXPECT(call.postprocess(), MVDE_ERROR_OVERLAP, "memory of its own");
    Call stats;
    stats.request.out = stats.in.data() + 1020;
    EXPECT(stats.stats(), MVDE_ERROR_OVERLAP, "memory of its own");
}

TEST(small_buffers_and_unknown_numbers_are_refused) {
    Call call;
    call.request.capacity = 7;
    EXPECT(call.stats(), MVDE_ERROR_CAPACITY, "holds 7 floats: expected 8");
    call = Call();
    for (const int32_t dtype : {-1, 3, 4, INT_MAX}) {
        Call bad;
        bad.raw.dtype = dtype;
        EXPECT(bad.stats(), MVDE_ERROR_ARGUMENT, "dtype");
    }
    Call depth;
    depth.depth.dtype = MVDE_FLOAT16;
    EXPECT(depth.postprocess(), MVDE_ERROR_ARGUMENT, "MVDE_UINT16");
    Call shape;
    shape.depth.width = 16;
    EXPECT(shape.postprocess(), MVDE_ERROR_SHAPE, "another shape");
    const int32_t unknown[] = {0, 7}, confidence[] = {0, MVDE_CONF};
    Call stat;
    stat.request.stats = unknown;
    EXPECT(stat.stats(), MVDE_ERROR_ARGUMENT, "stats[1] is 7");
    stat.request.stats = confidence;
    EXPECT(stat.stats(), MVDE_ERROR_ARGUMENT, "stats[1] is MVDE_CONF: it needs a confidence map");
    EXPECT(stat.postprocess(), MVDE_ERROR_ARGUMENT, "options.confidence of mvde_postprocess");
    Call older;
    older.request.struct_size = 32;
    EXPECT(older.stats(), MVDE_ERROR_ARGUMENT, "request.struct_size is 32: expected 40");
    for (const int32_t patch : {0, -16}) {
        Call bad;
        bad.request.patch_size = patch;
        EXPECT(bad.stats(), MVDE_ERROR_ARGUMENT, "patch_size");
    }
    for (const int32_t number : {0, MVDE_MAX_STATS + 1, -1}) {
        Call bad;
        bad.request.num_stats = number;
        EXPECT(bad.stats(), MVDE_ERROR_ARGUMENT, "num_stats");
    }
}

TEST(options_out_of_range_are_refused) {
    Call call;
    for (const float low : {-1.0F, 5.0F, std::nanf("")}) EXPECT(call.stats(low, 5.0F), MVDE_ERROR_ARGUMENT, "bounds");
    call.options.struct_size = 4;
    EXPECT(call.postprocess(), MVDE_ERROR_ARGUMENT, "struct_size");
    for (const float scale : {0.0F, kInfinity, std::nanf("")}) {
        Call bad;
        bad.options.scale = scale;
        EXPECT(bad.postprocess(), MVDE_ERROR_ARGUMENT, "scale");
    }
    Call conversion;
    conversion.options.conversion = 9;
    EXPECT(conversion.postprocess(), MVDE_ERROR_ARGUMENT, "conversion");
    Call range;
    range.options.range = 2;
    EXPECT(range.postprocess(), MVDE_ERROR_ARGUMENT, "range");
    Call sigmoid;
    sigmoid.options.conversion = MVDE_LOG_SIGMOID;
    EXPECT(sigmoid.postprocess(), MVDE_ERROR_ARGUMENT, "min_depth_m > 0");
}

TEST(masks_and_confidence_that_do_not_fit_are_refused) {
    const auto refused = [](auto change, int32_t status, const char *words, int line) {
        Call call;
        std::vector<float> values(32 * 32, 1.0F);
        mvde_map map{values.data(), MVDE_FLOAT32, 0, 1, 32, 32, 0, 0, 0};
        call.options.mask = &map;
        change(call, map);
        expect(call.postprocess(), status, words, line);
    };
    refused([](Call &, mvde_map &map) { map.height = 16; }, MVDE_ERROR_SHAPE,
            "options.mask is 1x16x32 (batch, height, width): expected the shape of raw, 1x32x32", __LINE__);
    refused([](Call &, mvde_map &map) { map.data = nullptr; }, MVDE_ERROR_ARGUMENT, "options.mask.data is NULL", __LINE__);
    refused([](Call &, mvde_map &map) { map.dtype = MVDE_UINT16; }, MVDE_ERROR_ARGUMENT, "options.mask.dtype is 3",
            __LINE__);
    refused([](Call &call, mvde_map &) { call.options.mask_role = 2; }, MVDE_ERROR_ARGUMENT, "mask_role is 2", __LINE__);
    refused([](Call &call, mvde_map &) { call.options.mask_threshold = kInfinity; }, MVDE_ERROR_ARGUMENT,
            "mask_threshold is inf", __LINE__);
    refused([](Call &call, mvde_map &map) { map.data = call.depth_out.data(); }, MVDE_ERROR_OVERLAP, "options.mask",
            __LINE__);
    refused(
        [](Call &call, mvde_map &map) {
            std::swap(call.options.mask, call.options.confidence);
            map.width = 31;
        },
        MVDE_ERROR_SHAPE, "options.confidence is 1x32x31", __LINE__);
}

TEST(frames_that_do_not_fit_are_refused) {
    mvde_resizer *resizer = nullptr;
    EXPECT(mvde_resizer_create(9, 4, 4, 4, 4, nullptr, &resizer), MVDE_ERROR_ARGUMENT, "pixel_format");
    EXPECT(mvde_resizer_create(MVDE_NV12, 4, 5, 4, 4, nullptr, &resizer), MVDE_ERROR_SHAPE, "even sides");
    EXPECT(mvde_resizer_create(MVDE_RGB, 1 << 20, 4, 4, 4, nullptr, &resizer), MVDE_ERROR_SHAPE, "expected 1 to");
    EXPECT(mvde_resizer_create(MVDE_RGB, 4, 4, 0, 4, nullptr, &resizer), MVDE_ERROR_SHAPE, "target");
    CHECK(resizer == nullptr);
    mvde_resizer_options options;
    mvde_resizer_defaults(&options);
    options.fit = MVDE_LETTERBOX;
    CHECK(mvde_resizer_create(MVDE_RGB, 4, 6, 8, 8, &options, &resizer) == MVDE_OK);
    std::vector<uint8_t> image(4 * 6 * 3, 7), rgb(8 * 8 * 3);
    mvde_frame frame = mvde::frame(image.data(), mvde::PixelFormat::rgb, {4, 6});
    CHECK(mvde_resize(resizer, &frame, rgb.data(), 0, nullptr) == MVDE_OK, "%s", mvde_last_error());
    CHECK(rgb[0] == 128 && rgb[3 * 8 * 4] == 7);
    EXPECT(mvde_resize(resizer, &frame, image.data(), 0, nullptr), MVDE_ERROR_OVERLAP, "overlap");
    EXPECT(mvde_resize(resizer, &frame, nullptr, 0, nullptr), MVDE_ERROR_ARGUMENT, "rgb is NULL");
    EXPECT(mvde_resize(resizer, &frame, rgb.data(), 5, nullptr), MVDE_ERROR_SHAPE, "row stride");
    EXPECT(mvde_resize(resizer, &frame, rgb.data(), INT64_MIN, nullptr), MVDE_ERROR_SHAPE, "row stride");
    frame.chroma_row_stride = INT64_MIN;
    EXPECT(mvde_resize(resizer, &frame, rgb.data(), 0, nullptr), MVDE_ERROR_SHAPE, "a row has 18 bytes");
    frame.chroma_row_stride = 0;
    frame.row_stride = 17;
    EXPECT(mvde_resize(resizer, &frame, rgb.data(), 0, nullptr), MVDE_ERROR_SHAPE, "a row has 18 bytes");
    frame.row_stride = 0;
    frame.matrix = 2;
    EXPECT(mvde_resize(resizer, &frame, rgb.data(), 0, nullptr), MVDE_ERROR_ARGUMENT,
           "frame.matrix is 2: expected MVDE_BT601 or MVDE_BT709");
    frame.matrix = MVDE_BT709;
    frame.full_range = -1;
    EXPECT(mvde_resize(resizer, &frame, rgb.data(), 0, nullptr), MVDE_ERROR_ARGUMENT, "frame.full_range is -1");
    frame.full_range = 0;
    frame.struct_size -= 8;
    EXPECT(mvde_resize(resizer, &frame, rgb.data(), 0, nullptr), MVDE_ERROR_ARGUMENT, "mvde_frame_defaults()");
    frame.struct_size += 8;
    frame.width = 5;
    EXPECT(mvde_resize(resizer, &frame, rgb.data(), 0, nullptr), MVDE_ERROR_SHAPE, "this resizer is for 4x6");
    mvde_resizer_destroy(resizer);
}

TEST(resampling_that_no_resizer_does_is_refused) {
    const auto refused = [](auto change, mvde_status status, const char *words, int line) {
        mvde_resizer *resizer = nullptr;
        mvde_resizer_options options;
        mvde_resizer_defaults(&options);
        change(options);
        const int32_t got = mvde_resizer_create(MVDE_RGB, 40, 40, 28, 42, &options, &resizer);
        CHECK(got == status && std::strstr(mvde_last_error(), words), "line %d: %d, %s", line, got, mvde_last_error());
        CHECK(!resizer);
    };
    using Options = mvde_resizer_options;
    const mvde_status argument = MVDE_ERROR_ARGUMENT;
    refused([](Options &o) { o.struct_size = 0; }, argument, "mvde_resizer_defaults()", __LINE__);
    refused([](Options &o) { o.fit = 3; }, argument, "fit is 3", __LINE__);
    refused([](Options &o) { o.fit = MVDE_FIT_DEFAULT; }, argument, "fit is -1", __LINE__);
    refused([](Options &o) { o.interpolation = 2; }, argument, "expected a mvde_interpolation", __LINE__);
    refused([](Options &o) { o.interpolation = MVDE_BICUBIC, o.bicubic_coefficient = -0.6F; }, argument,
            "-0.6: expected -0.5 or -0.75", __LINE__);
    refused([](Options &o) { o.antialias = 2; }, argument, "got 2", __LINE__);
    refused([](Options &o) { o.align_corners = 1; }, argument, "without antialiasing only", __LINE__);
    refused([](Options &o) { o.padding = 256; }, argument, "padding is 256", __LINE__);
    refused([](Options &o) { o.multiple = 0; }, argument, "multiple is 0", __LINE__);
    refused([](Options &o) { o.multiple = 4, o.fit = MVDE_LETTERBOX; }, MVDE_ERROR_SHAPE,
            "multiples of 4 pixels does not fit into 28x42", __LINE__);
}

TEST(a_letterbox_fills_what_its_multiple_allows) {
    mvde_resizer *resizer = nullptr;
    mvde_resizer_options options;
    mvde_resizer_defaults(&options);
    options.fit = MVDE_LETTERBOX;
    options.padding = 9;
    mvde_box box{};
    for (const int32_t multiple : {1, 14}) {
        options.multiple = multiple;
        CHECK(mvde_resizer_create(MVDE_RGB, 1080, 1920, 518, 924, &options, &resizer) == MVDE_OK);
        CHECK(mvde_resizer_boxes(resizer, nullptr, &box) == MVDE_OK);
        CHECK(box.top == 0 && box.bottom == 518 && box.right - box.left == (multiple == 14 ? 924 : 921));
        mvde_resizer_destroy(resizer);
    }
    CHECK(mvde_resizer_create(MVDE_RGB, 10, 40, 28, 28, &options, &resizer) == MVDE_OK);
    std::vector<uint8_t> image(10 * 40 * 3, 7), rgb(28 * 28 * 3);
    const mvde_frame frame = mvde::frame(image.data(), mvde::PixelFormat::rgb, {10, 40});
    CHECK(mvde_resize(resizer, &frame, rgb.data(), 0, nullptr) == MVDE_OK);
    CHECK(rgb[0] == 9 && rgb[28 * 14 * 3] == 7, "one row of 14 pixels in the middle");
    mvde_resizer_destroy(resizer);
}

TEST(every_status_has_a_sentence) {
    std::vector<std::string> sentences;
    for (int32_t status = 0; status >= MVDE_ERROR_FORKED; --status) sentences.push_back(mvde_strerror(status));
    for (std::size_t i = 0; i < sentences.size(); ++i)
        for (std::size_t j = 0; j < i; ++j) CHECK(sentences[i] != sentences[j]);
    CHECK(std::strstr(mvde_strerror(12345), "not a status") && std::strstr(mvde_strerror(INT_MIN), "not a status"));
    CHECK(mvde_version() == MVDE_VERSION);
}

int main() { return harness::run_all(); }
