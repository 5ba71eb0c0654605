// Uninitialised tensors for what ops return.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <initializer_list>
#include <optional>

namespace pymlp {

// On the device of `like`, and of its dtype where none is given. A tensor that memory does not
// suffice for is refused with its `name` and size.
torch::stable::Tensor allocate(const torch::stable::Tensor& like, const char* name,
                               std::initializer_list<int64_t> shape,
                               std::optional<torch::headeronly::ScalarType> dtype = std::nullopt);

}  // namespace pymlp
