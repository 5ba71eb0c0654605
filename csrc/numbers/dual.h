// Dual<N>: a number and its derivative along one direction, with the vocabulary of scalar.h.
// Running a formula or a loop on Dual numbers differentiates it once more; this is how every second
// derivative of the package is made. Parameters stay plain N or T, so that their zero derivatives
// are never multiplied.
#pragma once

#include "scalar.h"

namespace pymlp::inline PYMLP_SIMD {

template <class N>
struct Dual {
  N value, slope;

  Dual() = default;
  PYMLP_INLINE Dual(N v) : value(v), slope(Scalar<N>(0)) {}
  PYMLP_INLINE Dual(N v, N s) : value(v), slope(s) {}

  // clang-format off
  friend PYMLP_INLINE Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.slope + b.slope}; }
  friend PYMLP_INLINE Dual operator+(Dual a, N b) { return {a.value + b, a.slope}; }
  friend PYMLP_INLINE Dual operator+(N a, Dual b) { return {a + b.value, b.slope}; }
  friend PYMLP_INLINE Dual operator-(Dual a, Dual b) { return {a.value - b.value, a.slope - b.slope}; }
  friend PYMLP_INLINE Dual operator-(Dual a, N b) { return {a.value - b, a.slope}; }
  friend PYMLP_INLINE Dual operator-(N a, Dual b) { return {a - b.value, -b.slope}; }
  friend PYMLP_INLINE Dual operator-(Dual a) { return {-a.value, -a.slope}; }
  friend PYMLP_INLINE Dual operator*(Dual a, N b) { return {a.value * b, a.slope * b}; }
  friend PYMLP_INLINE Dual operator*(N a, Dual b) { return {a * b.value, a * b.slope}; }
  friend PYMLP_INLINE Dual operator*(Dual a, Dual b) {
    return {a.value * b.value, a.slope * b.value + a.value * b.slope};
  }
  friend PYMLP_INLINE Dual operator/(Dual a, Dual b) {
    const N quotient = a.value / b.value;
    return {quotient, (a.slope - quotient * b.slope) / b.value};
  }
  friend PYMLP_INLINE Dual operator/(N a, Dual b) {
    const N quotient = a / b.value;
    return {quotient, -(quotient * b.slope) / b.value};
  }
  // clang-format on
};

template <class N>
struct ScalarOf<Dual<N>> {
  using type = Scalar<N>;
};

// f(s) where its value and slope at s are known.
template <class N>
PYMLP_INLINE N along(N, N value, N) {
  return value;
}
template <class N>
PYMLP_INLINE Dual<N> along(Dual<N> s, N value, N slope) {
  return {value, slope * s.slope};
}

template <class N>
PYMLP_INLINE auto less(Dual<N> a, Dual<N> b) {
  return less(a.value, b.value);
}

template <class Mask, class N>
PYMLP_INLINE Dual<N> select(Mask mask, Dual<N> yes, Dual<N> no) {
  return {select(mask, yes.value, no.value), select(mask, yes.slope, no.slope)};
}

template <class N>
PYMLP_INLINE Dual<N> square_root(Dual<N> x) {
  const N root = square_root(x.value);
  return {root, Scalar<N>(0.5) * x.slope / root};
}

template <class N>
PYMLP_INLINE Dual<N> nearest(Dual<N> x) {
  return nearest(x.value);
}

template <class N>
PYMLP_INLINE Dual<N> exponential(Dual<N> x) {
  const N e = exponential(x.value);
  return {e, e * x.slope};
}

template <class N>
PYMLP_INLINE Dual<N> logarithm(Dual<N> x) {
  return {logarithm(x.value), x.slope / x.value};
}

// x^e, value and slope from one plain power, x^(e-1).
template <int n, class N>
PYMLP_INLINE void powers(Dual<N> (&x)[n], Exponent<Scalar<N>> e) {
  using T = Scalar<N>;
  if (e.whole == 0) {
    for (int i = 0; i < n; ++i) x[i] = Dual<N>(N(T(1)));
    return;
  }
  N below[n];
  for (int i = 0; i < n; ++i) below[i] = x[i].value;
  powers(below, Exponent<T>{e.value - T(1), e.whole < 0 ? -1 : e.whole - 1});
  for (int i = 0; i < n; ++i) x[i] = {below[i] * x[i].value, e.value * below[i] * x[i].slope};
}

template <class N>
PYMLP_INLINE CosSin<Dual<N>> cos_sin_pi(Dual<N> x) {
  const auto plain = cos_sin_pi(x.value);
  const N pi_slope = Scalar<N>(kPi) * x.slope;
  return {{plain.cos, -(plain.sin * pi_slope)}, {plain.sin, plain.cos * pi_slope}};
}

}  // namespace pymlp::inline PYMLP_SIMD
