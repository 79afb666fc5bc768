#include "session/engine_set.hpp"

#include "mvde/mvde.h"
#include "session/refused.hpp"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <string>

namespace mvde::internal {
namespace {

std::string size_text(std::int64_t height, std::int64_t width) {
    return std::to_string(height) + "x" + std::to_string(width);
}

std::string size_text(const Manifest &manifest) { return size_text(manifest.height(), manifest.width()); }

std::string text_of(const EngineManifest &manifest) {
    return manifest.name + " " + size_text(manifest) + " " + manifest.engine.id;
}

std::string focal_text(const Manifest &manifest) {
    if (!manifest.canonical_focal) return "None";
    char text[32];
    std::snprintf(text, sizeof text, "%.17g", *manifest.canonical_focal);
    return text;
}

std::string roles_text(const Manifest &manifest) {
    std::string text;
    for (const TensorSpec &output : manifest.outputs) text += (text.empty() ? "" : ", ") + output.role;
    return text;
}

[[noreturn]] void refuse(const std::string &message) { throw Refused(MVDE_ERROR_ARGUMENT, message); }

void check_same(const EngineManifest &first, const EngineManifest &other) {
    const auto expect = [&](const char *what, const std::string &one, const std::string &two, bool shows = true) {
        if (one == two) return;
        refuse(text_of(first) + " and " + text_of(other) + " differ in " + what +
               (shows ? ": " + one + " and " + two : std::string()) + "; engines with a deadline are of one model");
    };
    expect("model", first.name, other.name);
    expect("kind", first.depth_kind, other.depth_kind);
    expect("focal convention", first.focal_convention, other.focal_convention);
    expect("outputs", roles_text(first), roles_text(other));
    expect("source", first.source_kind, other.source_kind);
    // Somebody's ONNX file is of one resolution, so a model has several.
    if (first.source_kind != "onnx") expect("weights", first.source_sha256.substr(0, 12), other.source_sha256.substr(0, 12));
    expect("canonical focal length", focal_text(first), focal_text(other), false);
    expect("preprocessing", first.preprocess.text, other.preprocess.text, false);
}

}  // namespace

void check_one_model(const std::vector<const EngineManifest *> &manifests) {
    for (std::size_t i = 0; i < manifests.size(); ++i) {
        const EngineManifest &one = *manifests[i];
        check_same(*manifests[0], one);
        if (one.batch() != 1)
            refuse(text_of(one) + " has batch " + std::to_string(one.batch()) +
                   "; a deadline is of single frames, so give one of batch 1");
        for (std::size_t j = 0; j < i; ++j)
            if (manifests[j]->height() == one.height() && manifests[j]->width() == one.width())
                refuse("two engines are of " + size_text(one) + "; give one of each resolution");
    }
}

PatchGrid common_grid(const std::vector<const EngineManifest *> &manifests, PatchGrid asked) {
    const Manifest &smallest = *manifests[0];
    const std::int64_t height = smallest.height(), width = smallest.width();
    const std::int64_t across = std::gcd(height, width);
    std::int64_t shared = 0;
    std::string sizes;
    for (const EngineManifest *one : manifests) {
        if (one->height() * width != one->width() * height)
            refuse(size_text(smallest) + " and " + size_text(*one) +
                   " differ in aspect, so no grid of square patches fits both; build engines of one aspect");
        shared = std::gcd(shared, one->height() * across / height);
        sizes += (sizes.empty() ? "" : ", ") + size_text(*one);
    }
    std::vector<PatchGrid> fitting;  // the finest first
    for (std::int64_t step = 1; step <= shared; ++step)
        if (shared % step == 0) fitting.push_back({height / across * (shared / step), width / across * (shared / step)});
    if (asked.rows == 0 && asked.columns == 0) {
        const auto own = static_cast<double>(smallest.grid_rows);
        const auto distance = [&](const PatchGrid &one) {
            const auto rows = static_cast<double>(one.rows);
            return std::max(rows / own, own / rows);
        };
        return *std::min_element(fitting.begin(), fitting.end(),
                                 [&](const PatchGrid &one, const PatchGrid &two) { return distance(one) < distance(two); });
    }
    for (const PatchGrid &one : fitting)
        if (one.rows == asked.rows && one.columns == asked.columns) return asked;
    std::stable_sort(fitting.begin(), fitting.end(), [&](const PatchGrid &one, const PatchGrid &two) {
        return std::abs(one.rows - asked.rows) < std::abs(two.rows - asked.rows);
    });
    std::string near;
    for (std::size_t i = 0; i < std::min<std::size_t>(fitting.size(), 3); ++i)
        near += (i ? ", " : "") + size_text(fitting[i].rows, fitting[i].columns);
    refuse("a grid of " + size_text(asked.rows, asked.columns) + " does not divide " + sizes +
           " into square patches; the nearest that do: " + near);
}

}  // namespace mvde::internal
