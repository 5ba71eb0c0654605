// torch.ops.pymlp.element_networks on the CPU: energies of atoms and dE/dG for a whole committee in
// one call, for prediction. No graph; training and the GPU use torch's matrix products.
#include "element_networks.h"

#include "allocation.h"

namespace pymlp {
namespace {

std::vector<int64_t> layer_widths(const Tensor& widths) {
  require_int64(widths, "widths");
  require_shape(widths, "widths", {-1}, "[1 + hidden layers]");
  require(widths.is_contiguous(), "widths: expected a contiguous tensor");
  const int64_t* values = widths.const_data_ptr<int64_t>();
  return {values, values + widths.size(0)};
}

std::tuple<Tensor, Tensor> element_networks(Tensor features, Tensor types, Tensor order,
                                            Tensor weights, Tensor scalers, Tensor energy_scales,
                                            Tensor widths, int64_t activation, bool residual,
                                            bool with_slopes) {
  require_float(features, "features");
  require_float(weights, "weights");
  const NetworkShape shape =
      make_shape(features, layer_widths(widths), scalers, activation, residual);
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
  const auto tiles =
      make_tiles(types.const_data_ptr<int64_t>(), ordered, n_atoms, shape.n_types, kTileRows);
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
    run_networks(pass, static_cast<int64_t>(tiles.size()));
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
