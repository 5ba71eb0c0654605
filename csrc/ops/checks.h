// Refuses what a kernel could not survive. std::invalid_argument arrives in Python as a ValueError;
// the message names the argument, what was expected and what came.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <iomanip>
#include <sstream>
#include <stdexcept>
#include <string>

namespace pymlp {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

template <class... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) refuse(parts...);
}

inline std::string shape_of(const Tensor& tensor) {
  std::ostringstream out;
  out << "[";
  for (int64_t i = 0; i < tensor.dim(); ++i) out << (i > 0 ? ", " : "") << tensor.size(i);
  out << "]";
  return out.str();
}

inline std::string device_of(const Tensor& tensor) {
  return tensor.is_cpu() ? "cpu" : "cuda:" + std::to_string(tensor.get_device_index());
}

// Shape with -1 for "any". What a message needs is made only when there is one: an op on one
// molecule takes less time than ten strings.
inline void require_shape(const Tensor& tensor, const char* name,
                          std::initializer_list<int64_t> shape, const char* expected) {
  bool same = tensor.dim() == static_cast<int64_t>(shape.size());
  int64_t axis = 0;
  for (const int64_t size : shape) {
    same = same && (size < 0 || tensor.size(axis) == size);
    ++axis;
  }
  if (!same) refuse(name, ": expected shape ", expected, ", got ", shape_of(tensor));
}

inline void require_device(const Tensor& tensor, const char* name, const Tensor& reference,
                           const char* reference_name) {
  if (tensor.device() == reference.device()) return;
  refuse(name, ": expected the device of ", reference_name, ", ", device_of(reference), ", got ",
         device_of(tensor));
}

inline void require_like(const Tensor& tensor, const char* name, const Tensor& reference,
                         const char* reference_name = "displacements") {
  if (tensor.scalar_type() != reference.scalar_type()) {
    refuse(name, ": expected the dtype of ", reference_name, ", ",
           torch::headeronly::toString(reference.scalar_type()), ", got ",
           torch::headeronly::toString(tensor.scalar_type()));
  }
  require_device(tensor, name, reference, reference_name);
}

inline void require_int64(const Tensor& tensor, const char* name) {
  if (tensor.scalar_type() == ScalarType::Long) return;
  refuse(name, ": expected dtype int64, got ", torch::headeronly::toString(tensor.scalar_type()));
}

inline void require_index(const Tensor& tensor, const char* name, const Tensor& reference,
                          const char* reference_name = "displacements") {
  require_int64(tensor, name);
  require_device(tensor, name, reference, reference_name);
}

inline void require_float(const Tensor& tensor, const char* name) {
  if (tensor.scalar_type() == ScalarType::Float || tensor.scalar_type() == ScalarType::Double) {
    return;
  }
  refuse(name, ": expected dtype float32 or float64, got ",
         torch::headeronly::toString(tensor.scalar_type()));
}

// Whether all values are 0 ... limit - 1: the sign of v or of limit - 1 - v tells, without a
// comparison (46 310 neighbours 9 us, their largest 27).
inline bool all_within(const int64_t* values, int64_t count, int64_t limit) {
  uint64_t outside = 0;
  const auto last = static_cast<uint64_t>(limit - 1);
  for (int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<uint64_t>(values[i]);
    outside |= value | (last - value);
  }
  return static_cast<int64_t>(outside) >= 0;
}

// The arguments of all_pairs, on any device.
inline void check_pair_search(const Tensor& positions, const Tensor& structure_offsets,
                              double cutoff) {
  require_float(positions, "positions");
  require_shape(positions, "positions", {-1, 3}, "[A, 3]");
  require_shape(structure_offsets, "structure_offsets", {-1}, "[B + 1]");
  require_index(structure_offsets, "structure_offsets", positions, "positions");
  require(cutoff > 0, "cutoff: expected a positive length or infinity, got ", cutoff);
  require(structure_offsets.size(0) > 0,
          "structure_offsets: expected B + 1 >= 1 elements, got none");
}

// The arguments of cell_list, on any device.
inline void check_cell_search(const Tensor& positions, const Tensor& structure_offsets,
                              const Tensor& cell, const Tensor& pbc, double cutoff) {
  check_pair_search(positions, structure_offsets, cutoff);
  const int64_t n_structures = structure_offsets.size(0) - 1;
  require(std::isfinite(cutoff), "cutoff: expected a finite length, got infinity");
  require_shape(cell, "cell", {n_structures, 3, 3}, "[B, 3, 3]");
  require_like(cell, "cell", positions, "positions");
  require_shape(pbc, "pbc", {n_structures, 3}, "[B, 3]");
  require(pbc.scalar_type() == ScalarType::Bool, "pbc: expected dtype bool");
  require_device(pbc, "pbc", positions, "positions");
}

// Atoms closer than this (Angstrom) are one atom written twice, and have no direction between them.
constexpr double kCoincident = 1e-6;

[[noreturn]] inline void refuse_coincident(int64_t structure, int64_t i, int64_t j,
                                           double distance) {
  refuse("structure ", structure, ": atoms ", i < j ? i : j, " and ", i < j ? j : i,
         " coincide (distance ", std::scientific, std::setprecision(1), distance, " Å)");
}

[[noreturn]] inline void refuse_not_finite(int64_t atom) {
  refuse("positions must be finite, got NaN or Inf at atom ", atom, " of the batch");
}

inline void check_structures(const int64_t* offsets, int64_t structures, int64_t atoms) {
  bool ascending = offsets[0] == 0 && offsets[structures] == atoms;
  for (int64_t b = 0; b < structures; ++b) ascending = ascending && offsets[b] <= offsets[b + 1];
  require(ascending, "structure_offsets: expected to ascend from 0 to A = ", atoms);
}

}  // namespace pymlp
