// From atoms to their pairs and back. Gathering: 16 lanes own a centre and write the coordinates of
// its pairs one after the other. Summing: 8 lanes own an atom, take the pairs of its row in turns,
// and find those that end at the atom in the rows of its neighbours, by bisection; no atomics, and
// an order that depends on the list alone.
//
// That needs rows in ascending order, and with every pair i -> j one j -> i, as neighbour lists
// have. Every atom's lanes look whether this is so; where it is not, a second kernel, which
// otherwise ends at once, adds up the pairs of any list in their order. The host never waits.
#pragma once

#include <limits>

#include "../../numbers/vec3.h"
#include "warp.cuh"

namespace pymlp::cuda {

constexpr int kDifferenceThreads = 4 * kWarp;
constexpr int kGatherLanes = 16;
constexpr int kSumLanes = 8;

template <class T>
constexpr T kNowhere = std::numeric_limits<T>::quiet_NaN();

// Index values are not known to fit: an atom that there is not gives NaN, rows end with the list.
struct PairRows {
  int64_t n_atoms, n_pairs;
  const int64_t* pair_offsets;  // [A + 1]
  const int64_t* neighbors;     // [P]
};

struct PairRow {
  int64_t begin, end;
};

__device__ __forceinline__ PairRow row_of(const PairRows& pairs, int64_t atom) {
  const int64_t begin = pairs.pair_offsets[atom], end = pairs.pair_offsets[atom + 1];
  return {begin > 0 ? begin : 0, end < pairs.n_pairs ? end : pairs.n_pairs};
}

__device__ __forceinline__ bool is_atom(const PairRows& pairs, int64_t j) {
  return j >= 0 && j < pairs.n_atoms;
}

// The cells that shifts count; null for lists without.
template <class T>
struct PairImages {
  const T* cells;                  // [B, 3, 3]
  const int64_t* structure_index;  // [A]; not read where there is one cell
  int64_t n_cells;
  const int32_t* shifts;  // [P, 3]
};

// differences [P, 3]: r_neighbor - r_center + shift . cell. At most 32 registers and no shared
// memory, as all kernels here: 64 warps of a multiprocessor, all that it holds.
template <bool with_images, class T>
__global__ void __launch_bounds__(kDifferenceThreads)
    gather_differences(PairRows pairs, const T* positions, PairImages<T> images, T* differences) {
  const int64_t center =
      int64_t(blockIdx.x) * (kDifferenceThreads / kGatherLanes) + threadIdx.x / kGatherLanes;
  if (center >= pairs.n_atoms) return;
  const PairRow row = row_of(pairs, center);
  const T* cell = images.cells;
  bool known = true;
  if (with_images && images.n_cells != 1) {
    const int64_t structure = images.structure_index[center];
    known = structure >= 0 && structure < images.n_cells;
    if (known) cell += 9 * structure;
  }
  const auto n = static_cast<uint32_t>(row.end > row.begin ? 3 * (row.end - row.begin) : 0);
  for (uint32_t e = threadIdx.x % kGatherLanes; e < n; e += kGatherLanes) {
    const uint32_t at = e / 3, x = e - 3 * at;
    const int64_t p = row.begin + at, j = pairs.neighbors[p];
    T d = kNowhere<T>;
    if (known && is_atom(pairs, j)) {
      d = positions[3 * j + x] - positions[3 * center + x];
      if (with_images) {
        const int32_t* shift = images.shifts + 3 * p;
        d += T(shift[0]) * cell[x] + T(shift[1]) * cell[3 + x] + T(shift[2]) * cell[6 + x];
      }
    }
    differences[3 * row.begin + e] = d;
  }
}

template <class T>
PYMLP_INLINE Vec3<T> load_vector(const T* from, int64_t i) {
  return {from[3 * i], from[3 * i + 1], from[3 * i + 2]};
}
template <class T>
PYMLP_INLINE void store_vector(T* to, int64_t i, Vec3<T> v) {
  to[3 * i] = v.x;
  to[3 * i + 1] = v.y;
  to[3 * i + 2] = v.z;
}

// The first pair of the row whose neighbour is not below the atom, the end where there is none.
__device__ __forceinline__ int64_t first_not_below(const int64_t* neighbors, PairRow row,
                                                   int64_t atom) {
  int64_t low = row.begin, high = row.end;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (neighbors[middle] < atom) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// sums [A, 3]: of the values [P, 3] of the pairs that end at the atom, less those of its own.
// Several pairs to one neighbour (its images) stand side by side; the first of them finds all
// that come back. Sets *one_way, which was zero, where the list is not of the kind that this
// needs.
template <class T>
__global__ void __launch_bounds__(kDifferenceThreads)
    sum_mutual_pairs(PairRows pairs, const T* values, T* sums, int* one_way) {
  const int64_t atom =
      int64_t(blockIdx.x) * (kDifferenceThreads / kSumLanes) + threadIdx.x / kSumLanes;
  Vec3<T> sum{T(0), T(0), T(0)};
  bool mutual = true;
  if (atom < pairs.n_atoms) {
    const PairRow row = row_of(pairs, atom);
    for (int64_t p = row.begin + threadIdx.x % kSumLanes; p < row.end; p += kSumLanes) {
      const int64_t j = pairs.neighbors[p];
      const int64_t before = p > row.begin ? pairs.neighbors[p - 1] : -1;
      sum = sum - load_vector(values, p);
      mutual = mutual && before <= j;
      if (!is_atom(pairs, j)) sum = {kNowhere<T>, kNowhere<T>, kNowhere<T>};
      if (!is_atom(pairs, j) || before == j) continue;
      const PairRow back = row_of(pairs, j);
      int64_t q = first_not_below(pairs.neighbors, back, atom);
      mutual = mutual && q < back.end && pairs.neighbors[q] == atom;
      for (; q < back.end && pairs.neighbors[q] == atom; ++q) {
        sum = sum + load_vector(values, q);
      }
    }
  }
  for (int step = 1; step < kSumLanes; step *= 2) {
    sum =
        sum + Vec3<T>{shuffle_xor(sum.x, step), shuffle_xor(sum.y, step), shuffle_xor(sum.z, step)};
  }
  if (!mutual) *one_way = 1;
  if (atom < pairs.n_atoms && threadIdx.x % kSumLanes == 0) store_vector(sums, atom, sum);
}

// The same for any list, if *one_way: a warp owns 32 atoms, one in each lane, and looks at all
// pairs, 32 at a time; each atom's pairs come in their order. P / 32 steps for every 32 atoms: 7 ms
// of instructions for 1e5 atoms with 6e6 pairs.
template <class T>
__global__ void __launch_bounds__(kDifferenceThreads)
    sum_pairs_in_order(PairRows pairs, const T* values, T* sums, const int* one_way) {
  if (*one_way == 0) return;
  const int64_t first = int64_t(blockIdx.x) * kDifferenceThreads + warp_index() * kWarp;
  if (first >= pairs.n_atoms) return;
  const int64_t atom = first + lane_index();
  Vec3<T> sum{T(0), T(0), T(0)};
  if (atom < pairs.n_atoms) {
    const PairRow row = row_of(pairs, atom);
    for (int64_t p = row.begin; p < row.end; ++p) {
      sum = sum - load_vector(values, p);
      if (!is_atom(pairs, pairs.neighbors[p])) sum = {kNowhere<T>, kNowhere<T>, kNowhere<T>};
    }
  }
  for (int64_t base = 0; base < pairs.n_pairs; base += kWarp) {
    const int64_t p = base + lane_index();
    const int64_t j = p < pairs.n_pairs ? pairs.neighbors[p] - first : -1;
    const int own = j >= 0 && j < kWarp ? static_cast<int>(j) : -1;
    for (unsigned mask = __ballot_sync(kAllLanes, own >= 0); mask != 0; mask &= mask - 1) {
      const int from = __ffs(static_cast<int>(mask)) - 1;
      if (__shfl_sync(kAllLanes, own, from) == lane_index()) {
        sum = sum + load_vector(values, base + from);
      }
    }
  }
  if (atom < pairs.n_atoms) store_vector(sums, atom, sum);
}

constexpr LaunchShape gather_shape(int64_t n_atoms) {
  return {blocks_for(n_atoms, kDifferenceThreads / kGatherLanes), kDifferenceThreads, 0};
}
constexpr LaunchShape mutual_sum_shape(int64_t n_atoms) {
  return {blocks_for(n_atoms, kDifferenceThreads / kSumLanes), kDifferenceThreads, 0};
}
constexpr LaunchShape ordered_sum_shape(int64_t n_atoms) {
  return {blocks_for(n_atoms, kDifferenceThreads), kDifferenceThreads, 0};
}

template <class T>
cudaError_t pair_differences(const PairRows& pairs, const T* positions, T* differences,
                             cudaStream_t stream) {
  return launch(&gather_differences<false, T>, gather_shape(pairs.n_atoms), stream, pairs,
                positions, PairImages<T>{}, differences);
}

template <class T>
cudaError_t image_differences(const PairRows& pairs, const T* positions,
                              const PairImages<T>& images, T* differences, cudaStream_t stream) {
  return launch(&gather_differences<true, T>, gather_shape(pairs.n_atoms), stream, pairs, positions,
                images, differences);
}

// one_way: an int that is zero.
template <class T>
cudaError_t pair_differences_backward(const PairRows& pairs, const T* values, T* sums, int* one_way,
                                      cudaStream_t stream) {
  const cudaError_t error = launch(&sum_mutual_pairs<T>, mutual_sum_shape(pairs.n_atoms), stream,
                                   pairs, values, sums, one_way);
  if (error != cudaSuccess) return error;
  return launch(&sum_pairs_in_order<T>, ordered_sum_shape(pairs.n_atoms), stream, pairs, values,
                sums, one_way);
}

}  // namespace pymlp::cuda
