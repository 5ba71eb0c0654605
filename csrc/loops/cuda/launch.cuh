// How a kernel is started, and where its shared memory is: all that differs between a GPU and the
// emulation of one in tests/cuda_emulation, which compiles the same kernels with a C++ compiler.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "cuda_emulation.h"
#endif

namespace pymlp::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
// Every GPU has it without asking for more.
constexpr int kSharedBytes = 48 * 1024;

struct LaunchShape {
  int64_t blocks;
  int threads;  // per block
  int shared;   // bytes of dynamic shared memory per block
};

constexpr int64_t blocks_for(int64_t n, int64_t per_block) {
  return (n + per_block - 1) / per_block;
}

constexpr bool is_launchable(LaunchShape shape) {
  return shape.blocks <= 0x7fffffff && shape.threads > 0 && shape.threads <= 1024 &&
         shape.shared >= 0 && shape.shared <= kSharedBytes;
}

#ifdef __CUDACC__

// The dynamic shared memory of this block, 16-byte aligned.
__device__ __forceinline__ std::byte* shared_memory() {
  extern __shared__ uint4 pymlp_shared_memory[];
  return reinterpret_cast<std::byte*>(pymlp_shared_memory);
}

// Queue kernel(arguments...) on the stream. Nothing to do is no launch: CUDA refuses empty grids.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), LaunchShape shape, cudaStream_t stream,
                   Arguments... arguments) {
  if (shape.blocks == 0) return cudaSuccess;
  if (!is_launchable(shape)) return cudaErrorInvalidConfiguration;
  kernel<<<static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.threads),
           static_cast<size_t>(shape.shared), stream>>>(arguments...);
  return cudaGetLastError();
}

#else

inline std::byte* shared_memory() { return cuda_emulation::shared_memory(); }

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), LaunchShape shape, cudaStream_t,
                   Arguments... arguments) {
  if (shape.blocks == 0) return cudaSuccess;
  if (!is_launchable(shape)) return cudaErrorInvalidConfiguration;
  cuda_emulation::run(shape.blocks, shape.threads, shape.shared, [&] { kernel(arguments...); });
  return cudaSuccess;
}

#endif

}  // namespace pymlp::cuda
