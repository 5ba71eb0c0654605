// Neighbours in a grid of cells, for one instruction set.
#include "../../loops/cpu/cell_search.h"

namespace pymlp::PYMLP_SIMD {

int64_t cell_search(const CellGrid& grid, int64_t begin, int64_t end, CellSearch& search) {
  return search_cells(grid, begin, end, search);
}

}  // namespace pymlp::PYMLP_SIMD
