// Sums over pairs j < k of the neighbours of one centre, one block per pair of channels. Lanes run
// over triples. A block goes through a tile that stays in L1: rows (one j, a run of k) write the
// geometry of their triples, then angle and distance factors are computed once per triple, then
// each feature is a dot product of two of these columns. Backward walks the same tile in reverse
// order.
#pragma once

#include <type_traits>

#include "staging.h"

namespace pymlp::inline PYMLP_SIMD {

// The parameters, with the features of each set grouped by distance factor.
template <class T>
struct AngularTable {
  int64_t n_distances = 0, n_angles = 0, n_features = 0;
  DistanceParameters<T>* distances = nullptr;
  AngleParameters<T>* angles = nullptr;
  int32_t* first = nullptr;     // [D + 1] first feature of every distance factor
  int32_t* angle_of = nullptr;  // [S] angle factor of every feature
  int32_t* distance_of = nullptr;
  // Features are all products distance x angle, in this order, as in ANI: the backward pass then
  // does without indices (4.9 -> 4.1 ms for 256 x 14 atoms; the forward pass gains nothing by it).
  bool product = false;

  void place(Arena& arena, const SymmetryTables<T>& tables) {
    n_distances = tables.n_distances;
    n_angles = tables.n_angles;
    n_features = tables.n_angular;
    distances = arena.take<DistanceParameters<T>>(n_distances);
    angles = arena.take<AngleParameters<T>>(n_angles);
    alike_ = arena.take<int32_t>(n_angles);
    first = arena.take<int32_t>(n_distances + 1);
    angle_of = arena.take<int32_t>(rounded_up(n_features, Lanes<T>::count));
    distance_of = arena.take<int32_t>(rounded_up(n_features, Lanes<T>::count));
  }
  void fill(const SymmetryTables<T>& tables, const int64_t* products) {
    for (int64_t d = 0; d < n_distances; ++d) {
      distances[d] = {tables.distances[2 * d], tables.distances[2 * d + 1]};
    }
    for (int64_t a = 0; a < n_angles; ++a) {
      const T* row = tables.angles + 3 * a;
      angles[a] = make_angle_parameters(row[0], row[1], row[2]);
    }
    for (int64_t a = 0; a < n_angles; ++a) {
      int32_t alike = 1;
      while (alike < 4 && a + alike < n_angles &&
             angles[a + alike].zeta.value == angles[a].zeta.value) {
        ++alike;
      }
      alike_[a] = alike;
    }
    std::fill(first, first + n_distances + 1, 0);
    for (int64_t s = 0; s < n_features; ++s) {
      distance_of[s] = static_cast<int32_t>(products[2 * s]);
      angle_of[s] = static_cast<int32_t>(products[2 * s + 1]);
      if (distance_of[s] >= 0) ++first[distance_of[s] + 1];
    }
    for (int64_t d = 0; d < n_distances; ++d) first[d + 1] += first[d];
    // Past the last feature the sums are made, a register at a time, but not kept.
    for (int64_t s = n_real(); s < rounded_up(n_features, Lanes<T>::count); ++s) {
      distance_of[s] = angle_of[s] = 0;
    }
    product = n_real() == n_distances * n_angles;
    for (int64_t s = 0; s < n_real(); ++s) {
      product = product && distance_of[s] == s / n_angles && angle_of[s] == s % n_angles;
    }
  }
  // Calls body(a, n) for all angle factors, n = 4, 2 or 1 of the same zeta at a time.
  template <class Body>
  PYMLP_INLINE void for_each_angle(Body body) const {
    for (int64_t a = 0; a < n_angles;) {
      if (alike_[a] == 4) {
        body(a, std::integral_constant<int, 4>());
        a += 4;
      } else if (alike_[a] >= 2) {
        body(a, std::integral_constant<int, 2>());
        a += 2;
      } else {
        body(a, std::integral_constant<int, 1>());
        a += 1;
      }
    }
  }
  int64_t n_real() const { return first[n_distances]; }  // without the padding of the set

