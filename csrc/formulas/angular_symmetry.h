// Angular symmetry functions (eqs 3 and 6), one term of the sum over pairs j < k of neighbours of
// i. Both are a product of an angle factor, a distance factor and a weight:
//
//   angle      A(c) = [1/2 (1 + cos(theta - theta_s))]^zeta, which cannot overflow
//   distance   eq 3 (Behler-Parrinello): D = exp(-eta Q),         Q = R_ij^2 + R_ik^2 + R_jk^2
//              (Behler's G5: without R_jk)
//              eq 6 (ANI):               D = exp(-eta (Q-R_s)^2), Q = (R_ij + R_ik) / 2
//   weight     eq 3: 2 f_c(R_ij) f_c(R_ik) f_c(R_jk);  G5 and eq 6: 2 f_c(R_ij) f_c(R_ik)
//
// so that A times the 2 of the weight is the papers' 2^(1-zeta) (1 + cos(theta - theta_s))^zeta.
// Distances in Angstrom; theta is the angle at i (eqs 4, 5), c = cos(theta) times `cosine_scale`
// (1, or 0.95 as in TorchANI). No acos: cos(theta - theta_s) = c cos(theta_s) + s sin(theta_s) with
// s = sqrt(max(1 - c^2, 0) + epsilon^2), epsilon^2 the machine epsilon of the type, so that
// collinear triples have finite derivatives.
#pragma once

#include "../numbers/vec3.h"
#include "cutoff.h"

namespace pymlp::inline PYMLP_SIMD {

// What a triple needs to know of a neighbour: unit vector from the centre, distance, and cutoff
// function (times the neighbour's element weight). Also the adjoints of these.
template <class N>
struct Neighbor {
  Vec3<N> unit;
  N distance;
  N cutoff;

