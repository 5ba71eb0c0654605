// The parameters of the angular features, prepared once per parameter set for
// loops/cpu/triple_sum.h.
#pragma once

#include <algorithm>

#include "../../formulas/angular_symmetry.h"
#include "../neighborhood.h"
#include "columns.h"

namespace pymlp::inline PYMLP_SIMD {

// Angle factors of one theta_s. Each is a power of the one before it (zeta = 1, 2, 4, ... 32 takes
// five squarings, not fifteen).
template <class T>
struct AngleLadder {
  AngleParameters<T> first;  // of the lowest rung
  int32_t begin, end;        // its rungs
};

template <class T>
struct AngleRung {
  int32_t angle;
  Exponent<T> multiple;  // zeta over that of the rung below; of the lowest rung: without meaning
};

template <class T>
class AngularTable {
 public:
  static constexpr int kLanes = Lanes<T>::count;

  int64_t n_distances = 0, n_angles = 0, n_features = 0;
  int64_t n_ladders = 0;
  DistanceParameters<T>* distances = nullptr;
  AngleLadder<T>* ladders = nullptr;
  AngleRung<T>* rungs = nullptr;
  int32_t* first = nullptr;     // [D + 1] first feature of every distance factor
  int32_t* angle_of = nullptr;  // [S] angle factor of every feature
  int32_t* distance_of = nullptr;
  bool with_sine = false;  // some theta_s is neither 0 nor pi
  // Features are all products distance x angle, in this order and of one zeta, as in ANI, and the
  // angles are whole registers: then lanes run over the angles (see TripleSum).
  bool lanes_over_angles = false, may_have_lanes_over_angles = false;  // the latter by sizes alone

  void place(Arena& arena, const SymmetryTables<T>& tables) {
    n_distances = tables.n_distances;
    n_angles = tables.n_angles;
    n_features = tables.n_angular;
    may_have_lanes_over_angles = n_angles % kLanes == 0 && n_features == n_distances * n_angles;
    distances = arena.take<DistanceParameters<T>>(n_distances);
    ladders = arena.take<AngleLadder<T>>(n_angles);
    rungs = arena.take<AngleRung<T>>(n_angles);
    cos_shift_ = arena.take<T>(n_angles);
    sin_shift_ = arena.take<T>(n_angles);
    first = arena.take<int32_t>(n_distances + 1);
    angle_of = arena.take<int32_t>(rounded_up(n_features, 4));
    distance_of = arena.take<int32_t>(rounded_up(n_features, 4));
  }

  void fill(const SymmetryTables<T>& tables, const int64_t* products) {
    for (int64_t d = 0; d < n_distances; ++d) {
      distances[d] = {tables.distances[2 * d], tables.distances[2 * d + 1]};
    }
    std::fill(first, first + n_distances + 1, 0);
    for (int64_t s = 0; s < n_features; ++s) {
      distance_of[s] = static_cast<int32_t>(products[2 * s]);
      angle_of[s] = static_cast<int32_t>(products[2 * s + 1]);
      if (distance_of[s] >= 0) ++first[distance_of[s] + 1];
    }
    for (int64_t d = 0; d < n_distances; ++d) first[d + 1] += first[d];
    // Sums are made of four features at a time, those past the last one are not kept.
    for (int64_t s = n_real(); s < rounded_up(n_features, 4); ++s) {
      distance_of[s] = angle_of[s] = 0;
    }
    with_sine = false;
    bool one_zeta = true;
    for (int64_t a = 0; a < n_angles; ++a) {
      const T* row = tables.angles + 3 * a;
      cos_shift_[a] = row[1];
      sin_shift_[a] = row[2];
      with_sine = with_sine || row[2] != T(0);
      one_zeta = one_zeta && row[0] == tables.angles[0];
    }
    lanes_over_angles = may_have_lanes_over_angles && one_zeta && n_real() == n_features;
    for (int64_t s = 0; s < n_real(); ++s) {
      lanes_over_angles =
          lanes_over_angles && distance_of[s] == s / n_angles && angle_of[s] == s % n_angles;
    }
    zeta_ = n_angles > 0 ? tables.angles[0] : T(0);
    fill_ladders(tables);
  }

  // The angles a, a + 1, ... of a register.
  PYMLP_INLINE AngleParameters<T, Lanes<T>> angles_in_lanes(int64_t a) const {
    return make_angle_parameters(zeta_, Lanes<T>::load(cos_shift_ + a),
                                 Lanes<T>::load(sin_shift_ + a));
  }

  int64_t n_real() const { return first[n_distances]; }  // without the padding of the set

 private:
  T *cos_shift_ = nullptr, *sin_shift_ = nullptr;  // [Z]
  T zeta_ = T(0);                                  // of all angles, where lanes run over them

  // Angles of one shift, lowest zeta first, each on top of the ladder whose last zeta divides its
  // own, or else at the foot of a new one.
  void fill_ladders(const SymmetryTables<T>& tables) {
    const T* rows = tables.angles;
    int32_t placed = 0;
    n_ladders = 0;
    for (int64_t a = 0; a < n_angles; ++a) rungs[a].angle = -1;
    const auto is_placed = [&](int64_t a) {
      return std::any_of(rungs, rungs + placed, [&](const auto& r) { return r.angle == a; });
    };
    while (placed < n_angles) {
      AngleLadder<T>& ladder = ladders[n_ladders++];
      ladder.begin = placed;
      int64_t below = -1;
      for (;;) {
        int64_t next = -1;
        for (int64_t a = 0; a < n_angles; ++a) {
          if (is_placed(a) || (next >= 0 && rows[3 * a] >= rows[3 * next])) continue;
          if (below < 0) {
            next = a;
            continue;
          }
          const bool same_shift =
              rows[3 * a + 1] == rows[3 * below + 1] && rows[3 * a + 2] == rows[3 * below + 2];
          const T multiple = rows[3 * a] / rows[3 * below];
          if (same_shift && rows[3 * below] > T(0) && make_exponent(multiple).whole > 0) next = a;
        }
        if (next < 0) break;
        rungs[placed++] = {static_cast<int32_t>(next),
                           make_exponent(below < 0 ? T(1) : rows[3 * next] / rows[3 * below])};
        below = next;
      }
      ladder.end = placed;
      const T* lowest = rows + 3 * rungs[ladder.begin].angle;
      ladder.first = make_angle_parameters(lowest[0], lowest[1], lowest[2]);
    }
  }
};

}  // namespace pymlp::inline PYMLP_SIMD
