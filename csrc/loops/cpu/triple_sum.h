// Sums over pairs j < k of the neighbours of one centre, one block of features per pair of
// channels. Lanes run over the triples of a tile for all that is one number per triple; then, for
// each block, features are dot products of two columns of factors. Where all features are products
// of one distance and one angle factor (ANI), lanes run over the angles instead: no sum over lanes
// is left forward, and a block of two triples costs no more than two (ANI-1x forward, 256 x 14
// atoms, double: 5.5 -> 3.9 ms).
#pragma once

#include "angular_table.h"
#include "triple_tile.h"

namespace pymlp::inline PYMLP_SIMD {

template <class Formula, class N>
class TripleSum {
 public:
  using T = Scalar<N>;
  using Tile = TripleTile<Formula, N>;
  using Segment = typename Tile::Segment;
  static constexpr int kLanes = Lanes<T>::count;

  void place(Arena& arena, const Formula& formula, const AngularTable<T>& table, int64_t n_channels,
             int64_t max_pairs, Pass pass) {
    const bool with_features = pass != Pass::backward && pass != Pass::jacobian;
    const bool with_adjoints = pass != Pass::forward && pass != Pass::jvp;
    const int64_t n_distances = rounded_up(table.n_distances, kGroup);
    const int64_t n_parts = with_adjoints && table.may_have_lanes_over_angles ? 3 * kLanes : 0;
    // Numbers per triple, and as many triples as L1 has room for.
    const int64_t per_triple = (table.n_angles + n_distances) * (with_adjoints ? 2 : 1) +
                               (with_features ? n_distances : 0) + n_parts + 8;
    const int64_t units = kBytes / (per_triple * static_cast<int64_t>(sizeof(N) / kLanes) * kUnit);
    const int64_t capacity = std::clamp<int64_t>(units, 1, 256 / kUnit) * kUnit;
    tile_.place(arena, formula, n_channels, max_pairs, capacity, !with_adjoints);
    // Rows that lie powers of two apart would get into each other's way in L1.
    stride_ = (capacity / kUnit | 1) * kUnit;
    sine_.place(arena, stride_);
    cotangent_.place(arena, stride_);
    angle_value_.place(arena, stride_ * table.n_angles);
    if (with_features) {
      weighted_distance_.place(arena, stride_ * n_distances);
      sums_.place(arena, rounded_up(table.n_features, kUnit) * kLanes);
    }
    if (with_adjoints) {
      angle_slope_.place(arena, stride_ * table.n_angles);
      distance_value_.place(arena, stride_ * n_distances);
      distance_slope_.place(arena, stride_ * n_distances);
      parts_.place(arena, stride_ * n_parts);
    }
  }

  // with_features: adds to features [centres, n_channel_pairs, S], those of one centre `stride`
  // behind those of the one before.
  // with_adjoints: adds the adjoints of the neighbours for the cotangents grad_features, of the
  // same shape, to `grad`. Both at once share the factors.
  template <bool with_features, bool with_adjoints>
  void run(const Formula& formula, const Staging<N>& s, const AngularTable<T>& table,
           int64_t n_channels, T* features, const T* grad_features, int64_t stride,
           const NeighborColumns<N>& grad) {
    if constexpr (with_adjoints) tile_.begin_scatter(s);
    tile_.for_each(formula, s, n_channels, stride, table.n_features, [&] {
      fill_distances<with_features, with_adjoints>(formula, table);
      if (table.lanes_over_angles) {
        fill_angles_in_lanes<with_adjoints>(table);
        for (const Segment& b : tile_) {
          if constexpr (with_features) add_outer_products(table, b, features);
          if constexpr (with_adjoints) contract_in_lanes(table, b, grad_features);
        }
        if constexpr (with_adjoints) sum_parts();
      } else {
        fill_angles<with_adjoints>(table);
        for (const Segment& b : tile_) {
          if constexpr (with_features) add_dot_products(table, b, features);
          if constexpr (with_adjoints) contract(table, b, grad_features);
        }
      }
      if constexpr (with_adjoints) {
        tile_.scatter(formula, s, grad);
      }
    });
    if constexpr (with_adjoints) tile_.finish_scatter(s, grad);
  }

