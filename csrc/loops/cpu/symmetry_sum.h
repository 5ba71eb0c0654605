// One centre after the other: stage its neighbours, sum over pairs, sum over triples. This is the
// CPU kernel of every symmetry-function descriptor; a thread owns a range of centres and nobody
// else writes their features or the gradients of their pairs, so that results repeat bit for bit.
//
// The double backward is not written: it is forward and backward run on Dual numbers, both in one
// walk (ANI, 256 x 14 atoms: 9.5 -> 7.5 ms).
#pragma once

#include "pair_sum.h"
#include "row_sum.h"
#include "triple_sum.h"

namespace pymlp::inline PYMLP_SIMD {

// Whether the triples of a centre are summed with those of its molecule, see row_sum.h.
template <class Formula, class T>
bool molecules_pay(const Formula& formula, const SymmetryTables<T>& tables, Pass kind) {
  return Formula::kPairsShared && formula.with_cutoff_jk() && tables.n_angular > 0 &&
         kind != Pass::jacobian;
}

template <class Formula, class N>
class SymmetrySum {
 public:
  using T = Scalar<N>;
  static constexpr int kLanes = Lanes<T>::count;

  SymmetrySum(const Formula& formula, const SymmetryPass<T>& pass, Pass kind, int64_t max_centers,
              int64_t max_pairs, Arena& arena)
      : formula_(formula), atoms_(pass.atoms), tables_(pass.tables) {
    n_channels_ = tables_.n_channels;
    n_features_ = tables_.n_features();
    const auto function = static_cast<CutoffFunction>(tables_.cutoff_function);
    const bool angular_alone = tables_.n_radial == 0, radial_alone = tables_.n_angular == 0;
    radial_cutoff_ = {T(angular_alone ? tables_.angular_cutoff : tables_.radial_cutoff), function};
    angular_cutoff_ = {T(radial_alone ? tables_.radial_cutoff : tables_.angular_cutoff), function};
    radial_.place(arena, tables_.n_radial);
    angular_.place(arena, tables_);
    const bool one_cutoff = radial_cutoff_.radius == angular_cutoff_.radius;
    gathered_.place(arena, max_pairs, max_centers, n_channels_, one_cutoff);
    triples_.place(arena, formula_, angular_, n_channels_, max_pairs, kind);
    const bool with_adjoints = kind != Pass::forward && kind != Pass::jvp;
    if constexpr (Formula::kPairsShared) {
      with_molecules_ = molecules_pay(formula, pass.tables, kind);
      if (with_molecules_) {
        molecule_.place(arena, max_pairs, n_channels_, one_cutoff, angular_.n_distances);
        rows_.place(arena, angular_, molecule_.most_atoms(), with_adjoints);
      }
    }
    if (!with_adjoints) return;
    grad_.place(arena, max_pairs + 1);
    row_ = arena.take<T>(rounded_up(tables_.n_radial, kLanes));
    sums_.place(arena, (max_pairs + kLanes) * kLanes);
  }

  // Features, gradients, or both of one stroke, of the centres [begin, end).
  template <bool with_features, bool with_adjoints>
  void run(const SymmetryPass<T>& pass, int64_t begin, int64_t end) {
    stage(pass.tangents, begin, end);
    T* out = with_features ? pass.features + begin * n_features_ : nullptr;
    const T* g = with_adjoints ? pass.grad_features + begin * n_features_ : nullptr;
    const int64_t angular_at = n_channels_ * radial_.count;
    if constexpr (Formula::kPairsShared) {
      // First, so that its last sums are there when add_gradients asks for them.
      if (in_molecule_) {
        rows_.template run<with_features, with_adjoints>(
            formula_, molecule_, molecule_.row_of(begin), angular_, n_channels_, out + angular_at,
            g + angular_at);
      }
    }
    if constexpr (with_adjoints) grad_.clear(staged_.count + kLanes);
    if constexpr (with_features) {
      for (int64_t i = 0; i < end - begin; ++i) {
        T* row = out + i * n_features_;
        if (radial_.count > 0) {
          const Ahead next(row + (end - begin) * n_features_, n_features_ * sizeof(T), n_channels_);
          pair_sum_forward(staged_, radial_, n_channels_, i, row, next);
        }
        // Zeros for the triples, centre by centre, so that the stores find time to reach the memory
        // (all at once: 10 % of ANI forward).
        if (!in_molecule_) std::fill(row + angular_at, row + n_features_, T(0));
      }
    }
    if constexpr (with_adjoints) {
      if (radial_.count > 0) {
        pair_sum_backward(staged_, radial_, n_channels_, g, n_features_, row_, sums_,
                          grad_.distance);
      }
    }
    if constexpr (Formula::kPairsShared && with_adjoints) {
      if (in_molecule_) rows_.add_gradients(molecule_, n_channels_, grad_);
    }
    if (angular_.n_features > 0 && !in_molecule_) {
      triples_.template run<with_features, with_adjoints>(formula_, staged_, angular_, n_channels_,
                                                          out + angular_at, g + angular_at,
                                                          n_features_, grad_);
    }
    if constexpr (with_adjoints) write_gradients(begin, end, pass.grad_displacements);
  }

