// Lanes<T>: one SIMD register of T, with the vocabulary of scalar.h. The register width is set by
// the build (PYMLP_LANE_BYTES), one translation unit per instruction set. The polynomials are
// near-minimax (Chebyshev) fits; tests/csrc measures their errors.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "scalar.h"

#ifndef PYMLP_LANE_BYTES
#define PYMLP_LANE_BYTES 16
#endif

namespace pymlp::inline PYMLP_SIMD {

// How many registers there are, for tiles that should stay in them.
#ifdef __AVX512VL__
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

template <class T>
struct LaneTypes;
template <>
struct LaneTypes<float> {
  using Integer = int32_t;
  typedef float Vector __attribute__((vector_size(PYMLP_LANE_BYTES)));
  typedef float Unaligned __attribute__((vector_size(PYMLP_LANE_BYTES), aligned(4)));
  typedef int32_t IntegerVector __attribute__((vector_size(PYMLP_LANE_BYTES)));
};
template <>
struct LaneTypes<double> {
  using Integer = int64_t;
  typedef double Vector __attribute__((vector_size(PYMLP_LANE_BYTES)));
  typedef double Unaligned __attribute__((vector_size(PYMLP_LANE_BYTES), aligned(8)));
  typedef int64_t IntegerVector __attribute__((vector_size(PYMLP_LANE_BYTES)));
};

template <class T>
struct LaneMask {
  typename LaneTypes<T>::IntegerVector bits;
};

template <class T>
struct Lanes {
  using Vector = typename LaneTypes<T>::Vector;
  static constexpr int count = PYMLP_LANE_BYTES / sizeof(T);

  Vector v;

  Lanes() = default;
  PYMLP_INLINE Lanes(Vector vector) : v(vector) {}
  // x - 0, which the compiler folds to a broadcast; 0 + x it must not (x = -0).
  PYMLP_INLINE Lanes(T x) : v(x - Vector{}) {}

  // Not memcpy, whose bytes may be anything: after a store of a vector of T the compiler still
  // knows the pointers that it holds in registers (ANI forward, 256 x 14 atoms: 2.3 -> 1.9 ms).
  static PYMLP_INLINE Lanes load(const T* from) {
    return Vector(*reinterpret_cast<const typename LaneTypes<T>::Unaligned*>(from));
  }
  PYMLP_INLINE void store(T* to) const {
    *reinterpret_cast<typename LaneTypes<T>::Unaligned*>(to) = v;
  }

