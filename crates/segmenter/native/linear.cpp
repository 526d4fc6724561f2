// Linear layers: the matrix products by the faster library, and what comes before them recomputed in the backward pass, not kept.

#include "native.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

namespace native {
namespace {

using OneDnnLinear = at::Tensor(
    const at::Tensor& input,
    const at::Tensor& weight,
    const std::optional<at::Tensor>& bias,
    std::string_view attribute,
    c10::List<std::optional<at::Scalar>> scalars,
    std::optional<std::string_view> algorithm);

/// Rows or columns follow each other without a gap.
at::Tensor dense(const at::Tensor& matrix) {
    return matrix.is_contiguous() || matrix.t().is_contiguous() ? matrix : matrix.contiguous();
}

}  // namespace

at::Tensor product(const at::Tensor& a, const at::Tensor& b, const std::optional<at::Tensor>& bias) {
    if (!a.is_cpu() || a.scalar_type() != at::kFloat || !at::hasMKLDNN()) {
        return at::linear(a, b, bias);
    }
    static const auto linear =
        c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<OneDnnLinear>();
    return linear.call(dense(a), dense(b), bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

namespace {

/// What is done to a linear layer's input before the product.
struct Prologue {
    enum Kind : int64_t { None = 0, LayerNorm = 1, Gelu = 2 };

    int64_t kind;
    at::Tensor weight;
    at::Tensor bias;
    double epsilon;

    at::Tensor forward(const at::Tensor& x) const {
        switch (kind) {
            case LayerNorm:
                return at::layer_norm(x, {x.size(-1)}, weight, bias, epsilon);
            case Gelu:
                return at::gelu(x);
            default:
                return x;
        }
    }

    /// Gradients of x, of the layer norm's weight and of its bias.
    std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& gradient, const at::Tensor& x) const {
        switch (kind) {
            case LayerNorm: {
                const auto [y, mean, rstd] = at::native_layer_norm(x, {x.size(-1)}, weight, bias, epsilon);
                return at::native_layer_norm_backward(gradient, x, {x.size(-1)}, mean, rstd, weight, bias, {true, true, true});
            }
            case Gelu:
                return {at::gelu_backward(gradient, x), {}, {}};
            default:
                return {gradient, {}, {}};
        }
    }
};

/// Keeps the input as it was before the prologue, which the backward pass repeats: a layer norm and a GELU are cheap beside the products.
struct Linear : torch::autograd::Function<Linear> {
    static at::Tensor forward(
        torch::autograd::AutogradContext* context,
        const at::Tensor& x,
        const at::Tensor& weight,
        const at::Tensor& bias,
        int64_t kind,
        const at::Tensor& norm_weight,
        const at::Tensor& norm_bias,
        double epsilon,
        at::ScalarType precision) {
        at::AutoDispatchBelowADInplaceOrView guard;
        context->save_for_backward({x, weight, norm_weight, norm_bias});
        context->saved_data["kind"] = kind;
        context->saved_data["epsilon"] = epsilon;
        context->saved_data["precision"] = precision;
        const Prologue prologue{kind, norm_weight, norm_bias, epsilon};
        const auto rows = prologue.forward(x.reshape({-1, x.size(-1)})).to(precision);
        auto sizes = x.sizes().vec();
        sizes.back() = weight.size(0);
        const auto added = bias.numel() > 0 ? std::optional(bias.to(precision)) : std::nullopt;
        return product(rows, weight.to(precision), added).view(sizes);
    }

    static torch::autograd::variable_list backward(
        torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
        at::AutoDispatchBelowADInplaceOrView guard;
        const auto saved = context->get_saved_variables();
        const auto precision = context->saved_data["precision"].toScalarType();
        const Prologue prologue{context->saved_data["kind"].toInt(), saved[2], saved[3], context->saved_data["epsilon"].toDouble()};
        const auto weight = saved[1].to(precision);
        const auto gradient = gradients[0].reshape({-1, weight.size(0)}).to(precision).contiguous();
        const auto x = saved[0].reshape({-1, weight.size(1)});

        // First what needs the prologue's output, so that it is gone before its gradient is there. Frozen weights need none.
        at::Tensor of_weight, of_bias;
        if (context->needs_input_grad(1)) {
            const auto rows = prologue.forward(x).to(precision);
            of_weight = product(gradient.t(), rows.t()).to(saved[1].scalar_type());
        }
        if (context->needs_input_grad(2)) {
            of_bias = gradient.sum(0, false, saved[1].scalar_type());
        }
        if (!context->needs_input_grad(0) && !context->needs_input_grad(3)) {
            return {{}, of_weight, of_bias, {}, {}, {}, {}, {}};
        }
        const auto of_rows = product(gradient, weight.t()).to(saved[0].scalar_type());
        const auto [of_x, of_norm_weight, of_norm_bias] = prologue.backward(of_rows, x);
        return {of_x.reshape_as(saved[0]), of_weight, of_bias, {}, of_norm_weight, of_norm_bias, {}, {}};
    }
};

}  // namespace
}  // namespace native

extern "C" char* native_linear(
    Handle* out,
    Handle x,
    Handle weight,
    Handle bias,
    int64_t prologue,
    Handle norm_weight,
    Handle norm_bias,
    double epsilon,
    bool in_bfloat16) noexcept {
    return guarded([&] {
        // An autograd function takes no undefined tensor.
        const auto given = [&](Handle tensor) { return tensor == nullptr ? at::empty({0}, weight->options()) : *tensor; };
        *out = new at::Tensor(native::Linear::apply(
            *x, *weight, given(bias), prologue, given(norm_weight), given(norm_bias), epsilon, in_bfloat16 ? at::kBFloat16 : at::kFloat));
    });
}
