// Products of small matrices, tile by tile in registers: lanes run over columns, a tile of rows
// times columns is added up before it is stored. All matrices are in the first or second cache.
#pragma once

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

template <int rows, class T>
PYMLP_INLINE void add_product_rows(LeftFactor<T> a, const T* b, int64_t b_stride, int64_t depth,
                                   T* c, int64_t c_stride, int64_t columns) {
  constexpr int kLanes = Lanes<T>::count;
  constexpr int kWide = kRegisters >= 32 ? 4 : 2;
  int64_t j = 0;
  for (; j + kWide * kLanes <= columns; j += kWide * kLanes) {
    add_product_tile<rows, kWide>(a, b + j, b_stride, depth, c + j, c_stride);
  }
  if constexpr (kWide > 2) {
    if (j + 2 * kLanes <= columns) {
      add_product_tile<rows, 2>(a, b + j, b_stride, depth, c + j, c_stride);
      j += 2 * kLanes;
    }
  }
  if (j < columns) add_product_tile<rows, 1>(a, b + j, b_stride, depth, c + j, c_stride);
}

// C [n, columns] += A [n, depth] B [depth, columns]; columns is a multiple of the lanes.
template <class T>
void add_product(LeftFactor<T> a, int64_t n, const T* b, int64_t b_stride, int64_t depth, T* c,
                 int64_t c_stride, int64_t columns) {
  int64_t r = 0;
  const auto from = [&](int64_t row) {
    return LeftFactor<T>{a.data + row * a.row, a.row, a.depth};
  };
  for (; r + 6 <= n; r += 6) {
    add_product_rows<6>(from(r), b, b_stride, depth, c + r * c_stride, c_stride, columns);
  }
  for (; r + 2 <= n; r += 2) {
    add_product_rows<2>(from(r), b, b_stride, depth, c + r * c_stride, c_stride, columns);
  }
  if (r < n) add_product_rows<1>(from(r), b, b_stride, depth, c + r * c_stride, c_stride, columns);
}

}  // namespace pymlp::inline PYMLP_SIMD
