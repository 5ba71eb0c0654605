// Three numbers that belong together.
#pragma once

#include "host_device.h"

namespace pymlp::inline PYMLP_SIMD {

template <class N>
struct Vec3 {
  N x, y, z;

  friend PYMLP_INLINE Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
  friend PYMLP_INLINE Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
  friend PYMLP_INLINE Vec3 operator*(N s, Vec3 a) { return {s * a.x, s * a.y, s * a.z}; }
};

template <class Mask, class N>
PYMLP_INLINE Vec3<N> select(Mask mask, Vec3<N> yes, Vec3<N> no) {
  return {select(mask, yes.x, no.x), select(mask, yes.y, no.y), select(mask, yes.z, no.z)};
}

template <class N>
PYMLP_INLINE N dot(Vec3<N> a, Vec3<N> b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}

}  // namespace pymlp::inline PYMLP_SIMD
