// Where everything lies in the shared memory of a block, as a function of sizes that the host
// knows. The launcher computes it, the kernel receives it, and a test checks it on a CPU.
#pragma once

#include "../../formulas/angular_symmetry.h"
#include "../neighborhood.h"
#include "launch.cuh"

namespace pymlp::cuda {

enum class Kernel { forward, backward, jacobian };

struct Sizes {
  int n_channels, n_distances, n_angles, n_angular;
};

// One product of a distance factor and an angle factor.
struct Product {
  int distance, angle;
};

// Bytes from the start of the block's shared memory (parameters) or of the warp's part (the rest).
struct SymmetryLayout {
  int warps;     // per block
  int capacity;  // neighbours of a centre that are kept in shared memory
  int tile;      // triples whose factors are kept at a time, a power of two
  int stride;    // numbers per triple in the tile; odd, so that lanes use different banks
  int angles_at, distances_at, warps_at;
  int slots_at, present_at, products_at, neighbors_at, radial_at, pairs_at, adjoints_at, tile_at,
      triple_adjoints_at, warp_bytes;

  constexpr int threads() const { return warps * kWarp; }
  constexpr int bytes() const { return warps_at + warps * warp_bytes; }
  constexpr LaunchShape launch_shape(int64_t n_centers) const {
    return {blocks_for(n_centers, warps), threads(), bytes()};
  }
};

namespace detail {
constexpr int aligned(int64_t bytes) {
  // Beyond any GPU's memory it only has to stay too large.
  const int64_t most = 1 << 24;
  return static_cast<int>(((bytes < most ? bytes : most) + 15) / 16 * 16);
}
}  // namespace detail

constexpr int64_t tile_numbers(Sizes s, Kernel kernel) {
  const int64_t factors = int64_t(s.n_angles) + s.n_distances;
  if (s.n_angular == 0) return 1;
  if (kernel == Kernel::forward) return factors | 1;
  if (kernel == Kernel::backward) return (2 * int64_t(s.n_angles)) | 1;
  return (2 * factors + 9) | 1;
}

template <class N>
constexpr SymmetryLayout place_symmetry(Sizes s, Kernel kernel, int warps, int tile) {
  using T = Scalar<N>;
  using detail::aligned;
  SymmetryLayout l{};
  l.warps = warps;
  l.tile = tile;
  l.capacity = 256 / static_cast<int>(sizeof(N));
  const int64_t numbers = tile_numbers(s, kernel);
  l.stride = static_cast<int>(numbers < (1 << 20) ? numbers : (1 << 20) | 1);
  l.angles_at = 0;
  l.distances_at = l.angles_at + aligned(int64_t(s.n_angles) * sizeof(AngleParameters<T>));
  l.warps_at = l.distances_at + aligned(int64_t(s.n_distances) * sizeof(DistanceParameters<T>));
  int at = 0;
  const auto take = [&](int64_t bytes) {
    const int here = at;
    at += aligned(bytes);
    return here;
  };
  l.slots_at = take((2 * int64_t(s.n_channels) + 3) * sizeof(int));
  l.present_at = take(int64_t(s.n_channels) * sizeof(int));
  l.products_at = take(int64_t(s.n_angular) * sizeof(Product));
  l.neighbors_at = take(l.capacity * sizeof(Neighbor<N>));
  l.radial_at = take(kernel == Kernel::forward ? l.capacity * sizeof(N) : 0);
  l.pairs_at = take(l.capacity * sizeof(int));
  l.adjoints_at = take(kernel == Kernel::backward ? l.capacity * sizeof(Neighbor<N>) : 0);
  l.tile_at = take(int64_t(tile) * l.stride * sizeof(N));
  l.triple_adjoints_at = take(kernel == Kernel::backward ? tile * sizeof(NeighborPair<N>) : 0);
  l.warp_bytes = at;
  return l;
}

// Four warps per block where they fit, otherwise fewer; smaller tiles only where one warp is too
// much. A layout that cannot be made small enough has bytes() > kSharedBytes.
template <class N>
constexpr SymmetryLayout symmetry_layout(Sizes s, Kernel kernel) {
  for (int warps = 4; warps > 1; warps /= 2) {
    const SymmetryLayout l = place_symmetry<N>(s, kernel, warps, kWarp);
    if (l.bytes() <= kSharedBytes) return l;
  }
  for (int tile = kWarp; tile > 1; tile /= 2) {
    const SymmetryLayout l = place_symmetry<N>(s, kernel, 1, tile);
    if (l.bytes() <= kSharedBytes) return l;
  }
  return place_symmetry<N>(s, kernel, 1, 1);
}

// A neighbourhood beyond the capacity is kept in global memory instead, in the slots that its pairs
// have there; so there is always room, whatever the largest neighbourhood, which the host need not
// know. Bytes per pair:
template <class N>
constexpr int64_t workspace_bytes(Kernel kernel) {
  const int64_t neighbor = sizeof(Neighbor<N>);
  if (kernel == Kernel::forward) return neighbor + sizeof(N) + sizeof(int);
  return (kernel == Kernel::backward ? 2 * neighbor : neighbor) + sizeof(int);
}

}  // namespace pymlp::cuda
