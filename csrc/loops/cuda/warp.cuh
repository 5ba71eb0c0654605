// What the 32 lanes of a warp do together. All lanes call these, always.
#pragma once

#include "../../numbers/dual.h"
#include "launch.cuh"

namespace pymlp::cuda {

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x) / kWarp; }

// The number of lanes before this one whose bit is set.
__device__ __forceinline__ int lanes_before(unsigned mask) {
  return __popc(mask & ((1u << lane_index()) - 1u));
}

__device__ __forceinline__ float shuffle_xor(float x, int with) {
  return __shfl_xor_sync(kAllLanes, x, with);
}
__device__ __forceinline__ double shuffle_xor(double x, int with) {
  return __shfl_xor_sync(kAllLanes, x, with);
}
template <class T>
__device__ __forceinline__ Dual<T> shuffle_xor(Dual<T> x, int with) {
  return {shuffle_xor(x.value, with), shuffle_xor(x.slope, with)};
}

// Replace x[0 ... n) in shared memory by the sums x[0] + ... + x[i].
__device__ __forceinline__ void running_sums(int* x, int n) {
  int before = 0;
  for (int base = 0; base < n; base += kWarp) {
    const int i = base + lane_index();
    int sum = i < n ? x[i] : 0;
    for (int width = 1; width < kWarp; width *= 2) {
      const int other = __shfl_up_sync(kAllLanes, sum, width);
      if (lane_index() >= width) sum += other;
    }
    if (i < n) x[i] = before + sum;
    before += __shfl_sync(kAllLanes, sum, kWarp - 1);
  }
  __syncwarp();
}

// What a pass reports of a number: the number itself, or of a Dual its slope.
__device__ __forceinline__ float reported(float x) { return x; }
__device__ __forceinline__ double reported(double x) { return x; }
template <class T>
__device__ __forceinline__ T reported(Dual<T> x) {
  return x.slope;
}

}  // namespace pymlp::cuda
