// The operator mvde.Attention for OpenVINO's graphs, executed by the kernel of attention_amx.hpp.
#pragma once

#include <openvino/op/op.hpp>

#include <memory>

namespace mvde::internal {

// softmax(scale * q k^T) v per head, of queries, keys and values [batch, tokens, heads, depth], bfloat16, as the linear
// layers before it write them: heads are not transposed to the front, neither here nor for the layer behind it.
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

// Empty where engines with mvde.Attention run in this process, or the reason why they do not.
const char *mvde_attention_unavailable();

// Version of the OpenVINO whose headers the operator was compiled with: its C++ classes are those of that version only.
const char *mvde_attention_openvino_version();

}  // extern "C"
