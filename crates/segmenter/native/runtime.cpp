// What libtorch's runtime can be told and asked.

#include "native.h"

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>

/// Whether fp32 products on a GPU may round their factors to TF32.
extern "C" char* native_allow_tf32(bool allow) noexcept {
    return guarded([&] {
        at::globalContext().setAllowTF32CuBLAS(allow);
        at::globalContext().setAllowTF32CuDNN(allow);
    });
}

/// The most bytes that tensors on the first CUDA device took at once since the last call; 0 before the first tensor.
extern "C" char* native_take_peak_cuda_memory(int64_t* bytes) noexcept {
    return guarded([&] {
        auto* const allocator = c10::getDeviceAllocator(at::kCUDA);
        if (!allocator->initialized()) {
            *bytes = 0;
            return;
        }
        *bytes = allocator->getDeviceStats(0).allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
        allocator->resetPeakStats(0);
    });
}
