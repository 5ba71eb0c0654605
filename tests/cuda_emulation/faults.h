// Kernels with one mistake each: what the emulation is there to find, it has to find here.
#pragma once

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "loops/cuda/warp.cuh"

namespace faults {

using namespace pymlp::cuda;

inline void barrier_in_a_branch(int* out) {
  if (threadIdx.x < 40) __syncthreads();
  out[threadIdx.x] = 1;
}
inline void different_barriers(int* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}
inline void ballot_in_a_branch(int* out) {
  if (lane_index() < 7) out[threadIdx.x] = static_cast<int>(__ballot_sync(kAllLanes, true));
}
inline void left_early(int* out) {
  if (lane_index() == 31) return;
  __syncwarp();
  out[threadIdx.x] = 1;
}
inline void shared_overrun(int* out) {
  auto* shared = reinterpret_cast<int*>(shared_memory());
  shared[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x];
}
inline void global_overrun(int* out) { out[threadIdx.x + 1] = 1; }
inline void unset_shared(int* out) {
  const auto* shared = reinterpret_cast<float*>(shared_memory());
  out[threadIdx.x] = shared[threadIdx.x] == shared[threadIdx.x] ? 0 : 1;
}
inline void overflow(int* out) {
  out[threadIdx.x] = 0x7fffffff - 10 + static_cast<int>(threadIdx.x);
}
inline void misaligned(int* out) {
  const auto* bytes = shared_memory() + 1;
  out[threadIdx.x] = *reinterpret_cast<const int*>(bytes);
}
inline void race(int* out) {
  auto* shared = reinterpret_cast<int*>(shared_memory());
  shared[0] = static_cast<int>(threadIdx.x);  // who comes last?
  __syncthreads();
  out[threadIdx.x] = shared[0];
}

}  // namespace faults

// Prints the sum of what the kernel wrote; a race gives another one for another seed.
inline int run_fault(const std::string& name) {
  using namespace faults;
  void (*kernel)(int*) = name == "barrier_in_a_branch"  ? barrier_in_a_branch
                         : name == "different_barriers" ? different_barriers
                         : name == "ballot_in_a_branch" ? ballot_in_a_branch
                         : name == "left_early"         ? left_early
                         : name == "shared_overrun"     ? shared_overrun
                         : name == "global_overrun"     ? global_overrun
                         : name == "unset_shared"       ? unset_shared
                         : name == "overflow"           ? overflow
                         : name == "misaligned"         ? misaligned
                         : name == "race"               ? race
                                                        : nullptr;
  if (kernel == nullptr) return 2;
  constexpr int kThreads = 64;
  const std::unique_ptr<int[]> out(new int[kThreads]);
  launch(kernel, {1, kThreads, kThreads * static_cast<int>(sizeof(int))}, nullptr, out.get());
  long sum = 0;
  for (int i = 0; i < kThreads; ++i) sum += out[i];
  std::printf("%ld\n", sum);
  return 0;
}
