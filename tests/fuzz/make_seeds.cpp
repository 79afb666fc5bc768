// make_seeds FOLDER: writes the fuzzers' seed corpus (valid folders, and ones with a single error) and dictionary. Run
// before each fuzzing session, so that the seeds match the sources.
#include "../cpp/engine_folder.hpp"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

void write(const fs::path &path, const std::string &text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
}

// The quoted strings of a manifest.
std::set<std::string> words_of(const std::string &text) {
    std::set<std::string> words;
    for (std::size_t at = text.find('"'); at != std::string::npos; at = text.find('"', at + 1)) {
        const std::size_t end = text.find('"', at + 1);
        if (end == std::string::npos) break;
        words.insert(text.substr(at + 1, end - at - 1));
        at = end;
    }
    return words;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 2) return std::fputs("usage: make_seeds FOLDER\n", stderr), 2;
    const fs::path root = argv[1];
    const std::string content = "the compiled model", zero(1, '\0');
    const std::string good = engine_folder::manifest(content), graph = engine_folder::graph_manifest(content);
    const std::vector<std::string> manifests = {
        good,
        graph,
        engine_folder::with(good, engine_folder::kMeasured, engine_folder::kUnmeasured),
        engine_folder::with(good, "\"openvino\"", "\"tensorrt\""),
        engine_folder::with(good, "[1, 32, 48, 3]", "[2, 32, 48, 3]"),
        engine_folder::with(good, "\"cpu_features\": []", "\"cpu_features\": [\"sse2\", \"magic\"]"),
        engine_folder::with(good, "\"metric\"", "\"relative\""),
        engine_folder::with(good, "[\"mean\", \"var\", \"grad\"]", "[\"min\", \"max\", \"valid\"]"),
        R"({"a": [1.5e-3, "\u00e9\ud83d\ude00", null, true, {"b": []}]})",
    };
    for (std::size_t i = 0; i < manifests.size(); ++i) {
        const std::string name = "seed" + std::to_string(i);
        write(root / "manifest" / name, manifests[i]);
        write(root / "session" / name, manifests[i]);
        write(root / "session" / (name + "-blob"), manifests[i] + zero + content);
        write(root / "session" / (name + "-graph"), manifests[i] + zero + content + zero + graph);
    }
    write(root / "session" / "broken", engine_folder::manifest("broken") + zero + "broken");
    for (unsigned i = 0; i < 32; ++i) {
        std::string bytes(256, '\0');
        unsigned random = i + 1;
        for (char &byte : bytes) byte = static_cast<char>((random = random * 1664525U + 1013904223U) >> 24);
        write(root / "arguments" / ("seed" + std::to_string(i)), bytes);
    }
    std::string dictionary;
    for (const std::string &word : words_of(good))
        if (!word.empty() && word.find_first_of("\\\n") == std::string::npos) dictionary += "\"\\\"" + word + "\\\"\"\n";
    write(root / "manifest.dict", dictionary);
    return 0;
}
