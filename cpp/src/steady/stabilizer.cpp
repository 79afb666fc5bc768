#include "steady/stabilizer.hpp"

#include "error.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace mvde::internal {
namespace {

constexpr double kSmallestShift = 0.05;  // pixels: motion that moves none by more is left out
constexpr std::int64_t kAspectShare = 50;  // pictures of one camera differ in their aspect by one part in so many

struct Setting {
    const char *name;
    double mvde_stabilization::*value;
};

constexpr Setting kSettings[] = {
    {"scale_gain", &mvde_stabilization::scale_gain},
    {"scale_open", &mvde_stabilization::scale_open},
    {"scale_full", &mvde_stabilization::scale_full},
    {"gain", &mvde_stabilization::gain},
    {"open", &mvde_stabilization::open},
    {"full", &mvde_stabilization::full},
    {"cut_correlation", &mvde_stabilization::cut_correlation},
    {"cut_residual", &mvde_stabilization::cut_residual},
    {"cut_share", &mvde_stabilization::cut_share},
    {"max_gap_s", &mvde_stabilization::max_gap_s},
};

}  // namespace

std::int32_t check_stabilization(const mvde_stabilization &settings) {
    if (settings.struct_size != sizeof settings)
        return fail(MVDE_ERROR_ARGUMENT, "the stabilization's struct_size is %u: start from mvde_stabilization_defaults()",
                    settings.struct_size);
    for (const Setting &one : kSettings)
        if (!std::isfinite(settings.*one.value))
            return fail(MVDE_ERROR_ARGUMENT, "%s of the stabilization is %g; expected a number", one.name,
                        settings.*one.value);
    for (const Setting &one : {kSettings[0], kSettings[3]})
        if (!(settings.*one.value > 0 && settings.*one.value <= 1))
            return fail(MVDE_ERROR_ARGUMENT, "%s is a share of each change, above 0 and up to 1, but got %g", one.name,
                        settings.*one.value);
    const bool opens = 0 <= settings.scale_open && settings.scale_open < settings.scale_full && 0 <= settings.open &&
                       settings.open < settings.full;
    if (!opens)
        return fail(MVDE_ERROR_ARGUMENT,
                    "a gain opens between two differences, the smaller one first, but got %g to %g for the scale and %g to "
                    "%g for pixels",
                    settings.scale_open, settings.scale_full, settings.open, settings.full);
    if (!(settings.max_gap_s > 0))
        return fail(MVDE_ERROR_ARGUMENT, "max_gap_s is %g; expected more than 0 seconds", settings.max_gap_s);
    return MVDE_OK;
}

Stabilizer::Stabilizer(mvde_depth_kind kind, const mvde_stabilization &settings)
    : settings_(settings), domain_(SteadyDomain::of(kind)), thumbnail_(kThumbnailPixels), now_(kThumbnailPixels) {}

void Stabilizer::reserve(std::int64_t height, std::int64_t width, std::int64_t picture_width) {
    estimator_.reserve(picture_width);
    domain_->reserve(height, width);
    const auto num_pixels = static_cast<std::size_t>(height * width), num_columns = static_cast<std::size_t>(width);
    for (std::vector<float> *map : {&past_, &moved_, &mapped_})
        if (map->size() < num_pixels) map->resize(num_pixels);
    for (std::vector<float> *row : {&columns_, &cross_rows_})
        if (row->size() < num_columns) row->resize(num_columns);
    if (ranges_.size() < 4 * (num_columns + 2)) ranges_.resize(4 * (num_columns + 2));
}

std::int32_t Stabilizer::check_time(double time_s) const {
    if (std::isinf(time_s))
        return fail(MVDE_ERROR_ARGUMENT, "a frame has the time %g; expected seconds, or NaN where it is not known", time_s);
    if (std::isnan(time_s) || std::isnan(time_s_) || time_s > time_s_) return MVDE_OK;
    return fail(MVDE_ERROR_ARGUMENT,
                "the frame at %.6f s comes after the one at %.6f s; give each frame once, in the order in which they were "
                "taken, or reset the stabilizer where another recording begins",
                time_s, time_s_);
}

void Stabilizer::reset() {
    of_past_.exists = false;
    time_s_ = std::numeric_limits<double>::quiet_NaN();
    num_frames_ = 0;
}

void Stabilizer::update(const Kernel &kernel, const Picture &picture, const Grid &raw, std::int64_t view, double time_s,
                        float *out, std::int64_t out_stride) {
    reserve(raw.height, raw.width, picture.width);
    if (time_s - time_s_ > settings_.max_gap_s) reset();  // false where one is not known
    estimator_.thumbnail(kernel, picture, now_.data());
    const double aspect = picture.aspect();
    const std::optional<Motion> moved = goes_on(picture, raw, view) ? motion(kernel, aspect) : std::nullopt;
    if (moved) go_on(kernel, raw, *moved, aspect, out, out_stride);
    else begin(kernel, raw, out, out_stride);
    of_past_ = {raw.height, raw.width, picture.height, picture.width, view, true};
    thumbnail_.swap(now_);
    time_s_ = time_s;
}

void Stabilizer::begin(const Kernel &kernel, const Grid &raw, float *out, std::int64_t out_stride) {
    num_frames_ = 1;
    domain_->begin(raw);
    enter(kernel, raw, past_.data());
    for (std::int64_t y = 0; y < raw.height; ++y)
        std::memmove(out + y * out_stride, raw.row(y), static_cast<std::size_t>(raw.width) * sizeof(float));
}

