// torch.ops.pymlp.all_pairs on the CPU: the full neighbour list of isolated structures, every atom
// against every other of its structure. For molecules; vesin serves periodic and large systems.
#include <cmath>

#include "checks.h"

namespace pymlp {
namespace {

// Calls take(center, neighbor) for all pairs of the structures [begin, end) within the cutoff, by
// centre, then by neighbour. A structure belongs to one thread.
template <class T, class Take>
void for_each_pair(const T* positions, const int64_t* offsets, int64_t begin, int64_t end,
                   double cutoff, Take take) {
  const bool everything = std::isinf(cutoff);
  const T limit = everything ? T(0) : T(cutoff * cutoff);
  for (int64_t b = begin; b < end; ++b) {
    for (int64_t i = offsets[b]; i < offsets[b + 1]; ++i) {
      const T* r = positions + 3 * i;
      for (int64_t j = offsets[b]; j < offsets[b + 1]; ++j) {
        const T* s = positions + 3 * j;
        const T x = s[0] - r[0], y = s[1] - r[1], z = s[2] - r[2];
        if (i != j && (everything || x * x + y * y + z * z < limit)) take(i, j);
      }
    }
  }
}

std::tuple<Tensor, Tensor, Tensor> all_pairs(Tensor positions, Tensor structure_offsets,
                                             double cutoff) {
  check_pair_search(positions, structure_offsets, cutoff);
  positions = torch::stable::contiguous(positions);
  structure_offsets = torch::stable::contiguous(structure_offsets);

  const int64_t atoms = positions.size(0), structures = structure_offsets.size(0) - 1;
  const int64_t* offsets = structure_offsets.const_data_ptr<int64_t>();
  bool ascending = offsets[0] == 0 && offsets[structures] == atoms;
  for (int64_t b = 0; b < structures; ++b) ascending = ascending && offsets[b] <= offsets[b + 1];
  require(ascending, "structure_offsets: expected to ascend from 0 to A = ", atoms);

  Tensor pair_offsets = torch::stable::new_empty(structure_offsets, {atoms + 1});
  int64_t* first = pair_offsets.mutable_data_ptr<int64_t>();
  constexpr int64_t kStructuresPerThread = 32;
  Tensor centers, neighbors;
  const auto run = [&]<class T>(T) {
    const T* r = positions.const_data_ptr<T>();
    std::fill(first, first + atoms + 1, 0);
    torch::stable::parallel_for(0, structures, kStructuresPerThread,
                                [&](int64_t begin, int64_t end) {
                                  for_each_pair(r, offsets, begin, end, cutoff,
                                                [&](int64_t i, int64_t) { ++first[i + 1]; });
                                });
    for (int64_t i = 0; i < atoms; ++i) first[i + 1] += first[i];
    centers = torch::stable::new_empty(structure_offsets, {first[atoms]});
    neighbors = torch::stable::new_empty(structure_offsets, {first[atoms]});
    int64_t* center = centers.mutable_data_ptr<int64_t>();
    int64_t* neighbor = neighbors.mutable_data_ptr<int64_t>();
    torch::stable::parallel_for(
        0, structures, kStructuresPerThread, [&](int64_t begin, int64_t end) {
          if (begin >= end) return;
          int64_t p = first[offsets[begin]];
          for_each_pair(r, offsets, begin, end, cutoff, [&](int64_t i, int64_t j) {
            center[p] = i;
            neighbor[p] = j;
            ++p;
          });
        });
  };
  if (positions.scalar_type() == ScalarType::Float) {
    run(float{});
  } else {
    run(double{});
  }
  return {pair_offsets, centers, neighbors};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) { m.impl("all_pairs", TORCH_BOX(&all_pairs)); }

}  // namespace pymlp
