// Adam in one pass over each parameter, as `torch.optim.Adam(fused=True)`.

#include "native.h"

#include <ATen/core/grad_mode.h>

extern "C" char* native_adam(
    const Handle* parameters,
    const Handle* gradients,
    const Handle* first_moments,
    const Handle* second_moments,
    size_t count,
    Handle step,
    double learning_rate,
    double beta1,
    double beta2,
    double epsilon) noexcept {
    return guarded([&] {
        // The parameters' versions are counted up nevertheless, so that a graph from before the step is refused and not misused.
        at::NoGradGuard guard;
        const auto list = [count](const Handle* handles) {
            std::vector<at::Tensor> tensors;
            for (size_t i = 0; i < count; ++i) {
                tensors.push_back(*handles[i]);
            }
            return tensors;
        };
        // libtorch's kernel goes through the memory side by side: a gradient in another order, as convolutions have it, would be misread.
        auto in_order = list(gradients);
        for (auto& gradient : in_order) {
            gradient = gradient.contiguous();
        }
        const std::vector<at::Tensor> steps(count, *step);
        at::_fused_adam_(
            list(parameters), in_order, list(first_moments), list(second_moments), {}, steps, learning_rate, beta1, beta2,
            /*weight_decay=*/0.0, epsilon, /*amsgrad=*/false, /*maximize=*/false);
    });
}
