// The CUDA kernels of every symmetry-function descriptor: one warp per centre. A warp stages the
// neighbours of its centre in shared memory, sums over pairs, sums over triples, and writes each
// element of its features, or of the gradients of its pairs, exactly once; nobody else does.
//
// The double backward is not written: it is forward and backward run on Dual numbers.
#pragma once

#include "pair_sum.cuh"
#include "triple_sum.cuh"

namespace pymlp::cuda {

// Blocks per multiprocessor that the registers leave room for: the most without spills.
template <class N>
constexpr int blocks_at_a_time() {
  return sizeof(N) == 4 ? 6 : sizeof(N) == 8 ? 4 : 3;
}

template <class T>
PYMLP_INLINE int64_t parameter_set(const SymmetryPass<T>& pass, int64_t center) {
  return pass.tables.n_sets == 1 ? 0 : pass.atoms.types[center];
}

// features of the pass, for Dual numbers their slopes. One warp owns a centre and its row.
// sm_90: float 64 registers, Dual<float> 72, double 91, Dual<double> 96. Shared memory per block of
// four warps: ANI-1x 15.0, 21.0, 21.2, 33.9 KiB, BP paper set 17.5, 26.5, 26.8, 45.5 KiB.
template <class Formula, class N>
__global__ void __launch_bounds__(4 * kWarp, blocks_at_a_time<N>())
    symmetry_forward(Formula formula, SymmetryPass<Scalar<N>> pass, SymmetryLayout layout,
                     std::byte* workspace) {
  std::byte* block = shared_memory();
  std::byte* own = block + layout.warps_at + warp_index() * layout.warp_bytes;
  load_angular_parameters(pass.tables, layout, block);
  const int64_t center = int64_t(blockIdx.x) * layout.warps + warp_index();
  if (center >= pass.atoms.n_centers) return;

  Staging<N> staged(pass, layout, own, workspace, Kernel::forward, center);
  staged.gather(pass, true);
  const int64_t set = parameter_set(pass, center);
  Scalar<N>* features = pass.features + center * pass.tables.n_features();
  pair_sum_forward(staged, pass.tables, set, features);
  if (pass.tables.n_angular == 0) return;
  TripleSum<Formula, N> triples(formula, staged, TripleScratch<N>(layout, block, own), pass.tables,
                                set);
  triples.forward(features + pass.tables.n_channels * pass.tables.n_radial);
}

// grad_displacements of the pass, for Dual numbers their slopes. One warp owns a centre and the
// rows of its pairs. sm_90: float 80 registers, Dual<float> 100 (BP 103), double 102 (109),
// Dual<double> 136 (147). Shared memory per block: ANI-1x 26.0, 39.0, 39.2, 33.2 KiB, BP paper
// set 29.5, 46.5, 46.8, 41.1 KiB; for Dual<double> a block has two warps, otherwise four.
template <class Formula, class N>
__global__ void __launch_bounds__(4 * kWarp, blocks_at_a_time<N>())
    symmetry_backward(Formula formula, SymmetryPass<Scalar<N>> pass, SymmetryLayout layout,
                      std::byte* workspace) {
  using T = Scalar<N>;
  std::byte* block = shared_memory();
  std::byte* own = block + layout.warps_at + warp_index() * layout.warp_bytes;
  load_angular_parameters(pass.tables, layout, block);
  const int64_t center = int64_t(blockIdx.x) * layout.warps + warp_index();
  if (center >= pass.atoms.n_centers) return;

  Staging<N> staged(pass, layout, own, workspace, Kernel::backward, center);
  staged.gather(pass, false);
  const int64_t set = parameter_set(pass, center);
  const int n_channels = static_cast<int>(pass.tables.n_channels);
  const T* grad = pass.grad_features + center * pass.tables.n_features();
  const bool angular = pass.tables.n_angular > 0;
  if (angular) {
    TripleSum<Formula, N> triples(formula, staged, TripleScratch<N>(layout, block, own),
                                  pass.tables, set);
    triples.backward(grad + n_channels * pass.tables.n_radial);
  }

  // Lanes in groups of 1, 2, 4 or 8 per neighbour: as many as leave no lane without work.
  int width = 1;
  while (width < 8 && staged.n * width * 2 <= kWarp) width *= 2;
  const int part = lane_index() % width;
  for (int base = 0; base < staged.n; base += kWarp / width) {
    const int m = base + lane_index() / width;
    const bool valid = m < staged.n;
    const bool inside = valid && m < staged.first(n_channels);
    const int64_t p = staged.begin + (valid ? staged.pairs[m] : 0);
    NeighborSlopes<N> neighbor{};
    N slope = T(0);
    if (inside) {
      neighbor = staged.evaluate(pass, p);
      const int64_t channel = pass.atoms.channels[pass.atoms.types[pass.atoms.neighbors[p]]];
      slope = pair_sum_slope(neighbor.neighbor.distance, neighbor.radial, pass.tables, set,
                             grad + channel * pass.tables.n_radial, part, width);
    }
    for (int step = 1; step < width; step *= 2) slope = slope + shuffle_xor(slope, step);
    if (!valid || part != 0) continue;
    T* out = pass.grad_displacements + 3 * p;
    Vec3<N> d{N(T(0)), N(T(0)), N(T(0))};
    if (inside) {
      Neighbor<N> adjoint = angular ? staged.adjoints[m] : no_neighbor<N>();
      adjoint.distance = adjoint.distance + slope;
      d = displacement_adjoint(neighbor.neighbor, neighbor.angular_slope, adjoint);
    }
    out[0] = reported(d.x);
    out[1] = reported(d.y);
    out[2] = reported(d.z);
  }
}

// jacobian of the pass. One warp owns a centre, goes through its neighbours, and writes the row of
// each. sm_90: float 102 registers (BP 106), double 131 (138). Shared memory per block: ANI-1x 24.0
// and 40.2 KiB, BP paper set 29.5 and (two warps) 26.2 KiB.
template <class Formula, class T>
__global__ void __launch_bounds__(4 * kWarp, blocks_at_a_time<Dual<T>>())
    symmetry_jacobian(Formula formula, SymmetryPass<T> pass, SymmetryLayout layout,
                      std::byte* workspace) {
  std::byte* block = shared_memory();
  std::byte* own = block + layout.warps_at + warp_index() * layout.warp_bytes;
  load_angular_parameters(pass.tables, layout, block);
  const int64_t center = int64_t(blockIdx.x) * layout.warps + warp_index();
  if (center >= pass.atoms.n_centers) return;

  Staging<T> staged(pass, layout, own, workspace, Kernel::jacobian, center);
  staged.gather(pass, false);
  const int64_t set = parameter_set(pass, center), n_features = pass.tables.n_features();
  const int n_channels = static_cast<int>(pass.tables.n_channels);
  TripleSum<Formula, T> triples(formula, staged, TripleScratch<T>(layout, block, own), pass.tables,
                                set);
  for (int c = 0; c < n_channels; ++c) {
    for (int m = staged.first(c); m < staged.first(c + 1); ++m) {
      const int64_t p = staged.begin + staged.pairs[m];
      const NeighborSlopes<T> neighbor = staged.evaluate(pass, p);
      T* row = pass.jacobian + 3 * p * n_features;
      pair_sum_jacobian(neighbor, c, pass.tables, set, row);
      triples.jacobian(neighbor, m, c, row + 3 * n_channels * pass.tables.n_radial);
    }
  }
  for (int m = staged.first(n_channels); m < staged.n; ++m) {
    T* row = pass.jacobian + 3 * (staged.begin + staged.pairs[m]) * n_features;
    for (int64_t i = lane_index(); i < 3 * n_features; i += kWarp) row[i] = T(0);
  }
}

inline Sizes sizes_of(int64_t n_channels, int64_t n_distances, int64_t n_angles,
                      int64_t n_angular) {
  return {static_cast<int>(n_channels), static_cast<int>(n_distances), static_cast<int>(n_angles),
          static_cast<int>(n_angular)};
}

template <class T>
struct SymmetryLayouts {
  Sizes sizes;

