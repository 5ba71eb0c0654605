// torch.ops.pymlp.element_networks on the CPU: energies of atoms and dE/dG for a whole committee in
// one call, for prediction. No graph; training and the GPU use torch's matrix products.
#include <memory>
#include <vector>

#include "allocation.h"
#include "checks.h"
#include "cpu/dispatch.h"

namespace pymlp {
namespace {

NetworkShape make_shape(const Tensor& features, const Tensor& widths, const Tensor& scalers,
                        int64_t activation, bool residual) {
  require_int64(widths, "widths");
  require_shape(widths, "widths", {-1}, "[1 + hidden layers]");
  const int64_t n = widths.size(0);
  require(n >= 1 && n <= kMostLayers, "widths: expected 1 to ", kMostLayers, " numbers, got ", n);
  require(widths.is_contiguous(), "widths: expected a contiguous tensor");
  NetworkShape shape{};
  const int64_t* values = widths.const_data_ptr<int64_t>();
  for (int64_t l = 0; l < n; ++l) {
    require(values[l] > 0, "widths: expected positive numbers, got ", values[l]);
    shape.widths[l] = values[l];
  }
  require_shape(features, "features", {-1, values[0]}, "[A, widths[0]]");
  require_shape(scalers, "scalers", {-1, -1, 3, values[0]}, "[M, n_types, 3, F]");
  require(activation >= 0 && activation <= 5, "activation: expected 0 ... 5, got ", activation);
  shape.n_networks = scalers.size(0);
  shape.n_types = scalers.size(1);
  shape.n_hidden = static_cast<int>(n - 1);
  shape.activation = static_cast<int>(activation);
  shape.residual = residual;
  return shape;
}

// Blocks of atoms of one type, in the order given.
std::vector<NetworkTile> make_tiles(const int64_t* types, const int64_t* order, int64_t n_atoms,
                                    int64_t n_types) {
  std::vector<NetworkTile> tiles;
  for (int64_t i = 0; i < n_atoms; ++i) {
    require(order[i] >= 0 && order[i] < n_atoms,
            "order: expected values in 0 ... A - 1 = ", n_atoms - 1);
    const int64_t type = types[order[i]];
    require(type >= 0 && type < n_types,
            "types: expected values in 0 ... n_types - 1 = ", n_types - 1);
    if (!tiles.empty() && tiles.back().type == type && i - tiles.back().begin < kTileRows) {
      tiles.back().end = i + 1;
    } else {
      tiles.push_back({type, i, i + 1});
    }
  }
  return tiles;
}

template <class T, class W>
void run(const NetworkPass<T, W>& pass, int64_t n_tiles) {
  constexpr int64_t kTilesPerThread = 16;
  const auto kernel = cpu_kernels().element_networks<T, W>();
  torch::stable::parallel_for(0, n_tiles, kTilesPerThread, [&](int64_t begin, int64_t end) {
    thread_local std::vector<std::byte> memory;
    const auto needed = static_cast<size_t>(kernel(pass, begin, end, nullptr)) + 64;
    if (memory.size() < needed) memory.resize(needed);
    void* scratch = memory.data();
    size_t space = memory.size();
    std::align(64, needed - 64, scratch, space);
    // Not more tiles at a time than whose features stay in the second cache from one network to
    // the next.
    for (int64_t t = begin; t < end; t += kTilesPerThread) {
      kernel(pass, t, std::min(t + kTilesPerThread, end), static_cast<std::byte*>(scratch));
    }
  });
}

std::tuple<Tensor, Tensor> element_networks(Tensor features, Tensor types, Tensor order,
                                            Tensor weights, Tensor scalers, Tensor energy_scales,
                                            Tensor widths, int64_t activation, bool residual,
                                            bool with_slopes) {
  require_float(features, "features");
  require_float(weights, "weights");
  const NetworkShape shape = make_shape(features, widths, scalers, activation, residual);
  const int64_t n_atoms = features.size(0), n_networks = shape.n_networks;
  require_shape(types, "types", {n_atoms}, "[A]");
  require_shape(order, "order", {n_atoms}, "[A]");
  require_index(types, "types", features, "features");
  require_index(order, "order", features, "features");
  require_like(scalers, "scalers", features, "features");
  require_shape(weights, "weights", {n_networks, shape.n_types, shape.n_weights()},
                "[M, n_types, numbers of a network]");
  require(energy_scales.scalar_type() == ScalarType::Double, "energy_scales: expected float64");
  require_shape(energy_scales, "energy_scales", {n_networks, shape.n_types, 2}, "[M, n_types, 2]");
  features = torch::stable::contiguous(features);
  types = torch::stable::contiguous(types);
  order = torch::stable::contiguous(order);
  weights = torch::stable::contiguous(weights);
  scalers = torch::stable::contiguous(scalers);
  energy_scales = torch::stable::contiguous(energy_scales);
  const int64_t* ordered = order.const_data_ptr<int64_t>();
  const auto tiles = make_tiles(types.const_data_ptr<int64_t>(), ordered, n_atoms, shape.n_types);
  const Tensor energies = allocate(energy_scales, "energies", {n_networks, n_atoms});
  const Tensor slopes =
      allocate(features, "slopes", {n_networks, with_slopes ? n_atoms : 0, shape.widths[0]});

  const auto compute = [&]<class T, class W>(T, W) {
    const NetworkPass<T, W> pass{shape,
                                 tiles.data(),
                                 ordered,
                                 n_atoms,
                                 features.const_data_ptr<T>(),
                                 scalers.const_data_ptr<T>(),
                                 energy_scales.const_data_ptr<double>(),
                                 weights.const_data_ptr<W>(),
                                 energies.mutable_data_ptr<double>(),
                                 with_slopes ? slopes.mutable_data_ptr<T>() : nullptr};
    run(pass, static_cast<int64_t>(tiles.size()));
  };
  const auto compute_for = [&]<class T>(T type) {
    if (weights.scalar_type() == ScalarType::Float) {
      compute(type, float{});
    } else {
      compute(type, double{});
    }
  };
  if (features.scalar_type() == ScalarType::Float) {
    compute_for(float{});
  } else {
    compute_for(double{});
  }
  return {energies, slopes};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) {
  m.impl("element_networks", TORCH_BOX(&element_networks));
}

}  // namespace pymlp
