// The sum over triples of eq 3 for the centres of a molecule. A row of triples (molecule.h) is
// summed without leaving the registers, two at a time to hide each other's latencies: no triple is
// written to memory, and no exponential is left (256 x 14 atoms, the paper's set, ms: forward 2.6
// -> 1.1, backward 4.0 -> 2.4, double backward 9.7 -> 5.6; in double 4.6 -> 2.1, 6.8 -> 4.2, 15.6
// -> 9.9; other sets 1.2 to 1.5 times as fast).
#pragma once

#include "molecule.h"

namespace pymlp::inline PYMLP_SIMD {

template <class Formula, class N>
class RowSum {
 public:
  using T = Scalar<N>;
  using Plain = Lanes<T>;
  static constexpr int kLanes = Plain::count;

  void place(Arena& arena, const AngularTable<T>& table, int64_t max_neighbors,
             bool with_adjoints) {
    terms_ = arena.take<Term>(table.n_features);
    first_term_ = arena.take<int32_t>(table.n_angles + 1);
    n_sums_ = rounded_up(table.n_features, kLanes) * kLanes;
    sums_.place(arena, n_sums_);
    weighted_.place(arena, kMostRows * table.n_distances * kLanes);
    if (!with_adjoints) return;
    distances_.place(arena, kMostRows * table.n_distances * kLanes);
    n_parts_ = (max_neighbors + kLanes) * kParts * kLanes;
    parts_.place(arena, n_parts_);
    n_columns_ = 2 * max_neighbors;
    grad_.place(arena, n_columns_);
  }

  // Once per parameter set. Sums are cleared where they are read, hence only here before.
  void fill(const Formula& formula, const AngularTable<T>& table) {
    for (int64_t i = 0; i < n_sums_; i += kLanes) sums_.store(i, Plain(T(0)));
    for (int64_t i = 0; i < n_parts_; i += kLanes) parts_.store(i, N(T(0)));
    if (n_parts_ > 0) grad_.clear(n_columns_);
    int32_t n = 0;
    for (int64_t r = 0; r < table.n_angles; ++r) {
      first_term_[r] = n;
      for (int64_t f = 0; f < table.n_real(); ++f) {
        if (table.angle_of[f] != table.rungs[r].angle) continue;
        const int32_t d = table.distance_of[f];
        terms_[n++] = {static_cast<int32_t>(f), d, formula.distance_log_slope(table.distances[d])};
      }
    }
    first_term_[table.n_angles] = n;
    regular_ = is_regular(table, n);
  }

  // As TripleSum::run, for the centre of a row of the molecule; the adjoints are kept.
  template <bool with_features, bool with_adjoints>
  void run(const Formula& formula, const Molecule<Formula, N>& molecule, int64_t row,
           const AngularTable<T>& table, int64_t n_channels, T* features, const T* grad_features) {
    const Sum sum{formula, molecule, table, molecule.staged(row).neighbors, row};
    const int64_t n_blocks = n_channels * (n_channels + 1) / 2, n = table.n_features;
    for (int64_t block = 0; block < n_blocks; ++block) {
      const T* g = grad_features + block * n;
      // What a register holds too much goes into the next block, whose turn is next.
      const int64_t room = block + 1 < n_blocks ? std::min(rounded_up(n, kLanes), 2 * n) : n;
      if (regular_) {
        add_block<with_features, with_adjoints, kRungs>(sum, block, g, features + block * n, room);
      } else {
        add_block<with_features, with_adjoints, 0>(sum, block, g, features + block * n, room);
      }
    }
  }