  // Calls store(p, q, feature) once per segment and feature, after adding that feature's adjoints
  // to `grad` of the neighbours of the channels p and q; store clears them.
  template <class Store>
  void jacobian(const Formula& formula, const Staging<N>& s, const AngularTable<T>& table,
                int64_t n_channels, const NeighborColumns<N>& grad, Store store) {
    tile_.for_each(formula, s, n_channels, 0, table.n_features, [&] {
      fill_distances<false, true>(formula, table);
      fill_angles<true>(table);
      for (const Segment& b : tile_) {
        for (int64_t f = 0; f < table.n_real(); ++f) {
          const int64_t a = table.angle_of[f] * stride_, d = table.distance_of[f] * stride_;
          for (int64_t t = b.begin; t < b.end; t += kLanes) {
            const N w = tile_.weight.load(t);
            const N angle = angle_value_.load(a + t), distance = distance_value_.load(d + t);
            tile_.grad_cosine.store(t, w * angle_slope_.load(a + t) * distance);
            tile_.grad_distance.store(t, w * angle * distance_slope_.load(d + t));
            tile_.grad_weight.store(t, angle * distance);
          }
          tile_.scatter(formula, s, b, grad);
          store(b.p, b.q, b.features + f);
        }
      }
    });
  }

 private:
  static constexpr int64_t kBytes = 32 << 10;
  static constexpr int kGroup = 4;  // distance factors, or triples, that are taken at a time
  static constexpr int kUnit = Tile::kUnit;
  // Registers of triples that are taken at a time: they hide the latencies of one another.
  static constexpr int kRegisters = kUnit / kLanes;

  Tile tile_;
  int64_t stride_ = 0;  // from one factor's row to the next
  Column<N> sine_, cotangent_;
  // One row per factor, or, of the angles in lanes, one per triple.
  Column<N> angle_value_, angle_slope_, distance_value_, distance_slope_, weighted_distance_;
  Column<Lanes<T>> sums_;  // [S, lanes]
  Column<N> parts_;  // [triples, 3, lanes] whose sums over the lanes are the adjoints of a triple

  // Features take the values with the weight of the triple, adjoints without it and the slopes.
  template <bool with_features, bool with_adjoints>
  PYMLP_INLINE void fill_distances(const Formula& formula, const AngularTable<T>& table) {
    for (int64_t t = 0; t < tile_.size; t += kUnit) {
      for (int64_t d = 0; d < table.n_distances; ++d) {
        const DistanceParameters<T> parameters = table.distances[d];
#pragma GCC unroll 4
        for (int i = 0; i < kRegisters; ++i) {
          const int64_t at = t + i * kLanes;
          const auto factor = formula.distance_factor(tile_.distance.load(at), parameters);
          if constexpr (with_features) {
            weighted_distance_.store(d * stride_ + at, factor.value * tile_.weight.load(at));
          }
          if constexpr (with_adjoints) {
            distance_value_.store(d * stride_ + at, factor.value);
            distance_slope_.store(d * stride_ + at, factor.slope);
          }
        }
      }
    }
    for (int64_t d = table.n_distances; d % kGroup != 0; ++d) {
      if constexpr (with_features) clear(weighted_distance_, d);
      if constexpr (with_adjoints) {
        clear(distance_value_, d);
        clear(distance_slope_, d);
      }
    }
  }

  void clear(const Column<N>& column, int64_t row) const {
    for (int64_t t = 0; t < stride_; t += kLanes) column.store(row * stride_ + t, N(T(0)));
  }

  // --- lanes over triples

  template <bool with_slopes>
  PYMLP_INLINE void fill_angles(const AngularTable<T>& table) {
    for (int64_t t = 0; t < tile_.size; t += kUnit) {
      const N zero{T(0)};
      Angle<N> angles[kRegisters];
      for (int i = 0; i < kRegisters; ++i) {
        const N cosine = tile_.cosine.load(t + i * kLanes);
        angles[i] = table.with_sine ? make_angle(cosine) : Angle<N>{cosine, zero, zero};
      }
      for (int64_t l = 0; l < table.n_ladders; ++l) {
        const AngleLadder<T>& ladder = table.ladders[l];
        N value[kRegisters], slope[kRegisters];
        const auto store = [&](int32_t angle) {
          for (int i = 0; i < kRegisters; ++i) {
            const int64_t at = angle * stride_ + t + i * kLanes;
            angle_value_.store(at, value[i]);
            if constexpr (with_slopes) angle_slope_.store(at, slope[i]);
          }
        };
        if constexpr (with_slopes) {
          angle_factors(angles, ladder.first, value, slope);
        } else {
          angle_values(angles, ladder.first, value);
        }
        store(table.rungs[ladder.begin].angle);
        for (int32_t r = ladder.begin + 1; r < ladder.end; ++r) {
          const AngleRung<T> rung = table.rungs[r];
          if constexpr (with_slopes) {
            angle_factors_at_multiple(rung.multiple, value, slope);
          } else {
            angle_values_at_multiple(rung.multiple, value);
          }
          store(rung.angle);
        }
      }
    }
  }

