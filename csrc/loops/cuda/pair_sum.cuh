// Sums over the neighbours of one centre, by one warp. Forward: a lane owns one feature (channel,
// parameter) and goes through the neighbours of its channel, which all lanes of that channel read
// at the same time. Backward: a group of lanes owns a neighbour and shares its parameters out.
#pragma once

#include "../../formulas/radial_symmetry.h"
#include "staging.cuh"

namespace pymlp::cuda {

// Rows (eta, shift, amplitude) of the centre's parameter set.
template <class T>
PYMLP_INLINE const T* radial_rows(const SymmetryTables<T>& tables, int64_t set) {
  return tables.radial + 3 * set * tables.n_radial;
}

// features [n_channels, R], every element is written.
template <class N, class T>
__device__ __forceinline__ void pair_sum_forward(const Staging<N>& staged,
                                                 const SymmetryTables<T>& tables, int64_t set,
                                                 T* features) {
  const int n_radial = static_cast<int>(tables.n_radial);
  const int n = static_cast<int>(tables.n_channels) * n_radial;
  const T* rows = radial_rows(tables, set);
  for (int f = lane_index(); f < n; f += kWarp) {
    const int channel = f / n_radial;
    const T* row = rows + 3 * (f - channel * n_radial);
    const T eta = row[0], shift = row[1], amplitude = row[2];
    N sum = T(0);
    const int end = staged.first(channel + 1);
    for (int j = staged.first(channel); j < end; ++j) {
      const ValueSlope<N> fc{staged.radial[j], N(T(0))};
      sum = sum + radial_symmetry(staged.neighbors[j].distance, fc, eta, shift).value;
    }
    features[f] = reported(sum) * amplitude;
  }
}

// This lane's part, parameters first, first + step, ..., of sum_f grad_f dg_f/dR for a neighbour;
// grad_features: [R] of its channel.
template <class N, class T>
__device__ __forceinline__ N pair_sum_slope(N distance, ValueSlope<N> fc,
                                            const SymmetryTables<T>& tables, int64_t set,
                                            const T* grad_features, int first, int step) {
  const T* rows = radial_rows(tables, set);
  N sum = T(0);
  for (int f = first; f < static_cast<int>(tables.n_radial); f += step) {
    const T* row = rows + 3 * f;
    const T scale = grad_features[f] * row[2];
    sum = sum + radial_symmetry(distance, fc, row[0], row[1]).slope * scale;
  }
  return sum;
}

// jacobian [n_channels, R, 3] of one neighbour: zeros for the channels that are not its own.
template <class T>
__device__ __forceinline__ void pair_sum_jacobian(const NeighborSlopes<T>& own, int own_channel,
                                                  const SymmetryTables<T>& tables, int64_t set,
                                                  T* jacobian) {
  const int n_radial = static_cast<int>(tables.n_radial);
  const int n = static_cast<int>(tables.n_channels) * n_radial;
  const T* rows = radial_rows(tables, set);
  for (int f = lane_index(); f < n; f += kWarp) {
    const int channel = f / n_radial;
    T slope = T(0);
    if (channel == own_channel) {
      const T* row = rows + 3 * (f - channel * n_radial);
      slope = row[2] * radial_symmetry(own.neighbor.distance, own.radial, row[0], row[1]).slope;
    }
    T* to = jacobian + 3 * f;
    to[0] = slope * own.neighbor.unit.x;
    to[1] = slope * own.neighbor.unit.y;
    to[2] = slope * own.neighbor.unit.z;
  }
}

}  // namespace pymlp::cuda
