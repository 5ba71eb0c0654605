// The full list of neighbours within each structure of a batch, by brute force: one warp per
// centre, its lanes over 32 candidates at a time; ballots put the neighbours that are found into
// order.
#pragma once

#include "../../numbers/vec3.h"
#include "warp.cuh"

namespace pymlp::cuda {

template <class T>
struct PairSearch {
  int64_t n_atoms, n_structures;
  const T* positions;                // [A, 3]; not read when `all`
  const int64_t* structure_offsets;  // [B + 1]
  T square_cutoff;
  bool all;  // every pair of a structure, at any distance
};

struct Range {
  int64_t begin, end;
};

// The structure that the atom belongs to, by bisection; with offsets that do not ascend a wrong
// one, but never one that there is not.
__device__ __forceinline__ int64_t structure_index(const int64_t* offsets, int64_t n_structures,
                                                   int64_t atom) {
  int64_t low = 0, high = n_structures;  // offsets[low] <= atom < offsets[high]
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (offsets[middle] <= atom ? low : high) = middle;
  }
  return low;
}

// The atoms of a structure, never one beyond those that there are.
__device__ __forceinline__ Range atoms_of(const int64_t* offsets, int64_t structure,
                                          int64_t n_atoms) {
  const int64_t begin = offsets[structure], end = offsets[structure + 1];
  return {begin > 0 ? begin : 0, end < n_atoms ? end : n_atoms};
}

template <class T>
__device__ __forceinline__ Range structure_of(const PairSearch<T>& search, int64_t atom) {
  const int64_t* offsets = search.structure_offsets;
  return atoms_of(offsets, structure_index(offsets, search.n_structures, atom), search.n_atoms);
}

// Calls body(neighbour, place) for all neighbours of the centre in ascending order; returns how
// many there are. All lanes of the warp take part.
template <class T, class Body>
__device__ __forceinline__ int64_t for_each_neighbor(const PairSearch<T>& search, int64_t center,
                                                     Body body) {
  const Range atoms = structure_of(search, center);
  int64_t found = 0;
  for (int64_t base = atoms.begin; base < atoms.end; base += kWarp) {
    const int64_t j = base + lane_index();
    bool near = j < atoms.end && j != center;
    if (near && !search.all) {
      const T* a = search.positions + 3 * center;
      const T* b = search.positions + 3 * j;
      const Vec3<T> d = Vec3<T>{b[0], b[1], b[2]} - Vec3<T>{a[0], a[1], a[2]};
      near = dot(d, d) < search.square_cutoff;
    }
    const unsigned mask = __ballot_sync(kAllLanes, near);
    if (near) body(j, found + lanes_before(mask));
    found += __popc(mask);
  }
  return found;
}

// counts [A + 1]: 0, then the number of neighbours of every atom; their running sums are the
// pair_offsets.
template <class T>
__global__ void __launch_bounds__(4 * kWarp, 8) count_pairs(PairSearch<T> search, int64_t* counts) {
  const int64_t center = int64_t(blockIdx.x) * 4 + warp_index();
  if (blockIdx.x == 0 && threadIdx.x == 0) counts[0] = 0;
  if (center >= search.n_atoms) return;
  int64_t n = 0;
  if (search.all) {
    const Range atoms = structure_of(search, center);
    n = atoms.end - atoms.begin - 1;
  } else {
    n = for_each_neighbor(search, center, [](int64_t, int64_t) {});
  }
  if (lane_index() == 0) counts[center + 1] = n;
}

// centers [P] and neighbors [P], sorted by centre, then neighbour; n_pairs is P, beyond which
// nothing is written.
template <class T>
__global__ void __launch_bounds__(4 * kWarp, 8)
    fill_pairs(PairSearch<T> search, const int64_t* pair_offsets, int64_t n_pairs, int64_t* centers,
               int64_t* neighbors) {
  const int64_t center = int64_t(blockIdx.x) * 4 + warp_index();
  if (center >= search.n_atoms) return;
  const int64_t begin = pair_offsets[center];
  for_each_neighbor(search, center, [&](int64_t neighbor, int64_t at) {
    if (begin + at >= n_pairs) return;
    centers[begin + at] = center;
    neighbors[begin + at] = neighbor;
  });
}

constexpr LaunchShape pair_search_shape(int64_t n_atoms) {
  return {blocks_for(n_atoms, 4), 4 * kWarp, 0};
}

template <class T>
cudaError_t count_pairs(const PairSearch<T>& search, int64_t* counts, cudaStream_t stream) {
  // One block more than none, so that counts[0] is written also without atoms.
  LaunchShape shape = pair_search_shape(search.n_atoms);
  if (shape.blocks == 0) shape.blocks = 1;
  return launch(&count_pairs<T>, shape, stream, search, counts);
}

template <class T>
cudaError_t fill_pairs(const PairSearch<T>& search, const int64_t* pair_offsets, int64_t n_pairs,
                       int64_t* centers, int64_t* neighbors, cudaStream_t stream) {
  return launch(&fill_pairs<T>, pair_search_shape(search.n_atoms), stream, search, pair_offsets,
                n_pairs, centers, neighbors);
}

}  // namespace pymlp::cuda
