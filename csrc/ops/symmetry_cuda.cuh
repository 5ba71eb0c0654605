// Queues a symmetry-function kernel on torch's current CUDA stream. Nothing is copied to the host
// or waited for, so calls can be captured in a CUDA graph; index values are therefore not looked
// at.
#pragma once

#include "../loops/cuda/symmetry_sum.cuh"
#include "cuda_stream.cuh"
#include "symmetry_functions.h"

namespace pymlp {

template <class Formula, class T>
void run_on_cuda(const Formula& formula, const SymmetryPass<T>& pass, Pass kind, int64_t n_pairs,
                 const Tensor& like) {
  const cuda::SymmetryLayouts<T> layouts(pass.tables);
  require(layouts.fits(kind),
          "products: the parameters of one centre must fit into the shared memory of a GPU block, ",
          cuda::kSharedBytes, " bytes; got D = ", pass.tables.n_distances,
          " distance factors, Z = ", pass.tables.n_angles,
          " angle factors, S = ", pass.tables.n_angular,
          " products, n_channels = ", pass.tables.n_channels,
          ". Split the descriptor or move it to the CPU");
  const CudaScope scope(like);
  const int64_t bytes = cuda::symmetry_workspace<T>(kind, n_pairs);
  const Tensor workspace = torch::stable::new_empty(like, {bytes}, ScalarType::Byte);
  auto* memory = static_cast<std::byte*>(workspace.mutable_data_ptr());
  check_cuda(cuda::symmetry_sum(formula, pass, kind, memory, scope.stream()));
}

}  // namespace pymlp
