// Neighbours of atoms in a grid of cells. One thread owns a centre: it walks the columns of cells
// around it, whose points lie one after the other, with lanes over points; what is found is put in
// order by counting, for each, how many come before it, with lanes over those.
#pragma once

#include <algorithm>
#include <limits>

#include "../../numbers/lanes.h"
#include "../cell_grid.h"

namespace pymlp::inline PYMLP_SIMD {

// More than these are left to the caller, who sorts by comparing: n log n beats n^2 / lanes.
constexpr int64_t kSortByCounting = 512;

// Writes `keys` in ascending order, if they are not too many; reads up to kGridPadding of them
// behind the last.
PYMLP_INLINE void put_in_order(Key* keys, int64_t n, Key* ordered) {
  if (n > kSortByCounting) {
    for (int64_t i = 0; i < n; ++i) ordered[i] = keys[i];
    return;
  }
  // Padding behind the last, so that the loop has no remainder.
  constexpr int64_t kStep = 32 / sizeof(Key);
  const int64_t end = (n + kStep - 1) / kStep * kStep;
  for (int64_t q = n; q < end; ++q) keys[q] = std::numeric_limits<Key>::max();
  for (int64_t i = 0; i < n; ++i) {
    const Key key = keys[i];
    Key before = 0;
    for (int64_t q = 0; q < end; ++q) before += keys[q] < key;
    ordered[before] = key;
  }
}

// Searches the centres from `begin` on; returns the first that is not done, `end` if all are.
PYMLP_INLINE int64_t search_cells(const CellGrid& grid, int64_t begin, int64_t end,
                                  CellSearch& search) {
  using L = Lanes<double>;
  const auto* first = grid.first;
  const int64_t* n = grid.n;
  for (int64_t i = begin; i < end; ++i) {
    const double* r = grid.centers + 3 * i;
    int64_t cell[3];
    for (int axis = 0; axis < 3; ++axis) {
      const auto c = static_cast<int64_t>((r[axis] - grid.origin[axis]) * grid.inverse_width[axis]);
      cell[axis] = std::clamp<int64_t>(c, 0, n[axis] - 1);
    }
    const Key own = static_cast<Key>((i << grid.image_bits) + grid.own_image);
    const L x = r[0], y = r[1], z = r[2];
    int64_t found = 0;
    for (int64_t c = 0; c < grid.n_columns; ++c) {
      const auto& column = grid.columns[c];
      const int64_t cx = cell[0] + column.x, cy = cell[1] + column.y;
      if (cx < 0 || cx >= n[0] || cy < 0 || cy >= n[1]) continue;
      const int64_t line = (cx * n[1] + cy) * n[2];
      const int64_t low = std::max<int64_t>(cell[2] - column.reach, 0);
      const int64_t high = std::min<int64_t>(cell[2] + column.reach, n[2] - 1);
      const int64_t stop = first[line + high + 1];
      int64_t p = first[line + low];
      if (search.width - found < stop - p + kGridPadding) {
        search.needed = found + stop - p + kGridPadding;
        return i;
      }
      Key* keys = search.candidates + found;
      double* squares = search.squares + found;
      for (; p < stop; p += L::count) {
        const L dx = L::load(grid.x + p) - x, dy = L::load(grid.y + p) - y,
                dz = L::load(grid.z + p) - z;
        double square[L::count];
        (dx * dx + dy * dy + dz * dz).store(square);
        const auto valid = static_cast<int>(std::min<int64_t>(stop - p, L::count));
        for (int lane = 0; lane < valid; ++lane) {
          const Key key = grid.keys[p + lane];
          *keys = key;
          *squares = square[lane];
          const int64_t near = (square[lane] < grid.square_cutoff) & (key != own);
          keys += near;
          squares += near;
        }
      }
      found = keys - search.candidates;
    }
    if (search.room - search.n_found < found) {
      search.needed = found;
      return i;
    }
    int64_t doubtful = found > kSortByCounting;
    for (int64_t q = 0; q < found; ++q) {
      const double square = search.squares[q];
      doubtful += (square < search.too_close) | (square >= search.surely_near);
    }
    put_in_order(search.candidates, found, search.found + search.n_found);
    search.counts[i] = found;
    search.n_found += found;
    if (doubtful) {
      search.doubtful = true;
      return i + 1;
    }
  }
  return end;
}

}  // namespace pymlp::inline PYMLP_SIMD
