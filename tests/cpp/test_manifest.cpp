// The manifest parser rejects what mvde/manifest.py rejects, with the same messages, and survives any input.
#include "engine_folder.hpp"
#include "harness.hpp"

#include "session/json.hpp"
#include "session/manifest.hpp"

#include <string>
#include <vector>

namespace {

using namespace mvde::internal;
using engine_folder::with;

const std::string kGood = engine_folder::manifest("content");

// The error message for the text, or "" if it is accepted.
std::string refusal(const std::string &text) {
    try {
        parse_manifest(engine_folder::stamped(text), "engine.json");
        return "";
    } catch (const Refused &error) {
        CHECK(error.status == MVDE_ERROR_MANIFEST);
        return error.what();
    }
}

void expect(const std::string &text, const std::string &words, int line) {
    const std::string message = refusal(text);
    CHECK(message.find(words) != std::string::npos, "line %d: '%s' is not in '%s'", line, words.c_str(), message.c_str());
}

// Parses an engine's manifest, which must be valid.
EngineManifest read(const std::string &text) {
    return std::get<EngineManifest>(parse_manifest(engine_folder::stamped(text), "engine.json"));
}

#define EXPECT(text, words) expect(text, words, __LINE__)

}  // namespace

TEST(sha256_gives_the_published_digests) {
    CHECK(engine_folder::hash("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(engine_folder::hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(engine_folder::hash(std::string(1000000, 'a')) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(a_good_manifest_is_read) {
    const EngineManifest manifest = read(kGood);
    CHECK(manifest.name == "tiny" && manifest.stem() == "tiny-32x48" && manifest.grid_columns == 3);
    CHECK(manifest.max_valid == 4.0 && manifest.stats.size() == 3 && manifest.engine.library_version == "1.2.3");
    CHECK(manifest.engine.options[0].first == "INFERENCE_NUM_THREADS" && manifest.engine.options[0].second == "1");
    CHECK(manifest.parity.is_measured && !manifest.parity.measured_on);
}

TEST(a_graph_has_other_records_than_an_engine) {
    const std::string graph = engine_folder::graph_manifest("content");
    CHECK(refusal(graph).empty() && std::holds_alternative<GraphManifest>(parse_manifest(graph, "")));
    EXPECT(with(graph, "\"kind\": \"onnx\"", "\"kind\": \"engine\""), "the key engine is missing; export or build");
    EXPECT(with(kGood, "\"kind\": \"engine\"", "\"kind\": \"onnx\""), "unknown key engine; known keys: name, created");
    EXPECT(with(graph, "\"photos\": [\"one\"], ", ""),
           "the key parity.photos is missing; export or build the artefact again");
}

TEST(the_promises_of_a_typed_graph_are_checked_as_python_does) {
    const std::string lowering =
        R"("lowering": {"precision": "int8", "onnx_sha256": "ab", "num_by_dtype": {"int8": 3}, "num_attention": 2, )"
        R"("num_layer_norm": 4, "kept": [{"group": "head", "dtype": "fp32", "num_nodes": 7, "reason": "measured"}], )"
        R"("calibration": {"num_images": 6, "sha256": "cd", "method": "entropy", "balanced": {"norms": "left"}}, )"
        R"("gate": {"arithmetic": "int8", "tolerance": {"abs_rel": 0.01, "delta1": 0.01, "mean_rel": 1, "p99_rel": 2}, )"
        R"("runs": [{"images": "photos", "num_images": 2, "truth": "fp32", "abs_rel": [0, 0.1], "delta1": [1, 0.9], )"
        R"("measured": {"max_rel": 1, "mean_rel": 1, "p99_rel": 1, "max_abs_m": 1, "num_images": 1}}]}}, "opset": 20)";
    const std::string typed = with(kGood, "\"opset\": 20", lowering);
    CHECK(refusal(typed).empty(), "%s", refusal(typed).c_str());
    EXPECT(with(typed, "\"num_nodes\": 7", "\"num_nodes\": true"), "lowering.kept[0].num_nodes must be int");
    EXPECT(with(typed, "\"num_attention\": 2,", ""), "the key lowering.num_attention is missing");
    EXPECT(with(typed, "{\"int8\": 3}", "{\"int8\": 2.5}"), "lowering.num_by_dtype.int8 must be int, but got float 2.5");
    EXPECT(with(typed, "\"precision\": \"int8\"", "\"precision\": \"int4\""),
           "lowering.precision is 'int4', but expected one of fp32, fp16, bf16, int8, fp8");
    EXPECT(with(typed, "\"dtype\": \"fp32\", \"num_nodes\"", "\"dtype\": 8, \"num_nodes\""), "lowering.kept[0].dtype is 8,");
    EXPECT(with(typed, "[1, 0.9]", "[1]"), "lowering.gate.runs[0].delta1 must be a list of 2, but got [1]");
}

TEST(what_only_some_engines_have_is_checked_where_it_is) {
    const auto with_own = [](const std::string &own) {
        return with(kGood, "\"cpu_features\": []", "\"cpu_features\": [], " + own);
    };
    const std::string tuned = with_own(
        R"("rewrites": {"attention": "amx"}, "known_errors": ["x"], "cuda": null, "tuning": {"budget_s": 1, "chosen": {"A": 1}, )"
        R"("candidates": [{"settings": {}, "median_ms": 2, "gain": null}, {"settings": {"A": [1]}, "refused": "no"}]})");
    CHECK(refusal(tuned).empty(), "%s", refusal(tuned).c_str());
    EXPECT(with(tuned, "\"refused\": \"no\"", "\"refused\": null"), "engine.tuning.candidates[1].refused must be str");
    EXPECT(with(tuned, "\"amx\"", "1"), "engine.rewrites.attention must be str, but got int 1");
    EXPECT(with_own("\"cuda\": {}"), "the key engine.cuda.cuda_major is missing");
    EXPECT(with_own("\"facts\": {}"), "unknown key engine.facts; known keys: id, backend, precision");
    EXPECT(with(kGood, "\"precision\": \"fp32\"", "\"precision\": \"fp64\""),
           "engine.precision is 'fp64', but expected one of");
}

TEST(whether_and_where_an_engine_was_measured_is_read) {
    CHECK(!read(with(kGood, engine_folder::kMeasured, engine_folder::kUnmeasured)).parity.is_measured);
    const std::string on = R"("measured_on": {"gpu": "a GPU", "compute_capability": "8.9", "driver_cuda": "13.0"}, )";
    const std::string measured = with(kGood, engine_folder::kMeasured, on + engine_folder::kMeasured);
    CHECK(read(measured).parity.measured_on->gpu == "a GPU");
    CHECK(read(measured).parity.measured_on->compute_capability == "8.9");
    EXPECT(with(measured, "\"driver_cuda\"", "\"driver\""), "unknown key parity.measured_on.driver; known keys: gpu");
    EXPECT(with(kGood, engine_folder::kMeasured, "\"measured\": false"), "parity.measured. must be an object, but got bool");
}

TEST(the_number_of_operations_may_be_there) {
    const std::string counted = with(kGood, "\"opset\": 20,", "\"opset\": 20, \"num_flops\": 2000000000000,");
    CHECK(refusal(counted).empty());
    CHECK(refusal(with(counted, "2000000000000", "null")).empty());
    EXPECT(with(counted, "2000000000000", "2.5"), "num_flops must be int, but got float 2.5");
    EXPECT(with(counted, "2000000000000", "0"), "num_flops is 0, but expected a positive number");
}

TEST(what_is_not_json_is_refused) {
    const std::vector<std::string> broken = {"",
                                             " ",
                                             "{",
                                             "[",
                                             "nul",
                                             "{\"a\" 1}",
                                             "{\"a\": 1,}",
                                             "[1 2]",
                                             "[1,]",
                                             "01",
                                             "-",
                                             "1.",
                                             "1e",
                                             "+1",
                                             ".5",
                                             "NaN",
                                             "\"a",
                                             "\"\\x\"",
                                             "\"\\u12\"",
                                             "\"\\ud800\"",
                                             "\"\\udc00\"",
                                             "\"\n\"",
                                             "\"\xff\"",
                                             "\"\xc0\x80\"",
                                             "\"\xed\xa0\x80\"",
                                             "{} {}",
                                             "{\"a\": 1, \"a\": 2}",
                                             "99999999999999999999",
                                             "1e999",
                                             std::string("\0", 1)};
    for (const std::string &text : broken) EXPECT(text, "is not valid JSON: ");
    EXPECT("{\n  \"a\": ?}", "line 2 column 8 (char 9)");
    EXPECT(std::string(100000, '['), "nested too deeply");
}

TEST(escapes_are_read) {
    const Json value = parse_json(R"(["\u00e9\ud83d\ude00\n\"", -0.5e1, 12, true, null])");
    CHECK(value.items[0].text == "\xc3\xa9\xf0\x9f\x98\x80\n\"" && value.items[1].real == -5.0);
    CHECK(value.items[2].integer == 12 && value.items[3].flag && value.items[4].kind == Json::Kind::null);
    CHECK(repr(value) == "['\xc3\xa9\xf0\x9f\x98\x80\\n\"', -5.0, 12, True, None]");
}

TEST(a_manifest_ends_in_its_digest) {
    const auto refusal_as_it_is = [](const std::string &text) -> std::string {
        try {
            return parse_manifest(text, "engine.json"), "";
        } catch (const Refused &error) {
            return error.what();
        }
    };
    const std::string digest = kGood.substr(digest_at(kGood), 64), wrong = "its digest does not fit its content";
    CHECK(refusal_as_it_is(kGood).empty());
    const auto expect_in = [&](const std::string &text, const std::string &words, int line) {
        const std::string message = refusal_as_it_is(text);
        CHECK(message.find(words) != std::string::npos, "line %d: %s", line, message.c_str());
    };
    expect_in(with(kGood, "\"opset\": 20", "\"opset\": 21"), wrong, __LINE__);
    expect_in(with(kGood, ", \"digest\": \"" + digest + "\"", ""), "the key digest is missing; export or build", __LINE__);
    expect_in(with(kGood, digest, std::string(64, 'A')), wrong, __LINE__);
    expect_in(with(kGood, "\"" + digest + "\"", "1"), wrong, __LINE__);
    expect_in(kGood + "\n", wrong, __LINE__);
    for (std::size_t i = 0; i < kGood.size(); ++i) {
        std::string text = kGood;
        text[i] = static_cast<char>(text[i] ^ 1 << i % 8);
        CHECK(!refusal_as_it_is(text).empty(), "byte %zu", i);
    }
}

TEST(names_are_no_paths_and_sizes_have_bounds) {
    for (const char *name : {"../x", "a b", ".x", "-x", "a/b", "a\\\"", "", "\u00e9"})
        EXPECT(with(kGood, "\"tiny\"", std::string("\"") + name + "\""),
               "but expected letters, digits, '.', '-' and '_', at");
    EXPECT(with(kGood, "\"tiny\"", "\"" + std::string(129, 'a') + "\""), "at most 128");
    CHECK(refusal(with(kGood, "\"tiny\"", "\"" + std::string(128, 'a') + "\"")).empty());
    EXPECT(with(kGood, "\"name\": \"depth\"", "\"name\": \"a b\""), "outputs[0].name is 'a b', but expected letters");
    EXPECT(with(kGood, "\"BHWC\"", "\"BCHW\""), "inputs[0].layout is 'BCHW', but expected BHWC");
    EXPECT(with(kGood, "\"BHWC\", \"colour\": \"RGB\"", "\"BHWC\", \"colour\": \"BGR\""),
           "inputs[0].colour is 'BGR', but expected RGB");
    EXPECT(with(kGood, "\"unit\": \"m\"", "\"unit\": \"mm\""), "unit is 'mm', but expected m of metric");
    EXPECT(with(kGood, "[1, 32, 48, 3]", "[1, 65537, 48, 3]"), "sides up to 65536 and at most 1073741824 pixels in a call");
    EXPECT(with(kGood, "[1, 32, 48, 3]", "[1, 65536, 65536, 3]"), "at most 1073741824 pixels in a call");
    EXPECT(with(kGood, "[0.5, 4]", "[0.5, 1e30]"), "valid_range is (0.5, 1e+30), but expected at most 1e+09");
}

TEST(foreign_and_newer_files_are_refused) {
    EXPECT("{}", "is not a manifest of mvde: it has no schema_version");
    EXPECT("[1]", "is not a manifest of mvde");
    EXPECT(with(kGood, "\"schema_version\": 2", "\"schema_version\": 3"), "has schema_version 3, but this mvde reads 2");
    EXPECT(with(kGood, "\"schema_version\": 2", "\"schema_version\": \"2\""), "has schema_version '2'");
}

TEST(keys_and_types_are_checked) {
    EXPECT(with(kGood, "\"opset\": 20", "\"opsets\": 20"), "unknown key opsets; known keys: name, created, inputs");
    EXPECT(with(kGood, "\"opset\": 20,", ""), "the key opset is missing; export or build the artefact again");
    EXPECT(with(kGood, "\"opset\": 20", "\"opset\": 20.0"), "opset must be int, but got float 20.0");
    EXPECT(with(kGood, "\"antialias\": true", "\"antialias\": 1"), "preprocess.antialias must be bool, but got int 1");
    EXPECT(with(kGood, "[2, 3]", "[2]"), "grid must be a list of 2, but got [2]");
    EXPECT(with(kGood, "\"0.1.0\"", "1"), "tools.mvde must be str, but got int 1");
    EXPECT(with(kGood, "{\"a\": [1, null]}", "[]"), "source.config must be dict, but got list []");
    EXPECT(with(kGood, "\"kind\": \"engine\",", ""), "the key kind is missing; export or build the artefact again");
    EXPECT(with(kGood, "[1, 32, 48, 3]", "[1, 32, \"48\", 3]"), "inputs[0].shape[2] must be int, but got str '48'");
    EXPECT(with(kGood, "\"preprocess\": {", "\"preprocess\": 3, \"x\": {"), "unknown key x");
}

TEST(values_that_do_not_fit_together_are_refused) {
    EXPECT(with(kGood, "\"kind\": \"engine\"", "\"kind\": \"plan\""), "kind is 'plan', but expected one of onnx, engine");
    EXPECT(with(kGood, "\"metric\"", "\"exact\""), "depth_kind is 'exact', but expected one of metric, metric_focal");
    EXPECT(with(kGood, "[1, 32, 48, 3]", "[1, -32, 48, 3]"),
           "shape is [(1, -32, 48, 3), (1, 32, 48)], but expected positive");
    EXPECT(with(kGood, "[1, 32, 48, 3]", "[1, 32, 48]"), "inputs[0].shape is (1, 32, 48), but expected [B, H, W, 3]");
    EXPECT(with(kGood, "\"stats_patch\": 16", "\"stats_patch\": 0"),
           "stats_patch is 0, but expected a positive size in pixels");
    EXPECT(with(kGood, "\"stats_patch\": 16", "\"stats_patch\": -16"), "stats_patch is -16");
    EXPECT(with(kGood, "[2, 3]", "[2, 4]"), "grid is (2, 4), but expected (2.0, 3.0), the input's size divided");
    EXPECT(with(kGood, "[0.5, 4]", "[4, 0.5]"), "valid_range is (4.0, 0.5), but expected 0 <= min < max");
    EXPECT(with(kGood, "engine.blob", "../engine.blob"), "file.name is '../engine.blob', but expected a bare file name");
    EXPECT(with(kGood, "engine.blob", "engine.\\u0000blob"), "but expected a bare file name");
    EXPECT(with(kGood, engine_folder::hash("content"), "abc"), "file.sha256 is 'abc', but expected 64 hexadecimal digits");
    EXPECT(with(kGood, "\"size_bytes\": 7", "\"size_bytes\": -1"), "file.size_bytes is -1, but expected a size in bytes");
}

TEST(every_truncation_and_every_changed_byte_is_survived) {
    for (std::size_t size = 0; size < kGood.size(); ++size)
        CHECK(!refusal(kGood.substr(0, size)).empty(), "%zu bytes are accepted", size);
    unsigned random = 1;
    for (std::size_t i = 0; i < kGood.size(); ++i)
        for (int k = 0; k < 4; ++k) {
            random = random * 1664525U + 1013904223U;
            std::string text = kGood;
            text[i] = static_cast<char>(random >> 24);
            refusal(text);  // accepted or rejected, but never a crash
        }
}

int main() { return harness::run_all_and_in_german(); }
