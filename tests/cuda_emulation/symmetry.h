// One case of a symmetry-function family through all passes.
#pragma once

#include "cases.h"
#include "loops/cuda/symmetry_sum.cuh"

namespace pymlp {

template <class T, class Out>
void run_symmetry(bool ani, bool with_jacobian, Reader& in, Out& out) {
  SymmetryPass<T> pass{};
  auto& atoms = pass.atoms;
  auto& tables = pass.tables;
  atoms.n_centers = in.value<int64_t>();
  const auto n_pairs = in.value<int64_t>(), n_types = in.value<int64_t>();
  tables.n_channels = in.value<int64_t>();
  tables.n_sets = in.value<int64_t>();
  tables.n_radial = in.value<int64_t>();
  tables.n_distances = in.value<int64_t>();
  tables.n_angles = in.value<int64_t>();
  tables.n_angular = in.value<int64_t>();
  tables.cutoff_function = static_cast<int>(in.value<int64_t>());
  tables.jk_factors = in.value<int64_t>() != 0;
  tables.radial_cutoff = in.value<double>();
  tables.angular_cutoff = in.value<double>();
  tables.cosine_scale = in.value<double>();
  const int64_t n_features = tables.n_features();

  const auto displacements = in.array<T>(3 * n_pairs);
  const auto pair_offsets = in.array<int64_t>(atoms.n_centers + 1);
  const auto neighbors = in.array<int64_t>(n_pairs);
  const auto types = in.array<int64_t>(atoms.n_centers);
  const auto channels = in.array<int64_t>(n_types);
  const auto weights = in.array<T>(n_types);
  const auto radial = in.array<T>(3 * tables.n_sets * tables.n_radial);
  const auto distances = in.array<T>(2 * tables.n_distances);
  const auto angles = in.array<T>(3 * tables.n_angles);
  const auto products = in.array<int64_t>(2 * tables.n_sets * tables.n_angular);
  const auto grad_features = in.array<T>(atoms.n_centers * n_features);
  const auto tangents = in.array<T>(3 * n_pairs);
  atoms.displacements = displacements.get();
  atoms.pair_offsets = pair_offsets.get();
  atoms.neighbors = neighbors.get();
  atoms.types = types.get();
  atoms.channels = channels.get();
  atoms.weights = weights.get();
  tables.radial = radial.get();
  tables.distances = distances.get();
  tables.angles = angles.get();
  tables.products = products.get();

  const auto run = [&](Pass kind, const SymmetryPass<T>& p) {
    const auto workspace = unwritten<unsigned char>(cuda::symmetry_workspace<T>(kind, n_pairs));
    auto* memory = reinterpret_cast<std::byte*>(workspace.get());
    const Cutoff<T> pair_cutoff{T(tables.angular_cutoff),
                                static_cast<CutoffFunction>(tables.cutoff_function)};
    const cudaError_t error =
        ani ? cuda::symmetry_sum(Ani<T>{T(tables.cosine_scale)}, p, kind, memory, nullptr)
            : cuda::symmetry_sum(BehlerParrinello<T>{pair_cutoff, tables.jk_factors}, p, kind,
                                 memory, nullptr);
    if (error != cudaSuccess) {
      std::fprintf(stderr, "launch: error %d\n", error);
      std::exit(4);
    }
  };
  // Pointers that a pass does not use are null, as they are under torch.
  const int64_t n_rows = atoms.n_centers * n_features;
  {
    const auto features = unwritten<T>(n_rows);
    SymmetryPass<T> p = pass;
    p.features = features.get();
    run(Pass::forward, p);
    out.array(features, n_rows);
    out.end_of_pass("forward");
  }
  {
    const auto vjp = unwritten<T>(3 * n_pairs);
    SymmetryPass<T> p = pass;
    p.grad_features = grad_features.get();
    p.grad_displacements = vjp.get();
    run(Pass::backward, p);
    out.array(vjp, 3 * n_pairs);
    out.end_of_pass("backward");
  }
  {
    const auto jvp = unwritten<T>(n_rows);
    SymmetryPass<T> p = pass;
    p.tangents = tangents.get();
    p.features = jvp.get();
    run(Pass::jvp, p);
    out.array(jvp, n_rows);
    out.end_of_pass("jvp");
  }
  {
    const auto jvp = unwritten<T>(n_rows), curvature = unwritten<T>(3 * n_pairs);
    SymmetryPass<T> p = pass;
    p.tangents = tangents.get();
    p.grad_features = grad_features.get();
    p.features = jvp.get();
    p.grad_displacements = curvature.get();
    run(Pass::double_backward, p);
    out.array(jvp, n_rows);
    out.array(curvature, 3 * n_pairs);
    out.end_of_pass("double_backward");
  }
  if (with_jacobian) {
    const auto jacobian = unwritten<T>(3 * n_pairs * n_features);
    SymmetryPass<T> p = pass;
    p.jacobian = jacobian.get();
    run(Pass::jacobian, p);
    out.array(jacobian, 3 * n_pairs * n_features);
    out.end_of_pass("jacobian");
  }
}

}  // namespace pymlp
