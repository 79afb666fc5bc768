// Engines whose files change while a session uses or opens them, with the fake backend, which keeps its blob.
#include "engine_folder.hpp"
#include "harness.hpp"
#include "session/sealed_file.hpp"
#include "session_frame.hpp"

#include <mvde/mvde.hpp>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace fs = std::filesystem;
using engine_folder::Folder;

float depth_of(mvde::Session &session) {
    Frame frame({32, 48});
    frame.fill(64);
    std::vector<float> depth(32 * 48), stats(18);
    CHECK(session.infer(frame.view, depth, stats), "%s", mvde_last_error());
    return depth[0];
}

// Writes an engine whose depth is 1 m more for each "+" in its blob, with a distinct file name for each.
void write(const Folder &folder, const std::string &blob) {
    const std::string content = "engine " + blob;
    const std::string manifest = engine_folder::with(engine_folder::manifest(content), "\"tiny\"",
                                                     "\"n" + std::to_string(blob.size()) + "\"");
    folder.write(".engine.blob", content);
    folder.write(".engine.json", manifest);
    for (const char *name : {"engine.blob", "engine.json"}) {
        fs::rename(folder.path / (std::string(".") + name), folder.path / name);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

}  // namespace

TEST(a_session_does_not_need_its_files) {
    const Folder folder;
    write(folder, "+");
    auto session = mvde::Session::open(folder.path.string());
    CHECK(session, "%s", session.error().message.c_str());
    if (!session) return;
    CHECK(depth_of(*session) == 2.5F);
    for (const char *name : {"engine.blob", "engine.json"}) folder.write(name, "++++++++");  // in place
    CHECK(depth_of(*session) == 2.5F, "overwritten: %f", static_cast<double>(depth_of(*session)));
    for (const char *name : {"engine.blob", "engine.json"}) fs::resize_file(folder.path / name, 0);
    CHECK(depth_of(*session) == 2.5F, "cut off");
    fs::remove_all(folder.path);
    CHECK(depth_of(*session) == 2.5F, "removed");
}

TEST(an_engine_that_is_being_replaced_is_one_or_the_other) {
    const Folder folder;
    write(folder, "+");
    std::atomic<bool> is_over{false};
    std::thread writer([&] {
        for (int i = 0; !is_over; ++i) write(folder, i % 2 ? "+" : "++");
    });
    std::set<float> found;
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
    while (std::chrono::steady_clock::now() < until) {
        auto session = mvde::Session::open(folder.path.string());
        CHECK(session, "%s", session.error().message.c_str());
        if (!session) break;
        const float depth = depth_of(*session);
        CHECK(depth == 1.5F + static_cast<float>(session->info().name[1] - '0'), "%s with %f", session->info().name,
              static_cast<double>(depth));
        found.insert(depth);
    }
    is_over = true;
    writer.join();
    CHECK(found.size() == 2, "%zu engines were seen", found.size());
}

TEST(sessions_on_one_engine_hold_its_bytes_once) {
    const Folder folder;
    const std::string path = (folder.path / "engine.blob").string();
    const auto first = mvde::internal::sealed_file(path);
    CHECK(first == mvde::internal::sealed_file(path));
    CHECK(first->sha256() == engine_folder::hash(folder.content) && first->size_bytes() == folder.content.size());
    folder.write("engine.blob", "another one");
    CHECK(first != mvde::internal::sealed_file(path));
    folder.write("engine.blob", "");
    CHECK(mvde::internal::sealed_file(path)->size_bytes() == 0);
}

int main() { return harness::run_all(); }
