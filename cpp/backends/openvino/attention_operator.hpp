// The operator mvde.Attention for OpenVINO graphs, implemented by the kernels in attention_amx.hpp (bfloat16) and
// attention_avx2.hpp (float32).
#pragma once

#include <openvino/op/op.hpp>

#include <memory>

namespace mvde::internal {

// softmax(scale * q k^T) v per head, with queries, keys and values [batch, tokens, heads, depth] of one of these types, as
// written by the preceding linear layers: heads need no transposition, neither before nor after.
class Attention : public ov::op::Op {
public:
    OPENVINO_OP("Attention", "mvde")

    Attention() = default;
    Attention(const ov::OutputVector &arguments, double scale);

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector &arguments) const override;
    bool visit_attributes(ov::AttributeVisitor &visitor) override;
    bool has_evaluate() const override;
    bool evaluate(ov::TensorVector &outputs, const ov::TensorVector &inputs) const override;

private:
    double scale_ = 1;
};

}  // namespace mvde::internal

extern "C" {

// Return "" if engines with mvde.Attention in bfloat16 (AMX) or float32 (AVX2) can run in this process, or else the reason.
const char *mvde_attention_unavailable();
const char *mvde_attention_avx2_unavailable();

}  // extern "C"
