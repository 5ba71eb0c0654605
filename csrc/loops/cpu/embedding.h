// The embedding networks (eq 10) of a block of pairs, sorted by kind: rows are pairs, lanes run
// over the functions of a layer. Beside the value goes, where wanted, the tangent along a change of
// s; and back through both, the gradient of the weights. A block is so small that all of it stays
// in the second cache, and a strip of its rows, layer after layer, in the first.
//
//   z = x W + b,  y = tanh z,  x' = y + residual(x)
//   along a tangent:  y. = (1 - y^2) z.
//   back, with gradients g, g. of x', x.':  of z.: (1 - y^2) g.    of z: (1 - y^2) g - 2 y y. g.
#pragma once

#include <algorithm>

#include "../../formulas/activation.h"
#include "../deep_pot_se.h"
#include "columns.h"
#include "dense.h"

namespace pymlp::inline PYMLP_SIMD {

template <class T>
class EmbeddingBlock {
 public:
  using N = Lanes<T>;
  static constexpr int kLanes = N::count;
  static constexpr int64_t kStrip = 24;  // rows of all layers that fit into the first cache
  static_assert(kEmbeddingPadding % kLanes == 0);

  EmbeddingBlock(const EmbeddingPass<T>& pass, bool tangents, bool gradients, Arena& arena)
      : pass_(pass), tangents_(tangents) {
    const int64_t pairs = pass.largest_block;
    const int64_t rows = pairs + pass.n_kinds;  // of each kind an even number
    slots_ = arena.take<int32_t>(pairs);
    begins_ = arena.take<int64_t>(pass.n_kinds + 1);
    ends_ = arena.take<int64_t>(pass.n_kinds);
    for (int k = 0; k < 2; ++k) inputs_[k] = arena.take<T>(rows);
    for (int l = 0; l < pass.networks.n_layers; ++l) {
      const int64_t size = rows * pass.networks.layers[l].out + 2 * kEmbeddingPadding;
      x_[l] = arena.take<T>(size);
      if (tangents) x_slope_[l] = arena.take<T>(size);
      if (!gradients) continue;
      grad_[l] = arena.take<T>(size);
      if (tangents) grad_slope_[l] = arena.take<T>(size);
    }
    if (gradients) grad_inputs_ = arena.take<T>(rows);
    const int64_t widest = pass.networks.widest + 2 * kEmbeddingPadding;
    for (T*& row : spare_) row = arena.take<T>(widest);
  }

  // Takes the pairs [first, last), sorted by kind. `tangent(p)` is the change of s of a pair.
  template <class Tangent>
  void take(int64_t first, int64_t last, Tangent tangent) {
    first_ = first;
    const int64_t kinds = pass_.n_kinds;
    std::fill(begins_, begins_ + kinds + 1, 0);
    for (int64_t p = first; p < last; ++p) ++begins_[pass_.pair_kinds[p] + 1];
    for (int64_t k = 0; k < kinds; ++k) {
      const int64_t count = begins_[k + 1];
      begins_[k + 1] = begins_[k] + count + count % 2;
      ends_[k] = begins_[k];
      if (count % 2 == 1) inputs_[0][begins_[k] + count] = inputs_[1][begins_[k] + count] = T(0);
    }
    for (int64_t p = first; p < last; ++p) {
      const int64_t kind = pass_.pair_kinds[p];
      const int64_t row = ends_[kind]++;
      const T scale = pass_.standards[2 * kind], shift = pass_.standards[2 * kind + 1];
      slots_[p - first] = static_cast<int32_t>(row);
      inputs_[0][row] = pass_.environment[4 * p] * scale + shift;
      if (tangents_) inputs_[1][row] = tangent(p) * scale;
    }
  }

  void forward() {
    over_strips([&](int64_t kind, int64_t row, int64_t n) {
      for (int l = 0; l < pass_.networks.n_layers; ++l) layer_forward(kind, l, row, n);
    });
  }

  // From the gradients of the last layer, in `grad_rows`, to those of the weights, which are added
  // to `grad_weights` as the weights lie, and to those of s.
  void backward(T* grad_weights) {
    const int last = pass_.networks.n_layers - 1;
    for (int64_t kind = 0; kind < pass_.n_kinds; ++kind) {
      if (ends_[kind] == begins_[kind + 1]) continue;
      const int64_t width = pass_.networks.layers[last].out, at = ends_[kind] * width;
      std::fill(grad_[last] + at, grad_[last] + at + width, T(0));
      if (tangents_) std::fill(grad_slope_[last] + at, grad_slope_[last] + at + width, T(0));
    }
    over_strips([&](int64_t kind, int64_t row, int64_t n) {
      T* grads = grad_weights + kind * pass_.networks.size;
      for (int l = last; l >= 0; --l) layer_backward(kind, l, row, n, grads);
    });
  }

