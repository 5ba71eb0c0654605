// The DeepPot-SE ops with embedding networks and contraction as one, on the CPU alone. The weights
// of a kind come as one row, layer after layer, weight [n_in, n_out] and then bias [n_out].
#include <algorithm>
#include <array>
#include <tuple>

#include "centers.h"
#include "cpu/dispatch.h"
#include "deep_pot_se.h"

namespace pymlp {
namespace {

// Pairs of a block: with tangents and gradients 0.6 MB of 25-50-100 layers; twice as
// many are no faster.
constexpr int64_t kBlockPairs = 256;
// Parts of all centres that add up gradients of weights on their own: a fixed number, so that the
// sum is the same on any number of threads.
constexpr int64_t kParts = 8;

EmbeddingLayout layout_of(const std::vector<int64_t>& widths) {
  const auto padded = [](int64_t n) {
    return (n + kEmbeddingPadding - 1) / kEmbeddingPadding * kEmbeddingPadding;
  };
  EmbeddingLayout layout{};
  layout.n_layers = static_cast<int>(widths.size());
  int64_t n_in = 1;
  for (int l = 0; l < layout.n_layers; ++l) {
    EmbeddingLayer& layer = layout.layers[l];
    layer.n_in = n_in;
    layer.n_out = widths[l];
    layer.in = padded(layer.n_in);
    layer.out = padded(layer.n_out);
    layer.weight = layout.size;
    layer.bias = layer.weight + layer.n_in * layer.out;
    layer.transposed = layer.bias + layer.out;
    layout.size = layer.transposed + (l > 0 ? layer.n_out * layer.in : 0);
    layout.widest = std::max(layout.widest, layer.out);
    n_in = layer.n_out;
  }
  return layout;
}

int64_t parameters_of(const EmbeddingLayout& layout) {
  int64_t n = 0;
  for (int l = 0; l < layout.n_layers; ++l) {
    n += (layout.layers[l].n_in + 1) * layout.layers[l].n_out;
  }
  return n;
}

// visit(index in the row of parameters, index in the padded weights) for every weight and bias.
template <class Visit>
void for_each_parameter(const EmbeddingLayout& layout, Visit visit) {
  int64_t at = 0;
  for (int l = 0; l < layout.n_layers; ++l) {
    const EmbeddingLayer& layer = layout.layers[l];
    for (int64_t i = 0; i <= layer.n_in; ++i) {  // the last row is the bias
      for (int64_t j = 0; j < layer.n_out; ++j, ++at) visit(at, layer.weight + i * layer.out + j);
    }
  }
}

struct Arguments {
  Tensor environment, pair_offsets, pair_kinds, parameters, standards;
  EmbeddingLayout layout;
  int64_t n_axis, largest_block;

