// What training on forces needs of atomic networks: for cotangents e of the energies E and s of the
// slopes dE/dG, the gradient of e E + s dE/dG in the weights and features. s dE/dG is the change of
// E along s, so that networks run on Dual numbers, and back through value and slope:
//
//   z = W x + b,  x' = y(z) + residual(x);  along the tangent  z. = W x.,  x'. = y' z. + ...
//   back, with gradients g, g. of x', x'.:  of z.: y' g.    of z: y' g + (y')' z. g.
//
// A tile of 24 atoms of one element, through all layers and back, belongs to a thread; it adds to
// gradients of weights that nobody else writes.
#pragma once

#include <algorithm>

#include "../../formulas/activation.h"
#include "../../numbers/dual.h"
#include "../element_networks.h"
#include "columns.h"
#include "dense.h"

namespace pymlp::inline PYMLP_SIMD {

template <class T>
class NetworkGradient {
 public:
  using L = Lanes<T>;

  NetworkGradient(const NetworkGradientPass<T>& pass, Arena& arena)
      : pass_(pass), shape_(pass.network.shape) {
    int64_t widest = 0;
    for (int l = 0; l <= shape_.n_hidden; ++l) {
      const int64_t size = kGradientRows * padded(shape_.widths[l]);
      widest = std::max(widest, size);
      layers_[l] = {arena.take<T>(size), arena.take<T>(size), nullptr, nullptr};
      if (l == 0) continue;
      layers_[l].slope = arena.take<T>(size);
      layers_[l].slope_tangent = arena.take<T>(size);
    }
    for (T*& buffer : gradients_) buffer = arena.take<T>(widest);
  }

  // Adds to `sums`, which lie as the weights of one element do.
  void run(const NetworkTile& tile, T* sums) {
    const T* weights = pass_.network.weights + tile.type * shape_.n_weights();
    read(tile);
    forward(tile, weights);
    backward(tile, weights, sums);
  }

 private:
  struct Layer {
    T *x, *tangent;            // [rows][padded width], its output
    T *slope, *slope_tangent;  // y'(z) and (y')' z.; back: the gradients of z. and z
  };

  const T* scalers(const NetworkTile& tile) const {
    return pass_.network.scalers + 3 * shape_.widths[0] * tile.type;
  }
  int64_t atom(const NetworkTile& tile, int64_t row) const {
    return pass_.network.order[tile.begin + row];
  }

  void read(const NetworkTile& tile) {
    const int64_t n_features = shape_.widths[0], width = padded(n_features);
    const T *mean = scalers(tile), *spread = mean + n_features, *to_energy = spread + n_features;
    for (int64_t r = 0; r < tile.end - tile.begin; ++r) {
      const int64_t from = atom(tile, r) * n_features;
      const T *g = pass_.network.features + from, *s = pass_.grad_slopes + from;
      T *x = layers_[0].x + r * width, *tangent = layers_[0].tangent + r * width;
      for (int64_t f = 0; f < n_features; ++f) {
        x[f] = (g[f] - mean[f]) / spread[f];
        tangent[f] = s[f] * to_energy[f];
      }
    }
  }

  // Rows [n_from] of `from` added, as a residual connection does, to rows of a layer `to`.
  void add_residual(int l, int64_t rows, const T* from, T* to) const {
    const int64_t n_in = shape_.widths[l], width = padded(n_in);
    const int64_t out = padded(shape_.widths[l + 1]);
    for (int64_t r = 0; r < rows; ++r) {
      for (int i = 0; i < shape_.copies_of_input(l); ++i) {
        for (int64_t c = 0; c < n_in; ++c) to[r * out + i * n_in + c] += from[r * width + c];
      }
    }
  }
  // The way back: rows of the layer's input begin with what came past the activation.
  void begin_with_residual(int l, int64_t rows, const T* from, T* to) const {
    const int64_t n_in = shape_.widths[l], width = padded(n_in);
    const int64_t out = padded(shape_.widths[l + 1]);
    std::fill(to, to + rows * width, T(0));
    for (int64_t r = 0; r < rows; ++r) {
      for (int i = 0; i < shape_.copies_of_input(l); ++i) {
        for (int64_t c = 0; c < n_in; ++c) to[r * width + c] += from[r * out + i * n_in + c];
      }
    }
  }

