// Atoms of one structure and those periodic images that they can see, sorted into a Cartesian grid:
// views of memory that csrc/ops/cell_grid.cpp owns and fills. Free of torch.
#pragma once

#include <cstdint>

namespace pymlp {

// A neighbour is one integer that sorts as neighbours do: (atom << image_bits) + image, with images
// numbered by their shifts in lexicographic order; 30 bits, enough for 3e7 atoms in a large cell.
using Key = int32_t;
constexpr int kKeyBits = 30;

struct CellGrid {
  // All points, cell by cell (z fastest), with kPadding more that may be read.
  const double *x, *y, *z;
  const Key* keys;
  const int32_t* first;  // [nx ny nz + 1], the first point of each cell
  int64_t n[3];
  double origin[3], inverse_width[3];
  // Columns of cells that a centre's neighbours may stand in: steps in x and y, and how far in z.
  struct Column {
    int32_t x, y, reach;
  };
  const Column* columns;
  int64_t n_columns;
  const double* centers;  // [n_atoms, 3], the atoms themselves, all of which are points too
  int image_bits;
  int64_t own_image;  // of shift zero: atom i is the point with key (i << image_bits) + own_image
  double square_cutoff;
};

// Points behind the last that a register may read.
constexpr int64_t kGridPadding = 16;

// What a search writes. It stops before the first centre for which there may be too little room,
// and says how much that needs; and behind a centre with a neighbour so close, or so near the
// cutoff, that rounding may decide.
struct CellSearch {
  Key* found;       // neighbours of the centres one after the other, each in order
  int64_t room;     // how many fit
  int64_t* counts;  // [n_atoms] neighbours of each centre
  Key* candidates;  // scratch, `width` of each
  double* squares;
  int64_t width;
  double too_close, surely_near;  // squared distances; between them there is nothing to look at
  int64_t n_found;                // out: so many in `found`
  int64_t needed;                 // out: room for one more centre, or zero
  bool doubtful;                  // out: the last centre has to be looked at
};

}  // namespace pymlp
