// The operator mvde.Attention for OpenVINO graphs, implemented by the kernels in attention_amx.hpp, attention_avx512.hpp (both
// bfloat16) and attention_avx2.hpp (float32).
#pragma once

#include <openvino/op/op.hpp>

#include <memory>
#include <string>

namespace mvde::internal {

// softmax(scale * q k^T) v per head, with queries, keys and values [batch, tokens, heads, depth] of one of these types, as
// written by the preceding linear layers: heads need no transposition, neither before nor after.
class Attention : public ov::op::Op {
public:
    OPENVINO_OP("Attention", "mvde")

    Attention() = default;
    Attention(const ov::OutputVector &arguments, double scale, const std::string &kernel);

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector &arguments) const override;
    bool visit_attributes(ov::AttributeVisitor &visitor) override;
    bool has_evaluate() const override;
    bool evaluate(ov::TensorVector &outputs, const ov::TensorVector &inputs) const override;

private:
    double scale_ = 1;
    std::string kernel_;  // of bfloat16: amx (also if empty, as in earlier engines) or avx512; float32 has only avx2
};

}  // namespace mvde::internal

extern "C" {

// Return "" if engines with mvde.Attention by AMX, by AVX-512 (both bfloat16) or by AVX2 (float32) can run in this process, or
// else the reason.
const char *mvde_attention_unavailable();
const char *mvde_attention_avx512_unavailable();
const char *mvde_attention_avx2_unavailable();

}  // extern "C"
