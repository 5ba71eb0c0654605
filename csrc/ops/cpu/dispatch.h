// The CPU kernels, compiled once per instruction set (namespaces baseline, avx2, avx512) and picked
// when the library is loaded. Free of torch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../../loops/cell_grid.h"
#include "../../loops/deep_pot_se.h"
#include "../../loops/element_networks.h"
#include "../../loops/neighborhood.h"

namespace pymlp {

// Runs a pass over the centres [begin, end); see symmetry_sum() in loops/cpu/symmetry_sum.h.
template <class T>
using SymmetryKernel = int64_t (*)(const SymmetryPass<T>&, Pass, int64_t begin, int64_t end,
                                   std::byte* scratch);

// Kernels of DeepPot-SE; the environment matrix runs over pairs and needs no scratch memory.
template <class T>
struct DeepPotSeKernels {
  void (*environment_matrix)(const EnvironmentPass<T>&, Pass, int64_t begin, int64_t end);
  int64_t (*contraction)(const ContractionPass<T>&, Pass, int64_t begin, int64_t end,
                         std::byte* scratch);
  int64_t (*tabulated)(const TablePass<T>&, Pass, int64_t begin, int64_t end, std::byte* scratch);
  // Rows [begin, end) of the table.
  void (*table_gradient)(const TablePass<T>&, const TableRows&, int64_t begin, int64_t end);
  int64_t (*embedded)(const EmbeddingPass<T>&, Pass, int64_t begin, int64_t end,
                      std::byte* scratch);
};

// Neighbours of the atoms [begin, end); see loops/cpu/cell_search.h.
using CellSearchKernel = int64_t (*)(const CellGrid&, int64_t begin, int64_t end, CellSearch&);

// Tiles [begin, end) of the atomic networks, or the bytes of scratch memory where that is null; see
// loops/cpu/element_networks.h.
template <class T, class W>
using NetworkKernel = int64_t (*)(const NetworkPass<T, W>&, int64_t begin, int64_t end,
                                  std::byte* scratch);

// The same tiles, all of one element: adds the gradient of the weights to `sums`; see
// loops/cpu/network_gradient.h.
template <class T>
using NetworkGradientKernel = int64_t (*)(const NetworkGradientPass<T>&, int64_t begin, int64_t end,
                                          T* sums, std::byte* scratch);

struct NetworkKernels {
  NetworkKernel<float, float> single;
  NetworkKernel<float, double> float_features;
  NetworkKernel<double, float> double_features;
  NetworkKernel<double, double> twice;
  NetworkGradientKernel<float> gradient_float;
  NetworkGradientKernel<double> gradient_double;
};

struct CpuKernels {
  const char* level;
  SymmetryKernel<float> behler_parrinello_float, ani_float;
  SymmetryKernel<double> behler_parrinello_double, ani_double;
  DeepPotSeKernels<float> deep_pot_se_float;
  DeepPotSeKernels<double> deep_pot_se_double;
  CellSearchKernel cell_search;
  NetworkKernels networks;

  template <class T, class W>
  NetworkKernel<T, W> element_networks() const {
    if constexpr (sizeof(T) == 4) {
      if constexpr (sizeof(W) == 4) {
        return networks.single;
      } else {
        return networks.float_features;
      }
    } else if constexpr (sizeof(W) == 4) {
      return networks.double_features;
    } else {
      return networks.twice;
    }
  }

  template <class T>
  NetworkGradientKernel<T> element_networks_gradient() const {
    if constexpr (sizeof(T) == 4) {
      return networks.gradient_float;
    } else {
      return networks.gradient_double;
    }
  }

  template <class T>
  const DeepPotSeKernels<T>& deep_pot_se() const {
    if constexpr (sizeof(T) == 4) {
      return deep_pot_se_float;
    } else {
      return deep_pot_se_double;
    }
  }
};

// The best level that this machine runs; the environment variable PYMLP_SIMD_LEVEL asks for a lower
// one, for tests and comparisons.
const CpuKernels& cpu_kernels();

}  // namespace pymlp
