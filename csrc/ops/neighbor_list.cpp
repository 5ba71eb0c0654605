// torch.ops.pymlp.all_pairs on the CPU: the full neighbour list of isolated structures, every atom
// against every other of its structure. For molecules; cell_list serves periodic and large systems.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <vector>

#include "allocation.h"
#include "checks.h"

namespace pymlp {
namespace {

// Finds the pairs of a structure in one pass, without a branch that depends on them (256 molecules
// of 14 atoms: 167 -> 134 us).
template <class T>
class PairSearch {
 public:
  PairSearch(const T* positions, const int64_t* offsets, double cutoff)
      : positions_(positions), offsets_(offsets), everything_(std::isinf(cutoff)) {
    limit_ = everything_ ? T(0) : T(cutoff * cutoff);
  }

  // Adds the neighbours of all atoms of a structure, as they are numbered within it, and sets
  // counts[atom]. False where an atom is not finite or coincides with another one.
  bool add(int64_t structure, std::vector<int32_t>& neighbors, int64_t* counts) {
    const int64_t begin = offsets_[structure], n = offsets_[structure + 1] - begin;
    const T* r = positions_ + 3 * begin;
    const auto size = static_cast<size_t>(n);
    for (auto& axis : axes_) axis.resize(size);
    squares_.resize(size);
    T total = 0;  // finite only if all its terms are
    for (int64_t i = 0; i < n; ++i) {
      for (int x = 0; x < 3; ++x) {
        axes_[x][static_cast<size_t>(i)] = r[3 * i + x];
        total += r[3 * i + x];
      }
    }
    bool apart = std::isfinite(total);
    for (int64_t i = 0; i < n; ++i) {
      apart = measure(r + 3 * i, n) && apart;
      const size_t used = neighbors.size();
      neighbors.resize(used + size);  // grows by doubling
      int32_t* to = neighbors.data() + used;
      const int32_t* first = to;
      for (int64_t j = 0; j < n; ++j) {
        *to = static_cast<int32_t>(j);
        to += (everything_ || squares_[static_cast<size_t>(j)] < limit_) && j != i;
      }
      counts[begin + i] = to - first;
      neighbors.resize(used + static_cast<size_t>(to - first));
    }
    return apart;
  }

 private:
  const T* positions_;
  const int64_t* offsets_;
  bool everything_;
  T limit_;
  std::vector<T> axes_[3], squares_;

  // Squared distances of all atoms from one at r; false where another one is too near.
  bool measure(const T* r, int64_t n) {
    const T x = r[0], y = r[1], z = r[2];
    const T *xs = axes_[0].data(), *ys = axes_[1].data(), *zs = axes_[2].data();
    T* squares = squares_.data();
    int64_t near = 0;
    for (int64_t j = 0; j < n; ++j) {
      const T a = xs[j] - x, b = ys[j] - y, c = zs[j] - z;
      squares[j] = a * a + b * b + c * c;
      near += !(squares[j] >= T(kCoincident * kCoincident));
    }
    return near == 1;
  }
};

// Names the first atom that is not finite, or the first two that coincide.
template <class T>
void refuse_structure(const T* positions, const int64_t* offsets, int64_t structure) {
  const int64_t begin = offsets[structure], end = offsets[structure + 1];
  for (int64_t x = 3 * begin; x < 3 * end; ++x) {
    if (!std::isfinite(positions[x])) refuse_not_finite(x / 3);
  }
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t j = begin; j < end; ++j) {
      T square = 0;
      for (int x = 0; x < 3; ++x) {
        const T d = positions[3 * j + x] - positions[3 * i + x];
        square += d * d;
      }
      if (i == j || square >= T(kCoincident * kCoincident)) continue;
      refuse_coincident(structure, i - begin, j - begin, std::sqrt(square));
    }
  }
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
  // A thread takes as many structures at a time, and keeps what it finds until the number is known.
  constexpr int64_t kStructures = 32;
  const int64_t parts = (structures + kStructures - 1) / kStructures;
  Tensor centers, neighbors;
  const auto run = [&]<class T>(T) {
    const T* r = positions.const_data_ptr<T>();
    first[0] = 0;
    std::vector<std::vector<int32_t>> found(static_cast<size_t>(parts));
    std::atomic<int64_t> refused{structures};  // the first of those that are
    const auto structures_of = [&](int64_t part, auto body) {
      const int64_t end = std::min(structures, (part + 1) * kStructures);
      for (int64_t b = part * kStructures; b < end; ++b) body(b);
    };
    torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      PairSearch<T> search(r, offsets, cutoff);
      for (int64_t part = begin; part < end; ++part) {
        auto& own = found[static_cast<size_t>(part)];
        structures_of(part, [&](int64_t b) {
          if (search.add(b, own, first + 1)) return;
          int64_t earliest = refused;
          while (b < earliest && !refused.compare_exchange_weak(earliest, b)) {
          }
        });
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
    torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        const int32_t* own = found[static_cast<size_t>(part)].data();
        structures_of(part, [&](int64_t b) {
          for (int64_t i = offsets[b]; i < offsets[b + 1]; ++i) {
            for (int64_t p = first[i]; p < first[i + 1]; ++p) {
              center[p] = i;
              neighbor[p] = offsets[b] + *own++;
            }
          }
        });
      }
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