  // Adds the adjoints of the last run's neighbours to `grad`.
  void add_gradients(const Molecule<Formula, N>& molecule, int64_t n_channels,
                     const NeighborColumns<N>& grad) const {
    const Column<N> from[kParts] = {grad_.unit.x, grad_.unit.y, grad_.unit.z, grad_.distance,
                                    grad_.cutoff};
    const Column<N> to[kParts] = {grad.unit.x, grad.unit.y, grad.unit.z, grad.distance,
                                  grad.cutoff};
    for (int64_t c = 0; c < n_channels; ++c) {
      const int64_t first = molecule.first(c), n = molecule.size(c);
      for (int64_t t = 0; t < n; t += kLanes) {
        const auto here = first_lanes<T>(static_cast<int>(n - t));
        for (int64_t i = 0; i < kParts; ++i) {
          const Column<N> twice = from[i].from(2 * first + t);
          const N sum = select(here, twice.load(0) + twice.load(n), N(T(0)));
          to[i].store(first + t, to[i].load(first + t) + sum);
        }
      }
    }
    grad_.clear(2 * molecule.n_atoms() + kLanes);  // rows that go around store whole registers
    for (int64_t j = molecule.first_j(); j < molecule.n_atoms(); j += kLanes) {
      for (int64_t i = 0; i < kParts; ++i) {
        N group[kLanes];
        for (int l = 0; l < kLanes; ++l) {
          const int64_t at = ((j + l) * kParts + i) * kLanes;
          group[l] = parts_.load(at);
          parts_.store(at, N(T(0)));
        }
        to[i].store(j, to[i].load(j) + sums_of_lanes(group));
      }
    }
  }

 private:
  using Chunk = typename Molecule<Formula, N>::Chunk;
  using Row = typename Molecule<Formula, N>::Row;
  struct Sum {
    const Formula& formula;
    const Molecule<Formula, N>& molecule;
    const AngularTable<T>& table;
    NeighborColumns<N> neighbors;
    int64_t center;
  };
  // A feature of one angle factor: its distance factor, and d ln D / dQ.
  struct Term {
    int32_t feature, distance;
    T log_slope;
  };
  template <int rows>
  struct Rows {
    N cosine[rows], distance[rows], weight[rows];        // see Triple<N>
    N g_cosine[rows], g_distance[rows], g_weight[rows];  // their adjoints, without the weight
  };
  // The paper's set: two ladders of so many rungs, whose sums stay in registers.
  static constexpr int kRungs = 6;
  template <int rungs>
  struct Ladders {
    Plain sum[2][rungs > 0 ? rungs : 1];
    // Cotangents g, and g times 2^rung, for slopes whose factors of 2 were left out.
    T g[2][rungs > 0 ? rungs : 1], g_slope[2][rungs > 0 ? rungs : 1];
  };
  // Rows taken at a time; Dual numbers fill the registers by themselves.
  static constexpr int kMostRows = sizeof(N) == sizeof(Plain) ? 2 : 1;
  static constexpr int64_t kParts = 5;  // numbers of a Neighbor

  Term* terms_ = nullptr;           // of all angle factors, in the order of the rungs
  int32_t* first_term_ = nullptr;   // [Z + 1]
  Column<Plain> sums_;              // [S, lanes] features of a block
  Column<N> weighted_, distances_;  // [D, rows, lanes] distance factors with and without weight
  Column<N> parts_;          // [neighbours, 5, lanes] whose sums over the lanes are adjoints of j
  NeighborColumns<N> grad_;  // each channel twice, for rows that go around it
  int64_t n_sums_ = 0, n_parts_ = 0, n_columns_ = 0;
  bool regular_ = false;  // see add_regular_terms

  bool is_regular(const AngularTable<T>& table, int32_t n_terms) const {
    bool yes = table.n_ladders == 2 && table.n_angles == 2 * kRungs && n_terms == 2 * kRungs &&
               table.n_features == 2 * kRungs && !table.with_sine;
    for (int32_t l = 0; yes && l < 2; ++l) {
      yes = table.ladders[l].begin == l * kRungs && table.ladders[l].first.zeta.whole == 1;
      for (int32_t r = 0; yes && r < kRungs; ++r) {
        const int32_t i = l * kRungs + r;
        yes = first_term_[i] == i && terms_[i].distance == r && terms_[i].feature == 2 * r + l &&
              (r == 0 || table.rungs[i].multiple.whole == 2);
      }
    }
    return yes;
  }

  static PYMLP_INLINE Neighbor<N> nothing() {
    const N zero{T(0)};
    return {{zero, zero, zero}, zero, zero};
  }

