// torch.ops.pymlp.pair_differences, image_differences and the adjoint on CUDA. Queued on torch's
// current stream; the host waits for nothing, so that calls can be captured in a CUDA graph, and
// index values are not looked at: a pair of an atom or cell that there is not gives NaN.
#include "../loops/cuda/pair_differences.cuh"
#include "cuda_stream.cuh"
#include "pair_checks.h"

namespace pymlp {
namespace {

using torch::stable::contiguous;

cuda::PairRows rows_of(const Tensor& pair_offsets, const Tensor& neighbors) {
  return {pair_offsets.size(0) - 1, neighbors.size(0), pair_offsets.const_data_ptr<int64_t>(),
          neighbors.const_data_ptr<int64_t>()};
}

Tensor pair_differences(Tensor positions, Tensor pair_offsets, Tensor neighbors) {
  check_pair_differences(positions, pair_offsets, neighbors);
  positions = contiguous(positions);
  pair_offsets = contiguous(pair_offsets);
  neighbors = contiguous(neighbors);
  const CudaScope scope(positions);
  const Tensor out = torch::stable::new_empty(positions, {neighbors.size(0), 3});
  as_float_or_double(positions, [&]<class T>(T) {
    check_cuda(cuda::pair_differences(rows_of(pair_offsets, neighbors),
                                      positions.const_data_ptr<T>(), out.mutable_data_ptr<T>(),
                                      scope.stream()));
  });
  return out;
}

Tensor image_differences(Tensor positions, Tensor cell, Tensor structure_index, Tensor pair_offsets,
                         Tensor neighbors, Tensor shifts) {
  check_image_differences(positions, cell, structure_index, pair_offsets, neighbors, shifts);
  positions = contiguous(positions);
  cell = contiguous(cell);
  structure_index = contiguous(structure_index);
  pair_offsets = contiguous(pair_offsets);
  neighbors = contiguous(neighbors);
  shifts = contiguous(shifts);
  const CudaScope scope(positions);
  const Tensor out = torch::stable::new_empty(positions, {neighbors.size(0), 3});
  as_float_or_double(positions, [&]<class T>(T) {
    const cuda::PairImages<T> images{cell.const_data_ptr<T>(),
                                     structure_index.const_data_ptr<int64_t>(), cell.size(0),
                                     shifts.const_data_ptr<int32_t>()};
    check_cuda(cuda::image_differences(rows_of(pair_offsets, neighbors),
                                       positions.const_data_ptr<T>(), images,
                                       out.mutable_data_ptr<T>(), scope.stream()));
  });
  return out;
}

Tensor pair_differences_backward(Tensor grad_output, Tensor pair_offsets, Tensor neighbors) {
  check_pair_gradients(grad_output, pair_offsets, neighbors);
  grad_output = contiguous(grad_output);
  pair_offsets = contiguous(pair_offsets);
  neighbors = contiguous(neighbors);
  const CudaScope scope(grad_output);
  const Tensor out = torch::stable::new_empty(grad_output, {pair_offsets.size(0) - 1, 3});
  const Tensor one_way = torch::stable::new_empty(grad_output, {1}, ScalarType::Int);
  int* flag = one_way.mutable_data_ptr<int>();
  check_cuda(cudaMemsetAsync(flag, 0, sizeof(int), scope.stream()));
  as_float_or_double(grad_output, [&]<class T>(T) {
    check_cuda(cuda::pair_differences_backward(rows_of(pair_offsets, neighbors),
                                               grad_output.const_data_ptr<T>(),
                                               out.mutable_data_ptr<T>(), flag, scope.stream()));
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CUDA, m) {
  m.impl("pair_differences", TORCH_BOX(&pair_differences));
  m.impl("image_differences", TORCH_BOX(&image_differences));
  m.impl("pair_differences_backward", TORCH_BOX(&pair_differences_backward));
}

}  // namespace pymlp
