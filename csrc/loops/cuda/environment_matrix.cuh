// The environment matrix (eq 8) of all pairs: a thread owns a pair. The double backward is the row
// and its adjoint on Dual numbers.
#pragma once

#include "../../formulas/environment_matrix.h"
#include "../../numbers/dual.h"
#include "../deep_pot_se.h"
#include "launch.cuh"

namespace pymlp::cuda {

constexpr int kPairThreads = 4 * kWarp;

constexpr LaunchShape environment_shape(int64_t n_pairs) {
  return {blocks_for(n_pairs, kPairThreads), kPairThreads, 0};
}

template <class T>
PYMLP_INLINE Vec3<T> read_vector(const T* from) {
  return {from[0], from[1], from[2]};
}
template <class T>
PYMLP_INLINE void write_vector(Vec3<T> v, T* to) {
  to[0] = v.x;
  to[1] = v.y;
  to[2] = v.z;
}
template <class T>
PYMLP_INLINE void write_row(EnvironmentRow<T> row, T* to) {
  to[0] = row.s;
  write_vector(row.v, to + 1);
}

template <Pass kind, class T>
__global__ void __launch_bounds__(kPairThreads) environment_rows(EnvironmentPass<T> pass) {
  const int64_t p = int64_t(blockIdx.x) * kPairThreads + threadIdx.x;
  if (p >= pass.n_pairs) return;
  const Switch<T> w{T(pass.switch_start), T(pass.cutoff),
                    static_cast<SwitchFunction>(pass.switch_function)};
  const Vec3<T> d = read_vector(pass.displacements + 3 * p);
  EnvironmentRow<T> g{};
  if constexpr (kind == Pass::backward || kind == Pass::double_backward) {
    g = {pass.grad_rows[4 * p], read_vector(pass.grad_rows + 4 * p + 1)};
  }
  if constexpr (kind == Pass::forward) {
    write_row(environment_row(d, w), pass.rows + 4 * p);
  } else if constexpr (kind == Pass::backward) {
    write_vector(environment_row_adjoint(d, g, w), pass.grad_displacements + 3 * p);
  } else if constexpr (kind == Pass::jacobian) {
    T* to = pass.jacobian + 12 * p;
    write_vector(environment_row_adjoint(d, EnvironmentRow<T>{T(1), {}}, w), to);
    write_vector(environment_row_adjoint(d, EnvironmentRow<T>{T(0), {T(1), T(0), T(0)}}, w),
                 to + 3);
    write_vector(environment_row_adjoint(d, EnvironmentRow<T>{T(0), {T(0), T(1), T(0)}}, w),
                 to + 6);
    write_vector(environment_row_adjoint(d, EnvironmentRow<T>{T(0), {T(0), T(0), T(1)}}, w),
                 to + 9);
  } else {
    const Vec3<T> u = read_vector(pass.tangents + 3 * p);
    const Vec3<Dual<T>> moving{{d.x, u.x}, {d.y, u.y}, {d.z, u.z}};
    const auto row = environment_row(moving, w);
    write_row({row.s.slope, {row.v.x.slope, row.v.y.slope, row.v.z.slope}}, pass.rows + 4 * p);
    if constexpr (kind == Pass::double_backward) {
      const auto bent = environment_row_adjoint(moving, g, w);
      write_vector({bent.x.slope, bent.y.slope, bent.z.slope}, pass.grad_displacements + 3 * p);
    }
  }
}

template <class T>
cudaError_t environment_matrix(const EnvironmentPass<T>& pass, Pass kind, cudaStream_t stream) {
  const LaunchShape shape = environment_shape(pass.n_pairs);
  switch (kind) {
    case Pass::forward:
      return launch(&environment_rows<Pass::forward, T>, shape, stream, pass);
    case Pass::backward:
      return launch(&environment_rows<Pass::backward, T>, shape, stream, pass);
    case Pass::jvp:
      return launch(&environment_rows<Pass::jvp, T>, shape, stream, pass);
    case Pass::double_backward:
      return launch(&environment_rows<Pass::double_backward, T>, shape, stream, pass);
    case Pass::jacobian:
      return launch(&environment_rows<Pass::jacobian, T>, shape, stream, pass);
  }
  return cudaErrorInvalidValue;
}

}  // namespace pymlp::cuda
