// torch.ops.pymlp.all_pairs on the CPU: the full neighbour list of isolated structures, every atom
// against every other of its structure. For molecules; cell_list serves periodic and large systems.
#include <atomic>
#include <cmath>
#include <optional>

#include "allocation.h"
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
        const T square = x * x + y * y + z * z;
        if (i != j && (everything || square < limit)) take(i, j, square);
      }
    }
  }
}

// Names the first atom that is not finite, or the first two that coincide.
template <class T>
void refuse_structure(const T* positions, const int64_t* offsets, int64_t structure) {
  const int64_t begin = offsets[structure];
  for (int64_t x = 3 * begin; x < 3 * offsets[structure + 1]; ++x) {
    if (!std::isfinite(positions[x])) refuse_not_finite(x / 3);
  }
  for_each_pair(positions, offsets, structure, structure + 1, 2 * kCoincident,
                [&](int64_t i, int64_t j, T square) {
                  if (!(square >= T(kCoincident * kCoincident))) {
                    refuse_coincident(structure, i - begin, j - begin, std::sqrt(square));
                  }
                });
}

std::tuple<Tensor, Tensor, Tensor> all_pairs(Tensor positions, Tensor structure_offsets,
                                             double cutoff, std::optional<int64_t> n_pairs) {
  check_pair_search(positions, structure_offsets, cutoff);
  positions = torch::stable::contiguous(positions);
  structure_offsets = torch::stable::contiguous(structure_offsets);

  const int64_t atoms = positions.size(0), structures = structure_offsets.size(0) - 1;
  const int64_t* offsets = structure_offsets.const_data_ptr<int64_t>();
  check_structures(offsets, structures, atoms);

  Tensor pair_offsets = torch::stable::new_empty(structure_offsets, {atoms + 1});
  int64_t* first = pair_offsets.mutable_data_ptr<int64_t>();
  constexpr int64_t kStructuresPerThread = 32;
  Tensor centers, neighbors;
  const auto run = [&]<class T>(T) {
    const T* r = positions.const_data_ptr<T>();
    std::fill(first, first + atoms + 1, 0);
    std::atomic<int64_t> refused{structures};  // the first of those that are
    torch::stable::parallel_for(
        0, structures, kStructuresPerThread, [&](int64_t begin, int64_t end) {
          for (int64_t b = begin; b < end; ++b) {
            T total = 0;  // finite only if all its terms are
            for (int64_t x = 3 * offsets[b]; x < 3 * offsets[b + 1]; ++x) total += r[x];
            bool apart = std::isfinite(total);
            for_each_pair(r, offsets, b, b + 1, cutoff, [&](int64_t i, int64_t, T square) {
              ++first[i + 1];
              apart = apart && square >= T(kCoincident * kCoincident);
            });
            if (apart) continue;
            int64_t earliest = refused;
            while (b < earliest && !refused.compare_exchange_weak(earliest, b)) {
            }
            break;
          }
        });
    if (refused < structures) refuse_structure(r, offsets, refused);
    for (int64_t i = 0; i < atoms; ++i) first[i + 1] += first[i];
    require(n_pairs.value_or(first[atoms]) == first[atoms], "n_pairs: expected P = ", first[atoms],
            " or none, got ", n_pairs.value_or(0));
    centers = allocate(structure_offsets, "centers", {first[atoms]});
    neighbors = allocate(structure_offsets, "neighbors", {first[atoms]});
    int64_t* center = centers.mutable_data_ptr<int64_t>();
    int64_t* neighbor = neighbors.mutable_data_ptr<int64_t>();
    torch::stable::parallel_for(
        0, structures, kStructuresPerThread, [&](int64_t begin, int64_t end) {
          if (begin >= end) return;
          int64_t p = first[offsets[begin]];
          for_each_pair(r, offsets, begin, end, cutoff, [&](int64_t i, int64_t j, T) {
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
