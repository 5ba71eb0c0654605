// One case of the list of all pairs.
#pragma once

#include <cmath>

#include "cases.h"
#include "loops/cuda/pair_list.cuh"

namespace pymlp {

template <class T>
void run_pairs(Reader& in, Writer& out) {
  const auto n_atoms = in.value<int64_t>(), n_structures = in.value<int64_t>();
  const auto cutoff = in.value<double>();
  const auto positions = in.array<T>(3 * n_atoms);
  const auto structure_offsets = in.array<int64_t>(n_structures + 1);
  const cuda::PairSearch<T> search{
      n_atoms,           n_structures, positions.get(), structure_offsets.get(), T(cutoff * cutoff),
      std::isinf(cutoff)};
  const auto offsets = unwritten<int64_t>(n_atoms + 1);
  cuda::count_pairs(search, offsets.get(), nullptr);
  for (int64_t i = 0; i < n_atoms; ++i) offsets[i + 1] += offsets[i];
  const int64_t n_pairs = offsets[n_atoms];
  const auto centers = unwritten<int64_t>(n_pairs), neighbors = unwritten<int64_t>(n_pairs);
  cuda::fill_pairs(search, offsets.get(), centers.get(), neighbors.get(), nullptr);
  out.array(offsets, n_atoms + 1);
  out.array(centers, n_pairs);
  out.array(neighbors, n_pairs);
}

}  // namespace pymlp