  void jacobian(int64_t center, T* jacobian) {
    stage(nullptr, center, center + 1);
    const int64_t begin = atoms_.pair_offsets[center], end = atoms_.pair_offsets[center + 1];
    T* out = jacobian + 3 * begin * n_features_;
    std::fill(out, out + 3 * (end - begin) * n_features_, T(0));
    if (radial_.count > 0) {
      pair_sum_jacobian(staged_, radial_, n_channels_, [&](int64_t j, int64_t f, T slope) {
        T* to = out + 3 * (staged_.pairs[j] * n_features_ + f);
        to[0] = slope * staged_.neighbors.unit.x.value[j];
        to[1] = slope * staged_.neighbors.unit.y.value[j];
        to[2] = slope * staged_.neighbors.unit.z.value[j];
      });
    }
    if (angular_.n_features > 0) {
      grad_.clear(staged_.count + kLanes);
      T* angular_out = out + 3 * n_channels_ * radial_.count;
      triples_.jacobian(formula_, staged_, angular_, n_channels_, grad_,
                        [&](int64_t p, int64_t q, int64_t f) {
                          add_column(p, f, angular_out);
                          if (q != p) add_column(q, f, angular_out);
                          grad_.clear(staged_.count + kLanes);
                        });
    }
  }

 private:
  Formula formula_;
  Neighborhoods<T> atoms_;
  SymmetryTables<T> tables_;
  int64_t n_channels_ = 0, n_features_ = 0, set_ = -1;
  Cutoff<T> radial_cutoff_, angular_cutoff_;
  RadialTable<T> radial_;
  AngularTable<T> angular_;
  Staging<N> gathered_, staged_;  // memory of its own, and what is summed
  Molecule<Formula, N> molecule_;
  RowSum<Formula, N> rows_;
  bool with_molecules_ = false, in_molecule_ = false;
  NeighborColumns<N> grad_;
  TripleSum<Formula, N> triples_;
  T* row_ = nullptr;
  Column<N> sums_;

  void stage(const T* tangents, int64_t begin, int64_t end) {
    const int64_t set = tables_.n_sets == 1 ? 0 : atoms_.types[begin];
    if (set != set_) {
      radial_.fill(tables_.radial + 3 * set * tables_.n_radial);
      angular_.fill(tables_, tables_.products + 2 * set * tables_.n_angular);
      if constexpr (Formula::kPairsShared) {
        if (with_molecules_) rows_.fill(formula_, angular_);
      }
      set_ = set;
    }
    if constexpr (Formula::kPairsShared) {
      in_molecule_ =
          with_molecules_ && molecule_.contains(formula_, atoms_, tangents, angular_, n_channels_,
                                                begin, radial_cutoff_, angular_cutoff_);
      if (in_molecule_) {
        staged_ = molecule_.staged(molecule_.row_of(begin));
        return;
      }
    }
    gathered_.gather(atoms_, tangents, n_channels_, begin, end, radial_cutoff_.radius,
                     angular_cutoff_.radius);
    gathered_.finish(radial_cutoff_, angular_cutoff_);
    staged_ = gathered_;
  }

  // R = |d| and u = d / |d|: dE/dd = (g_u - (g_u . u) u) / R + g_R u, for the neighbours i, i + 1,
  // ... of a register. The adjoint of the cutoff belongs to the distance it was computed from.
  PYMLP_INLINE Vec3<N> displacement_adjoint(int64_t i) const {
    const Neighbor<N> n = staged_.neighbors.load(i), g = grad_.load(i);
    const N g_distance = g.distance + g.cutoff * staged_.cutoff_slope.load(i);
    const N along = dot(g.unit, n.unit);
    const N inverse = T(1) / n.distance;
    return inverse * g.unit + (g_distance - along * inverse) * n.unit;
  }

