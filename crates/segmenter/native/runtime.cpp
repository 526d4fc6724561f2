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

/// The most bytes of the first CUDA device that tensors took, and that were taken from the driver for them, since the last reset; 0 before the
/// first tensor.
extern "C" char* native_peak_cuda_memory(int64_t* allocated, int64_t* reserved) noexcept {
    return guarded([&] {
        *allocated = *reserved = 0;
        auto* const allocator = c10::getDeviceAllocator(at::kCUDA);
        if (allocator->initialized()) {
            const auto aggregate = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
            const auto stats = allocator->getDeviceStats(0);
            *allocated = stats.allocated_bytes[aggregate].peak;
            *reserved = stats.reserved_bytes[aggregate].peak;
        }
    });
}

extern "C" char* native_reset_peak_cuda_memory() noexcept {
    return guarded([&] {
        auto* const allocator = c10::getDeviceAllocator(at::kCUDA);
        if (allocator->initialized()) {
            allocator->resetPeakStats(0);
        }
    });
}

/// The bytes of the first CUDA device that were taken from the driver and that no tensor uses.
extern "C" char* native_cached_cuda_memory(int64_t* bytes) noexcept {
    return guarded([&] {
        *bytes = 0;
        auto* const allocator = c10::getDeviceAllocator(at::kCUDA);
        if (allocator->initialized()) {
            const auto aggregate = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
            const auto stats = allocator->getDeviceStats(0);
            *bytes = stats.reserved_bytes[aggregate].current - stats.allocated_bytes[aggregate].current;
        }
    });
}
