#include "linear_operator.hpp"

#include "attention_avx2.hpp"
#include "linear_avx2.hpp"
#include "scratch.hpp"

#include <openvino/core/parallel.hpp>

#include <algorithm>
#include <cstdint>

namespace mvde::internal {

QuantizedLinear::QuantizedLinear(const ov::OutputVector &arguments, double step) : Op(arguments), step_(step) {
    constructor_validate_and_infer_types();
}

void QuantizedLinear::validate_and_infer_types() {
    NODE_VALIDATION_CHECK(this, get_input_size() == 5 && step_ > 0,
                          "expected rows, weights, excess, scale and bias, and a step above 0");
    const ov::element::Type types[] = {ov::element::f32, ov::element::i8, ov::element::i32, ov::element::f32,
                                       ov::element::f32};
    for (std::size_t i = 0; i < 5; ++i)
        NODE_VALIDATION_CHECK(this, get_input_element_type(i) == types[i] && get_input_partial_shape(i).is_static(),
                              "expected input ", i, " of a fixed shape in ", types[i]);
    ov::Shape shape = get_input_shape(0);
    NODE_VALIDATION_CHECK(this, !shape.empty() && shape.back() > 0, "expected rows [..., depth]");
    const std::size_t columns = get_input_shape(2).size() == 1 ? get_input_shape(2)[0] : 0;
    for (std::size_t i = 2; i < 5; ++i)
        NODE_VALIDATION_CHECK(this, columns > 0 && get_input_shape(i) == ov::Shape{columns}, "expected one number a column");
    NODE_VALIDATION_CHECK(this, get_input_shape(1) == ov::Shape{linear::packed_size(shape.back(), columns)}, "expected ",
                          linear::packed_size(shape.back(), columns), " packed weights");
    shape.back() = columns;
    set_output_type(0, ov::element::f32, shape);
}

std::shared_ptr<ov::Node> QuantizedLinear::clone_with_new_inputs(const ov::OutputVector &arguments) const {
    return std::make_shared<QuantizedLinear>(arguments, step_);
}

bool QuantizedLinear::visit_attributes(ov::AttributeVisitor &visitor) {
    visitor.on_attribute("step", step_);
    return true;
}

bool QuantizedLinear::has_evaluate() const { return true; }

// Runs in OpenVINO's own threads, which have the count and pinning that the engine was configured with.
bool QuantizedLinear::evaluate(ov::TensorVector &outputs, const ov::TensorVector &inputs) const {
    OPENVINO_ASSERT(!*attention::avx2::unavailable(), "mvde.QuantizedLinear: ", attention::avx2::unavailable());
    const ov::Shape sizes = inputs[0].get_shape();
    const linear::Layer layer{sizes.back(),
                              inputs[2].get_size(),
                              static_cast<float>(step_),
                              inputs[1].data<const std::int8_t>(),
                              inputs[2].data<const std::int32_t>(),
                              inputs[3].data<const float>(),
                              inputs[4].data<const float>()};
    const float *rows = inputs[0].data<const float>();
    float *const out = outputs[0].data<float>();
    const std::size_t num_rows = inputs[0].get_size() / layer.depth;
    ov::parallel_nt(0, [&](int thread, int num_threads) {
        std::size_t first = 0, last = 0;
        ov::splitter(num_rows, num_threads, thread, first, last);
        auto *const room = static_cast<std::uint8_t *>(scratch(linear::scratch_size(layer.depth)));
        linear::multiply(layer, rows + first * layer.depth, last - first, room, out + first * layer.columns);
    });
    return true;
}

}  // namespace mvde::internal
