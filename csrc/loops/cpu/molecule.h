// A molecule whose atoms are all neighbours of one another, staged once for all its centres. Sorted
// by channel, every centre has the same triples (it stands in its own row as a neighbour beyond
// every cutoff), so that what eq 3 takes of the pair j, k, its cutoff and its part of D, is made
// once for all centres (14 atoms: 91 pairs, 1092 triples).
//
// Lanes run over the neighbours k of a channel; the other neighbour of a row of triples is one j of
// another channel, or, within a channel of n, the one m places further on, round and round: m = 1
// ... n / 2 meets every pair once, with all lanes in use.
#pragma once

#include "angular_table.h"
#include "staging.h"

namespace pymlp::inline PYMLP_SIMD {

template <class Formula, class N>
class Molecule {
 public:
  using T = Scalar<N>;
  using Plain = Lanes<T>;
  static constexpr int kLanes = Plain::count;
  static constexpr int64_t kMostAtoms = 32;  // its columns stay in L2
  // A constant pitch, so that the columns of a centre lie at known places behind one address.
  static constexpr int64_t kPitch = kMostAtoms + kLanes;

  // The triples of neighbours k, k + 1, ... < k + count with neighbour j, or with j, j + 1, ...
  // where lanes from `wrap` on begin again at the start of the channel.
  struct Row {
    int32_t j, count, wrap;
  };
  // Rows of the same k, of two channels, or (`around`) of one that begins at `first` and has n.
  struct Chunk {
    int32_t k, first_row, last_row, first, n;
    bool around;
  };

  void place(Arena& arena, int64_t max_pairs, int64_t n_channels, bool one_cutoff,
             int64_t n_distances) {
    most_ = std::min(kMostAtoms, max_pairs + 1);
    const int64_t size = most_ * rounded_up(most_, kLanes);
    n_distances_ = n_distances;
    arena.take<T>(kMostAtoms);  // lanes that wrap are loaded from up to a channel earlier
    staged_.place(arena, size, 1, n_channels, one_cutoff);
    positions_.place(arena, kPitch);
    own_.place(arena, most_ * n_distances * kPitch);
    order_ = arena.take<int32_t>(most_);
    row_of_ = arena.take<int32_t>(most_);
    weight_ = arena.take<T>(most_);
    // No block has more rows than neighbours in one channel times registers of the other.
    const int64_t n_chunks = (n_channels + 1) * (most_ / kLanes + 1 + n_channels);
    const int64_t n_rows = most_ * (most_ / kLanes + 1 + n_channels);
    chunks_ = arena.take<Chunk>(n_chunks);
    first_chunk_ = arena.take<int32_t>(n_channels * (n_channels + 1) / 2 + 1);
    rows_ = arena.take<Row>(n_rows);
    pairs_.place(arena, n_rows * (3 + n_distances) * kLanes);
  }

  // Is `center` an atom of a molecule of this kind? If so, that molecule is staged afterwards.
  bool contains(const Formula& formula, const Neighborhoods<T>& atoms, const T* tangents,
                const AngularTable<T>& table, int64_t n_channels, int64_t center, Cutoff<T> radial,
                Cutoff<T> angular) {
    if (center >= begin_ && center < begin_ + n_) return true;
    n_ = 0;
    if (!find(atoms, center)) return false;
    sort(atoms, n_channels);
    gather(atoms, tangents);
    const T far = T(2) * std::max(radial.radius, angular.radius);
    if (!is_made_of_positions(T(8) * far)) {
      n_ = 0;
      return false;
    }
    n_channels_ = n_channels;
    for (int64_t s = 0; s < n_; ++s) {
      for (int64_t t = n_; t < stride_; ++t) staged_.put_nothing(s * stride_ + t, far);
    }
    for (int64_t t = 0; t < n_; t += kLanes) {
      const Vec3Columns<N>& d = staged_.neighbors.unit;
      positions_.store(t, {value_of(d.x).load(t), value_of(d.y).load(t), value_of(d.z).load(t)});
    }
    // A centre is a neighbour of its own beyond every cutoff.
    for (int64_t s = 0; s < n_; ++s) staged_.put_nothing(s * stride_ + s, far);
    // Lanes behind a channel count for nothing, but may not hold NaN; nor may a register more.
    positions_.store(stride_, {T(0), T(0), T(0)});
    staged_.count = n_ * stride_;
    staged_.finish(radial, angular);
    make_rows();
    tabulate(formula, table);
    return true;
  }

  int64_t most_atoms() const { return most_; }
  int64_t row_of(int64_t center) const { return row_of_[center - begin_]; }
  // The neighbours of the centre of a row; number `row` is the centre itself, and no pair.
  Staging<N> staged(int64_t row) const { return staged_.part(row * stride_, n_); }