  // Row of a pair in the last layer: its functions, their tangents, and the gradients of both.
  PYMLP_INLINE int64_t at(int64_t pair) const {
    return slots_[pair - first_] * pass_.networks.layers[pass_.networks.n_layers - 1].out;
  }
  PYMLP_INLINE const T* functions() const { return x_[pass_.networks.n_layers - 1]; }
  PYMLP_INLINE const T* slopes() const { return x_slope_[pass_.networks.n_layers - 1]; }
  T* grad_functions() const { return grad_[pass_.networks.n_layers - 1]; }
  T* grad_slopes() const { return grad_slope_[pass_.networks.n_layers - 1]; }
  // What the networks add to the gradient of s of a pair.
  T grad_input(int64_t pair) const {
    return grad_inputs_[slots_[pair - first_]] * pass_.standards[2 * pass_.pair_kinds[pair]];
  }

 private:
  static PYMLP_INLINE N tanh_of(N x) { return activation(x, Activation::tanh).value; }

  template <class Run>
  void over_strips(Run run) {
    for (int64_t kind = 0; kind < pass_.n_kinds; ++kind) {
      const int64_t end = begins_[kind + 1];
      for (int64_t row = begins_[kind]; row < end; row += kStrip) {
        run(kind, row, std::min(kStrip, end - row));
      }
    }
  }

  // to [n_out] += sign times the input [n_in] of a layer, where the widths allow it. What lies past
  // the input's end is zero.
  PYMLP_INLINE void add_residual(const EmbeddingLayer& layer, const T* input, T sign, T* to) const {
    if (layer.n_in == 1) {
      for (int64_t j = 0; j < layer.n_out && layer.n_out <= 2; ++j) to[j] += sign * input[0];
      return;
    }
    const int64_t times = layer.n_out == layer.n_in ? 1 : layer.n_out == 2 * layer.n_in ? 2 : 0;
    for (int64_t i = 0; i < times; ++i) {
      T* half = to + i * layer.n_in;
      for (int64_t j = 0; j < layer.in; j += kLanes) {
        (N::load(half + j) + N::load(input + j) * sign).store(half + j);
      }
    }
  }

  // Where the input of a layer lies: rows of the layer before, or s itself.
  PYMLP_INLINE LeftFactor<T> input(int l, int64_t row, bool slope) const {
    if (l == 0) return {inputs_[slope ? 1 : 0] + row, 1, 0};
    const int64_t width = pass_.networks.layers[l].in;
    return {(slope ? x_slope_ : x_)[l - 1] + row * width, width, 1};
  }

  void layer_forward(int64_t kind, int l, int64_t row, int64_t n) {
    const EmbeddingLayer& layer = pass_.networks.layers[l];
    const T* own = pass_.weights + kind * pass_.networks.size;
    const T *weight = own + layer.weight, *bias = own + layer.bias;
    const int64_t width = layer.out;
    T* x = x_[l] + row * width;
    const auto in = input(l, row, false), in_slope = input(l, row, true);
    for (int64_t r = 0; r < n; ++r) std::copy(bias, bias + width, x + r * width);
    add_product(in, n, weight, width, layer.n_in, x, width, width);
    if (!tangents_) {
      for (int64_t j = 0; j < n * width; j += kLanes) {
        tanh_of(N::load(x + j)).store(x + j);
      }
    } else {
      T* slope = x_slope_[l] + row * width;
      std::fill(slope, slope + n * width, T(0));
      add_product(in_slope, n, weight, width, layer.n_in, slope, width, width);
      for (int64_t j = 0; j < n * width; j += kLanes) {
        const N y = tanh_of(N::load(x + j));
        (N::load(slope + j) * (T(1) - y * y)).store(slope + j);
        y.store(x + j);
      }
      for (int64_t r = 0; r < n; ++r) {
        add_residual(layer, in_slope.data + r * in_slope.row, T(1), slope + r * width);
      }
    }
    for (int64_t r = 0; r < n; ++r) {
      add_residual(layer, in.data + r * in.row, T(1), x + r * width);
    }
  }

