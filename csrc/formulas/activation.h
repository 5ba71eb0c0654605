// Activation functions of the atomic networks (eqs 12, 13), dimensionless, with their slopes.
#pragma once

#include "cutoff.h"

namespace pymlp::inline PYMLP_SIMD {

enum class Activation : int { tanh = 0, sigmoid = 1, sin = 2, silu = 3, celu = 4, relu = 5 };

// Errors are those of rounding to the size of 1: these values are added up.
template <class N>
PYMLP_INLINE ValueSlope<N> activation(N x, Activation kind) {
  using T = Scalar<N>;
  const N zero{T(0)}, one{T(1)};
  switch (kind) {
    case Activation::tanh: {
      const N y = T(2) / (one + exponential(minimum(maximum(x * T(-2), T(-80)), T(80)))) - one;
      return {y, one - y * y};
    }
    case Activation::sin: {
      // x = pi (n + y), |y| <= 1/2: sin x = (-1)^n sin(pi y)
      const N turns = x * T(1.0 / kPi);
      const N n = nearest(turns);
      const N odd = n - T(2) * nearest(n * T(0.5));
      const auto [minus_sin, cos] = cos_sin_pi(turns - n + T(0.5));
      const N sign = one - T(2) * (odd * odd);
      return {-(sign * minus_sin), sign * cos};
    }
    case Activation::celu: {
      const N grown = exponential(minimum(x, T(0)));
      const auto positive = less(zero, x);
      return {select(positive, x, grown - one), select(positive, one, grown)};
    }
    case Activation::relu: {
      const auto positive = less(zero, x);
      return {select(positive, x, zero), select(positive, one, zero)};
    }
    default: {
      const N y = one / (one + exponential(minimum(maximum(-x, T(-80)), T(80))));
      if (kind == Activation::sigmoid) return {y, y * (one - y)};
      return {x * y, y * (one + x * (one - y))};  // silu
    }
  }
}

}  // namespace pymlp::inline PYMLP_SIMD
