// Cutoff functions of the distance R (Angstrom), dimensionless, exactly 0 for R >= R_c.
//
//   eq 2:    f_c(R) = 1/2 [cos(pi R / R_c) + 1]
//   smooth:  f_c(R) = exp(1 - 1 / (1 - (R / R_c)^2)), all derivatives continuous
#pragma once

#include "../numbers/scalar.h"

namespace pymlp::inline PYMLP_SIMD {

// A function of one variable together with its first derivative.
template <class N>
struct ValueSlope {
  N value, slope;
};

enum class CutoffFunction : int { cosine = 0, smooth = 1 };

template <class T>
struct Cutoff {
  T radius;
  CutoffFunction function;
};

template <class N>
PYMLP_INLINE ValueSlope<N> cutoff(N r, Cutoff<Scalar<N>> c) {
  using T = Scalar<N>;
  const T inverse_radius = T(1) / c.radius;
  const auto inside = less(r, N(c.radius));
  const N zero{T(0)};
  const N x = minimum(r * inverse_radius, T(1));
  if (c.function == CutoffFunction::smooth) {
    // 1 - x^2 is kept away from 0: at 1e-3 the exponential is below 1e-400 in exact arithmetic.
    const N inverse = T(1) / maximum(T(1) - x * x, T(1e-3));
    const N value = exponential(T(1) - inverse);
    const N slope = -(T(2) * inverse_radius) * x * inverse * inverse * value;
    return {select(inside, value, zero), select(inside, slope, zero)};
  }
  const auto [cos, sin] = cos_sin_pi(x);
  const N value = T(0.5) * cos + T(0.5);
  const N slope = T(-0.5 * kPi) * inverse_radius * sin;
  return {select(inside, value, zero), select(inside, slope, zero)};
}

}  // namespace pymlp::inline PYMLP_SIMD
