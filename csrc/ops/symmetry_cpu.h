// Runs a symmetry-function kernel over all centres with torch's threads.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/dispatch.h"
#include "symmetry_functions.h"

namespace pymlp {

// Index values that would make a kernel read elsewhere. O(P), a few per cent of a forward pass.
template <class T>
void check_indices(const SymmetryPass<T>& pass, int64_t n_pairs, int64_t n_types) {
  const auto& atoms = pass.atoms;
  const int64_t n = atoms.n_centers;
  require(atoms.pair_offsets[0] == 0 && atoms.pair_offsets[n] == n_pairs,
          "pair_offsets: expected to begin with 0 and end with P = ", n_pairs, ", got ",
          atoms.pair_offsets[0], " and ", atoms.pair_offsets[n]);
  bool ascending = true;
  for (int64_t i = 0; i < n; ++i) {
    ascending = ascending && atoms.pair_offsets[i] <= atoms.pair_offsets[i + 1];
  }
  require(ascending, "pair_offsets: expected ascending values");
  require(all_within(atoms.neighbors, n_pairs, n),
          "neighbors: expected values in 0 ... A - 1 = ", n - 1);
  require(all_within(atoms.types, n, n_types),
          "types: expected values in 0 ... n_types - 1 = ", n_types - 1);
  require(all_within(atoms.channels, n_types, pass.tables.n_channels),
          "channels: expected values in 0 ... n_channels - 1 = ", pass.tables.n_channels - 1);
  const auto& tables = pass.tables;
  for (int64_t set = 0; set < tables.n_sets; ++set) {
    int64_t before = 0;
    bool padding = false;
    for (int64_t s = 0; s < tables.n_angular; ++s) {
      const int64_t* row = tables.products + 2 * (set * tables.n_angular + s);
      padding = padding || row[0] < 0;
      require(padding ? row[0] < 0
                      : row[0] >= before && row[0] < tables.n_distances && row[1] >= 0 &&
                            row[1] < tables.n_angles,
              "products: expected rows (distance, angle) sorted by distance, then (-1, -1); got (",
              row[0], ", ", row[1], ") at row ", s, " of set ", set);
      before = row[0];
    }
  }
}

template <class T>
void run_on_cpu(SymmetryKernel<T> kernel, const SymmetryPass<T>& pass, Pass kind) {
  // A small molecule is not worth waking a second thread for.
  constexpr int64_t kCentersPerThread = 64;
  torch::stable::parallel_for(
      0, pass.atoms.n_centers, kCentersPerThread, [&](int64_t begin, int64_t end) {
        thread_local std::vector<std::byte> memory;
        const size_t needed =
            static_cast<size_t>(kernel(pass, kind, begin, end, nullptr)) + 64;  // 64: to align
        if (memory.size() < needed) memory.resize(needed);
        void* scratch = memory.data();
        size_t space = memory.size();
        std::align(64, needed - 64, scratch, space);
        kernel(pass, kind, begin, end, static_cast<std::byte*>(scratch));
      });
}

}  // namespace pymlp
