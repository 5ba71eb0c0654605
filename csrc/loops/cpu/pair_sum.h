// Sums over the neighbours of one centre: features of a channel = sum over its neighbours of a
// function of the distance. Lanes run over the parameters, so that a molecule with a handful of
// neighbours fills the registers as well as a liquid does; a neighbour is broadcast to all lanes.
#pragma once

#include "../../formulas/radial_symmetry.h"
#include "staging.h"

namespace pymlp::inline PYMLP_SIMD {

// One parameter set, padded to whole registers with functions of amplitude 0.
template <class T>
struct RadialTable {
  static constexpr int kLanes = Lanes<T>::count;
  int64_t count = 0, padded = 0;
  T *eta = nullptr, *shift = nullptr, *amplitude = nullptr;

  void place(Arena& arena, int64_t n) {
    count = n;
    padded = rounded_up(n, kLanes);
    eta = arena.take<T>(padded);
    shift = arena.take<T>(padded);
    amplitude = arena.take<T>(padded);
  }
  void fill(const T* rows) const {
    for (int64_t f = 0; f < padded; ++f) {
      eta[f] = f < count ? rows[3 * f] : T(0);
      shift[f] = f < count ? rows[3 * f + 1] : T(0);
      amplitude[f] = f < count ? rows[3 * f + 2] : T(0);
    }
  }
  template <class N>
  PYMLP_INLINE ValueSlope<N> term(const Staging<N>& s, int64_t j, int64_t f) const {
    return radial_symmetry(
        s.neighbors.distance.broadcast(j),
        ValueSlope<N>{s.neighbors.cutoff.broadcast(j), s.cutoff_slope.broadcast(j)},
        Lanes<T>::load(eta + f), Lanes<T>::load(shift + f));
  }
};

// features [n_channels, R]
template <class N, class T>
void pair_sum_forward(const Staging<N>& s, const RadialTable<T>& table, int64_t n_channels,
                      T* features) {
  for (int64_t c = 0; c < n_channels; ++c) {
    for (int64_t f = 0; f < table.padded; f += table.kLanes) {
      N sum{T(0)};
      for (int64_t j = s.channels[c]; j < s.channels[c + 1]; ++j) {
        sum = sum + table.term(s, j, f).value;
      }
      store_first(reported(sum) * Lanes<T>::load(table.amplitude + f),
                  features + c * table.count + f, table.count - f);
    }
  }
}

// Adds sum_f grad_f dg_f/dR to the adjoint of every neighbour's distance. `scratch` has room for
// one padded row of parameters.
template <class N, class T>
void pair_sum_backward(const Staging<N>& s, const RadialTable<T>& table, int64_t n_channels,
                       const T* grad_features, T* scratch, const Column<N>& grad_distance) {
  for (int64_t c = 0; c < n_channels; ++c) {
    if (s.channels[c] == s.channels[c + 1]) continue;
    for (int64_t f = 0; f < table.padded; ++f) {
      scratch[f] = f < table.count ? grad_features[c * table.count + f] * table.amplitude[f] : T(0);
    }
    for (int64_t j = s.channels[c]; j < s.channels[c + 1]; ++j) {
      N sum{T(0)};
      for (int64_t f = 0; f < table.padded; f += table.kLanes) {
        sum = sum + table.term(s, j, f).slope * Lanes<T>::load(scratch + f);
      }
      grad_distance.add_sum(j, sum);
    }
  }
}

// Calls store(neighbour, feature, dg/dR) for every neighbour and every feature of its channel.
template <class T, class Store>
void pair_sum_jacobian(const Staging<Lanes<T>>& s, const RadialTable<T>& table, int64_t n_channels,
                       Store store) {
  for (int64_t c = 0; c < n_channels; ++c) {
    for (int64_t j = s.channels[c]; j < s.channels[c + 1]; ++j) {
      for (int64_t f = 0; f < table.padded; f += table.kLanes) {
        T slope[Lanes<T>::count];
        (table.term(s, j, f).slope * Lanes<T>::load(table.amplitude + f)).store(slope);
        for (int64_t i = 0; i < table.kLanes && f + i < table.count; ++i) {
          store(j, c * table.count + f + i, slope[i]);
        }
      }
    }
  }
}

}  // namespace pymlp::inline PYMLP_SIMD
