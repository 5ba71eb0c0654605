// torch.ops.pymlp.cell_list on the CPU, which the one on CUDA asks where its kernels do not serve.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <tuple>

namespace pymlp {

std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor> cell_list_on_cpu(
    torch::stable::Tensor positions, torch::stable::Tensor structure_offsets,
    torch::stable::Tensor cell, torch::stable::Tensor pbc, double cutoff);

}  // namespace pymlp