 private:
  int32_t* alike_ = nullptr;  // [Z] how many angles from here on have the same zeta, at most 4
};

template <class Formula, class N>
class TripleSum {
 public:
  using T = Scalar<N>;
  static constexpr int kLanes = Lanes<T>::count;
  static constexpr int64_t kTile = 128;

  void place(Arena& arena, const AngularTable<T>& table, Pass pass) {
    cosine_.place(arena, kTile + kLanes);
    distance_.place(arena, kTile + kLanes);
    weight_.place(arena, kTile + kLanes);
    rows_ = arena.take<Row>(kTile);
    const bool forward = pass == Pass::forward || pass == Pass::jvp;
    angle_value_.place(arena, kTile * table.n_angles);
    distance_value_.place(arena, kTile * table.n_distances);
    if (forward) return;
    angle_slope_.place(arena, kTile * table.n_angles);
    distance_slope_.place(arena, kTile * table.n_distances);
    grad_cosine_.place(arena, kTile + kLanes);
    grad_distance_.place(arena, kTile + kLanes);
    grad_weight_.place(arena, kTile + kLanes);
  }

  // features [n_channel_pairs, S]: every element is written, empty blocks as zeros.
  void forward(const Formula& formula, const Staging<N>& s, const AngularTable<T>& table,
               int64_t n_channels, T* features) {
    for_each_block(n_channels, [&](int64_t p, int64_t q, int64_t block) {
      T* out = features + block * table.n_features;
      std::fill(out + (has_triples(s, p, q) ? table.n_real() : 0), out + table.n_features, T(0));
      bool fresh = true;
      for_each_tile(formula, s, p, q, [&] {
        sum_features(formula, table, fresh, out);
        fresh = false;
      });
    });
  }

  // Adds the adjoints of the neighbours for the cotangents grad_features [n_channel_pairs, S].
  void backward(const Formula& formula, const Staging<N>& s, const AngularTable<T>& table,
                int64_t n_channels, const T* grad_features, const NeighborColumns<N>& grad) {
    for_each_block(n_channels, [&](int64_t p, int64_t q, int64_t block) {
      const T* g = grad_features + block * table.n_features;
      for_each_tile(formula, s, p, q, [&] {
        contract_features(formula, table, g);
        scatter(formula, s, grad);
      });
    });
  }

  // Calls store(p, q, feature) once per tile and feature, after adding that feature's adjoints to
  // `grad` of the neighbours of the channels p and q; store clears them.
  template <class Store>
  void jacobian(const Formula& formula, const Staging<N>& s, const AngularTable<T>& table,
                int64_t n_channels, const NeighborColumns<N>& grad, Store store) {
    for_each_block(n_channels, [&](int64_t p, int64_t q, int64_t block) {
      for_each_tile(formula, s, p, q, [&] {
        for (int64_t t = 0; t < tile_; t += kLanes) factors_and_slopes<kTile>(formula, table, t, t);
        for (int64_t f = 0; f < table.n_real(); ++f) {
          const int32_t a = table.angle_of[f], d = table.distance_of[f];
          for (int64_t t = 0; t < tile_; t += kLanes) {
            const N w = weight_.load(t);
            const int64_t at_a = a * kTile + t, at_d = d * kTile + t;
            grad_cosine_.store(t, w * angle_slope_.load(at_a) * distance_value_.load(at_d));
            grad_distance_.store(t, w * angle_value_.load(at_a) * distance_slope_.load(at_d));
            grad_weight_.store(t, angle_value_.load(at_a) * distance_value_.load(at_d));
          }
          scatter(formula, s, grad);
          store(p, q, block * table.n_features + f);
        }
      });
    });
  }

 private:
  struct Row {
    int32_t j, k, count;
  };

  Column<N> cosine_, distance_, weight_;
  Column<N> grad_cosine_, grad_distance_, grad_weight_;
  // One row per angle or distance factor.
  Column<N> angle_value_, angle_slope_, distance_value_, distance_slope_;
  Row* rows_ = nullptr;
  int64_t n_rows_ = 0, tile_ = 0;

