// D = T T_2^T with T = G^T R (eq 11): a block owns a centre with all its pairs, and keeps T in
// shared memory. To sum up, a thread owns embedding functions and goes through the neighbours; to
// pull gradients back, a warp owns a neighbour and shares its functions out over the lanes.
//
// G comes from memory (`Stored`, also as Dual numbers: that is the double backward) or from a table
// (`Tabulated`), in which case it is never written anywhere.
#pragma once

#include "../deep_pot_se.h"
#include "warp.cuh"

namespace pymlp::cuda {

constexpr int kCenterThreads = 4 * kWarp;

template <class T>
struct Stored {
  using N = T;
  ContractionPass<T> pass;

  __device__ N function(int64_t p, int f) const {
    return pass.embedding[pass.pair_rows[p] * pass.n_functions + f];
  }
  __device__ N number(int64_t p, int k) const { return pass.environment[4 * p + k]; }
};

template <class T>
struct StoredDual {
  using N = Dual<T>;
  ContractionPass<T> pass;

  __device__ N function(int64_t p, int f) const {
    const int64_t at = pass.pair_rows[p] * pass.n_functions + f;
    return {pass.embedding[at], pass.embedding_tangents[at]};
  }
  __device__ N number(int64_t p, int k) const {
    return {pass.environment[4 * p + k], pass.environment_tangents[4 * p + k]};
  }
};

template <class T>
struct Tabulated {
  using N = T;
  TablePass<T> pass;

  struct Place {
    const T* coefficients;
    T t;
  };
  __device__ Place place(int64_t p) const {
    const T s = pass.environment[4 * p];
    const T x = (s - T(pass.first)) * T(1 / pass.width);
    const T last = T(pass.n_intervals - 1);
    const T clamped = x < T(0) ? T(0) : x < last ? x : last;
    const auto interval = static_cast<int64_t>(clamped);
    const int64_t at = pass.pair_kinds[p] * pass.n_intervals + interval;
    // The host does not look at values on a GPU: outside of the table there is NaN.
    const bool inside = s >= T(pass.first) &&
                        s <= T(pass.first + static_cast<double>(pass.n_intervals) * pass.width);
    const T zero = x - x;
    return {pass.table + at * kTableTerms * pass.stride, inside ? x - T(interval) : zero / zero};
  }
  __device__ N function(int64_t p, int f) const {
    const Place here = place(p);
    T sum = here.coefficients[(kTableTerms - 1) * pass.stride + f];
#pragma unroll
    for (int k = kTableTerms - 2; k >= 0; --k) {
      sum = sum * here.t + here.coefficients[k * pass.stride + f];
    }
    return sum;
  }
  __device__ N slope(int64_t p, int f) const {
    const Place here = place(p);
    T sum = here.coefficients[(kTableTerms - 1) * pass.stride + f] * T(kTableTerms - 1);
#pragma unroll
    for (int k = kTableTerms - 2; k >= 1; --k) {
      sum = sum * here.t + here.coefficients[k * pass.stride + f] * T(k);
    }
    return sum * T(1 / pass.width);
  }
  __device__ N number(int64_t p, int k) const { return pass.environment[4 * p + k]; }
};

// Bytes of shared memory: the moments, and their gradients where they are wanted.
template <class N>
constexpr int64_t contraction_bytes(int64_t n_functions, bool with_gradients) {
  return (with_gradients ? 8 : 4) * n_functions * static_cast<int64_t>(sizeof(N));
}

template <class N>
constexpr LaunchShape contraction_shape(int64_t n_centers, int64_t n_functions,
                                        bool with_gradients) {
  const int64_t bytes = contraction_bytes<N>(n_functions, with_gradients);
  return {n_centers, kCenterThreads, static_cast<int>(bytes < (1 << 24) ? bytes : (1 << 24))};
}

// moments [4, M]; all threads of the block have them on return.
template <class Source, class N = typename Source::N>
__device__ __forceinline__ void sum_up(const Source& source, int64_t begin, int64_t end, int n,
                                       N* moments) {
  using T = Scalar<N>;
  for (int f = static_cast<int>(threadIdx.x); f < n; f += kCenterThreads) {
    N sum[4] = {N(T(0)), N(T(0)), N(T(0)), N(T(0))};
    for (int64_t p = begin; p < end; ++p) {
      const N function = source.function(p, f);
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[k] = sum[k] + function * source.number(p, k);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) moments[k * n + f] = sum[k];
  }
  __syncthreads();
}

template <class N, class T>
__device__ __forceinline__ void contract(const N* moments, int n, int n_axis, T* features) {
  for (int i = static_cast<int>(threadIdx.x); i < n * n_axis; i += kCenterThreads) {
    const int a = i / n_axis, b = i - a * n_axis;
    N sum = moments[a] * moments[b];
#pragma unroll
    for (int k = 1; k < 4; ++k) sum = sum + moments[k * n + a] * moments[k * n + b];
    features[i] = reported(sum);
  }
}

// Gradients of the moments from those of D; all threads of the block have them on return.
template <class N, class T>
__device__ __forceinline__ void pull_back(const N* moments, const T* grad_features, int n,
                                          int n_axis, N* grad_moments) {
  for (int f = static_cast<int>(threadIdx.x); f < n; f += kCenterThreads) {
    N sum[4] = {N(T(0)), N(T(0)), N(T(0)), N(T(0))};
    for (int b = 0; b < n_axis; ++b) {
      const T g = grad_features[f * n_axis + b];
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[k] = sum[k] + moments[k * n + b] * g;
    }
    for (int a = 0; f < n_axis && a < n; ++a) {
      const T g = grad_features[a * n_axis + f];
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[k] = sum[k] + moments[k * n + a] * g;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) grad_moments[k * n + f] = sum[k];
  }
  __syncthreads();
}

// The sum over the lanes of the warp, in every lane, always in the same order.
template <class N>
__device__ __forceinline__ N sum_over_lanes(N x) {
  for (int width = kWarp / 2; width > 0; width /= 2) x = x + shuffle_xor(x, width);
  return x;
}

// Gradients of the rows of G and R of one pair, by one warp.
template <class Source, class N, class T>
__device__ __forceinline__ void spread(const Source& source, int64_t p, const N* grad_moments,
                                       int n, T* grad_functions, T* grad_numbers) {
  N number[4], grad[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    number[k] = source.number(p, k);
    grad[k] = N(T(0));
  }
  for (int f = lane_index(); f < n; f += kWarp) {
    const N function = source.function(p, f);
    N sum{T(0)};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const N g = grad_moments[k * n + f];
      sum = sum + g * number[k];
      grad[k] = grad[k] + g * function;
    }
    grad_functions[f] = reported(sum);
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const T total = sum_over_lanes(reported(grad[k]));
    if (lane_index() == 0) grad_numbers[k] = total;
  }
}

