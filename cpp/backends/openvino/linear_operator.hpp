// The operator mvde.QuantizedLinear for OpenVINO graphs, implemented by the kernel in linear_avx2.hpp.
#pragma once

#include <openvino/op/op.hpp>

#include <memory>

namespace mvde::internal {

// An 8-bit linear layer: rows f32 [..., depth], packed weights i8, excess i32, scale f32 and bias f32 [columns] (see
// linear_avx2.hpp) give f32 [..., columns]. `step` is the scale of the quantised rows.
class QuantizedLinear : public ov::op::Op {
public:
    OPENVINO_OP("QuantizedLinear", "mvde")

    QuantizedLinear() = default;
    QuantizedLinear(const ov::OutputVector &arguments, double step);

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector &arguments) const override;
    bool visit_attributes(ov::AttributeVisitor &visitor) override;
    bool has_evaluate() const override;
    bool evaluate(ov::TensorVector &outputs, const ov::TensorVector &inputs) const override;

private:
    double step_ = 1;
};

}  // namespace mvde::internal
