// Angular symmetry functions (eqs 3 and 6), one term of the sum over pairs j < k of neighbours of
// i. Both are a product of an angle factor, a distance factor and a weight:
//
//   angle      A(c) = 2^(1-zeta) (1 + cos(theta - theta_s))^zeta
//   distance   eq 3 (Behler-Parrinello): D = exp(-eta Q),         Q = R_ij^2 + R_ik^2 + R_jk^2
//              (Behler's G5: without R_jk)
//              eq 6 (ANI):               D = exp(-eta (Q-R_s)^2), Q = (R_ij + R_ik) / 2
//   weight     eq 3: f_c(R_ij) f_c(R_ik) f_c(R_jk);  G5 and eq 6: f_c(R_ij) f_c(R_ik)
//
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
  N weight;    // product of the cutoffs
};

template <class N>
struct NeighborPair {
  Neighbor<N> j, k;
};

// --- angle factor
// ---------------------------------------------------------------------------------

template <class T>
struct AngleParameters {
  T cos_shift, sin_shift;  // of theta_s
  Exponent<T> zeta, zeta_minus_one;
};

template <class T>
PYMLP_INLINE AngleParameters<T> make_angle_parameters(T zeta, T cos_shift, T sin_shift) {
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

// 1/2 (1 + cos(theta - theta_s)); A = 2 of it to the power zeta, which cannot overflow.
template <class N>
PYMLP_INLINE N angle_base(Angle<N> a, AngleParameters<Scalar<N>> p) {
  using T = Scalar<N>;
  return a.cos * (T(0.5) * p.cos_shift) + (a.sin * (T(0.5) * p.sin_shift) + T(0.5));
}

// A for n parameter sets of one zeta.
template <int n, class N>
PYMLP_INLINE void angle_values(Angle<N> a, const AngleParameters<Scalar<N>>* p, N (&value)[n]) {
  for (int i = 0; i < n; ++i) value[i] = angle_base(a, p[i]);
  powers(value, p[0].zeta);
  for (int i = 0; i < n; ++i) value[i] = value[i] * Scalar<N>(2);
}

// A and dA/dc for n parameter sets of one zeta.
template <int n, class N>
PYMLP_INLINE void angle_factors(Angle<N> a, const AngleParameters<Scalar<N>>* p, N (&value)[n],
                                N (&slope)[n]) {
  using T = Scalar<N>;
  for (int i = 0; i < n; ++i) value[i] = slope[i] = angle_base(a, p[i]);
  powers(slope, p[0].zeta_minus_one);
  for (int i = 0; i < n; ++i) {
    const T zeta = p[i].zeta.value;
    value[i] = T(2) * value[i] * slope[i];
    slope[i] = slope[i] * (zeta * p[i].cos_shift - a.cotangent * (zeta * p[i].sin_shift));
  }
}

template <class N>
PYMLP_INLINE ValueSlope<N> angle_factor(Angle<N> a, AngleParameters<Scalar<N>> p) {
  N value[1], slope[1];
  angle_factors(a, &p, value, slope);
  return {value[0], slope[0]};
}

// --- distance factor
// ------------------------------------------------------------------------------

template <class T>
struct DistanceParameters {
  T eta, shift;
};

// --- eq 6
// -----------------------------------------------------------------------------------------

template <class T>
struct Ani {
  T cosine_scale;

  template <class N>
  PYMLP_INLINE Triple<N> triple(Neighbor<N> j, Neighbor<N> k) const {
    return {dot(j.unit, k.unit) * cosine_scale, T(0.5) * (j.distance + k.distance),
            j.cutoff * k.cutoff};
  }

  // The adjoints of two neighbours from those of their triple.
  template <class N>
  PYMLP_INLINE NeighborPair<N> triple_adjoint(Neighbor<N> j, Neighbor<N> k, Triple<N> g) const {
    const N g_cosine = g.cosine * cosine_scale;
    const N g_distance = T(0.5) * g.distance;
    return {{g_cosine * k.unit, g_distance, g.weight * k.cutoff},
            {g_cosine * j.unit, g_distance, g.weight * j.cutoff}};
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
// ----------------------------------------------------------------------------------

template <class T>
struct BehlerParrinello {
  Cutoff<T> pair_cutoff;
  bool jk_factors;  // true: eq 3; false: G5

  template <class N>
  PYMLP_INLINE Triple<N> triple(Neighbor<N> j, Neighbor<N> k) const {
    const N cosine = dot(j.unit, k.unit);
    const N own = j.distance * j.distance + k.distance * k.distance;
    const N weight = j.cutoff * k.cutoff;
    if (!jk_factors) return {cosine, own, weight};
    const N jk_square = square_jk(j, k, cosine, own);
    return {cosine, own + jk_square, weight * cutoff(square_root(jk_square), pair_cutoff).value};
  }

  template <class N>
  PYMLP_INLINE NeighborPair<N> triple_adjoint(Neighbor<N> j, Neighbor<N> k, Triple<N> g) const {
    N g_cosine = g.cosine;
    N g_j = T(2) * j.distance * g.distance;
    N g_k = T(2) * k.distance * g.distance;
    N g_weight = g.weight;
    if (jk_factors) {
      const N cosine = dot(j.unit, k.unit);
      const N own = j.distance * j.distance + k.distance * k.distance;
      const N jk = square_root(square_jk(j, k, cosine, own));
      const auto fc = cutoff(jk, pair_cutoff);
      // d/d(R_jk^2), then through the law of cosines
      const N g_square = g.distance + T(0.5) * g.weight * j.cutoff * k.cutoff * fc.slope / jk;
      g_cosine = g_cosine - T(2) * j.distance * k.distance * g_square;
      g_j = g_j + T(2) * g_square * (j.distance - k.distance * cosine);
      g_k = g_k + T(2) * g_square * (k.distance - j.distance * cosine);
      g_weight = g_weight * fc.value;
    }
    return {{g_cosine * k.unit, g_j, g_weight * k.cutoff},
            {g_cosine * j.unit, g_k, g_weight * j.cutoff}};
  }

  template <class N>
  PYMLP_INLINE ValueSlope<N> distance_factor(N q, DistanceParameters<T> p) const {
    const N value = exponential(q * -p.eta);
    return {value, value * -p.eta};
  }

 private:
  template <class N>
  static PYMLP_INLINE N square_jk(Neighbor<N> j, Neighbor<N> k, N cosine, N own) {
    // Rounding must not make it negative, and its root must stay differentiable.
    return maximum(own - T(2) * j.distance * k.distance * cosine, Limits<T>::tiny);
  }
};

}  // namespace pymlp::inline PYMLP_SIMD
