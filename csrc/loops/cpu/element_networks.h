// Energies and their slopes in the features for atoms of one element, through all layers and back.
// A tile of six atoms belongs to a thread and stays in its first cache; lanes run over the outputs
// of a layer, whose sums stay in registers.
#pragma once

#include <algorithm>

#include "../../formulas/activation.h"
#include "../../numbers/lanes.h"
#include "../element_networks.h"

namespace pymlp::inline PYMLP_SIMD {

// y [rows][columns] = bias + x [rows][n_in] w [n_in][width], for `columns` registers.
template <int rows, int columns, class W>
PYMLP_INLINE void multiply_block(const W* x, int64_t x_stride, int64_t n_in, const W* w,
                                 int64_t width, const W* bias, W* y, int64_t y_stride) {
  using L = Lanes<W>;
  L sum[rows][columns];
#pragma GCC unroll 2
  for (int c = 0; c < columns; ++c) {
    const L start = bias == nullptr ? L(W(0)) : L::load(bias + c * L::count);
#pragma GCC unroll 6
    for (int r = 0; r < rows; ++r) sum[r][c] = start;
  }
  for (int64_t k = 0; k < n_in; ++k) {
    L row[columns];
#pragma GCC unroll 2
    for (int c = 0; c < columns; ++c) row[c] = L::load(w + k * width + c * L::count);
#pragma GCC unroll 6
    for (int r = 0; r < rows; ++r) {
      const L factor = x[r * x_stride + k];
#pragma GCC unroll 2
      for (int c = 0; c < columns; ++c) sum[r][c] = sum[r][c] + factor * row[c];
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
    for (int c = 0; c < columns; ++c) sum[r][c].store(y + r * y_stride + c * L::count);
  }
}

template <int rows, class W>
void multiply_rows(const W* x, int64_t x_stride, int64_t n_in, const W* w, int64_t width,
                   const W* bias, W* y, int64_t y_stride) {
  constexpr int64_t one = Lanes<W>::count, two = 2 * one;
  int64_t c = 0;
  for (; c + two <= width; c += two) {
    multiply_block<rows, 2>(x, x_stride, n_in, w + c, width, bias ? bias + c : nullptr, y + c,
                            y_stride);
  }
  for (; c < width; c += one) {
    multiply_block<rows, 1>(x, x_stride, n_in, w + c, width, bias ? bias + c : nullptr, y + c,
                            y_stride);
  }
}

template <class W>
void multiply(int64_t rows, const W* x, int64_t x_stride, int64_t n_in, const W* w, int64_t width,
              const W* bias, W* y, int64_t y_stride) {
  const auto run = rows == 6   ? multiply_rows<6, W>
                   : rows == 5 ? multiply_rows<5, W>
                   : rows == 4 ? multiply_rows<4, W>
                   : rows == 3 ? multiply_rows<3, W>
                   : rows == 2 ? multiply_rows<2, W>
                               : multiply_rows<1, W>;
  run(x, x_stride, n_in, w, width, bias, y, y_stride);
}

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
    multiply(rows, x, stride, n_in, weights, width, bias, y, width);
    for (int64_t c = 0; c < rows * width; c += L::count) {
      const auto a = activation(L::load(y + c), static_cast<Activation>(shape.activation));
      a.value.store(y + c);
      a.slope.store(slope + c);
    }
    const int copies = shape.copies_of_input(l);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < copies * n_in; ++c) {
        y[r * width + c] += x[r * stride + (c < n_in ? c : c - n_in)];
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
    // What passes by the activation has to be kept before the product.
    W* product = slopes[l];
    for (int64_t c = 0; c < rows * width; c += L::count) {
      (L::load(gradient + c) * L::load(product + c)).store(product + c);
    }
    multiply(rows, product, width, n_out, transposed[l], below, static_cast<const W*>(nullptr),
             other, below);
    const int copies = shape.copies_of_input(l);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < copies * n_in; ++c) {
        other[r * below + (c < n_in ? c : c - n_in)] += gradient[r * width + c];
      }
    }
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
