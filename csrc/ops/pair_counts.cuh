// From how many pairs each atom has to where they begin, and to the host.
#pragma once

#include <array>

#include "cuda_stream.cuh"

namespace pymlp {

inline Tensor running_sums(const Tensor& counts) {
  using torch::stable::detail::from;
  std::array<StableIValue, 3> stack{from(counts), from(int64_t(0)), from(std::nullopt)};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::cumsum", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// One value of a device array, once the stream has got that far.
template <class Value>
Value read_back(const Value* from, cudaStream_t stream) {
  Value value{};
  check_cuda(cudaMemcpyAsync(&value, from, sizeof(value), cudaMemcpyDeviceToHost, stream));
  check_cuda(cudaStreamSynchronize(stream));
  return value;
}

}  // namespace pymlp
