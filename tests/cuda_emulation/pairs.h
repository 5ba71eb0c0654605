// One case of the list of all pairs, and one of the ways between atoms and pairs.
#pragma once

#include <cmath>

#include "cases.h"
#include "loops/cuda/pair_differences.cuh"
#include "loops/cuda/pair_list.cuh"

namespace pymlp {

template <class T>
void run_pairs(Reader& in, Writer& out) {
  const auto n_atoms = in.value<int64_t>(), n_structures = in.value<int64_t>();
  const auto known = in.value<int64_t>();  // the number of pairs, or less than none
  const auto cutoff = in.value<double>();
  const auto positions = in.array<T>(3 * n_atoms);
  const auto structure_offsets = in.array<int64_t>(n_structures + 1);
  const cuda::PairSearch<T> search{
      n_atoms,           n_structures, positions.get(), structure_offsets.get(), T(cutoff * cutoff),
      std::isinf(cutoff)};
  const auto offsets = unwritten<int64_t>(n_atoms + 1);
  cuda::count_pairs(search, offsets.get(), nullptr);
  for (int64_t i = 0; i < n_atoms; ++i) offsets[i + 1] += offsets[i];
  const int64_t n_pairs = known < 0 ? offsets[n_atoms] : known;
  const auto centers = unwritten<int64_t>(n_pairs), neighbors = unwritten<int64_t>(n_pairs);
  cuda::fill_pairs(search, offsets.get(), n_pairs, centers.get(), neighbors.get(), nullptr);
  out.array(offsets, n_atoms + 1);
  out.array(centers, n_pairs);
  out.array(neighbors, n_pairs);
}

template <class T>
void run_differences(Reader& in, Writer& out) {
  const auto n_atoms = in.value<int64_t>(), n_pairs = in.value<int64_t>();
  const auto n_cells = in.value<int64_t>();
  const auto pair_offsets = in.array<int64_t>(n_atoms + 1);
  const auto neighbors = in.array<int64_t>(n_pairs);
  const auto positions = in.array<T>(3 * n_atoms);
  const auto cells = in.array<T>(9 * n_cells);
  const auto structure_index = in.array<int64_t>(n_cells == 1 ? 0 : n_atoms);
  const auto shifts = in.array<int32_t>(3 * n_pairs);
  const auto values = in.array<T>(3 * n_pairs);
  const cuda::PairRows pairs{n_atoms, n_pairs, pair_offsets.get(), neighbors.get()};
  const cuda::PairImages<T> images{cells.get(), structure_index.get(), n_cells, shifts.get()};

  const auto differences = unwritten<T>(3 * n_pairs), moved = unwritten<T>(3 * n_pairs);
  const auto sums = unwritten<T>(3 * n_atoms);
  const std::unique_ptr<int64_t[]> one_way(new int64_t[1]{});
  cuda::pair_differences(pairs, positions.get(), differences.get(), nullptr);
  cuda::image_differences(pairs, positions.get(), images, moved.get(), nullptr);
  cuda::pair_differences_backward(pairs, values.get(), sums.get(),
                                  reinterpret_cast<int*>(one_way.get()), nullptr);
  out.array(differences, 3 * n_pairs);
  out.array(moved, 3 * n_pairs);
  out.array(sums, 3 * n_atoms);
  out.array(one_way, 1);
}

}  // namespace pymlp
