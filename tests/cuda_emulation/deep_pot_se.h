// One case of the DeepPot-SE ops: all passes of the environment matrix, of the contraction and of
// the contraction from a table.
#pragma once

#include "cases.h"
#include "loops/cuda/contraction.cuh"
#include "loops/cuda/environment_matrix.cuh"

namespace pymlp {

template <class T>
void run_environment(Reader& in, Writer& out) {
  EnvironmentPass<T> pass{};
  pass.n_pairs = in.value<int64_t>();
  pass.switch_function = static_cast<int>(in.value<int64_t>());
  pass.switch_start = in.value<double>();
  pass.cutoff = in.value<double>();
  const int64_t n = pass.n_pairs;
  const auto displacements = in.array<T>(3 * n), grad = in.array<T>(4 * n);
  const auto tangents = in.array<T>(3 * n);
  pass.displacements = displacements.get();
  pass.grad_rows = grad.get();
  pass.tangents = tangents.get();
  for (const Pass kind :
       {Pass::forward, Pass::backward, Pass::jvp, Pass::double_backward, Pass::jacobian}) {
    const auto rows = unwritten<T>(4 * n), vectors = unwritten<T>(3 * n);
    const auto jacobian = unwritten<T>(12 * n);
    pass.rows = rows.get();
    pass.grad_displacements = vectors.get();
    pass.jacobian = jacobian.get();
    cuda::environment_matrix(pass, kind, nullptr);
    if (kind == Pass::jacobian) {
      out.array(jacobian, 12 * n);
      continue;
    }
    if (kind != Pass::backward) out.array(rows, 4 * n);
    if (kind != Pass::forward && kind != Pass::jvp) out.array(vectors, 3 * n);
  }
}

template <class T>
void run_contraction(Reader& in, Writer& out) {
  ContractionPass<T> pass{};
  pass.n_centers = in.value<int64_t>();
  const auto n_pairs = in.value<int64_t>();
  pass.n_functions = in.value<int64_t>();
  pass.n_axis = in.value<int64_t>();
  const int64_t functions = n_pairs * pass.n_functions;
  const int64_t size = pass.n_centers * pass.n_functions * pass.n_axis;
  const auto offsets = in.array<int64_t>(pass.n_centers + 1), rows = in.array<int64_t>(n_pairs);
  const auto embedding = in.array<T>(functions), environment = in.array<T>(4 * n_pairs);
  const auto grad = in.array<T>(size), along = in.array<T>(functions);
  const auto across = in.array<T>(4 * n_pairs);
  pass.pair_offsets = offsets.get();
  pass.pair_rows = rows.get();
  pass.embedding = embedding.get();
  pass.environment = environment.get();
  pass.grad_features = grad.get();
  pass.embedding_tangents = along.get();
  pass.environment_tangents = across.get();
  for (const Pass kind : {Pass::forward, Pass::backward, Pass::double_backward}) {
    const auto features = unwritten<T>(size), by_function = unwritten<T>(functions);
    const auto by_number = unwritten<T>(4 * n_pairs);
    pass.features = features.get();
    pass.grad_embedding = by_function.get();
    pass.grad_environment = by_number.get();
    cuda::contraction(pass, kind, nullptr);
    if (kind != Pass::backward) out.array(features, size);
    if (kind == Pass::forward) continue;
    out.array(by_function, functions);
    out.array(by_number, 4 * n_pairs);
  }
}

template <class T>
void run_table(Reader& in, Writer& out) {
  TablePass<T> pass{};
  pass.n_centers = in.value<int64_t>();
  const auto n_pairs = in.value<int64_t>(), n_kinds = in.value<int64_t>();
  pass.n_functions = in.value<int64_t>();
  pass.n_axis = in.value<int64_t>();
  pass.n_intervals = in.value<int64_t>();
  pass.stride = in.value<int64_t>();
  pass.first = in.value<double>();
  pass.width = in.value<double>();
  const int64_t size = pass.n_centers * pass.n_functions * pass.n_axis;
  const auto offsets = in.array<int64_t>(pass.n_centers + 1), kinds = in.array<int64_t>(n_pairs);
  const auto environment = in.array<T>(4 * n_pairs);
  const auto table = in.array<T>(n_kinds * pass.n_intervals * kTableTerms * pass.stride);
  const auto grad = in.array<T>(size);
  pass.pair_offsets = offsets.get();
  pass.pair_kinds = kinds.get();
  pass.environment = environment.get();
  pass.table = table.get();
  pass.grad_features = grad.get();
  const auto features = unwritten<T>(size), by_number = unwritten<T>(4 * n_pairs);
  pass.features = features.get();
  pass.grad_environment = by_number.get();
  cuda::contraction_from_table(pass, Pass::forward, nullptr);
  cuda::contraction_from_table(pass, Pass::backward, nullptr);
  out.array(features, size);
  out.array(by_number, 4 * n_pairs);
}

}  // namespace pymlp