  int64_t n_centers() const { return pair_offsets.size(0) - 1; }
  int64_t n_pairs() const { return environment.size(0); }
  int64_t n_kinds() const { return parameters.size(0); }
  int64_t n_functions() const { return layout.layers[layout.n_layers - 1].n_out; }
  int64_t size() const { return n_functions() * n_axis; }
  Tensor gradient(const Tensor& grad) const {
    return checked(grad, "grad_output", {n_centers(), size()}, "[A, M * n_axis]", environment,
                   "environment");
  }
  Tensor features() const { return allocate(environment, "features", {n_centers(), size()}); }
};

Arguments prepare(const Tensor& environment, const Tensor& pair_offsets, const Tensor& pair_kinds,
                  const Tensor& parameters, const Tensor& standards,
                  const std::vector<int64_t>& widths, int64_t n_axis) {
  require_float(environment, "environment");
  require_shape(environment, "environment", {-1, 4}, "[P, 4]");
  const Tensor offsets =
      checked_index(pair_offsets, "pair_offsets", {-1}, "[A + 1]", environment, "environment");
  require(offsets.size(0) > 0, "pair_offsets: expected A + 1 >= 1 elements, got none");
  const Tensor kinds = checked_index(pair_kinds, "pair_kinds", {environment.size(0)},
                                     "[P], P rows of environment", environment, "environment");
  require(!widths.empty() && widths.size() <= kEmbeddingDepth, "widths: expected 1 ... ",
          kEmbeddingDepth, " layers, got ", widths.size());
  for (const int64_t width : widths) {
    require(width >= 1 && width <= 4096, "widths: expected 1 ... 4096, got ", width);
  }
  require(n_axis >= 1 && n_axis <= widths.back(), "n_axis: expected 1 ... M = ", widths.back(),
          ", got ", n_axis);
  const EmbeddingLayout layout = layout_of(widths);
  const Tensor weights =
      checked(parameters, "parameters", {-1, parameters_of(layout)},
              "[kinds, weights and biases of all layers]", environment, "environment");
  const int64_t n_kinds = weights.size(0);
  require(n_kinds > 0, "parameters: expected at least one kind");
  const Tensor standard =
      checked(standards, "standards", {n_kinds, 2}, "[kinds, 2]", environment, "environment");
  const int64_t n_centers = offsets.size(0) - 1, n_pairs = environment.size(0);
  const int64_t* begins = offsets.const_data_ptr<int64_t>();
  check_offsets(begins, n_centers, n_pairs);
  int64_t largest = kBlockPairs;
  for (int64_t i = 0; i < n_centers; ++i) largest = std::max(largest, begins[i + 1] - begins[i]);
  const int64_t* kind = kinds.const_data_ptr<int64_t>();
  bool inside = true;
  for (int64_t p = 0; p < n_pairs; ++p) inside = inside && kind[p] >= 0 && kind[p] < n_kinds;
  require(inside, "pair_kinds: expected values in 0 ... ", n_kinds - 1);
  return {torch::stable::contiguous(environment),
          offsets,
          kinds,
          weights,
          standard,
          layout,
          n_axis,
          largest};
}

template <class T>
struct Prepared {
  EmbeddingPass<T> pass{};
  std::vector<T> packed;

  explicit Prepared(const Arguments& a) : packed(static_cast<size_t>(a.n_kinds() * a.layout.size)) {
    const T* from = a.parameters.template const_data_ptr<T>();
    const int64_t n_parameters = a.parameters.size(1);
    for (int64_t kind = 0; kind < a.n_kinds(); ++kind) {
      T* to = packed.data() + kind * a.layout.size;
      for_each_parameter(a.layout,
                         [&](int64_t i, int64_t at) { to[at] = from[kind * n_parameters + i]; });
      for (int l = 1; l < a.layout.n_layers; ++l) {
        const EmbeddingLayer& layer = a.layout.layers[l];
        for (int64_t j = 0; j < layer.n_out; ++j) {
          for (int64_t i = 0; i < layer.n_in; ++i) {
            to[layer.transposed + j * layer.in + i] = to[layer.weight + i * layer.out + j];
          }
        }
      }
    }
    pass.n_centers = a.n_centers();
    pass.n_functions = a.n_functions();
    pass.n_axis = a.n_axis;
    pass.n_kinds = a.n_kinds();
    pass.largest_block = a.largest_block;
    pass.networks = a.layout;
    pass.weights = packed.data();
    pass.standards = a.standards.template const_data_ptr<T>();
    pass.environment = a.environment.template const_data_ptr<T>();
    pass.pair_offsets = a.pair_offsets.template const_data_ptr<int64_t>();
    pass.pair_kinds = a.pair_kinds.template const_data_ptr<int64_t>();
  }

  void run(Pass kind) const {
    const auto kernel = cpu_kernels().deep_pot_se<T>().embedded;
    over_centers(pass.n_centers, [&](int64_t begin, int64_t end, std::byte* scratch) {
      return kernel(pass, kind, begin, end, scratch);
    });
  }

  // With the gradient of the parameters: [kinds, parameters].
  void run(Pass kind, const Tensor& gradient) const {
    const auto kernel = cpu_kernels().deep_pot_se<T>().embedded;
    const int64_t size = static_cast<int64_t>(packed.size()), n = pass.n_centers;
    // Small inputs in one part: the buffers would cost more than the centres.
    const int64_t parts = std::clamp<int64_t>(n / kCentersPerThread, 1, kParts);
    std::vector<T> sums(static_cast<size_t>(parts * size), T(0));
    torch::stable::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
      for (int64_t part = first; part < last; ++part) {
        EmbeddingPass<T> own = pass;
        own.grad_weights = sums.data() + part * size;
        with_scratch([&](std::byte* scratch) {
          return kernel(own, kind, n * part / parts, n * (part + 1) / parts, scratch);
        });
      }
    });
    for (int64_t part = 1; part < parts; ++part) {
      for (int64_t i = 0; i < size; ++i) sums[i] += sums[part * size + i];
    }
    T* to = gradient.template mutable_data_ptr<T>();
    const int64_t n_parameters = gradient.size(1);
    for (int64_t kind_of_pair = 0; kind_of_pair < pass.n_kinds; ++kind_of_pair) {
      const T* own = sums.data() + kind_of_pair * pass.networks.size;
      T* row = to + kind_of_pair * n_parameters;
      for_each_parameter(pass.networks, [&](int64_t i, int64_t at) { row[i] = own[at]; });
    }
  }
};