// The gradient of a row of R where G is a function of its first number, by one warp.
template <class Source, class T>
__device__ __forceinline__ void spread_along(const Source& source, int64_t p, const T* grad_moments,
                                             int n, T* grad_numbers) {
  T number[4], grad[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    number[k] = source.number(p, k);
    grad[k] = T(0);
  }
  for (int f = lane_index(); f < n; f += kWarp) {
    const T function = source.function(p, f);
    T sum = T(0);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const T g = grad_moments[k * n + f];
      sum += g * number[k];
      grad[k] += g * function;
    }
    grad[0] += sum * source.slope(p, f);
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const T total = sum_over_lanes(grad[k]);
    if (lane_index() == 0) grad_numbers[k] = total;
  }
}

template <bool with_features, bool with_gradients, class Source>
__global__ void __launch_bounds__(kCenterThreads) contraction_of_center(Source source) {
  using N = typename Source::N;
  const auto& pass = source.pass;
  const int64_t center = blockIdx.x;
  const int n = static_cast<int>(pass.n_functions), n_axis = static_cast<int>(pass.n_axis);
  const int64_t size = int64_t(n) * n_axis;
  const int64_t begin = pass.pair_offsets[center], end = pass.pair_offsets[center + 1];
  N* moments = reinterpret_cast<N*>(shared_memory());
  sum_up(source, begin, end, n, moments);
  if constexpr (with_features) contract(moments, n, n_axis, pass.features + center * size);
  if constexpr (with_gradients) {
    N* grad_moments = moments + 4 * n;
    pull_back(moments, pass.grad_features + center * size, n, n_axis, grad_moments);
    for (int64_t p = begin + warp_index(); p < end; p += kCenterThreads / kWarp) {
      if constexpr (requires { source.slope(p, 0); }) {
        spread_along(source, p, grad_moments, n, pass.grad_environment + 4 * p);
      } else {
        spread(source, p, grad_moments, n,
               pass.grad_embedding + pass.pair_rows[p] * pass.n_functions,
               pass.grad_environment + 4 * p);
      }
    }
  }
}

template <class T>
cudaError_t contraction(const ContractionPass<T>& pass, Pass kind, cudaStream_t stream) {
  const int64_t centers = pass.n_centers, n = pass.n_functions;
  if (kind == Pass::forward) {
    return launch(&contraction_of_center<true, false, Stored<T>>,
                  contraction_shape<T>(centers, n, false), stream, Stored<T>{pass});
  }
  if (kind == Pass::backward) {
    return launch(&contraction_of_center<false, true, Stored<T>>,
                  contraction_shape<T>(centers, n, true), stream, Stored<T>{pass});
  }
  return launch(&contraction_of_center<true, true, StoredDual<T>>,
                contraction_shape<Dual<T>>(centers, n, true), stream, StoredDual<T>{pass});
}

template <class T>
cudaError_t contraction_from_table(const TablePass<T>& pass, Pass kind, cudaStream_t stream) {
  const int64_t centers = pass.n_centers, n = pass.n_functions;
  if (kind == Pass::forward) {
    return launch(&contraction_of_center<true, false, Tabulated<T>>,
                  contraction_shape<T>(centers, n, false), stream, Tabulated<T>{pass});
  }
  return launch(&contraction_of_center<false, true, Tabulated<T>>,
                contraction_shape<T>(centers, n, true), stream, Tabulated<T>{pass});
}

}  // namespace pymlp::cuda