  template <bool with_features, bool with_adjoints, int rungs>
  void add_block(const Sum& sum, int64_t block, const T* g, T* out, int64_t room) {
    Ladders<rungs> ladders;
    if constexpr (rungs > 0) {
      for (int i = 0; i < 2 * rungs; ++i) {
        ladders.sum[i % 2][i / 2] = Plain(T(0));
        if constexpr (with_adjoints) {
          ladders.g[i % 2][i / 2] = g[i];
          ladders.g_slope[i % 2][i / 2] = g[i] * T(1 << i / 2);
        }
      }
    }
    for (const Chunk* chunk = sum.molecule.begin(block); chunk < sum.molecule.end(block); ++chunk) {
      if (chunk->around) {
        add_chunk<with_features, with_adjoints, true>(sum, *chunk, g, ladders);
      } else {
        add_chunk<with_features, with_adjoints, false>(sum, *chunk, g, ladders);
      }
    }
    if constexpr (with_features && rungs > 0) write_ladders(ladders, out, room);
    if constexpr (with_features && rungs == 0) write_sums(sum.table, out, room);
  }

  template <bool with_features, bool with_adjoints, bool around, int rungs>
  PYMLP_INLINE void add_chunk(const Sum& sum, const Chunk& chunk, const T* g,
                              Ladders<rungs>& ladders) {
    Neighbor<N> g_k = nothing();
    int32_t r = chunk.first_row;
    while (r < chunk.last_row) {
      // Rows whose j is the centre are left out.
      int32_t end = chunk.last_row;
      if (!around) {
        const int64_t to_center = sum.center - sum.molecule.row(r).j;
        if (to_center >= 0 && to_center < end - r) end = r + static_cast<int32_t>(to_center);
      }
      for (; r + kMostRows <= end; r += kMostRows) {
        add_rows<with_features, with_adjoints, around, kMostRows>(sum, chunk, r, g, ladders, g_k);
      }
      for (; r < end; ++r) {
        add_rows<with_features, with_adjoints, around, 1>(sum, chunk, r, g, ladders, g_k);
      }
      ++r;
    }
    if constexpr (with_adjoints) {
      const int64_t at = chunk.k + chunk.first;
      grad_.store(at, grad_.load(at) + g_k);
    }
  }

  template <bool around, class Columns>
  static PYMLP_INLINE auto of_j(const Columns& from, const Chunk& chunk, const Row& row) {
    if constexpr (around) {
      return Molecule<Formula, N>::around(from, chunk, row);
    } else {
      return from.broadcast(row.j);
    }
  }

  template <bool with_features, bool with_adjoints, bool around, int rows, int rungs>
  PYMLP_INLINE void add_rows(const Sum& sum, const Chunk& chunk, int64_t first, const T* g,
                             Ladders<rungs>& ladders, Neighbor<N>& g_k) {
    Rows<rows> t;
    LaneMask<T> here[rows];
    ValueSlope<N> fc[rows];  // its slope times the weight without it
    for (int r = 0; r < rows; ++r) {
      const Row& row = sum.molecule.row(first + r);
      here[r] = first_lanes<T>(row.count);
      Neighbor<N> k = sum.neighbors.load(chunk.k);
      k.cutoff = select(here[r], k.cutoff, N(T(0)));
      const auto sides = sum.formula.sides(of_j<around>(sum.neighbors, chunk, row), k);
      fc[r] = sum.molecule.cutoff_jk(sides.square_jk, first + r);
      t.weight[r] = sides.triple.weight * fc[r].value;
      fc[r].slope = fc[r].slope * sides.triple.weight;
      t.cosine[r] = sides.triple.cosine;
      t.distance[r] = sides.triple.distance;
      t.g_cosine[r] = t.g_distance[r] = t.g_weight[r] = N(T(0));
    }
    if constexpr (rungs > 0) {
      add_regular_terms<with_features, with_adjoints, around>(sum, chunk, first, t, ladders);
    } else {
      add_terms<with_features, with_adjoints, around>(sum, chunk, first, g, t);
    }
    if constexpr (with_adjoints) {
      for (int r = 0; r < rows; ++r) {
        const Triple<N> g_triple{t.g_cosine[r] * t.weight[r], t.g_distance[r] * t.weight[r],
                                 select(here[r], t.g_weight[r], N(T(0)))};
        const Row& row = sum.molecule.row(first + r);
        const NeighborPair<N> both =
            sum.formula.sides_adjoint(of_j<around>(sum.neighbors, chunk, row),
                                      sum.neighbors.load(chunk.k), cutoff_adjoint(fc[r], g_triple));
        g_k = g_k + both.k;
        if (around) {
          const int64_t at = row.j + chunk.first;
          grad_.store(at, grad_.load(at) + both.j);
        } else {
          add_part(row.j, both.j);
        }
      }
    }
  }