Tensor forward(Tensor environment, Tensor pair_offsets, Tensor pair_kinds, Tensor parameters,
               Tensor standards, std::vector<int64_t> widths, int64_t n_axis) {
  const Arguments a =
      prepare(environment, pair_offsets, pair_kinds, parameters, standards, widths, n_axis);
  const Tensor out = a.features();
  with_dtype(out, [&]<class T>(T) {
    Prepared<T> prepared(a);
    prepared.pass.features = out.template mutable_data_ptr<T>();
    prepared.run(Pass::forward);
  });
  return out;
}

Tensor backward(Tensor grad_output, Tensor environment, Tensor pair_offsets, Tensor pair_kinds,
                Tensor parameters, Tensor standards, std::vector<int64_t> widths, int64_t n_axis) {
  const Arguments a =
      prepare(environment, pair_offsets, pair_kinds, parameters, standards, widths, n_axis);
  const Tensor grad = a.gradient(grad_output);
  const Tensor out = allocate(a.environment, "grad_environment", {a.n_pairs(), 4});
  with_dtype(out, [&]<class T>(T) {
    Prepared<T> prepared(a);
    prepared.pass.grad_features = grad.template const_data_ptr<T>();
    prepared.pass.grad_environment = out.template mutable_data_ptr<T>();
    prepared.run(Pass::backward);
  });
  return out;
}

Tensor gradient(Tensor grad_output, Tensor environment, Tensor pair_offsets, Tensor pair_kinds,
                Tensor parameters, Tensor standards, std::vector<int64_t> widths, int64_t n_axis) {
  const Arguments a =
      prepare(environment, pair_offsets, pair_kinds, parameters, standards, widths, n_axis);
  const Tensor grad = a.gradient(grad_output);
  const Tensor out = torch::stable::empty_like(a.parameters);
  with_dtype(out, [&]<class T>(T) {
    Prepared<T> prepared(a);
    prepared.pass.grad_features = grad.template const_data_ptr<T>();
    prepared.run(Pass::backward, out);
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor> double_backward(Tensor grad_grad_environment, Tensor grad_output,
                                                   Tensor environment, Tensor pair_offsets,
                                                   Tensor pair_kinds, Tensor parameters,
                                                   Tensor standards, std::vector<int64_t> widths,
                                                   int64_t n_axis, bool with_environment) {
  const Arguments a =
      prepare(environment, pair_offsets, pair_kinds, parameters, standards, widths, n_axis);
  const Tensor grad = a.gradient(grad_output);
  const Tensor tangents = checked(grad_grad_environment, "grad_grad_environment", {a.n_pairs(), 4},
                                  "[P, 4], as environment", a.environment, "environment");
  const Tensor features = a.features();
  const Tensor second =
      allocate(a.environment, "environment", {with_environment ? a.n_pairs() : 0, 4});
  const Tensor out = torch::stable::empty_like(a.parameters);
  with_dtype(out, [&]<class T>(T) {
    Prepared<T> prepared(a);
    prepared.pass.grad_features = grad.template const_data_ptr<T>();
    prepared.pass.environment_tangents = tangents.template const_data_ptr<T>();
    prepared.pass.features = features.template mutable_data_ptr<T>();
    if (with_environment) {
      prepared.pass.grad_environment = second.template mutable_data_ptr<T>();
    }
    prepared.run(Pass::double_backward, out);
  });
  return {features, second, out};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) {
  m.impl("deep_pot_se_networks", TORCH_BOX(&forward));
  m.impl("deep_pot_se_networks_backward", TORCH_BOX(&backward));
  m.impl("deep_pot_se_networks_gradient", TORCH_BOX(&gradient));
  m.impl("deep_pot_se_networks_double_backward", TORCH_BOX(&double_backward));
}

}  // namespace pymlp
