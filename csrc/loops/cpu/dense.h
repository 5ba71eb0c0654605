// Products of small matrices, tile by tile in registers: lanes run over columns, a tile of rows
// times columns is added up before it is stored. All matrices are in the first or second cache.
#pragma once

#include <type_traits>

#include "../../numbers/lanes.h"

namespace pymlp::inline PYMLP_SIMD {

// Element (r, d) of the left factor is at r * row + d * depth: as it stands, or transposed.
template <class T>
struct LeftFactor {
  const T* data;
  int64_t row, depth;
};

// C [rows][..] += A [rows, depth] B [depth][..], `registers` of the columns.
template <int rows, int registers, class T>
PYMLP_INLINE void add_product_tile(LeftFactor<T> a, const T* b, int64_t b_stride, int64_t depth,
                                   T* c, int64_t c_stride) {
  using N = Lanes<T>;
  N sum[rows][registers];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < registers; ++j) sum[r][j] = N::load(c + r * c_stride + j * N::count);
  }
  for (int64_t d = 0; d < depth; ++d) {
    N right[registers];
#pragma GCC unroll 8
    for (int j = 0; j < registers; ++j) right[j] = N::load(b + d * b_stride + j * N::count);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const N left = a.data[r * a.row + d * a.depth];
#pragma GCC unroll 8
      for (int j = 0; j < registers; ++j) sum[r][j] = sum[r][j] + left * right[j];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < registers; ++j) sum[r][j].store(c + r * c_stride + j * N::count);
  }
}

// Calls body with n, 1 ... most, as a constant; with none for n = 0.
template <int most, class Body>
PYMLP_INLINE void with_constant(int64_t n, Body body) {
  if constexpr (most > 0) {
    if (n == most) {
      body(std::integral_constant<int, most>());
    } else {
      with_constant<most - 1>(n, body);
    }
  }
}

// C [n, columns] += A [n, depth] B [depth, columns]; columns is a multiple of the lanes.
template <class T>
void add_product(LeftFactor<T> a, int64_t n, const T* b, int64_t b_stride, int64_t depth, T* c,
                 int64_t c_stride, int64_t columns) {
  constexpr int kLanes = Lanes<T>::count;
  constexpr int kRows = 6, kWide = kRegisters >= 32 ? 4 : 2;
  const auto rows = [&]<int count>(std::integral_constant<int, count>, int64_t r) {
    const LeftFactor<T> from{a.data + r * a.row, a.row, a.depth};
    T* to = c + r * c_stride;
    int64_t j = 0;
    for (; j + kWide * kLanes <= columns; j += kWide * kLanes) {
      add_product_tile<count, kWide>(from, b + j, b_stride, depth, to + j, c_stride);
    }
    with_constant<kWide - 1>(
        (columns - j) / kLanes, [&]<int left>(std::integral_constant<int, left>) {
          add_product_tile<count, left>(from, b + j, b_stride, depth, to + j, c_stride);
        });
  };
  int64_t r = 0;
  for (; r + kRows <= n; r += kRows) rows(std::integral_constant<int, kRows>(), r);
  with_constant<kRows - 1>(n - r, [&](auto left) { rows(left, r); });
}

}  // namespace pymlp::inline PYMLP_SIMD
