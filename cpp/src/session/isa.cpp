#include "session/isa.hpp"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace mvde::internal {
namespace {

// In the order in which oneDNN reads them.
constexpr const char *kVariables[] = {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"};

// Names of a cap, and the features that it adds.
struct Level {
    std::vector<const char *> caps, features;
};

// Each level has the features of those before it, but for avx_vnni, which AVX-512 has from FP16 on.
const std::vector<Level> &levels() {
    static const std::vector<Level> all{
        {{"SSE41"}, {"sse4_2"}},
        {{"AVX"}, {"avx"}},
        {{"AVX2"}, {"avx2", "fma", "f16c"}},
        {{"AVX512_CORE"}, {"avx512f", "avx512bw", "avx512vl"}},
        {{"AVX512_CORE_VNNI"}, {"avx512_vnni"}},
        {{"AVX512_CORE_BF16"}, {"avx512_bf16"}},
        {{"AVX512_CORE_FP16", "AVX10_1_512"}, {"avx512_fp16", "avx_vnni"}},
        {{"AVX512_CORE_AMX", "AVX10_1_512_AMX"}, {"amx_tile", "amx_int8", "amx_bf16"}},
    };
    return all;
}

bool is_in(const std::vector<const char *> &names, const std::string &name) {
    return std::any_of(names.begin(), names.end(), [&](const char *one) { return name == one; });
}

// Sets `allowed` to the features that the cap leaves; returns false for a cap that leaves all.
bool features_below(const std::string &cap, std::vector<const char *> &allowed) {
    const bool is_vnni = cap == "AVX2_VNNI" || cap == "AVX2_VNNI_2";
    const std::string level = is_vnni ? "AVX2" : cap;
    for (const Level &one : levels()) {
        allowed.insert(allowed.end(), one.features.begin(), one.features.end());
        if (!is_in(one.caps, level)) continue;
        if (is_vnni) allowed.push_back("avx_vnni");
        return true;
    }
    return false;
}

std::string stripped(const char *text) {
    const std::string whole = text ? text : "";
    const std::size_t first = whole.find_first_not_of(" \t\n\r\f\v");
    return first == std::string::npos ? "" : whole.substr(first, whole.find_last_not_of(" \t\n\r\f\v") - first + 1);
}

}  // namespace

std::vector<std::string> cpu_features() {
    std::ifstream stream("/proc/cpuinfo");
    for (std::string line; std::getline(stream, line);) {
        const std::size_t colon = line.find(':');
        if (colon == std::string::npos) continue;
        const std::string key = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
        if (colon == 0 || (key != "flags" && key != "Features")) continue;
        std::istringstream words(line.substr(colon + 1));
        std::vector<std::string> features;
        for (std::string word; words >> word;) features.push_back(word);
        return features;
    }
    return {};
}

std::string onednn_cap() {
    for (const char *name : kVariables)
        if (const std::string value = stripped(std::getenv(name)); !value.empty()) return std::string(name) + "=" + value;
    return "";
}

std::vector<std::string> onednn_features() {
    std::vector<std::string> features = cpu_features();
    std::string cap = onednn_cap();
    cap.erase(0, cap.find('=') + 1);
    std::transform(cap.begin(), cap.end(), cap.begin(), [](unsigned char letter) { return std::toupper(letter); });
    std::vector<const char *> allowed;
    if (!cap.empty() && features_below(cap, allowed))
        features.erase(
            std::remove_if(features.begin(), features.end(), [&](const std::string &one) { return !is_in(allowed, one); }),
            features.end());
    return features;
}

}  // namespace mvde::internal
