// Views of what the atomic networks of a committee are computed from; memory that torch owns.
// M networks, each with one set of layers per element; A atoms, F features.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pymlp {

constexpr int kMostLayers = 16;
// Rows of matrices are padded with zeros to whole registers.
constexpr int64_t padded(int64_t n) { return (n + 7) / 8 * 8; }

struct NetworkShape {
  int64_t n_networks, n_types;
  int n_hidden;                     // hidden layers
  int64_t widths[kMostLayers + 1];  // F, then of the hidden layers
  int activation;
  bool residual;

  // What of a layer's input is added to its output: nothing, the input, or the input twice.
  int copies_of_input(int layer) const {
    const int64_t n_in = widths[layer], n_out = widths[layer + 1];
    return !residual ? 0 : n_out == n_in ? 1 : n_out == 2 * n_in ? 2 : 0;
  }
  // Where the weights of the next layer begin, a place or pointer, behind those of `layer`.
  template <class Place>
  Place behind(int layer, Place weights) const {
    const int64_t n_in = widths[layer], n_out = widths[layer + 1];
    return weights + (n_in + 1) * padded(n_out) + n_out * padded(n_in);
  }
  // Numbers of one network of one element: for each hidden layer its matrix [in][padded out], bias
  // [padded out] and transposed matrix [out][padded in]; then the last row [padded] and its bias.
  int64_t n_weights() const {
    int64_t n = padded(widths[n_hidden]) + 8;
    for (int l = 0; l < n_hidden; ++l) n = behind(l, n);
    return n;
  }
};

// Atoms of one type: rows order[begin] ... order[end - 1].
struct NetworkTile {
  int64_t type, begin, end;
};
constexpr int64_t kTileRows = 6;

// T: of the features; W: of the weights.
template <class T, class W>
struct NetworkPass {
  NetworkShape shape;
  const NetworkTile* tiles;
  const int64_t* order;
  int64_t n_atoms;
  const T* features;            // [A, F]
  const T* scalers;             // [M, n_types, 3, F]: mean, width, dE/dG per slope of the output
  const double* energy_scales;  // [M, n_types, 2]: scale, shift
  const W* weights;             // [M, n_types, n_weights()]
  double* energies;             // [M, A]
  T* slopes;                    // [M, A, F], or null
};

// Of one network (M = 1): from cotangents of its energies and slopes to those of its weights and
// features. T: of features and weights.
template <class T>
struct NetworkGradientPass {
  NetworkPass<T, T> network;
  const double* grad_energies;  // [A]
  const T* grad_slopes;         // [A, F]
  T* grad_features;             // [A, F], or null
};
constexpr int64_t kGradientRows = 24;  // of a tile

}  // namespace pymlp
