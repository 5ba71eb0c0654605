// The arguments of the ops between atoms and pairs, on any device: shapes, dtypes, devices. Index
// values are looked at on the CPU alone.
#pragma once

#include <algorithm>
#include <utility>

#include "../loops/pair_gradients.h"
#include "checks.h"

namespace pymlp {

inline void check_pairs(const Tensor& values, const Tensor& pair_offsets, const Tensor& neighbors,
                        int64_t atoms) {
  require_shape(pair_offsets, "pair_offsets", {atoms + 1}, "[A + 1]");
  require_shape(neighbors, "neighbors", {-1}, "[P]");
  for (const auto& [tensor, name] :
       {std::pair{pair_offsets, "pair_offsets"}, {neighbors, "neighbors"}}) {
    require_index(tensor, name, values, "the values");
  }
}

inline void check_pair_differences(const Tensor& positions, const Tensor& pair_offsets,
                                   const Tensor& neighbors) {
  require_float(positions, "positions");
  require_shape(positions, "positions", {-1, 3}, "[A, 3]");
  check_pairs(positions, pair_offsets, neighbors, positions.size(0));
}

inline void check_image_differences(const Tensor& positions, const Tensor& cell,
                                    const Tensor& structure_index, const Tensor& pair_offsets,
                                    const Tensor& neighbors, const Tensor& shifts) {
  check_pair_differences(positions, pair_offsets, neighbors);
  const int64_t atoms = positions.size(0), pairs = neighbors.size(0);
  require_shape(cell, "cell", {-1, 3, 3}, "[B, 3, 3]");
  require_like(cell, "cell", positions, "positions");
  require_index(structure_index, "structure_index", positions, "positions");
  require_shape(structure_index, "structure_index", {cell.size(0) == 1 ? -1 : atoms}, "[A]");
  require_shape(shifts, "shifts", {pairs, 3}, "[P, 3]");
  require(shifts.scalar_type() == ScalarType::Int, "shifts: expected dtype int32");
  require_device(shifts, "shifts", positions, "positions");
}

inline void check_pair_gradients(const Tensor& grad_output, const Tensor& pair_offsets,
                                 const Tensor& neighbors) {
  require_float(grad_output, "grad_output");
  require_shape(grad_output, "grad_output", {-1, 3}, "[P, 3]");
  require_shape(neighbors, "neighbors", {grad_output.size(0)}, "[P], P rows of grad_output");
  require_shape(pair_offsets, "pair_offsets", {-1}, "[A + 1]");
  require(pair_offsets.size(0) > 0, "pair_offsets: expected A + 1 >= 1 elements, got none");
  check_pairs(grad_output, pair_offsets, neighbors, pair_offsets.size(0) - 1);
}

// After this every index may be used to address memory; for tensors on the CPU.
inline PairTopology checked_topology(const Tensor& pair_offsets, const Tensor& neighbors) {
  const PairTopology pairs{pair_offsets.size(0) - 1, neighbors.size(0),
                           pair_offsets.const_data_ptr<int64_t>(),
                           neighbors.const_data_ptr<int64_t>()};
  bool ascending = pairs.first[0] == 0 && pairs.first[pairs.atoms] == pairs.pairs;
  for (int64_t i = 0; i < pairs.atoms; ++i) {
    ascending = ascending && pairs.first[i] <= pairs.first[i + 1];
  }
  require(ascending, "pair_offsets: expected to ascend from 0 to P = ", pairs.pairs);
  require(all_within(pairs.other, pairs.pairs, pairs.atoms),
          "neighbors: expected values in 0 ... A - 1 = ", pairs.atoms - 1);
  return pairs;
}

// Runs body(T()) for the tensor's dtype.
template <class Body>
void as_float_or_double(const Tensor& tensor, Body body) {
  if (tensor.scalar_type() == ScalarType::Float) {
    body(float{});
  } else {
    body(double{});
  }
}

}  // namespace pymlp