  static bool has_triples(const Staging<N>& s, int64_t p, int64_t q) {
    const int64_t n_p = s.channels[p + 1] - s.channels[p];
    return p == q ? n_p > 1 : n_p > 0 && s.channels[q + 1] > s.channels[q];
  }

  template <class Body>
  static void for_each_block(int64_t n_channels, Body body) {
    int64_t block = 0;
    for (int64_t p = 0; p < n_channels; ++p) {
      for (int64_t q = p; q < n_channels; ++q) body(p, q, block++);
    }
  }

  // Fill the tile with the triples of a block, and call flush whenever it is full and at the end.
  template <class Flush>
  void for_each_tile(const Formula& formula, const Staging<N>& s, int64_t p, int64_t q,
                     Flush flush) {
    if (!has_triples(s, p, q)) return;
    n_rows_ = tile_ = 0;
    // A triple is symmetric in j and k: few long rows fill more lanes than many short ones.
    if (s.channels[p + 1] - s.channels[p] > s.channels[q + 1] - s.channels[q]) std::swap(p, q);
    const int64_t end = s.channels[q + 1];
    for (int64_t j = s.channels[p]; j < s.channels[p + 1]; ++j) {
      const Neighbor<N> first = s.neighbors.broadcast(j);
      int64_t k = p == q ? j + 1 : s.channels[q];
      while (k < end) {
        const int64_t n = std::min(end - k, kTile - tile_);
        for (int64_t i = 0; i < n; i += kLanes) {
          const Triple<N> t = formula.triple(first, s.neighbors.load(k + i));
          cosine_.store(tile_ + i, t.cosine);
          distance_.store(tile_ + i, t.distance);
          weight_.store(tile_ + i, t.weight);
        }
        rows_[n_rows_++] = {static_cast<int32_t>(j), static_cast<int32_t>(k),
                            static_cast<int32_t>(n)};
        tile_ += n;
        k += n;
        if (tile_ == kTile) close_tile(flush);
      }
    }
    if (tile_ > 0) close_tile(flush);
  }

  template <class Flush>
  void close_tile(Flush flush) {
    // Lanes past the last triple have weight 0, hence no part in any sum.
    for (int64_t t = tile_; t % kLanes != 0; ++t) {
      cosine_.set(t, T(0));
      distance_.set(t, T(0));
      weight_.set(t, T(0));
    }
    flush();
    n_rows_ = tile_ = 0;
  }

  void sum_features(const Formula& formula, const AngularTable<T>& table, bool fresh, T* out) {
    for (int64_t t = 0; t < tile_; t += kLanes) {
      const Angle<N> angle = make_angle(cosine_.load(t));
      table.for_each_angle([&]<int n>(int64_t a, std::integral_constant<int, n>) {
        N value[n];
        angle_values(angle, table.angles + a, value);
        for (int i = 0; i < n; ++i) angle_value_.store((a + i) * kTile + t, value[i]);
      });
      const N q = distance_.load(t), w = weight_.load(t);
      for (int64_t d = 0; d < table.n_distances; ++d) {
        distance_value_.store(d * kTile + t,
                              w * formula.distance_factor(q, table.distances[d]).value);
      }
    }
    const int64_t n = table.n_real();
    for (int64_t f = 0; f < n; f += kLanes) {
      const int32_t *a = table.angle_of + f, *d = table.distance_of + f;
      N sum[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        sum[i] = distance_value_.load(d[i] * kTile) * angle_value_.load(a[i] * kTile);
      }
      for (int64_t t = kLanes; t < tile_; t += kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) {
          sum[i] =
              sum[i] + distance_value_.load(d[i] * kTile + t) * angle_value_.load(a[i] * kTile + t);
        }
      }
      Lanes<T> sums[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) sums[i] = reported(sum[i]);
      Lanes<T> total = sums_of_lanes(sums);
      if (!fresh) {
        T before[kLanes];
        for (int i = 0; i < kLanes; ++i) before[i] = f + i < n ? out[f + i] : T(0);
        total = total + Lanes<T>::load(before);
      }
      store_first(total, out + f, n - f);
    }
  }