  int64_t n_atoms() const { return n_; }
  int64_t first_j() const { return first_j_; }  // of the rows that do not go around
  int64_t first(int64_t c) const { return staged_.first(c); }
  int64_t size(int64_t c) const { return first(c + 1) - first(c); }

  const Chunk* begin(int64_t block) const { return chunks_ + first_chunk_[block]; }
  const Chunk* end(int64_t block) const { return chunks_ + first_chunk_[block + 1]; }
  const Row& row(int64_t r) const { return rows_[r]; }

  // The neighbours j of a row of triples that goes around its channel, from columns of a centre.
  template <class Columns>
  static PYMLP_INLINE auto around(const Columns& from, const Chunk& chunk, const Row& row) {
    return select(first_lanes<T>(row.wrap), from.load(row.j), from.load(row.j - chunk.n));
  }

  // f_c of the pairs j, k of a row of triples.
  PYMLP_INLINE ValueSlope<N> cutoff_jk(N square_jk, int64_t r) const {
    const int64_t at = r * (3 + n_distances_) * kLanes;
    const Plain slope = pairs_.load(at + kLanes);
    return {along(square_jk, pairs_.load(at), slope),
            along(square_jk, slope, pairs_.load(at + 2 * kLanes))};
  }
  // D of the pairs j, k of a row of triples.
  PYMLP_INLINE Plain distance_jk(int64_t d, int64_t r) const {
    return pairs_.load((r * (3 + n_distances_) + 3 + d) * kLanes);
  }
  // D of the pairs of a centre, [kPitch].
  Column<Plain> distances_of(int64_t d, int64_t row) const {
    return own_.from((row * n_distances_ + d) * kPitch);
  }

 private:
  Staging<N> staged_;                             // [n, stride]
  int32_t *order_ = nullptr, *row_of_ = nullptr;  // atom of every row, and row of every atom
  T* weight_ = nullptr;                           // of every row
  int64_t most_ = 0, begin_ = 0, n_ = 0, stride_ = 0, n_channels_ = 0, n_distances_ = 0;
  int64_t first_j_ = 0;

  Vec3Columns<Plain> positions_;  // [kPitch]
  Column<Plain> own_;             // [n, D, kPitch]
  Chunk* chunks_ = nullptr;
  int32_t* first_chunk_ = nullptr;  // of every block, [channel pairs + 1]
  Row* rows_ = nullptr;
  Column<Plain> pairs_;  // [rows, 3 + D, lanes] f_c with two derivatives by R^2, D

  // Sets begin_ and n_ where all atoms from the first to the last are each other's only neighbours.
  bool find(const Neighborhoods<T>& atoms, int64_t center) {
    const int64_t* offsets = atoms.pair_offsets;
    const int64_t count = offsets[center + 1] - offsets[center];
    if (count < 2 || count >= most_) return false;
    begin_ = std::min(center, atoms.neighbors[offsets[center]]);
    if (begin_ + count >= atoms.n_centers) return false;
    for (int64_t a = 0; a <= count; ++a) {
      const int64_t first = offsets[begin_ + a];
      if (offsets[begin_ + a + 1] - first != count) return false;
      int64_t wrong = 0;
      for (int64_t m = 0; m < count; ++m) {
        wrong |= atoms.neighbors[first + m] - (begin_ + m + (m >= a));
      }
      if (wrong != 0) return false;
    }
    n_ = count + 1;
    stride_ = rounded_up(n_, kLanes);
    return true;
  }

  void sort(const Neighborhoods<T>& atoms, int64_t n_channels) {
    int64_t* starts = staged_.starts();
    std::fill(starts, starts + 2 * n_channels + 3, 0);
    const auto bin = [&](int64_t a) { return 2 * atoms.channels[atoms.types[begin_ + a]]; };
    for (int64_t a = 0; a < n_; ++a) ++starts[bin(a) + 2];
    for (int64_t b = 0; b < 2 * n_channels; ++b) starts[b + 2] += starts[b + 1];
    for (int64_t a = 0; a < n_; ++a) {
      row_of_[a] = static_cast<int32_t>(starts[bin(a) + 1]++);
      order_[row_of_[a]] = static_cast<int32_t>(a);
      weight_[row_of_[a]] = atoms.weights[atoms.types[begin_ + a]];
    }
  }

  void gather(const Neighborhoods<T>& atoms, const T* tangents) {
    for (int64_t s = 0; s < n_; ++s) {
      const int64_t a = order_[s], first = atoms.pair_offsets[begin_ + a];
      for (int64_t t = 0; t < n_; ++t) {
        const int64_t b = order_[t];
        if (b == a) {
          staged_.put_nothing(s * stride_ + t, T(0));
        } else {
          staged_.put(atoms, tangents, first, first + b - (b > a), weight_[t], s * stride_ + t);
        }
      }
    }
  }