  explicit SymmetryLayouts(const SymmetryTables<T>& t)
      : sizes(sizes_of(t.n_channels, t.n_distances, t.n_angles, t.n_angular)) {}

  SymmetryLayout forward() const { return symmetry_layout<T>(sizes, Kernel::forward); }
  SymmetryLayout jvp() const { return symmetry_layout<Dual<T>>(sizes, Kernel::forward); }
  SymmetryLayout backward() const { return symmetry_layout<T>(sizes, Kernel::backward); }
  SymmetryLayout curvature() const { return symmetry_layout<Dual<T>>(sizes, Kernel::backward); }
  SymmetryLayout jacobian() const { return symmetry_layout<T>(sizes, Kernel::jacobian); }

  // Whether the shared memory of a block holds what the pass needs of the parameters.
  bool fits(Pass kind) const {
    const auto small = [](const SymmetryLayout& l) { return l.bytes() <= kSharedBytes; };
    switch (kind) {
      case Pass::forward:
        return small(forward());
      case Pass::backward:
        return small(backward());
      case Pass::jvp:
        return small(jvp());
      case Pass::double_backward:
        return small(jvp()) && small(curvature());
      case Pass::jacobian:
        return small(jacobian());
    }
    return false;
  }
};

// Bytes of device memory that a pass over P pairs needs at `workspace`.
template <class T>
int64_t symmetry_workspace(Pass kind, int64_t n_pairs) {
  switch (kind) {
    case Pass::forward:
      return n_pairs * workspace_bytes<T>(Kernel::forward);
    case Pass::backward:
      return n_pairs * workspace_bytes<T>(Kernel::backward);
    case Pass::jvp:
      return n_pairs * workspace_bytes<Dual<T>>(Kernel::forward);
    case Pass::double_backward:
      return n_pairs * workspace_bytes<Dual<T>>(Kernel::backward);
    case Pass::jacobian:
      return n_pairs * workspace_bytes<T>(Kernel::jacobian);
  }
  return 0;
}

// Queue one pass on the stream. All pointers are to device memory; nothing is allocated, copied or
// waited for. cudaErrorInvalidConfiguration: the angular functions do not fit into shared memory.
template <class Formula, class T>
cudaError_t symmetry_sum(const Formula& formula, const SymmetryPass<T>& pass, Pass kind,
                         std::byte* workspace, cudaStream_t stream) {
  const SymmetryLayouts<T> layouts(pass.tables);
  const auto queue = [&](auto kernel, const SymmetryLayout& layout) {
    return launch(kernel, layout.launch_shape(pass.atoms.n_centers), stream, formula, pass, layout,
                  workspace);
  };
  switch (kind) {
    case Pass::forward:
      return queue(symmetry_forward<Formula, T>, layouts.forward());
    case Pass::backward:
      return queue(symmetry_backward<Formula, T>, layouts.backward());
    case Pass::jvp:
      return queue(symmetry_forward<Formula, Dual<T>>, layouts.jvp());
    case Pass::double_backward: {
      const cudaError_t error = queue(symmetry_forward<Formula, Dual<T>>, layouts.jvp());
      if (error != cudaSuccess) return error;
      return queue(symmetry_backward<Formula, Dual<T>>, layouts.curvature());
    }
    case Pass::jacobian:
      return queue(symmetry_jacobian<Formula, T>, layouts.jacobian());
  }
  return cudaErrorInvalidValue;
}

}  // namespace pymlp::cuda
