// Environment matrix of DeepPot-SE, one row for each neighbour at d = (x, y, z), R = |d|
// (Angstrom):
//
//   eq 8:     ( s(R), s(R) x / R, s(R) y / R, s(R) z / R )
//   eq 9:     s(R) = w(R) / R, w = 1 up to R_cs, 0 from R_c on, between them, with
//             u = (R - R_cs) / (R_c - R_cs):
//   cosine:   w = 1/2 cos(pi u) + 1/2                  (the paper)
//   quintic:  w = 1 + u^3 (-6 u^2 + 15 u - 10)         (DeePMD; curvature continuous, too)
//   none:     w = 1 at every distance
//
// s and the row are in 1/Angstrom.
#pragma once

#include "../numbers/vec3.h"
#include "cutoff.h"

namespace pymlp::inline PYMLP_SIMD {

enum class SwitchFunction : int { none = 0, cosine = 1, quintic = 2 };

template <class T>
struct Switch {
  T start, end;  // R_cs, R_c
  SwitchFunction function;
};

// s(R) and its slope.
template <class N>
PYMLP_INLINE ValueSlope<N> switched_inverse(N r, Switch<Scalar<N>> w) {
  using T = Scalar<N>;
  const N inverse = T(1) / r;
  if (w.function == SwitchFunction::none) return {inverse, -(inverse * inverse)};
  const T inverse_width = T(1) / (w.end - w.start);
  const auto inside = less(r, N(w.end));
  const N zero{T(0)};
  const N u = minimum(maximum((r - w.start) * inverse_width, T(0)), T(1));
  // Both as products, which no rounding makes negative near R_c: w = (1 - u)^3 (1 + 3 u + 6 u^2),
  // and w = cos^2(pi u / 2).
  N value, slope;
  if (w.function == SwitchFunction::quintic) {
    const N square = u * u;
    const N rest = T(1) - u;
    value = rest * rest * rest * (T(1) + u * T(3) + square * T(6));
    slope = (T(-30) * inverse_width) * square * rest * rest;
  } else {
    const auto [cos, sin] = cos_sin_pi(u * T(0.5));
    value = cos * cos;
    slope = (T(-kPi) * inverse_width) * (cos * sin);
  }
  const N s = inverse * value;
  return {select(inside, s, zero), select(inside, inverse * (slope - s), zero)};
}

// The four numbers of a row, or the gradient with respect to them.
template <class N>
struct EnvironmentRow {
  N s;
  Vec3<N> v;
};

template <class N>
PYMLP_INLINE EnvironmentRow<N> environment_row(Vec3<N> d, Switch<Scalar<N>> w) {
  const N r = square_root(dot(d, d));
  const N s = switched_inverse(r, w).value;
  return {s, (s / r) * d};
}

// The gradient with respect to d, given that with respect to the row:
//   (s' g_s + (s' - s/R) (g_v . d/R)) d/R + (s/R) g_v.
template <class N, class G>
PYMLP_INLINE Vec3<N> environment_row_adjoint(Vec3<N> d, EnvironmentRow<G> g, Switch<Scalar<N>> w) {
  const N r = square_root(dot(d, d));
  const auto [s, slope] = switched_inverse(r, w);
  const N inverse = Scalar<N>(1) / r;
  const Vec3<N> unit = inverse * d;
  const N across = s * inverse;
  const N projected = g.v.x * unit.x + g.v.y * unit.y + g.v.z * unit.z;
  const N along = slope * g.s + (slope - across) * projected;
  return {along * unit.x + across * g.v.x, along * unit.y + across * g.v.y,
          along * unit.z + across * g.v.z};
}

}  // namespace pymlp::inline PYMLP_SIMD
