// The vocabulary that formulas are written in, for float and double. lanes.h and dual.h give the
// same words to SIMD registers and to numbers that carry a derivative. On a GPU the words are
// CUDA's own functions; on a CPU only tests and per-call preparations use the scalar ones.
#pragma once

#include <cmath>

#include "host_device.h"

namespace pymlp::inline PYMLP_SIMD {

// The real type behind a number: float or double.
template <class N>
struct ScalarOf;
template <>
struct ScalarOf<float> {
  using type = float;
};
template <>
struct ScalarOf<double> {
  using type = double;
};
template <class N>
using Scalar = typename ScalarOf<N>::type;

template <class T>
struct Limits;
template <>
struct Limits<float> {
  static constexpr float epsilon = 1.1920929e-07f;
  static constexpr float tiny = 1e-30f;  // smallest argument given to a logarithm
};
template <>
struct Limits<double> {
  static constexpr double epsilon = 2.220446049250313e-16;
  static constexpr double tiny = 1e-200;
};

// clang-format off
PYMLP_INLINE bool less(float a, float b) { return a < b; }
PYMLP_INLINE bool less(double a, double b) { return a < b; }
PYMLP_INLINE float select(bool condition, float yes, float no) { return condition ? yes : no; }
PYMLP_INLINE double select(bool condition, double yes, double no) { return condition ? yes : no; }
PYMLP_INLINE float nearest(float x) { return std::nearbyint(x); }
PYMLP_INLINE double nearest(double x) { return std::nearbyint(x); }
PYMLP_INLINE float square_root(float x) { return std::sqrt(x); }
PYMLP_INLINE double square_root(double x) { return std::sqrt(x); }
PYMLP_INLINE double exponential(double x) { return std::exp(x); }
PYMLP_INLINE float logarithm(float x) { return std::log(x); }
PYMLP_INLINE double logarithm(double x) { return std::log(x); }
// clang-format on

// On a GPU by its special function unit, with half of expf's instructions: 2 + 1.2 |x| units in the
// last place (CUDA's guide), so that a decaying exponential is right to 3e-7 of its largest value.
PYMLP_INLINE float exponential(float x) {
#ifdef __CUDA_ARCH__
  return __expf(x);
#else
  return std::exp(x);
#endif
}

constexpr double kPi = 3.14159265358979323846;

template <class N>
struct CosSin {
  N cos, sin;
};

// cos(pi x) and sin(pi x) for x in [0, 1].
#ifdef __CUDA_ARCH__
PYMLP_INLINE CosSin<float> cos_sin_pi(float x) {
  CosSin<float> result;
  sincospif(x, &result.sin, &result.cos);
  return result;
}
PYMLP_INLINE CosSin<double> cos_sin_pi(double x) {
  CosSin<double> result;
  sincospi(x, &result.sin, &result.cos);
  return result;
}
#else
template <class T>
PYMLP_INLINE CosSin<T> cos_sin_pi(T x) {
  return {std::cos(T(kPi) * x), std::sin(T(kPi) * x)};
}
#endif

template <class N>
PYMLP_INLINE N maximum(N a, Scalar<N> b) {
  return select(less(a, N(b)), N(b), a);
}
template <class N>
PYMLP_INLINE N minimum(N a, Scalar<N> b) {
  return select(less(N(b), a), N(b), a);
}

// An exponent that knows whether it is a small whole number; the branch on it is the same for all
// lanes and all threads of a warp.
template <class T>
struct Exponent {
  T value;
  int whole;  // value when it is 0, 1, ... 64, otherwise -1
};

template <class T>
PYMLP_INLINE Exponent<T> make_exponent(T value) {
  const int whole = value >= T(0) && value <= T(64) ? static_cast<int>(value) : -1;
  return {value, T(whole) == value ? whole : -1};
}

// x^e in place, for n numbers x >= 0 at a time, which hides the latency of the products and shares
// the look at the exponent: repeated squaring for whole exponents (exact derivatives also at x =
// 0), otherwise exp(e log x).
template <int n, class N>
PYMLP_INLINE void powers(N (&x)[n], Exponent<Scalar<N>> e) {
  using T = Scalar<N>;
  if (e.whole < 0) {
    for (int i = 0; i < n; ++i) {
      x[i] = exponential(logarithm(maximum(x[i], Limits<T>::tiny)) * e.value);
    }
    return;
  }
  if (e.whole == 0) {
    for (int i = 0; i < n; ++i) x[i] = N(T(1));
    return;
  }
  int bits = e.whole;
  for (; (bits & 1) == 0; bits >>= 1) {
    for (int i = 0; i < n; ++i) x[i] = x[i] * x[i];
  }
  N square[n];
  for (int i = 0; i < n; ++i) square[i] = x[i];
  for (bits >>= 1; bits > 0; bits >>= 1) {
    for (int i = 0; i < n; ++i) square[i] = square[i] * square[i];
    if (bits & 1) {
      for (int i = 0; i < n; ++i) x[i] = x[i] * square[i];
    }
  }
}

template <class N>
PYMLP_INLINE N power(N x, Exponent<Scalar<N>> e) {
  N one[1] = {x};
  powers(one, e);
  return one[0];
}

}  // namespace pymlp::inline PYMLP_SIMD