  friend PYMLP_INLINE Lanes operator+(Lanes a, Lanes b) { return a.v + b.v; }
  friend PYMLP_INLINE Lanes operator-(Lanes a, Lanes b) { return a.v - b.v; }
  friend PYMLP_INLINE Lanes operator*(Lanes a, Lanes b) { return a.v * b.v; }
  friend PYMLP_INLINE Lanes operator/(Lanes a, Lanes b) { return a.v / b.v; }
  friend PYMLP_INLINE Lanes operator-(Lanes a) { return -a.v; }
};

template <class T>
struct ScalarOf<Lanes<T>> {
  using type = T;
};

template <class T>
PYMLP_INLINE LaneMask<T> less(Lanes<T> a, Lanes<T> b) {
  return {a.v < b.v};
}

template <class T>
PYMLP_INLINE Lanes<T> select(LaneMask<T> mask, Lanes<T> yes, Lanes<T> no) {
  return mask.bits ? yes.v : no.v;
}

// One instruction, where the compiler makes a mask and a choice of the general case; NaN stays NaN.
#if defined(__AVX__) && PYMLP_LANE_BYTES == 32
PYMLP_INLINE Lanes<float> maximum(Lanes<float> x, float bound) {
  return _mm256_max_ps(Lanes<float>(bound).v, x.v);
}
PYMLP_INLINE Lanes<double> maximum(Lanes<double> x, double bound) {
  return _mm256_max_pd(Lanes<double>(bound).v, x.v);
}
#elif defined(__SSE2__) && PYMLP_LANE_BYTES == 16
PYMLP_INLINE Lanes<float> maximum(Lanes<float> x, float bound) {
  return _mm_max_ps(Lanes<float>(bound).v, x.v);
}
PYMLP_INLINE Lanes<double> maximum(Lanes<double> x, double bound) {
  return _mm_max_pd(Lanes<double>(bound).v, x.v);
}
#else
template <class T>
PYMLP_INLINE Lanes<T> maximum(Lanes<T> x, T bound) {
  const auto y = Lanes<T>(bound).v;
  return x.v < y ? y : x.v;
}
#endif

// Mask of the first `n` lanes.
template <class T>
PYMLP_INLINE LaneMask<T> first_lanes(int n) {
  typename LaneTypes<T>::IntegerVector index;
  for (int i = 0; i < Lanes<T>::count; ++i) index[i] = i;
  return {index < static_cast<typename LaneTypes<T>::Integer>(n)};
}

template <class T>
PYMLP_INLINE Lanes<T> square_root(Lanes<T> x) {
  alignas(PYMLP_LANE_BYTES) T buffer[Lanes<T>::count];
  x.store(buffer);
  for (int i = 0; i < Lanes<T>::count; ++i) buffer[i] = __builtin_sqrt(buffer[i]);
  return Lanes<T>::load(buffer);
}
template <>
PYMLP_INLINE Lanes<float> square_root(Lanes<float> x) {
  alignas(PYMLP_LANE_BYTES) float buffer[Lanes<float>::count];
  x.store(buffer);
  for (int i = 0; i < Lanes<float>::count; ++i) buffer[i] = __builtin_sqrtf(buffer[i]);
  return Lanes<float>::load(buffer);
}

// c[0] + c[1] x + ... + c[n-1] x^(n-1), two interleaved Horner chains to halve the latency.
template <class T, int n>
PYMLP_INLINE Lanes<T> polynomial(Lanes<T> x, const T (&c)[n]) {
  const Lanes<T> square = x * x;
  Lanes<T> even = c[(n - 1) / 2 * 2];
  Lanes<T> odd = c[(n - 2) / 2 * 2 + 1];
#pragma GCC unroll 16
  for (int i = (n - 1) / 2 * 2 - 2; i >= 0; i -= 2) even = even * square + c[i];
#pragma GCC unroll 16
  for (int i = (n - 2) / 2 * 2 - 1; i >= 1; i -= 2) odd = odd * square + c[i];
  return odd * x + even;
}

template <class T>
struct Polynomials;
template <>
struct Polynomials<float> {
  // exp(r), |r| <= ln(2)/2, relative error 2e-9
  static constexpr float exponential[] = {1.0f,
                                          1.0000000377f,
                                          0.50000000471f,
                                          0.16666415515f,
                                          0.041666352897f,
                                          0.0083751263982f,
                                          0.0013941108434f};
  // sin(pi y) / y and cos(pi y) in y^2, |y| <= 1/2, errors 1.4e-8 and 2.3e-10
  static constexpr float sin_pi[] = {3.1415926400772f, -5.1677100766683f, 2.5500773865289f,
                                     -0.59829041128343f, 0.077655912276014f};
  static constexpr float cos_pi[] = {0.99999999977915f, -4.9348021369289f, 4.0587091547631f,
                                     -1.3352119493906f, 0.23493706859509f, -0.024395932097550f};
  static constexpr float log2e = 1.44269504f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr float lowest = -86.0f;
  static constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  static constexpr int mantissa_bits = 23, log_terms = 5;
  static constexpr int32_t one = 0x3f800000, root_half = 0x3f3504f3;
};
template <>
struct Polynomials<double> {
  // relative error 3.2e-18
  static constexpr double exponential[] = {1.0,
                                           1.0,
                                           0.50000000000000183855,
                                           0.16666666666666680806,
                                           0.041666666666488095495,
                                           0.0083333333333196006109,
                                           0.0013888888952314774652,
                                           0.00019841269890047113707,
                                           0.000024801485482328492419,
                                           2.7557240918578969823e-6,
                                           2.7632639639041029749e-7,
                                           2.5110037605963777712e-8};
  // errors 7e-19 and 7e-21
  static constexpr double sin_pi[] = {
      3.1415926535897932378,     -5.1677127800499696077,      2.5501640398773004745,
      -0.59926452931894468132,   0.08214588657310289502,      -0.0073704305059169434047,
      0.00046629981618983938014, -0.000021903497074626017191, 7.6978267682241906454e-7};
  static constexpr double cos_pi[] = {1.0,
                                      -4.9348022005446793043,
                                      4.0587121264167675439,
                                      -1.3352627688545549643,
                                      0.23533063035799501991,
                                      -0.025806891376592964032,
                                      0.001929574187281234834,
                                      -0.00010463741681752138305,
                                      4.3007241727348469251e-6,
                                      -1.3435212950953200672e-7};
  static constexpr double log2e = 1.4426950408889634074, ln2_high = 6.93147180369123816490e-01,
                          ln2_low = 1.90821492927058770002e-10;
  static constexpr double lowest = -707.0;
  static constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int mantissa_bits = 52, log_terms = 11;
  static constexpr int64_t one = 0x3ff0000000000000, root_half = 0x3fe6a09e667f3bcd;
};

// exp(x) for x up to 88 or 709 (above: no meaning; no formula here has x > 1). Below `lowest`, -86
// or -707, it stays at the value there, 4e-38 or 1e-307.
template <class T>
PYMLP_INLINE Lanes<T> exponential(Lanes<T> x) {
  using P = Polynomials<T>;
  using Bits = typename LaneTypes<T>::IntegerVector;
  x = maximum(x, P::lowest);
  const Lanes<T> rounded = x * P::log2e + P::magic;  // its low mantissa bits are the whole number
  const Lanes<T> n = rounded - P::magic;
  const Lanes<T> r = (x - n * P::ln2_high) - n * P::ln2_low;
  const Lanes<T> p = polynomial(r, P::exponential);
  Bits bits, exponent;
  std::memcpy(&bits, &p.v, sizeof(bits));
  std::memcpy(&exponent, &rounded.v, sizeof(exponent));
  bits += exponent << P::mantissa_bits;
  Lanes<T> result;
  std::memcpy(&result.v, &bits, sizeof(bits));
  return result;
}

// The whole number nearest to x, |x| below 2^22 or 2^51.
template <class T>
PYMLP_INLINE Lanes<T> nearest(Lanes<T> x) {
  return (x + Polynomials<T>::magic) - Polynomials<T>::magic;
}

// log(x) for normal x > 0: x = m 2^n with m in [sqrt(1/2), sqrt(2)), log m by the atanh series in
// (m - 1)/(m + 1), truncation below one rounding error.
template <class T>
PYMLP_INLINE Lanes<T> logarithm(Lanes<T> x) {
  using P = Polynomials<T>;
  using Bits = typename LaneTypes<T>::IntegerVector;
  Bits bits;
  std::memcpy(&bits, &x.v, sizeof(bits));
  const Bits exponent = (bits - P::root_half) >> P::mantissa_bits;
  bits -= exponent << P::mantissa_bits;
  Lanes<T> m;
  std::memcpy(&m.v, &bits, sizeof(bits));
  const Lanes<T> n = __builtin_convertvector(exponent, typename Lanes<T>::Vector);
  const Lanes<T> s = (m - T(1)) / (m + T(1));
  const Lanes<T> square = s * s;
  Lanes<T> series = T(1) / T(2 * P::log_terms - 1);
#pragma GCC unroll 16
  for (int i = P::log_terms - 2; i >= 0; --i) series = series * square + T(1) / T(2 * i + 1);
  return n * P::ln2_high + (n * P::ln2_low + (s + s) * series);
}

template <class T>
PYMLP_INLINE CosSin<Lanes<T>> cos_sin_pi(Lanes<T> x) {
  const Lanes<T> y = x - T(0.5);  // cos(pi x) = -sin(pi y), sin(pi x) = cos(pi y)
  const Lanes<T> square = y * y;
  return {-(y * polynomial(square, Polynomials<T>::sin_pi)),
          polynomial(square, Polynomials<T>::cos_pi)};
}

// While it lives, results below the normal range are 0: powers and Gaussians underflow all the
// time, and subnormal operands make a multiplication many times slower.
class FlushSubnormals {
 public:
#ifdef __SSE2__
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushSubnormals() { _mm_setcsr(before_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  unsigned before_;
#endif
};

// The sum over the lanes, always in the same order.
template <class T>
PYMLP_INLINE T sum_of_lanes(Lanes<T> x) {
  T buffer[Lanes<T>::count];
  x.store(buffer);
#pragma GCC unroll 8
  for (int width = Lanes<T>::count / 2; width > 0; width /= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i) buffer[i] += buffer[i + width];
  }
  return buffer[0];
}

}  // namespace pymlp::inline PYMLP_SIMD
