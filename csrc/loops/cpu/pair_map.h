// A function of each pair alone, from its displacement to a row of numbers. Lanes run over pairs; a
// thread owns a range of pairs, and nobody else writes their rows.
#pragma once

#include "columns.h"

namespace pymlp::inline PYMLP_SIMD {

// Lane l of columns[c] becomes from[l][c]; lanes past `count` repeat the first row, so that they
// hold numbers that the function is made for.
template <int width, class T>
PYMLP_INLINE void load_rows(const T* from, int64_t count, Lanes<T> (&columns)[width]) {
  constexpr int kLanes = Lanes<T>::count;
  alignas(kAlignment) T buffer[width][kLanes];
  if (count >= kLanes) {
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) {
#pragma GCC unroll 4
      for (int c = 0; c < width; ++c) buffer[c][l] = from[l * width + c];
    }
  } else {
    for (int l = 0; l < kLanes; ++l) {
      for (int c = 0; c < width; ++c) buffer[c][l] = from[(l < count ? l : 0) * width + c];
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < width; ++c) columns[c] = Lanes<T>::load(buffer[c]);
}

// The first `count` rows; a row begins every `stride` numbers.
template <int width, class T>
PYMLP_INLINE void store_rows(const Lanes<T> (&columns)[width], T* to, int64_t count,
                             int64_t stride = width) {
  constexpr int kLanes = Lanes<T>::count;
  alignas(kAlignment) T buffer[width][kLanes];
#pragma GCC unroll 4
  for (int c = 0; c < width; ++c) columns[c].store(buffer[c]);
  if (count >= kLanes) {
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) {
#pragma GCC unroll 4
      for (int c = 0; c < width; ++c) to[l * stride + c] = buffer[c][l];
    }
  } else {
    for (int64_t l = 0; l < count; ++l) {
      for (int c = 0; c < width; ++c) to[l * stride + c] = buffer[c][l];
    }
  }
}

// Calls body(first pair, number of pairs) for registers' worth of pairs.
template <class T, class Body>
PYMLP_INLINE void for_each_register(int64_t begin, int64_t end, Body body) {
  for (int64_t p = begin; p < end; p += Lanes<T>::count) {
    body(p, end - p < Lanes<T>::count ? end - p : int64_t(Lanes<T>::count));
  }
}

}  // namespace pymlp::inline PYMLP_SIMD