  friend PYMLP_INLINE Neighbor operator+(Neighbor a, Neighbor b) {
    return {a.unit + b.unit, a.distance + b.distance, a.cutoff + b.cutoff};
  }
};

template <class N>
struct Triple {
  N cosine;    // c
  N distance;  // Q
  N weight;    // twice the product of the cutoffs
};

// What follows from two neighbours by products alone. The cutoff of R_jk, with its root and its
// cosine, is left to cutoff_jk(), so that a loop may take it where its lanes are full.
template <class N>
struct TripleSides {
  Triple<N> triple;  // its weight without f_c(R_jk)
  N square_jk;       // R_jk^2, where there is an f_c(R_jk)
};

template <class N>
struct NeighborPair {
  Neighbor<N> j, k;
};

// f_c(R_jk) as a factor of the weight, and the adjoints of the sides before it; there the slope is
// times the weight without f_c(R_jk).
template <class N>
PYMLP_INLINE Triple<N> with_cutoff(Triple<N> t, ValueSlope<N> fc) {
  return {t.cosine, t.distance, t.weight * fc.value};
}
template <class N>
PYMLP_INLINE TripleSides<N> cutoff_adjoint(ValueSlope<N> fc, Triple<N> g) {
  return {{g.cosine, g.distance, g.weight * fc.value}, g.weight * fc.slope};
}

// --- angle factor

// theta_s is one number, or one number per lane.
template <class T, class Shift = T>
struct AngleParameters {
  Shift cos_shift, sin_shift;
  Exponent<T> zeta, zeta_minus_one;
};

template <class T, class Shift>
PYMLP_INLINE AngleParameters<T, Shift> make_angle_parameters(T zeta, Shift cos_shift,
                                                             Shift sin_shift) {
  return {cos_shift, sin_shift, make_exponent(zeta), make_exponent(zeta - T(1))};
}

template <class N>
struct Angle {
  N cos, sin, cotangent;
};

template <class N>
PYMLP_INLINE Angle<N> make_angle(N cosine) {
  using T = Scalar<N>;
  const N sine = square_root(maximum(T(1) - cosine * cosine, T(0)) + Limits<T>::epsilon);
  return {cosine, sine, cosine / sine};
}

// 1/2 (1 + cos(theta - theta_s)), A for zeta = 1.
template <class N, class T, class Shift>
PYMLP_INLINE N angle_base(Angle<N> a, AngleParameters<T, Shift> p) {
  return a.cos * (T(0.5) * p.cos_shift) + (a.sin * (T(0.5) * p.sin_shift) + T(0.5));
}

// A of n angles.
template <int n, class N, class T, class Shift>
PYMLP_INLINE void angle_values(const Angle<N> (&a)[n], AngleParameters<T, Shift> p, N (&value)[n]) {
  for (int i = 0; i < n; ++i) value[i] = angle_base(a[i], p);
  powers(value, p.zeta);
}

// A and dA/dc of n angles.
template <int n, class N, class T, class Shift>
PYMLP_INLINE void angle_factors(const Angle<N> (&a)[n], AngleParameters<T, Shift> p, N (&value)[n],
                                N (&slope)[n]) {
  const Shift cos_factor = T(0.5) * p.zeta.value * p.cos_shift;
  const Shift sin_factor = T(0.5) * p.zeta.value * p.sin_shift;
  for (int i = 0; i < n; ++i) value[i] = slope[i] = angle_base(a[i], p);
  powers(slope, p.zeta_minus_one);
  for (int i = 0; i < n; ++i) {
    value[i] = value[i] * slope[i];
    slope[i] = slope[i] * (cos_factor - a[i].cotangent * sin_factor);
  }
}

template <class N, class T, class Shift>
PYMLP_INLINE ValueSlope<N> angle_factor(Angle<N> a, AngleParameters<T, Shift> p) {
  const Angle<N> one[1] = {a};
  N value[1], slope[1];
  angle_factors(one, p, value, slope);
  return {value[0], slope[0]};
}

// From A for one zeta to A for `multiple` times that zeta, in place, of n angles.
template <int n, class N>
PYMLP_INLINE void angle_values_at_multiple(Exponent<Scalar<N>> multiple, N (&value)[n]) {
  if (multiple.whole == 2) {
    for (int i = 0; i < n; ++i) value[i] = value[i] * value[i];
  } else {
    powers(value, multiple);
  }
}

// The same with dA/dc.
template <int n, class N>
PYMLP_INLINE void angle_factors_at_multiple(Exponent<Scalar<N>> multiple, N (&value)[n],
                                            N (&slope)[n]) {
  using T = Scalar<N>;
  N below[n];
  for (int i = 0; i < n; ++i) below[i] = value[i];
  if (multiple.whole != 2) powers(below, make_exponent(multiple.value - T(1)));
  for (int i = 0; i < n; ++i) {
    value[i] = below[i] * value[i];
    slope[i] = multiple.value * below[i] * slope[i];
  }
}

// --- distance factor

template <class T>
struct DistanceParameters {
  T eta, shift;
};

// --- eq 6

template <class T>
struct Ani {
  static constexpr bool kPairsShared = false;
  T cosine_scale;

  PYMLP_INLINE constexpr bool with_cutoff_jk() const { return false; }

  template <class N>
  PYMLP_INLINE TripleSides<N> sides(Neighbor<N> j, Neighbor<N> k) const {
    return {{dot(j.unit, k.unit) * cosine_scale, T(0.5) * (j.distance + k.distance),
             T(2) * j.cutoff * k.cutoff},
            N(T(0))};
  }
  // The adjoints of two neighbours from those of their triple.
  template <class N>
  PYMLP_INLINE NeighborPair<N> sides_adjoint(Neighbor<N> j, Neighbor<N> k, TripleSides<N> g) const {
    const N g_cosine = g.triple.cosine * cosine_scale;
    const N g_distance = T(0.5) * g.triple.distance, g_weight = T(2) * g.triple.weight;
    return {{g_cosine * k.unit, g_distance, g_weight * k.cutoff},
            {g_cosine * j.unit, g_distance, g_weight * j.cutoff}};
  }
  template <class N>
  PYMLP_INLINE ValueSlope<N> cutoff_jk(N) const {
    return {N(T(1)), N(T(0))};
  }

  template <class N>
  PYMLP_INLINE ValueSlope<N> distance_factor(N q, DistanceParameters<T> p) const {
    const N difference = q - p.shift;
    const N scaled = difference * -p.eta;
    const N value = exponential(scaled * difference);
    return {value, T(2) * scaled * value};
  }
};

// --- eq 3 and G5

template <class T>
struct BehlerParrinello {
  // f_c(R_jk) and a part of D belong to the pair j, k alone, whose atoms may be centres as well.
  static constexpr bool kPairsShared = true;
  Cutoff<T> pair_cutoff;
  bool jk_factors;  // true: eq 3; false: G5