  // d_ik = r_k - r_i, for some r? What is shared is right only then; a list may hold anything. Not
  // for an atom far from the first, from which all are measured: the others would lose digits.
  bool is_made_of_positions(T farthest) const {
    const Vec3Columns<N>& d = staged_.neighbors.unit;
    T largest = T(0);
    for (int64_t t = 0; t < n_; ++t) {
      const Vec3<T> r{value_of(d.x).value[t], value_of(d.y).value[t], value_of(d.z).value[t]};
      largest = std::max(largest, dot(r, r));
    }
    if (!(largest < farthest * farthest)) return false;
    const Plain bound = T(64) * Limits<T>::epsilon * Limits<T>::epsilon * largest;
    Plain wrong{T(0)};
    for (int64_t s = 0; s < n_; ++s) {
      for (int64_t t = 0; t < n_; t += kLanes) {
        Plain square{T(0)};
        for (const auto* column : {&d.x, &d.y, &d.z}) {
          const Column<Plain> x = value_of(*column);
          const Plain difference = x.load(s * stride_ + t) - (x.load(t) - x.broadcast(s));
          square = square + difference * difference;
        }
        const Plain here = select(less(square, bound), Plain(T(0)), Plain(T(1)));
        wrong = wrong + select(first_lanes<T>(static_cast<int>(n_ - t)), here, Plain(T(0)));
      }
    }
    return sum_of_lanes(wrong) == T(0);
  }

  void make_rows() {
    int32_t n_rows = 0, n_chunks = 0, block = 0;
    first_j_ = n_;
    for (int64_t c = 0; c < n_channels_; ++c) {
      for (int64_t other = c; other < n_channels_; ++other) {
        first_chunk_[block++] = n_chunks;
        // The channel that fills more lanes gets them.
        int64_t p = c, q = other;
        const auto registers = [&](int64_t a, int64_t b) {
          return size(a) * ((size(b) + kLanes - 1) / kLanes);
        };
        if (registers(q, p) < registers(p, q)) std::swap(p, q);
        const int64_t n = size(q), steps = p == q ? n / 2 : size(p);
        const bool around = p == q;
        for (int64_t t = 0; t < n; t += kLanes) {
          const int32_t before = n_rows;
          for (int64_t m = 0; m < steps; ++m) {
            // Half way round every pair is met from both ends.
            const int64_t end = around && 2 * (m + 1) == n ? n / 2 : n;
            const int64_t j = around ? first(q) + t + m + 1 : first(p) + m;
            if (t >= end) continue;
            if (!around) first_j_ = std::min(first_j_, j);
            rows_[n_rows++] = {static_cast<int32_t>(j),
                               static_cast<int32_t>(std::min<int64_t>(end - t, kLanes)),
                               static_cast<int32_t>(n - (t + m + 1))};
          }
          if (n_rows == before) continue;
          chunks_[n_chunks++] = {static_cast<int32_t>(first(q) + t),
                                 before,
                                 n_rows,
                                 static_cast<int32_t>(first(q)),
                                 static_cast<int32_t>(n),
                                 around};
        }
      }
    }
    first_chunk_[block] = n_chunks;
  }

  void tabulate(const Formula& formula, const AngularTable<T>& table) {
    for (int64_t s = 0; s < n_; ++s) {
      for (int64_t k = 0; k < n_; k += kLanes) {
        const Plain r = value_of(staged_.neighbors.distance).load(s * stride_ + k);
        for (int64_t d = 0; d < n_distances_; ++d) {
          distances_of(d, s).store(k, formula.distance_factor(r * r, table.distances[d]).value);
        }
      }
      for (int64_t d = 0; d < n_distances_; ++d) distances_of(d, s).store(stride_, T(0));
    }
    const int64_t n_blocks = n_channels_ * (n_channels_ + 1) / 2;
    for (const Chunk* chunk = chunks_; chunk < end(n_blocks - 1); ++chunk) {
      for (int32_t r = chunk->first_row; r < chunk->last_row; ++r) {
        const int32_t j = rows_[r].j, k = chunk->k;
        Vec3<Plain> r_j = positions_.broadcast(j);
        if (chunk->around) r_j = around(positions_, *chunk, rows_[r]);
        const Vec3<Plain> r_jk = positions_.load(k) - r_j;
        const Plain square = dot(r_jk, r_jk);
        const auto fc = formula.cutoff_jk(Dual<Plain>(maximum(square, Limits<T>::tiny), T(1)));
        const int64_t at = r * (3 + n_distances_) * kLanes;
        pairs_.store(at, fc.value.value);
        pairs_.store(at + kLanes, fc.slope.value);
        pairs_.store(at + 2 * kLanes, fc.slope.slope);
        for (int64_t d = 0; d < n_distances_; ++d) {
          const auto factor = chunk->around
                                  ? formula.distance_factor(square, table.distances[d]).value
                                  : distances_of(d, j).load(k);
          pairs_.store(at + (3 + d) * kLanes, factor);
        }
      }
    }
  }
};

}  // namespace pymlp::inline PYMLP_SIMD
