// Builds the grid that neighbours are searched in (loops/cell_grid.h) from the atoms and the cell
// of one structure. Free of torch.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "../loops/cell_grid.h"

namespace pymlp {

using Vector = std::array<double, 3>;

// The lattice of a structure: cell vectors where it is periodic, orthonormal ones across elsewhere.
struct Lattice {
  std::array<bool, 3> periodic;
  std::array<Vector, 3> cell;
  std::array<Vector, 3> dual;  // fractional coordinate k of r is dual[k] . r
  bool singular;
};

Lattice make_lattice(const Vector* cell, const bool* pbc);

// What shifts mean: image s of an atom is its wrapped position plus shift s; the shift of a pair is
// that of the image, less the neighbour's turns, plus the centre's.
struct Images {
  int image_bits = 0;
  std::array<int32_t, 3> low{}, count{1, 1, 1};  // shift = low + digits of the image's number

  std::array<int32_t, 3> shift(int64_t image) const {
    const auto z = static_cast<int32_t>(image % count[2]);
    image /= count[2];
    return {low[0] + static_cast<int32_t>(image / count[1]),
            low[1] + static_cast<int32_t>(image % count[1]), low[2] + z};
  }
};

enum class Trouble { none, not_finite, too_far_outside, too_many };

// Atoms wrapped into the cell, and how far images reach.
struct Wrapped {
  Lattice lattice;
  Images images;
  Trouble trouble = Trouble::none;
  int64_t culprit = 0;                           // the atom that is trouble
  std::vector<double> positions;                 // [n_atoms, 3]
  std::vector<double> fractions;                 // [n_atoms, 3] of the periodic directions
  std::array<double, 3> reach{}, low{}, high{};  // of fractions: cutoff / height, range
};

// turns [n_atoms, 3]: how many cell vectors are taken off each atom.
Wrapped wrap(const double* positions, int64_t n_atoms, const Lattice& lattice, double cutoff,
             int32_t* turns);

// Owns what a CellGrid points to.
class CellGridMemory {
 public:
  // Returns false where there are more than 2^31 points.
  bool build(const Wrapped& atoms, double cutoff, double square_limit);
  const CellGrid& view() const { return grid_; }

 private:
  CellGrid grid_{};
  std::unique_ptr<double[]> coordinates_;
  std::unique_ptr<Key[]> keys_;
  std::vector<int32_t> first_;
  std::vector<CellGrid::Column> columns_;
};

}  // namespace pymlp
