// What the ops of atomic networks share: shapes, tiles of atoms, and running a pass on the CPU.
#pragma once

#include <algorithm>
#include <vector>

#include "centers.h"
#include "cpu/dispatch.h"

namespace pymlp {

inline NetworkShape make_shape(const Tensor& features, const std::vector<int64_t>& widths,
                               const Tensor& scalers, int64_t activation, bool residual) {
  const auto n = static_cast<int64_t>(widths.size());
  require(n >= 1 && n <= kMostLayers, "widths: expected 1 to ", kMostLayers, " numbers, got ", n);
  NetworkShape shape{};
  for (int64_t l = 0; l < n; ++l) {
    require(widths[l] > 0, "widths: expected positive numbers, got ", widths[l]);
    shape.widths[l] = widths[l];
  }
  require_shape(features, "features", {-1, widths[0]}, "[A, widths[0]]");
  require_shape(scalers, "scalers", {-1, -1, 3, widths[0]}, "[M, n_types, 3, F]");
  require(activation >= 0 && activation <= 5, "activation: expected 0 ... 5, got ", activation);
  shape.n_networks = scalers.size(0);
  shape.n_types = scalers.size(1);
  shape.n_hidden = static_cast<int>(n - 1);
  shape.activation = static_cast<int>(activation);
  shape.residual = residual;
  return shape;
}

// Blocks of atoms of one type, in the order given.
inline std::vector<NetworkTile> make_tiles(const int64_t* types, const int64_t* order,
                                           int64_t n_atoms, int64_t n_types, int64_t most_rows) {
  std::vector<NetworkTile> tiles;
  for (int64_t i = 0; i < n_atoms; ++i) {
    require(order[i] >= 0 && order[i] < n_atoms,
            "order: expected values in 0 ... A - 1 = ", n_atoms - 1);
    const int64_t type = types[order[i]];
    require(type >= 0 && type < n_types,
            "types: expected values in 0 ... n_types - 1 = ", n_types - 1);
    if (!tiles.empty() && tiles.back().type == type && i - tiles.back().begin < most_rows) {
      tiles.back().end = i + 1;
    } else {
      tiles.push_back({type, i, i + 1});
    }
  }
  return tiles;
}

template <class T, class W>
void run_networks(const NetworkPass<T, W>& pass, int64_t n_tiles) {
  constexpr int64_t kTilesPerThread = 16;
  const auto kernel = cpu_kernels().element_networks<T, W>();
  torch::stable::parallel_for(0, n_tiles, kTilesPerThread, [&](int64_t begin, int64_t end) {
    // Not more tiles at a time than whose features stay in the second cache from one network to
    // the next.
    for (int64_t t = begin; t < end; t += kTilesPerThread) {
      with_scratch([&](std::byte* scratch) {
        return kernel(pass, t, std::min(t + kTilesPerThread, end), scratch);
      });
    }
  });
}

}  // namespace pymlp