  PYMLP_INLINE bool with_cutoff_jk() const { return jk_factors; }

  template <class N>
  PYMLP_INLINE TripleSides<N> sides(Neighbor<N> j, Neighbor<N> k) const {
    const N cosine = dot(j.unit, k.unit);
    const N own = j.distance * j.distance + k.distance * k.distance;
    const N weight = T(2) * j.cutoff * k.cutoff;
    N square{T(0)};
    if (jk_factors) {
      // Rounding must not make it negative, and its root must stay differentiable.
      square = maximum(own - T(2) * j.distance * k.distance * cosine, Limits<T>::tiny);
    }
    return {{cosine, own + square, weight}, square};
  }
  // The adjoints of two neighbours from those of their triple; R_jk^2 by the law of cosines.
  template <class N>
  PYMLP_INLINE NeighborPair<N> sides_adjoint(Neighbor<N> j, Neighbor<N> k, TripleSides<N> g) const {
    const N g_weight = T(2) * g.triple.weight, g_own = T(2) * g.triple.distance;
    N g_cosine = g.triple.cosine, g_j = g_own * j.distance, g_k = g_own * k.distance;
    if (jk_factors) {
      const N g_square = g_own + T(2) * g.square_jk;
      const N across = g_square * dot(j.unit, k.unit);
      g_cosine = g_cosine - j.distance * k.distance * g_square;
      g_j = g_j + g_square * j.distance - across * k.distance;
      g_k = g_k + g_square * k.distance - across * j.distance;
    }
    return {{g_cosine * k.unit, g_j, g_weight * k.cutoff},
            {g_cosine * j.unit, g_k, g_weight * j.cutoff}};
  }
  // f_c(R_jk) and its derivative with respect to R_jk^2.
  template <class N>
  PYMLP_INLINE ValueSlope<N> cutoff_jk(N square_jk) const {
    const N jk = square_root(square_jk);
    const auto fc = cutoff(jk, pair_cutoff);
    return {fc.value, T(0.5) * fc.slope / jk};
  }

  template <class N>
  PYMLP_INLINE ValueSlope<N> distance_factor(N q, DistanceParameters<T> p) const {
    if (p.eta == T(0)) return {N(T(1)), N(T(0))};
    const N value = exponential(q * -p.eta);
    return {value, value * -p.eta};
  }
  // D of the sum from the product of D(R_ij^2), D(R_ik^2) and D(R_jk^2), and d ln D / dQ.
  template <class N, class Plain>
  PYMLP_INLINE N distance_from_parts(N q, Plain product, DistanceParameters<T> p) const {
    return along(q, product, product * -p.eta);
  }
  PYMLP_INLINE T distance_log_slope(DistanceParameters<T> p) const { return -p.eta; }
};

// The whole triple of two neighbours at once.
template <class Formula, class N>
PYMLP_INLINE Triple<N> make_triple(const Formula& formula, Neighbor<N> j, Neighbor<N> k) {
  const TripleSides<N> sides = formula.sides(j, k);
  if (!formula.with_cutoff_jk()) return sides.triple;
  return with_cutoff(sides.triple, formula.cutoff_jk(sides.square_jk));
}

// The adjoints of two neighbours from those of their whole triple.
template <class Formula, class N>
PYMLP_INLINE NeighborPair<N> triple_adjoint(const Formula& formula, Neighbor<N> j, Neighbor<N> k,
                                            Triple<N> g) {
  if (!formula.with_cutoff_jk()) return formula.sides_adjoint(j, k, {g, N(Scalar<N>(0))});
  const TripleSides<N> sides = formula.sides(j, k);
  const auto fc = formula.cutoff_jk(sides.square_jk);
  const ValueSlope<N> weighted{fc.value, sides.triple.weight * fc.slope};
  return formula.sides_adjoint(j, k, cutoff_adjoint(weighted, g));
}

}  // namespace pymlp::inline PYMLP_SIMD