  void forward(const NetworkTile& tile, const T* weights) {
    const int64_t rows = tile.end - tile.begin;
    for (int l = 0; l < shape_.n_hidden; ++l) {
      const Layer &in = layers_[l], &out = layers_[l + 1];
      const int64_t n_in = shape_.widths[l], stride = padded(n_in);
      const int64_t width = padded(shape_.widths[l + 1]);
      const T* bias = weights + n_in * width;
      for (int64_t r = 0; r < rows; ++r) std::copy(bias, bias + width, out.x + r * width);
      std::fill(out.tangent, out.tangent + rows * width, T(0));
      add_product({in.x, stride, 1}, rows, weights, width, n_in, out.x, width, width);
      add_product({in.tangent, stride, 1}, rows, weights, width, n_in, out.tangent, width, width);
      for (int64_t c = 0; c < rows * width; c += L::count) {
        const Dual<L> z{L::load(out.x + c), L::load(out.tangent + c)};
        const auto y = activation(z, static_cast<Activation>(shape_.activation));
        y.value.value.store(out.x + c);
        y.value.slope.store(out.tangent + c);
        y.slope.value.store(out.slope + c);
        y.slope.slope.store(out.slope_tangent + c);
      }
      add_residual(l, rows, in.x, out.x);
      add_residual(l, rows, in.tangent, out.tangent);
      weights = shape_.behind(l, weights);
    }
  }

  void backward(const NetworkTile& tile, const T* weights, T* sums) {
    const int64_t rows = tile.end - tile.begin;
    const T* own[kMostLayers + 1];
    T* to[kMostLayers + 1];
    for (int l = 0; l <= shape_.n_hidden; ++l) {
      own[l] = weights;
      to[l] = sums;
      if (l == shape_.n_hidden) break;
      sums += shape_.behind(l, weights) - weights;
      weights = shape_.behind(l, weights);
    }
    auto [g, g_tangent, below, below_tangent] = gradients_;
    {
      const int last = shape_.n_hidden;
      const int64_t n = shape_.widths[last], width = padded(n);
      const double* scale = pass_.network.energy_scales + 2 * tile.type;
      for (int64_t r = 0; r < rows; ++r) {
        const T e = static_cast<T>(pass_.grad_energies[atom(tile, r)] * scale[0]);
        const T *x = layers_[last].x + r * width, *tangent = layers_[last].tangent + r * width;
        for (int64_t c = 0; c < n; ++c) to[last][c] += e * x[c] + tangent[c];
        to[last][width] += e;
        for (int64_t c = 0; c < width; ++c) {
          g[r * width + c] = e * own[last][c];
          g_tangent[r * width + c] = own[last][c];
        }
      }
    }
    for (int l = shape_.n_hidden - 1; l >= 0; --l) {
      const Layer &in = layers_[l], &out = layers_[l + 1];
      const int64_t n_in = shape_.widths[l], stride = padded(n_in);
      const int64_t n_out = shape_.widths[l + 1], width = padded(n_out);
      T *by_tangent = out.slope, *by_z = out.slope_tangent;
      for (int64_t c = 0; c < rows * width; c += L::count) {
        const L slope = L::load(out.slope + c), along = L::load(g_tangent + c);
        const L z = slope * L::load(g + c) + L::load(out.slope_tangent + c) * along;
        (slope * along).store(by_tangent + c);
        z.store(by_z + c);
      }
      T* bias = to[l] + n_in * width;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < n_out; ++c) bias[c] += by_z[r * width + c];
      }
      add_product({in.x, 1, stride}, n_in, by_z, width, rows, to[l], width, width);
      add_product({in.tangent, 1, stride}, n_in, by_tangent, width, rows, to[l], width, width);
      if (l == 0 && pass_.grad_features == nullptr) return;
      const T* back = own[l] + (n_in + 1) * width;
      begin_with_residual(l, rows, g, below);
      add_product({by_z, width, 1}, rows, back, stride, n_out, below, stride, stride);
      std::swap(g, below);
      if (l == 0) break;
      begin_with_residual(l, rows, g_tangent, below_tangent);
      add_product({by_tangent, width, 1}, rows, back, stride, n_out, below_tangent, stride, stride);
      std::swap(g_tangent, below_tangent);
    }
    if (pass_.grad_features == nullptr) return;
    const int64_t n_features = shape_.widths[0];
    const T* spread = scalers(tile) + n_features;
    for (int64_t r = 0; r < rows; ++r) {
      T* out = pass_.grad_features + atom(tile, r) * n_features;
      for (int64_t f = 0; f < n_features; ++f) {
        out[f] = g[r * padded(n_features) + f] / spread[f];
      }
    }
  }

  const NetworkGradientPass<T>& pass_;
  const NetworkShape& shape_;
  Layer layers_[kMostLayers + 1] = {};
  T* gradients_[4];
};

// Tiles [begin, end), all of one element; the bytes of scratch memory where that is null.
template <class T>
int64_t network_gradient(const NetworkGradientPass<T>& pass, int64_t begin, int64_t end, T* sums,
                         std::byte* scratch) {
  Arena arena(scratch);
  NetworkGradient<T> gradient(pass, arena);
  if (scratch == nullptr) return arena.used();
  for (int64_t t = begin; t < end; ++t) gradient.run(pass.network.tiles[t], sums);
  return 0;
}

}  // namespace pymlp::inline PYMLP_SIMD
