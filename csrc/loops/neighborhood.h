// What a descriptor of symmetry functions is given: plain views of memory that torch owns. The same
// on CPU and GPU. A atoms, P pairs, F features; pairs of one centre are contiguous (CSR).
#pragma once

#include <cstdint>

#include "../numbers/host_device.h"

namespace pymlp {

template <class T>
struct Neighborhoods {
  int64_t n_centers;            // A
  const T* displacements;       // [P, 3] from centre to neighbour, Angstrom
  const int64_t* pair_offsets;  // [A + 1]
  const int64_t* neighbors;     // [P]
  const int64_t* types;         // [A], 0 ... n_types - 1
  const int64_t* channels;      // [n_types] channel that a neighbour of this type counts for
  const T* weights;             // [n_types] weight of a neighbour of this type
};

template <class T>
struct SymmetryTables {
  int64_t n_channels;
  int64_t n_sets;           // 1, or one parameter set per type of the centre
  int64_t n_radial;         // R
  int64_t n_distances;      // D
  int64_t n_angles;         // Z
  int64_t n_angular;        // S
  const T* radial;          // [n_sets, R, 3]: eta, shift, amplitude
  const T* distances;       // [D, 2]: eta, shift
  const T* angles;          // [Z, 3]: zeta, cos(theta_s), sin(theta_s)
  const int64_t* products;  // [n_sets, S, 2]: distance, angle; sorted by distance; -1 pads
  double radial_cutoff, angular_cutoff;
  int cutoff_function;
  bool jk_factors;      // Behler-Parrinello: eq 3 (true) or G5
  double cosine_scale;  // ANI

  PYMLP_INLINE int64_t n_channel_pairs() const { return n_channels * (n_channels + 1) / 2; }
  PYMLP_INLINE int64_t n_features() const {
    return n_channels * n_radial + n_channel_pairs() * n_angular;
  }
};

// Which sum is wanted; the pointers that a pass does not use are null.
enum class Pass { forward, backward, jvp, double_backward, jacobian };

template <class T>
struct SymmetryPass {
  Neighborhoods<T> atoms;
  SymmetryTables<T> tables;
  const T* grad_features;  // [A, F]     backward, double_backward
  const T* tangents;       // [P, 3]     jvp, double_backward
  T* features;             // [A, F]     forward; jvp and double_backward write J u here
  T* grad_displacements;  // [P, 3]     backward; double_backward writes d(J^T g) / d(displacements)
                          // u
  T* jacobian;            // [P, F, 3]
};

}  // namespace pymlp
