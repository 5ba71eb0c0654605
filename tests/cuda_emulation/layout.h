// The shared-memory layouts of the symmetry-function kernels, for sizes from nothing to far too
// much.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "loops/cuda/pair_list.cuh"
#include "loops/cuda/symmetry_sum.cuh"

namespace pymlp::cuda {

static_assert(blocks_for(0, 4) == 0 && blocks_for(1, 4) == 1 && blocks_for(9, 4) == 3);
static_assert(blocks_for(int64_t(1) << 34, 4) == int64_t(1) << 32);
static_assert(!is_launchable({int64_t(1) << 31, 128, 0}), "grids have at most 2^31 - 1 blocks");
static_assert(is_launchable(pair_search_shape(5'000'000'000)), "five billion atoms are few enough");

inline void check(bool right, const char* what, Sizes s, Kernel kernel, int bytes) {
  if (right) return;
  std::fprintf(stderr, "%s: C %d, D %d, Z %d, S %d, kernel %d, number of %d bytes\n", what,
               s.n_channels, s.n_distances, s.n_angles, s.n_angular, static_cast<int>(kernel),
               bytes);
  std::exit(1);
}

template <class N>
void check_layout(Sizes s, Kernel kernel) {
  using T = Scalar<N>;
  const int bytes = sizeof(N);
  const SymmetryLayout l = symmetry_layout<N>(s, kernel);
  const auto require = [&](bool right, const char* what) { check(right, what, s, kernel, bytes); };
  require(l.warps == 1 || l.warps == 2 || l.warps == 4, "warps");
  require(l.tile >= 1 && l.tile <= kWarp && (l.tile & (l.tile - 1)) == 0, "tile");
  require(l.tile == kWarp || l.warps == 1, "a small tile although there is room");
  require(l.stride % 2 == 1, "stride: bank conflicts");
  require(l.threads() == kWarp * l.warps, "threads");
  const bool fits = l.bytes() <= kSharedBytes;
  require(is_launchable(l.launch_shape(1000)) == fits, "launchable");
  require(fits || (l.warps == 1 && l.tile == 1), "refused although smaller parts may fit");
  if (!fits) return;

  const bool backward = kernel == Kernel::backward, forward = kernel == Kernel::forward;
  // begin and size of everything, in the order of their addresses
  const std::vector<std::pair<int, int64_t>> of_block = {
      {l.angles_at, s.n_angles * int64_t(sizeof(AngleParameters<T>))},
      {l.distances_at, s.n_distances * int64_t(sizeof(DistanceParameters<T>))},
      {l.warps_at, int64_t(l.warps) * l.warp_bytes}};
  const int64_t neighbor = sizeof(Neighbor<N>);
  const std::vector<std::pair<int, int64_t>> of_warp = {
      {l.slots_at, (2 * s.n_channels + 2) * int64_t(sizeof(int))},
      {l.present_at, s.n_channels * int64_t(sizeof(int))},
      {l.products_at, s.n_angular * int64_t(sizeof(Product))},
      {l.neighbors_at, l.capacity * neighbor},
      {l.radial_at, forward ? l.capacity * int64_t(sizeof(N)) : 0},
      {l.pairs_at, l.capacity * int64_t(sizeof(int))},
      {l.adjoints_at, backward ? l.capacity * neighbor : 0},
      {l.tile_at, int64_t(l.tile) * l.stride * int64_t(sizeof(N))},
      {l.triple_adjoints_at, backward ? l.tile * 2 * neighbor : 0}};
  for (const auto& [parts, end] : {std::pair{of_block, l.bytes()}, {of_warp, l.warp_bytes}}) {
    int64_t free = 0;
    for (const auto& [at, size] : parts) {
      require(at % 16 == 0, "alignment");
      require(at >= free, "overlap");
      free = at + size;
    }
    require(free <= end, "beyond the end");
  }
}

inline int run_layouts() {
  for (const int channels : {1, 2, 4, 7, 33, 118, 100'000}) {
    for (const int distances : {0, 1, 4, 60, 2'000, 2'000'000'000}) {
      for (const int angles : {0, 1, 8, 100, 3'000, 2'000'000'000}) {
        for (const int angular : {0, 1, 12, 32, 300, 6'000, 2'000'000'000}) {
          for (const Kernel kernel : {Kernel::forward, Kernel::backward, Kernel::jacobian}) {
            const Sizes s{channels, distances, angles, angular};
            check_layout<float>(s, kernel);
            check_layout<double>(s, kernel);
            if (kernel == Kernel::jacobian) continue;
            check_layout<Dual<float>>(s, kernel);
            check_layout<Dual<double>>(s, kernel);
          }
        }
      }
    }
  }
  // Bytes of shared memory per block and its warps, for the two sets of the literature.
  std::printf("%-10s %-8s %9s %9s %9s %9s %9s\n", "set", "dtype", "forward", "backward", "jvp",
              "curvature", "jacobian");
  const auto row = [](const char* set, Sizes s, const char* dtype, auto number) {
    using T = decltype(number);
    SymmetryTables<T> tables{};
    tables.n_channels = s.n_channels;
    tables.n_distances = s.n_distances;
    tables.n_angles = s.n_angles;
    tables.n_angular = s.n_angular;
    const SymmetryLayouts<T> l(tables);
    std::printf("%-10s %-8s", set, dtype);
    for (const auto& layout : {l.forward(), l.backward(), l.jvp(), l.curvature(), l.jacobian()}) {
      std::printf(" %6d/%d ", layout.bytes(), layout.warps);
    }
    std::printf("\n");
  };
  row("ANI-1x", {4, 4, 8, 32}, "float32", 0.0f);
  row("ANI-1x", {4, 4, 8, 32}, "float64", 0.0);
  row("BP paper", {3, 6, 12, 12}, "float32", 0.0f);
  row("BP paper", {3, 6, 12, 12}, "float64", 0.0);
  return 0;
}

}  // namespace pymlp::cuda
