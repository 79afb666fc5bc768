#include "attention_operator.hpp"

#include "attention_amx.hpp"
#include "attention_avx2.hpp"
#include "attention_avx512.hpp"
#include "linear_operator.hpp"
#include "scratch.hpp"

#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/core/parallel.hpp>
#include <openvino/core/version.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

namespace mvde::internal {
namespace {

using attention::Shape;

// A kernel by its element type; Scope is held by a thread that attends.
struct Amx {
    static constexpr const char *kName = "amx";
    using Element = attention::Bf16;
    using Scope = attention::amx::Tiles;
    static constexpr std::size_t kQueries = attention::amx::kQueries;
    static constexpr auto *pack = attention::amx::pack;
    static constexpr auto *attend = attention::amx::attend;
    static constexpr auto *unavailable = attention::amx::unavailable;
    static std::size_t packed_elements(const Shape &shape) { return attention::amx::Packed(shape).elements(); }
};

struct Avx512 {
    static constexpr const char *kName = "avx512";
    using Element = attention::Bf16;
    struct Scope {};
    static constexpr std::size_t kQueries = attention::avx512::kQueries;
    static constexpr auto *pack = attention::avx512::pack;
    static constexpr auto *attend = attention::avx512::attend;
    static constexpr auto *unavailable = attention::avx512::unavailable;
    static constexpr auto *packed_elements = attention::avx512::packed_elements;
};

struct Avx2 {
    static constexpr const char *kName = "avx2";
    using Element = float;
    struct Scope {};
    static constexpr std::size_t kQueries = attention::avx2::kQueries;
    static constexpr auto *pack = attention::avx2::pack;
    static constexpr auto *attend = attention::avx2::attend;
    static constexpr auto *unavailable = attention::avx2::unavailable;
    static constexpr auto *packed_elements = attention::avx2::packed_elements;
};

template <typename Kernel>
const typename Kernel::Element *elements(const ov::Tensor &tensor) {
    return static_cast<const typename Kernel::Element *>(tensor.data());
}

// Runs in OpenVINO's own threads, which have the count and pinning that the engine was configured with.
template <typename Kernel>
void attend(const Shape &shape, float scale, const ov::TensorVector &inputs, ov::Tensor &output) {
    using Element = typename Kernel::Element;
    OPENVINO_ASSERT(!*Kernel::unavailable(), "mvde.Attention by ", Kernel::kName, ": ", Kernel::unavailable());
    const std::size_t heads = shape.batch * shape.heads;
    constexpr std::size_t kLineElements = kLineBytes / sizeof(Element);
    const std::size_t per_head = (Kernel::packed_elements(shape) + kLineElements - 1) / kLineElements * kLineElements;
    auto *const packed = static_cast<Element *>(scratch(heads * per_head * sizeof(Element)));
    auto *const out = static_cast<Element *>(output.data());
    const Element *queries = elements<Kernel>(inputs[0]), *keys = elements<Kernel>(inputs[1]);
    const Element *values = elements<Kernel>(inputs[2]);
    const auto start = [&](std::size_t head) {
        return head / shape.heads * shape.tokens * shape.width() + head % shape.heads * shape.depth;
    };

    constexpr std::size_t kSlice = 512;
    ov::parallel_for2d(heads, (shape.tokens + kSlice - 1) / kSlice, [&](std::size_t head, std::size_t slice) {
        Kernel::pack(shape, keys + start(head), values + start(head), slice * kSlice,
                     std::min(shape.tokens, (slice + 1) * kSlice), packed + head * per_head);
    });
    const std::size_t blocks = (shape.tokens + Kernel::kQueries - 1) / Kernel::kQueries;
    ov::parallel_nt(0, [&](int thread, int num_threads) {
        [[maybe_unused]] const typename Kernel::Scope scope{};
        std::size_t first = 0, last = 0;
        ov::splitter(heads * blocks, num_threads, thread, first, last);
        for (std::size_t i = first; i < last; ++i) {
            const std::size_t head = i / blocks, query = i % blocks * Kernel::kQueries;
            const std::size_t at = start(head) + query * shape.width();
            Kernel::attend(shape, scale, queries + at, std::min(Kernel::kQueries, shape.tokens - query),
                           packed + head * per_head, out + at);
        }
    });
}

}  // namespace

Attention::Attention(const ov::OutputVector &arguments, double scale, const std::string &kernel)
    : Op(arguments), scale_(scale), kernel_(kernel) {
    constructor_validate_and_infer_types();
}

void Attention::validate_and_infer_types() {
    const ov::PartialShape &shape = get_input_partial_shape(0);
    NODE_VALIDATION_CHECK(this, get_input_size() == 3 && shape.is_static() && shape.size() == 4,
                          "expected queries, keys and values of a fixed shape [batch, tokens, heads, depth]");
    const ov::element::Type type = get_input_element_type(0);
    NODE_VALIDATION_CHECK(this, type == ov::element::bf16 || type == ov::element::f32, "expected bf16 or f32 inputs");
    for (std::size_t i = 1; i < 3; ++i)
        NODE_VALIDATION_CHECK(this, get_input_element_type(i) == type && get_input_partial_shape(i) == shape,
                              "expected three inputs of one type and shape");
    const ov::Shape sizes = shape.to_shape();
    NODE_VALIDATION_CHECK(this, ov::shape_size(sizes) > 0 && sizes[3] <= attention::kMaxDepth,
                          "expected a depth of at most ", attention::kMaxDepth, " and no empty input");
    set_output_type(0, type, shape);
}

std::shared_ptr<ov::Node> Attention::clone_with_new_inputs(const ov::OutputVector &arguments) const {
    return std::make_shared<Attention>(arguments, scale_, kernel_);
}

bool Attention::visit_attributes(ov::AttributeVisitor &visitor) {
    visitor.on_attribute("scale", scale_);
    visitor.on_attribute("kernel", kernel_);
    return true;
}

bool Attention::has_evaluate() const { return true; }

bool Attention::evaluate(ov::TensorVector &outputs, const ov::TensorVector &inputs) const {
    const ov::Shape sizes = inputs[0].get_shape();
    const Shape shape{sizes[0], sizes[1], sizes[2], sizes[3]};
    const auto scale = static_cast<float>(scale_);
    if (inputs[0].get_element_type() == ov::element::f32) attend<Avx2>(shape, scale, inputs, outputs[0]);
    else if (kernel_ == "avx512") attend<Avx512>(shape, scale, inputs, outputs[0]);
    else attend<Amx>(shape, scale, inputs, outputs[0]);
    return true;
}

}  // namespace mvde::internal

using namespace mvde::internal;

#define MVDE_EXPORT extern "C" __attribute__((visibility("default")))

MVDE_EXPORT const char *mvde_attention_unavailable() { return attention::amx::unavailable(); }
MVDE_EXPORT const char *mvde_attention_avx512_unavailable() { return attention::avx512::unavailable(); }
MVDE_EXPORT const char *mvde_attention_avx2_unavailable() { return attention::avx2::unavailable(); }

// Entry point for openvino.Core.add_extension: all of mvde's operators.
OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>({std::make_shared<ov::OpExtension<Attention>>(),
                                                            std::make_shared<ov::OpExtension<QuantizedLinear>>()}))
