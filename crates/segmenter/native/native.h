// What tch lacks of libtorch, for crates/segmenter/src/native.rs. Every function returns null, or the text of the error, to be freed by
// the caller; no exception leaves it.
#pragma once

#include <ATen/ATen.h>

namespace native {

/// a [m, k] times the transpose of b [n, k], plus a bias [n] where there is one: [m, n].
///
/// On the CPU by oneDNN, whose kernels for AVX-512 run on every processor that has it; libtorch itself takes MKL, which keeps to AVX2
/// outside Intel's. Either matrix may be a transposed view; other strides are copied, since oneDNN would take its slow reference way.
at::Tensor product(const at::Tensor& a, const at::Tensor& b, const std::optional<at::Tensor>& bias = std::nullopt);

}  // namespace native

/// Runs `body` and turns what it throws into the text that is returned.
template <typename Body>
char* guarded(Body body) noexcept {
    try {
        body();
        return nullptr;
    } catch (const std::exception& error) {
        return strdup(error.what());
    } catch (...) {
        return strdup("an exception of an unknown type");
    }
}

using Handle = at::Tensor*;