  // Any products of distance and angle factors.
  template <bool with_features, bool with_adjoints, bool around, int rows>
  PYMLP_INLINE void add_terms(const Sum& sum, const Chunk& chunk, int64_t first, const T* g,
                              Rows<rows>& t) {
    const AngularTable<T>& table = sum.table;
    Angle<N> angle[rows];
    for (int r = 0; r < rows; ++r) {
      angle[r] =
          table.with_sine ? make_angle(t.cosine[r]) : Angle<N>{t.cosine[r], N(T(0)), N(T(0))};
      for (int64_t d = 0; d < table.n_distances; ++d) {
        const N factor = distance_factor<around>(sum, chunk, d, first + r, t.distance[r]);
        const int64_t at = (d * rows + r) * kLanes;
        if constexpr (with_features) weighted_.store(at, factor * t.weight[r]);
        if constexpr (with_adjoints) distances_.store(at, factor);
      }
    }
    for (int64_t l = 0; l < table.n_ladders; ++l) {
      const AngleLadder<T>& ladder = table.ladders[l];
      N value[rows], slope[rows];
      climb_on<with_adjoints>(angle, ladder.first, value, slope);
      for (int32_t rung = ladder.begin; rung < ladder.end; ++rung) {
        if (rung > ladder.begin) climb<with_adjoints>(table.rungs[rung].multiple, value, slope);
        N of_value[rows], of_slope[rows];  // sum over the terms of g D and of g dD/dQ
        for (int r = 0; r < rows; ++r) of_value[r] = of_slope[r] = N(T(0));
        for (int32_t i = first_term_[rung]; i < first_term_[rung + 1]; ++i) {
          const Term term = terms_[i];
          const int64_t at = term.distance * rows * kLanes;
          if constexpr (with_features) {
            Plain total = sums_.load(term.feature * kLanes);
            for (int r = 0; r < rows; ++r) {
              total = total + reported(weighted_.load(at + r * kLanes) * value[r]);
            }
            sums_.store(term.feature * kLanes, total);
          }
          if constexpr (with_adjoints) {
            const Plain own = g[term.feature], times_slope = g[term.feature] * term.log_slope;
            for (int r = 0; r < rows; ++r) {
              const N factor = distances_.load(at + r * kLanes);
              of_value[r] = of_value[r] + factor * own;
              of_slope[r] = of_slope[r] + factor * times_slope;
            }
          }
        }
        if constexpr (with_adjoints) {
          for (int r = 0; r < rows; ++r) {
            t.g_cosine[r] = t.g_cosine[r] + slope[r] * of_value[r];
            t.g_distance[r] = t.g_distance[r] + value[r] * of_slope[r];
            t.g_weight[r] = t.g_weight[r] + value[r] * of_value[r];
          }
        }
      }
    }
  }