  PYMLP_INLINE void add_dot_products(const AngularTable<T>& table, const Segment& b, T* features) {
    const int64_t n = table.n_real();
    // The incomplete register comes first.
    const int64_t count = b.end - b.begin, head = (count - 1) % kLanes + 1;
    const auto mask = first_lanes<T>(static_cast<int>(head));
    for (int64_t f = 0; f < n; f += kGroup) {
      int64_t a[kGroup], d[kGroup];
      N sum[kGroup];
#pragma GCC unroll 4
      for (int i = 0; i < kGroup; ++i) {
        a[i] = table.angle_of[f + i] * stride_;
        d[i] = table.distance_of[f + i] * stride_;
        sum[i] = select(mask,
                        weighted_distance_.load(d[i] + b.begin) * angle_value_.load(a[i] + b.begin),
                        N(T(0)));
      }
      for (int64_t t = b.begin + head; t < b.end; t += kLanes) {
#pragma GCC unroll 4
        for (int i = 0; i < kGroup; ++i) {
          sum[i] = sum[i] + weighted_distance_.load(d[i] + t) * angle_value_.load(a[i] + t);
        }
      }
      for (int i = 0; i < kGroup; ++i) sums_.store((f + i) * kLanes, reported(sum[i]));
    }
    T* out = features + b.features;
    for (int64_t f = 0; f < n; f += kLanes) {
      Lanes<T> sums[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) sums[i] = sums_.load((f + i) * kLanes);
      add_first(sums_of_lanes(sums), out + f, n - f);
    }
  }

  PYMLP_INLINE void contract(const AngularTable<T>& table, const Segment& b,
                             const T* grad_features) {
    const T* g = grad_features + b.features;
    for (int64_t t = b.begin; t < b.end; t += kLanes) {
      N g_cosine{T(0)}, g_distance{T(0)}, g_weight{T(0)};
      for (int64_t d = 0; d < table.n_distances; ++d) {
        N values{T(0)}, slopes{T(0)};  // sum_a g_da A_a and sum_a g_da dA_a/dc
        for (int32_t f = table.first[d]; f < table.first[d + 1]; ++f) {
          const int64_t at = table.angle_of[f] * stride_ + t;
          const Lanes<T> gf = g[f];
          values = values + angle_value_.load(at) * gf;
          slopes = slopes + angle_slope_.load(at) * gf;
        }
        const N value = distance_value_.load(d * stride_ + t);
        g_cosine = g_cosine + value * slopes;
        g_distance = g_distance + distance_slope_.load(d * stride_ + t) * values;
        g_weight = g_weight + value * values;
      }
      store_adjoint(t, {g_cosine, g_distance, g_weight});
    }
  }

  PYMLP_INLINE void store_adjoint(int64_t t, Triple<N> g) const {
    const N w = tile_.weight.load(t);
    tile_.grad_cosine.store(t, g.cosine * w);
    tile_.grad_distance.store(t, g.distance * w);
    tile_.grad_weight.store(t, g.weight);
  }

  // --- lanes over angles

  template <bool with_slopes>
  PYMLP_INLINE void fill_angles_in_lanes(const AngularTable<T>& table) {
    for (int64_t t = 0; t < rounded_up(tile_.size, kGroup); t += kLanes) {
      const Angle<N> angle = make_angle(tile_.cosine.load(t));
      sine_.store(t, angle.sin);
      if constexpr (with_slopes) cotangent_.store(t, angle.cotangent);
    }
    for (int64_t a = 0; a < table.n_angles; a += kLanes) {
      const auto parameters = table.angles_in_lanes(a);
      for (int64_t t = 0; t < tile_.size; t += kGroup) {
        Angle<N> angles[kGroup];
        N values[kGroup], slopes[kGroup];
        for (int i = 0; i < kGroup; ++i) {
          angles[i].cos = tile_.cosine.broadcast(t + i);
          angles[i].sin = sine_.broadcast(t + i);
          if constexpr (with_slopes) angles[i].cotangent = cotangent_.broadcast(t + i);
        }
        if constexpr (with_slopes) {
          angle_factors(angles, parameters, values, slopes);
        } else {
          angle_values(angles, parameters, values);
        }
        for (int i = 0; i < kGroup; ++i) {
          angle_value_.store((t + i) * table.n_angles + a, values[i]);
          if constexpr (with_slopes) angle_slope_.store((t + i) * table.n_angles + a, slopes[i]);
        }
      }
    }
  }

  // Calls body(a, n) for all angles, n = 2 or 1 registers of them at a time.
  template <class Body>
  static PYMLP_INLINE void for_each_angle(const AngularTable<T>& table, Body body) {
    if (table.n_angles % (2 * kLanes) == 0) {
      for (int64_t a = 0; a < table.n_angles; a += 2 * kLanes) {
        body(a, std::integral_constant<int, 2>());
      }
    } else {
      for (int64_t a = 0; a < table.n_angles; a += kLanes) {
        body(a, std::integral_constant<int, 1>());
      }
    }
  }