  void write_gradients(int64_t first, int64_t last, T* grad_displacements) const {
    const int64_t begin = atoms_.pair_offsets[first], end = atoms_.pair_offsets[last];
    T* out = grad_displacements + 3 * begin;
    if (staged_.count < end - begin) std::fill(out, out + 3 * (end - begin), T(0));
    for (int64_t i = 0; i < staged_.count; i += kLanes) {
      T x[kLanes], y[kLanes], z[kLanes];
      const Vec3<N> d = displacement_adjoint(i);
      reported(d.x).store(x);
      reported(d.y).store(y);
      reported(d.z).store(z);
      for (int64_t l = 0; l < kLanes && i + l < staged_.count; ++l) {
        if (staged_.pairs[i + l] < 0) continue;  // the centre in its own row
        T* to = out + 3 * staged_.pairs[i + l];
        to[0] = x[l];
        to[1] = y[l];
        to[2] = z[l];
      }
    }
  }

  // Add one feature's gradient for the neighbours of a channel to `out`.
  void add_column(int64_t channel, int64_t feature, T* out) const {
    const int64_t first = staged_.first(channel), last = staged_.middle(channel);
    for (int64_t i = first; i < last; i += kLanes) {
      T x[kLanes], y[kLanes], z[kLanes];
      const Vec3<N> d = displacement_adjoint(i);
      reported(d.x).store(x);
      reported(d.y).store(y);
      reported(d.z).store(z);
      for (int64_t l = 0; l < kLanes && i + l < last; ++l) {
        T* to = out + 3 * (staged_.pairs[i + l] * n_features_ + feature);
        to[0] += x[l];
        to[1] += y[l];
        to[2] += z[l];
      }
    }
  }
};

// Run one pass over the centres [begin, end). With a null scratch nothing is computed, and the
// number of bytes that the pass needs is returned.
template <class Formula, class T>
int64_t symmetry_sum(const Formula& formula, const SymmetryPass<T>& pass, Pass kind, int64_t begin,
                     int64_t end, std::byte* scratch) {
  using Plain = Lanes<T>;
  // Several centres at a time: each stage then has work while the first results of the one before
  // are still on their way (ANI double backward, 256 x 14 atoms: 7.0 -> 6.5 ms).
  constexpr int64_t kPairs = 64, kCenters = 8;
  const int64_t* offsets = pass.atoms.pair_offsets;
  const bool alone =
      pass.tables.n_sets > 1 || kind == Pass::jacobian || molecules_pay(formula, pass.tables, kind);
  const auto group_end = [&](int64_t first) {
    int64_t last = first + 1;
    while (!alone && last < end && last - first < kCenters &&
           offsets[last + 1] - offsets[first] <= kPairs) {
      ++last;
    }
    return last;
  };
  int64_t max_pairs = alone ? 0 : kPairs;
  for (int64_t i = begin; i < end; ++i) {
    max_pairs = std::max(max_pairs, offsets[i + 1] - offsets[i]);
  }
  int64_t bytes = 0;
  const auto run = [&]<class N>(N, auto body) {
    Arena arena(scratch);
    SymmetrySum<Formula, N> sum(formula, pass, kind, kCenters, max_pairs, arena);
    bytes = std::max(bytes, arena.used());
    if (scratch == nullptr) return;
    [[maybe_unused]] const FlushSubnormals flush;
    for (int64_t i = begin; i < end;) {
      const int64_t last = group_end(i);
      body(sum, i, last);
      i = last;
    }
  };
  switch (kind) {
    case Pass::forward:
      run(Plain(), [&](auto& sum, int64_t i, int64_t last) {
        sum.template run<true, false>(pass, i, last);
      });
      break;
    case Pass::backward:
      run(Plain(), [&](auto& sum, int64_t i, int64_t last) {
        sum.template run<false, true>(pass, i, last);
      });
      break;
    case Pass::jvp:
      run(Dual<Plain>(), [&](auto& sum, int64_t i, int64_t last) {
        sum.template run<true, false>(pass, i, last);
      });
      break;
    case Pass::double_backward:
      run(Dual<Plain>(),
          [&](auto& sum, int64_t i, int64_t last) { sum.template run<true, true>(pass, i, last); });
      break;
    case Pass::jacobian:
      run(Plain(), [&](auto& sum, int64_t i, int64_t) { sum.jacobian(i, pass.jacobian); });
      break;
  }
  return bytes;
}

}  // namespace pymlp::inline PYMLP_SIMD