  // Two ladders of zeta = 1, 2, 4, ..., whose rung r goes with distance r alone: features 2 r and
  // 2 r + 1.
  template <bool with_features, bool with_adjoints, bool around, int rungs, int rows>
  PYMLP_INLINE void add_regular_terms(const Sum& sum, const Chunk& chunk, int64_t first,
                                      Rows<rows>& t, Ladders<rungs>& ladders) const {
    Angle<N> angle[rows];
    for (int r = 0; r < rows; ++r) angle[r] = {t.cosine[r], N(T(0)), N(T(0))};
    N value[2][rows], slope[2][rows];
    for (int l = 0; l < 2; ++l) {
      const auto& foot = sum.table.ladders[l].first;
      const auto one = make_angle_parameters<T>(T(1), foot.cos_shift, T(0));  // known when compiled
      climb_on<with_adjoints>(angle, one, value[l], slope[l]);
    }
#pragma GCC unroll 8
    for (int rung = 0; rung < rungs; ++rung) {
      for (int l = 0; rung > 0 && l < 2; ++l) {
        for (int r = 0; r < rows; ++r) {
          if constexpr (with_adjoints) slope[l][r] = value[l][r] * slope[l][r];
          value[l][r] = value[l][r] * value[l][r];
        }
      }
      const T log_slope = sum.formula.distance_log_slope(sum.table.distances[rung]);
      for (int r = 0; r < rows; ++r) {
        const N factor = distance_factor<around>(sum, chunk, rung, first + r, t.distance[r]);
        if constexpr (with_features) {
          const N weighted = factor * t.weight[r];
          for (int l = 0; l < 2; ++l) {
            ladders.sum[l][rung] = ladders.sum[l][rung] + reported(weighted * value[l][r]);
          }
        }
        if constexpr (with_adjoints) {
          const N values =
              value[0][r] * Plain(ladders.g[0][rung]) + value[1][r] * Plain(ladders.g[1][rung]);
          const N slopes = slope[0][r] * Plain(ladders.g_slope[0][rung]) +
                           slope[1][r] * Plain(ladders.g_slope[1][rung]);
          const N product = factor * values;
          t.g_weight[r] = t.g_weight[r] + product;
          t.g_distance[r] = t.g_distance[r] + product * Plain(log_slope);
          t.g_cosine[r] = t.g_cosine[r] + factor * slopes;
        }
      }
    }
  }

  template <bool around>
  static PYMLP_INLINE N distance_factor(const Sum& sum, const Chunk& chunk, int64_t d, int64_t row,
                                        N q) {
    const Column<Plain> own = sum.molecule.distances_of(d, sum.center);
    const Plain of_both = own.load(chunk.k) * of_j<around>(own, chunk, sum.molecule.row(row));
    const Plain product = sum.molecule.distance_jk(d, row) * of_both;
    return sum.formula.distance_from_parts(q, product, sum.table.distances[d]);
  }
  template <bool with_slopes, int rows>
  static PYMLP_INLINE void climb_on(const Angle<N> (&angle)[rows],
                                    const AngleParameters<T>& parameters, N (&value)[rows],
                                    N (&slope)[rows]) {
    if constexpr (with_slopes) {
      angle_factors(angle, parameters, value, slope);
    } else {
      angle_values(angle, parameters, value);
    }
  }
  template <bool with_slopes, int rows>
  static PYMLP_INLINE void climb(Exponent<T> multiple, N (&value)[rows], N (&slope)[rows]) {
    if constexpr (with_slopes) {
      angle_factors_at_multiple(multiple, value, slope);
    } else {
      angle_values_at_multiple(multiple, value);
    }
  }

  PYMLP_INLINE void add_part(int64_t j, Neighbor<N> v) const {
    const N numbers[kParts] = {v.unit.x, v.unit.y, v.unit.z, v.distance, v.cutoff};
    for (int64_t i = 0; i < kParts; ++i) {
      const int64_t at = (j * kParts + i) * kLanes;
      parts_.store(at, parts_.load(at) + numbers[i]);
    }
  }

  template <int rungs>
  static PYMLP_INLINE void write_ladders(const Ladders<rungs>& ladders, T* out, int64_t room) {
#pragma GCC unroll 4
    for (int f = 0; f < 2 * rungs; f += kLanes) {
      Plain group[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        group[i] = f + i < 2 * rungs ? ladders.sum[(f + i) % 2][(f + i) / 2] : Plain(T(0));
      }
      store_first(sums_of_lanes(group), out + f, room - f);
    }
  }

  // Clears the sums of a block.
  void write_sums(const AngularTable<T>& table, T* out, int64_t room) const {
    for (int64_t f = 0; f < table.n_features; f += kLanes) {
      Plain group[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        group[i] = sums_.load((f + i) * kLanes);
        sums_.store((f + i) * kLanes, Plain(T(0)));
      }
      store_first(sums_of_lanes(group), out + f, room - f);
    }
  }
};

}  // namespace pymlp::inline PYMLP_SIMD