  void layer_backward(int64_t kind, int l, int64_t row, int64_t n, T* grads) {
    const EmbeddingLayer& layer = pass_.networks.layers[l];
    const T* own = pass_.weights + kind * pass_.networks.size;
    const int64_t width = layer.out;
    const auto in = input(l, row, false), in_slope = input(l, row, true);
    T* grad = grad_[l] + row * width;
    T* grad_slope = tangents_ ? grad_slope_[l] + row * width : nullptr;
    pass_residual_back(layer, l, row, n, grad, grad_slope);

    // From the gradient of the layer's output to that of z, in place.
    T *y = spare_[0], *y_slope = spare_[1];
    T* bias = grads + layer.bias;
    for (int64_t r = 0; r < n; ++r) {
      const T* x = x_[l] + (row + r) * width;
      std::copy(x, x + width, y);
      add_residual(layer, in.data + r * in.row, T(-1), y);
      if (tangents_) {
        const T* x_slope = x_slope_[l] + (row + r) * width;
        std::copy(x_slope, x_slope + width, y_slope);
        add_residual(layer, in_slope.data + r * in_slope.row, T(-1), y_slope);
      }
      for (int64_t j = 0; j < width; j += kLanes) {
        const N tanh = N::load(y + j), share = T(1) - tanh * tanh;
        T* at = grad + r * width + j;
        N by_z = share * N::load(at);
        if (tangents_) {
          T* at_slope = grad_slope + r * width + j;
          const N g = N::load(at_slope);
          by_z = by_z - (tanh + tanh) * N::load(y_slope + j) * g;
          (share * g).store(at_slope);
        }
        by_z.store(at);
        (N::load(bias + j) + by_z).store(bias + j);
      }
      std::fill(grad + r * width + layer.n_out, grad + (r + 1) * width, T(0));
      if (tangents_) {
        std::fill(grad_slope + r * width + layer.n_out, grad_slope + (r + 1) * width, T(0));
      }
    }

    // The weights, and the layer before.
    const auto transposed = [](LeftFactor<T> a, int64_t depth) {
      return LeftFactor<T>{a.data, a.depth, depth};
    };
    T* weight = grads + layer.weight;
    add_product(transposed(in, in.row), layer.n_in, grad, width, n, weight, width, width);
    if (tangents_) {
      add_product(transposed(in_slope, in_slope.row), layer.n_in, grad_slope, width, n, weight,
                  width, width);
    }
    if (l == 0) {
      for (int64_t r = 0; r < n; ++r) {
        N sum{T(0)};
        for (int64_t j = 0; j < width; j += kLanes) {
          sum = sum + N::load(grad + r * width + j) * N::load(own + layer.weight + j);
        }
        grad_inputs_[row + r] += sum_of_lanes(sum);
      }
      return;
    }
    const T* back = own + layer.transposed;
    add_product(LeftFactor<T>{grad, width, 1}, n, back, layer.in, layer.n_out,
                grad_[l - 1] + row * layer.in, layer.in, layer.in);
    if (tangents_) {
      add_product(LeftFactor<T>{grad_slope, width, 1}, n, back, layer.in, layer.n_out,
                  grad_slope_[l - 1] + row * layer.in, layer.in, layer.in);
    }
  }

  // What the residual connection gives to the gradient of the layer before: it begins with it.
  void pass_residual_back(const EmbeddingLayer& layer, int l, int64_t row, int64_t n, const T* grad,
                          const T* grad_slope) {
    const int64_t times = layer.n_out == layer.n_in ? 1 : layer.n_out == 2 * layer.n_in ? 2 : 0;
    if (l == 0) {
      for (int64_t r = 0; r < n; ++r) {
        T sum = T(0);
        for (int64_t j = 0; j < times; ++j) sum += grad[r * layer.out + j];
        grad_inputs_[row + r] = sum;
      }
      return;
    }
    const auto fold = [&](const T* from, T* to) {
      for (int64_t r = 0; r < n; ++r) {
        for (int64_t j = 0; j < layer.in; j += kLanes) {
          N sum{T(0)};
          for (int64_t i = 0; i < times; ++i) {
            sum = sum + N::load(from + r * layer.out + i * layer.n_in + j);
          }
          sum.store(to + r * layer.in + j);
        }
      }
    };
    fold(grad, grad_[l - 1] + row * layer.in);
    if (tangents_) fold(grad_slope, grad_slope_[l - 1] + row * layer.in);
  }

  const EmbeddingPass<T>& pass_;
  bool tangents_;
  int64_t first_ = 0;
  int32_t* slots_;
  int64_t *begins_, *ends_;
  T* inputs_[2];                // s standardised, and its tangent
  T* x_[kEmbeddingDepth] = {};  // [rows][out] of each layer
  T* x_slope_[kEmbeddingDepth] = {};
  T* grad_[kEmbeddingDepth] = {};
  T* grad_slope_[kEmbeddingDepth] = {};
  T* grad_inputs_ = nullptr;
  T* spare_[2];
};

}  // namespace pymlp::inline PYMLP_SIMD
