// Energies and their slopes in the features for atoms of one element, through all layers and back.
// A tile of six atoms belongs to a thread and stays in its first cache; lanes run over the outputs
// of a layer, whose sums stay in registers.
#pragma once

#include <algorithm>

#include "../../formulas/activation.h"
#include "../element_networks.h"
#include "dense.h"

namespace pymlp::inline PYMLP_SIMD {

// Scratch numbers that a tile needs: standardised features, values and slopes of all layers, and
// two gradients.
inline int64_t network_scratch(const NetworkShape& shape) {
  int64_t widest = padded(shape.widths[0]), total = 0;
  for (int l = 1; l <= shape.n_hidden; ++l) {
    total += 2 * padded(shape.widths[l]);
    widest = std::max(widest, padded(shape.widths[l]));
  }
  return kTileRows * (padded(shape.widths[0]) + total + 2 * widest);
}

template <class T, class W>
void network_of_tile(const NetworkPass<T, W>& pass, int64_t network, const NetworkTile& tile,
                     W* scratch) {
  using L = Lanes<W>;
  const NetworkShape& shape = pass.shape;
  const int64_t rows = tile.end - tile.begin, n_features = shape.widths[0];
  const int64_t which = network * shape.n_types + tile.type;
  const T* mean = pass.scalers + 3 * n_features * which;
  const T* spread = mean + n_features;
  const T* to_energy = spread + n_features;

  W* x = scratch;
  int64_t stride = padded(n_features);
  for (int64_t r = 0; r < rows; ++r) {
    const T* g = pass.features + pass.order[tile.begin + r] * n_features;
    for (int64_t f = 0; f < n_features; ++f) {
      x[r * stride + f] = static_cast<W>((g[f] - mean[f]) / spread[f]);
    }
  }

  const W* weights = pass.weights + which * shape.n_weights();
  const W* transposed[kMostLayers];
  W* slopes[kMostLayers];
  W* free = scratch + kTileRows * stride;
  for (int l = 0; l < shape.n_hidden; ++l) {
    const int64_t n_in = shape.widths[l], width = padded(shape.widths[l + 1]);
    const W* bias = weights + n_in * width;
    W* y = free;
    W* slope = y + kTileRows * width;
    free = slope + kTileRows * width;
    for (int64_t r = 0; r < rows; ++r) std::copy(bias, bias + width, y + r * width);
    add_product({x, stride, 1}, rows, weights, width, n_in, y, width, width);
    for (int64_t c = 0; c < rows * width; c += L::count) {
      const auto a = activation(L::load(y + c), static_cast<Activation>(shape.activation));
      a.value.store(y + c);
      a.slope.store(slope + c);
    }
    const int copies = shape.copies_of_input(l);
    for (int64_t r = 0; r < rows; ++r) {
      for (int i = 0; i < copies; ++i) {
        for (int64_t c = 0; c < n_in; ++c) y[r * width + i * n_in + c] += x[r * stride + c];
      }
    }
    transposed[l] = bias + width;
    slopes[l] = slope;
    weights = transposed[l] + shape.widths[l + 1] * padded(n_in);
    x = y;
    stride = width;
  }

  // The last layer: one row, `weights`, and a bias behind it.
  const int64_t n_last = shape.widths[shape.n_hidden];
  const double* scales = pass.energy_scales + 2 * which;
  for (int64_t r = 0; r < rows; ++r) {
    W sum = weights[padded(n_last)];
    for (int64_t c = 0; c < n_last; ++c) sum += weights[c] * x[r * stride + c];
    pass.energies[network * pass.n_atoms + pass.order[tile.begin + r]] =
        scales[1] + static_cast<double>(sum) * scales[0];
  }
  if (pass.slopes == nullptr) return;

  W* gradient = free;
  int64_t widest = padded(n_features);
  for (int l = 1; l <= shape.n_hidden; ++l) widest = std::max(widest, padded(shape.widths[l]));
  W* other = gradient + kTileRows * widest;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < padded(n_last); ++c) gradient[r * padded(n_last) + c] = weights[c];
  }
  for (int l = shape.n_hidden - 1; l >= 0; --l) {
    const int64_t n_in = shape.widths[l], n_out = shape.widths[l + 1];
    const int64_t width = padded(n_out), below = padded(n_in);
    W* product = slopes[l];
    for (int64_t c = 0; c < rows * width; c += L::count) {
      (L::load(gradient + c) * L::load(product + c)).store(product + c);
    }
    // What passes by the activation, and what goes through it.
    const int copies = shape.copies_of_input(l);
    for (int64_t r = 0; r < rows; ++r) {
      W* to = other + r * below;
      const W* from = gradient + r * width;
      std::fill(to, to + below, W(0));
      for (int i = 0; i < copies; ++i) {
        for (int64_t c = 0; c < n_in; ++c) to[c] += from[i * n_in + c];
      }
    }
    add_product({product, width, 1}, rows, transposed[l], below, n_out, other, below, below);
    std::swap(gradient, other);
  }
  for (int64_t r = 0; r < rows; ++r) {
    T* out = pass.slopes + (network * pass.n_atoms + pass.order[tile.begin + r]) * n_features;
    const W* own = gradient + r * padded(n_features);
    for (int64_t f = 0; f < n_features; ++f) out[f] = static_cast<T>(own[f]) * to_energy[f];
  }
}

// Tiles [begin, end) of all networks, one network after the other, so that its weights stay near.
template <class T, class W>
int64_t networks_of_tiles(const NetworkPass<T, W>& pass, int64_t begin, int64_t end,
                          std::byte* scratch) {
  if (scratch == nullptr) {
    return network_scratch(pass.shape) * static_cast<int64_t>(sizeof(W));
  }
  for (int64_t network = 0; network < pass.shape.n_networks; ++network) {
    for (int64_t t = begin; t < end; ++t) {
      network_of_tile(pass, network, pass.tiles[t], reinterpret_cast<W*>(scratch));
    }
  }
  return 0;
}

}  // namespace pymlp::inline PYMLP_SIMD