  // stride: kTile keeps the factors of the whole tile, kLanes those of one register of triples.
  template <int64_t stride>
  PYMLP_INLINE void factors_and_slopes(const Formula& formula, const AngularTable<T>& table,
                                       int64_t t, int64_t at) {
    const Angle<N> angle = make_angle(cosine_.load(t));
    table.for_each_angle([&]<int n>(int64_t a, std::integral_constant<int, n>) {
      N value[n], slope[n];
      angle_factors(angle, table.angles + a, value, slope);
      for (int i = 0; i < n; ++i) {
        angle_value_.store((a + i) * stride + at, value[i]);
        angle_slope_.store((a + i) * stride + at, slope[i]);
      }
    });
    const N q = distance_.load(t);
    for (int64_t d = 0; d < table.n_distances; ++d) {
      const auto factor = formula.distance_factor(q, table.distances[d]);
      distance_value_.store(d * stride + at, factor.value);
      distance_slope_.store(d * stride + at, factor.slope);
    }
  }

  void contract_features(const Formula& formula, const AngularTable<T>& table, const T* g) {
    for (int64_t t = 0; t < tile_; t += kLanes) {
      factors_and_slopes<kLanes>(formula, table, t, 0);
      N g_cosine{T(0)}, g_distance{T(0)}, g_weight{T(0)};
      for (int64_t d = 0; d < table.n_distances; ++d) {
        N values{T(0)}, slopes{T(0)};  // sum_a g_da A_a and sum_a g_da dA_a/dc
        const auto add = [&](int64_t f, int64_t a) {
          const Lanes<T> gf = g[f];
          values = values + angle_value_.load(a * kLanes) * gf;
          slopes = slopes + angle_slope_.load(a * kLanes) * gf;
        };
        if (table.product) {
          for (int64_t a = 0; a < table.n_angles; ++a) add(d * table.n_angles + a, a);
        } else {
          for (int32_t f = table.first[d]; f < table.first[d + 1]; ++f) add(f, table.angle_of[f]);
        }
        const N value = distance_value_.load(d * kLanes);
        g_cosine = g_cosine + value * slopes;
        g_distance = g_distance + distance_slope_.load(d * kLanes) * values;
        g_weight = g_weight + value * values;
      }
      const N w = weight_.load(t);
      grad_cosine_.store(t, g_cosine * w);
      grad_distance_.store(t, g_distance * w);
      grad_weight_.store(t, g_weight);
    }
  }

  // From the adjoints of the triples in the tile to those of their neighbours.
  void scatter(const Formula& formula, const Staging<N>& s, const NeighborColumns<N>& grad) const {
    const N zero{T(0)};
    int64_t t = 0;
    for (int64_t r = 0; r < n_rows_; ++r) {
      const Row row = rows_[r];
      const Neighbor<N> j = s.neighbors.broadcast(row.j);
      Neighbor<N> g_j{{zero, zero, zero}, zero, zero};
      for (int64_t i = 0; i < row.count; i += kLanes) {
        const auto mine = first_lanes<T>(static_cast<int>(row.count - i));
        const Triple<N> g{select(mine, grad_cosine_.load(t + i), zero),
                          select(mine, grad_distance_.load(t + i), zero),
                          select(mine, grad_weight_.load(t + i), zero)};
        const int64_t k = row.k + i;
        const NeighborPair<N> both = formula.triple_adjoint(j, s.neighbors.load(k), g);
        grad.store(k, grad.load(k) + both.k);
        g_j = g_j + both.j;
      }
      grad.add_sums(row.j, g_j);
      t += row.count;
    }
  }
};

}  // namespace pymlp::inline PYMLP_SIMD
