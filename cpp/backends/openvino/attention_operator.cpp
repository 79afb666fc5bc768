#include "attention_operator.hpp"

#include "attention_amx.hpp"

#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/core/parallel.hpp>
#include <openvino/core/version.hpp>

#include <algorithm>
#include <memory>
#include <vector>

namespace mvde::internal {
namespace {

using attention::Bf16;

struct alignas(64) Line {
    Bf16 elements[32];
};

// Per-thread scratch memory, kept between frames: releasing and faulting in its pages costs more than packing.
Bf16 *scratch(std::size_t num_elements) {
    static thread_local std::vector<Line> lines;
    if (const std::size_t needed = (num_elements + 31) / 32; lines.size() < needed) lines.resize(needed);
    return lines.data()->elements;
}

const Bf16 *elements(const ov::Tensor &tensor) { return static_cast<const Bf16 *>(tensor.data()); }

}  // namespace

Attention::Attention(const ov::OutputVector &arguments, double scale) : Op(arguments), scale_(scale) {
    constructor_validate_and_infer_types();
}

void Attention::validate_and_infer_types() {
    const ov::PartialShape &shape = get_input_partial_shape(0);
    NODE_VALIDATION_CHECK(this, get_input_size() == 3 && shape.is_static() && shape.size() == 4,
                          "expected queries, keys and values of a fixed shape [batch, tokens, heads, depth]");
    for (std::size_t i = 0; i < 3; ++i)
        NODE_VALIDATION_CHECK(this, get_input_element_type(i) == ov::element::bf16 && get_input_partial_shape(i) == shape,
                              "expected three bf16 inputs of one shape");
    const ov::Shape sizes = shape.to_shape();
    NODE_VALIDATION_CHECK(this, ov::shape_size(sizes) > 0 && sizes[3] <= attention::kMaxDepth,
                          "expected a depth of at most ", attention::kMaxDepth, " and no empty input");
    set_output_type(0, ov::element::bf16, shape);
}

std::shared_ptr<ov::Node> Attention::clone_with_new_inputs(const ov::OutputVector &arguments) const {
    return std::make_shared<Attention>(arguments, scale_);
}

bool Attention::visit_attributes(ov::AttributeVisitor &visitor) {
    visitor.on_attribute("scale", scale_);
    return true;
}

bool Attention::has_evaluate() const { return true; }

// Runs in OpenVINO's own threads, which have the count and pinning that the engine was configured with.
bool Attention::evaluate(ov::TensorVector &outputs, const ov::TensorVector &inputs) const {
    const ov::Shape sizes = inputs[0].get_shape();
    const attention::Shape shape{sizes[0], sizes[1], sizes[2], sizes[3]};
    const std::size_t per_head = attention::Packed(shape).elements(), heads = shape.batch * shape.heads;
    Bf16 *const packed = scratch(heads * per_head), *const out = static_cast<Bf16 *>(outputs[0].data());
    const Bf16 *queries = elements(inputs[0]), *keys = elements(inputs[1]), *values = elements(inputs[2]);
    const auto start = [&](std::size_t head) {
        return head / shape.heads * shape.tokens * shape.width() + head % shape.heads * shape.depth;
    };

    constexpr std::size_t kSlice = 512;
    ov::parallel_for2d(heads, (shape.tokens + kSlice - 1) / kSlice, [&](std::size_t head, std::size_t slice) {
        attention::pack(shape, keys + start(head), values + start(head), slice * kSlice,
                        std::min(shape.tokens, (slice + 1) * kSlice), packed + head * per_head);
    });
    const std::size_t blocks = (shape.tokens + attention::kQueries - 1) / attention::kQueries;
    ov::parallel_nt(0, [&](int thread, int num_threads) {
        const attention::Tiles tiles;
        std::size_t first = 0, last = 0;
        ov::splitter(heads * blocks, num_threads, thread, first, last);
        for (std::size_t i = first; i < last; ++i) {
            const std::size_t head = i / blocks, query = i % blocks * attention::kQueries;
            const std::size_t at = start(head) + query * shape.width();
            attention::attend(shape, static_cast<float>(scale_), queries + at,
                              std::min(attention::kQueries, shape.tokens - query), packed + head * per_head, out + at);
        }
    });
    return true;
}

}  // namespace mvde::internal

using namespace mvde::internal;

#define MVDE_EXPORT extern "C" __attribute__((visibility("default")))

MVDE_EXPORT const char *mvde_attention_unavailable() { return attention::unavailable(); }

// Entry point for openvino.Core.add_extension.
OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>({std::make_shared<ov::OpExtension<Attention>>()}))