  PYMLP_INLINE void add_outer_products(const AngularTable<T>& table, const Segment& b,
                                       T* features) {
    T* out = features + b.features;
    for (int64_t d = 0; d < table.n_distances; d += kGroup) {
      const int64_t n_distances = std::min<int64_t>(kGroup, table.n_distances - d);
      for_each_angle(table, [&]<int n>(int64_t a, std::integral_constant<int, n>) {
        N sum[kGroup][n];
        for (int i = 0; i < kGroup; ++i) {
          for (int l = 0; l < n; ++l) sum[i][l] = N(T(0));
        }
        for (int64_t t = b.begin; t < b.end; ++t) {
          N angle[n];
          for (int l = 0; l < n; ++l)
            angle[l] = angle_value_.load(t * table.n_angles + a + l * kLanes);
#pragma GCC unroll 4
          for (int i = 0; i < kGroup; ++i) {
            const N distance = weighted_distance_.broadcast((d + i) * stride_ + t);
            for (int l = 0; l < n; ++l) sum[i][l] = sum[i][l] + angle[l] * distance;
          }
        }
        for (int i = 0; i < n_distances; ++i) {
          for (int l = 0; l < n; ++l) {
            T* to = out + (d + i) * table.n_angles + a + l * kLanes;
            (Lanes<T>::load(to) + reported(sum[i][l])).store(to);
          }
        }
      });
    }
  }

  PYMLP_INLINE void contract_in_lanes(const AngularTable<T>& table, const Segment& b,
                                      const T* grad_features) {
    const T* g = grad_features + b.features;
    for (int64_t d = 0; d < table.n_distances; d += kGroup) {
      for_each_angle(table, [&]<int n>(int64_t a, std::integral_constant<int, n>) {
        if (d == 0 && a == 0) {
          contract_group<n, false>(table, b, g, d, a);
        } else {
          contract_group<n, true>(table, b, g, d, a);
        }
      });
    }
  }

  template <int n, bool more>
  PYMLP_INLINE void contract_group(const AngularTable<T>& table, const Segment& b, const T* g,
                                   int64_t d, int64_t a) {
    Lanes<T> row[kGroup][n];
    for (int i = 0; i < kGroup; ++i) {
      for (int l = 0; l < n; ++l) {
        row[i][l] = d + i < table.n_distances
                        ? Lanes<T>::load(g + (d + i) * table.n_angles + a + l * kLanes)
                        : Lanes<T>(T(0));
      }
    }
    const Column<N> parts = parts_, angle_value = angle_value_, angle_slope = angle_slope_;
    const Column<N> distance_value = distance_value_, distance_slope = distance_slope_;
    const int64_t stride = stride_, n_angles = table.n_angles;
    for (int64_t t = b.begin; t < b.end; ++t) {
      // sum_d g_da D_d and sum_d g_da dD_d/dQ, each of two halves: their latencies would be seen.
      N of_value[2][n], of_slope[2][n];
#pragma GCC unroll 4
      for (int i = 0; i < kGroup; ++i) {
        const N value = distance_value.broadcast((d + i) * stride + t);
        const N slope = distance_slope.broadcast((d + i) * stride + t);
        for (int l = 0; l < n; ++l) {
          if (i < 2) {
            of_value[i][l] = value * row[i][l];
            of_slope[i][l] = slope * row[i][l];
          } else {
            of_value[i - 2][l] = of_value[i - 2][l] + value * row[i][l];
            of_slope[i - 2][l] = of_slope[i - 2][l] + slope * row[i][l];
          }
        }
      }
      N sum[3];
      for (int l = 0; l < n; ++l) {
        const int64_t at = t * n_angles + a + l * kLanes;
        const N value = angle_value.load(at), slope = angle_slope.load(at);
        const N by_value = of_value[0][l] + of_value[1][l],
                by_slope = of_slope[0][l] + of_slope[1][l];
        if (l == 0) {
          sum[0] = slope * by_value;
          sum[1] = value * by_slope;
          sum[2] = value * by_value;
        } else {
          sum[0] = sum[0] + slope * by_value;
          sum[1] = sum[1] + value * by_slope;
          sum[2] = sum[2] + value * by_value;
        }
      }
      for (int i = 0; i < 3; ++i) {
        const int64_t to = (t * 3 + i) * kLanes;
        parts.store(to, more ? parts.load(to) + sum[i] : sum[i]);
      }
    }
  }

  PYMLP_INLINE void sum_parts() {
    for (int64_t t = 0; t < tile_.size; t += kLanes) {
      N g[3];
      for (int k = 0; k < 3; ++k) {
        N parts[kLanes];
        for (int i = 0; i < kLanes; ++i) parts[i] = parts_.load(((t + i) * 3 + k) * kLanes);
        g[k] = sums_of_lanes(parts);
      }
      store_adjoint(t, {g[0], g[1], g[2]});
    }
  }
};

}  // namespace pymlp::inline PYMLP_SIMD