void Stabilizer::go_on(const Kernel &kernel, const Grid &raw, const Motion &motion, double aspect, float *out,
                       std::int64_t out_stride) {
    ++num_frames_;
    if (raw.height != of_past_.height || raw.width != of_past_.width) resample(kernel, raw.height, raw.width);
    follow(kernel, motion, aspect);
    enter(kernel, raw, mapped_.data());
    blend(kernel);
    for (std::int64_t y = 0; y < raw.height; ++y)
        domain_->leave(kernel, past_.data() + y * raw.width, raw.row(y), raw.width, out + y * out_stride);
}

// Whether a frame shows what the past is of, but for its motion.
bool Stabilizer::goes_on(const Picture &picture, const Grid &raw, std::int64_t view) const {
    const Past &past = of_past_;
    if (!past.exists || view != past.view || std::min({past.height, past.width, raw.height, raw.width}) < 2) return false;
    const std::int64_t one = past.picture_height * picture.width, other = past.picture_width * picture.height;
    return kAspectShare * std::abs(one - other) <= std::min(one, other);
}

// Motion of the picture since the last frame; none at a cut.
std::optional<Motion> Stabilizer::motion(const Kernel &kernel, double aspect) {
    const float *const before = thumbnail_.data(), *const now = now_.data();
    const Motion found = estimator_.estimate(kernel, before, now, aspect);
    const Change change = estimator_.compare(kernel, before, now, found, aspect);
    const double floor = std::max(settings_.cut_residual, settings_.cut_share * change.spread);
    if (change.correlation < settings_.cut_correlation && change.residual > floor) return std::nullopt;
    return found;
}

// Brings the past to another resolution, bilinearly.
void Stabilizer::resample(const Kernel &kernel, std::int64_t height, std::int64_t width) {
    const auto centres = [](std::int64_t index, std::int64_t length, std::int64_t of) {
        const auto step = static_cast<float>(static_cast<double>(of) / static_cast<double>(length));
        return (static_cast<float>(index) + 0.5F) * step - 0.5F;
    };
    for (std::int64_t x = 0; x < width; ++x) {
        columns_[static_cast<std::size_t>(x)] = centres(x, width, of_past_.width);
        cross_rows_[static_cast<std::size_t>(x)] = -0.0F;
    }
    const float *const columns = columns_.data(), *const cross_rows = cross_rows_.data();
    FollowRow row{{past_.data()}, {moved_.data()}, of_past_.height, of_past_.width, columns, cross_rows, 0, 0, -0.0F, width};
    for (std::int64_t y = 0; y < height; ++y, row.out[0] += width) {
        row.row = centres(y, height, of_past_.height);
        kernel.steady->follow(row);
    }
    past_.swap(moved_);
    of_past_.height = height;
    of_past_.width = width;
}

// Moves the past to where the frame's pixels are now, NaN where it saw nothing.
void Stabilizer::follow(const Kernel &kernel, const Motion &motion, double aspect) {
    const std::int64_t height = of_past_.height, width = of_past_.width;
    if (motion.largest_shift(height, width) < kSmallestShift) return;
    const MovedGrid grid(height, width, motion, aspect);
    grid.fill(width, columns_.data(), cross_rows_.data());
    const float *const columns = columns_.data(), *const cross_rows = cross_rows_.data();
    const float nearer = domain_->nearer(kernel, motion.zoom);
    FollowRow row{{past_.data()}, {moved_.data()}, height, width, columns, cross_rows, 0, 0, nearer, width};
    for (std::int64_t y = 0; y < height; ++y, row.out[0] += width) {
        grid.place(y, row);
        kernel.steady->follow(row);
    }
    past_.swap(moved_);
}

void Stabilizer::enter(const Kernel &kernel, const Grid &raw, float *out) const {
    for (std::int64_t y = 0; y < raw.height; ++y) domain_->enter(kernel, raw.row(y), raw.width, out + y * raw.width);
}

// Brings the map to the scale of the past, and averages it with it there.
void Stabilizer::blend(const Kernel &kernel) {
    // A mean over the frames there are (gain 1/n) until the gain is smaller: a bad first frame would stay else.
    const double least = 1.0 / num_frames_, gain = std::max(settings_.gain, least);
    const double scale_gain = std::max(settings_.scale_gain * settings_.gain, least) / gain;
    const Grid past{past_.data(), of_past_.height, of_past_.width, of_past_.width};
    domain_->align(kernel, mapped_.data(), past, {scale_gain, settings_.scale_open, settings_.scale_full});
    const Blend blend{static_cast<float>(gain), static_cast<float>(1.0 - gain), domain_->log_per_unit(),
                      static_cast<float>(settings_.open), static_cast<float>(1.0 / (settings_.full - settings_.open))};
    BlendRow row{{}, {}, past.width, ranges_.data(), moved_.data()};
    for (std::int64_t y = 0; y < past.height; ++y, row.out += past.width) {
        for (int i = 0; i < 3; ++i) {
            const std::int64_t at = std::clamp<std::int64_t>(y + i - 1, 0, past.height - 1);
            row.values[i] = mapped_.data() + at * past.width;
            row.past[i] = past.row(at);
        }
        kernel.steady->blend(blend, row);
    }
    past_.swap(moved_);
}

}  // namespace mvde::internal
