// The neighbours of one centre, gathered and sorted by channel. A channel is then a contiguous run
// of every column, so that the sums over it keep their accumulators in registers.
#pragma once

#include <algorithm>

#include "../../formulas/angular_symmetry.h"
#include "../neighborhood.h"
#include "columns.h"

namespace pymlp::inline PYMLP_SIMD {

template <class N>
struct Vec3Columns {
  Column<N> x, y, z;

  void place(Arena& arena, int64_t n) {
    x.place(arena, n);
    y.place(arena, n);
    z.place(arena, n);
  }
  PYMLP_INLINE Vec3<N> load(int64_t i) const { return {x.load(i), y.load(i), z.load(i)}; }
  PYMLP_INLINE Vec3<N> broadcast(int64_t i) const {
    return {x.broadcast(i), y.broadcast(i), z.broadcast(i)};
  }
  PYMLP_INLINE void store(int64_t i, Vec3<N> v) const {
    x.store(i, v.x);
    y.store(i, v.y);
    z.store(i, v.z);
  }
};

// Columns of Neighbor<N> (see formulas/angular_symmetry.h).
template <class N>
struct NeighborColumns {
  Vec3Columns<N> unit;
  Column<N> distance, cutoff;

  void place(Arena& arena, int64_t n) {
    unit.place(arena, n);
    distance.place(arena, n);
    cutoff.place(arena, n);
  }
  PYMLP_INLINE Neighbor<N> load(int64_t i) const {
    return {unit.load(i), distance.load(i), cutoff.load(i)};
  }
  PYMLP_INLINE Neighbor<N> broadcast(int64_t i) const {
    return {unit.broadcast(i), distance.broadcast(i), cutoff.broadcast(i)};
  }
  PYMLP_INLINE void store(int64_t i, Neighbor<N> v) const {
    unit.store(i, v.unit);
    distance.store(i, v.distance);
    cutoff.store(i, v.cutoff);
  }
  void clear(int64_t n) const {
    const N zero{Scalar<N>(0)};
    for (int64_t i = 0; i < n; i += kLanes) store(i, {{zero, zero, zero}, zero, zero});
  }
  void copy(int64_t i, const NeighborColumns& from, int64_t j) const {
    unit.x.copy(i, from.unit.x, j);
    unit.y.copy(i, from.unit.y, j);
    unit.z.copy(i, from.unit.z, j);
    distance.copy(i, from.distance, j);
    cutoff.copy(i, from.cutoff, j);
  }

  // Add the sums over the lanes of v to neighbour i.
  PYMLP_INLINE void add_sums(int64_t i, Neighbor<N> v) const {
    const N parts[] = {v.unit.x, v.unit.y, v.unit.z, v.distance, v.cutoff};
    const Column<N> columns[] = {unit.x, unit.y, unit.z, distance, cutoff};
    pymlp::PYMLP_SIMD::add_sums(parts, columns, i);
  }

  static constexpr int kLanes = Lanes<Scalar<N>>::count;
};

// Neighbours within `cutoff` of one centre. The cutoff column is times the element weight.
template <class N>
class Staging {
 public:
  using T = Scalar<N>;
  static constexpr int kLanes = Lanes<T>::count;

  NeighborColumns<N> neighbors;
  Column<N> cutoff_slope;
  Column<Lanes<T>> weight;
  int32_t* pairs = nullptr;     // index of the neighbour among the pairs of its centre, or in the
                                // staging that this one was narrowed from
  int64_t* channels = nullptr;  // [n_channels + 1] first neighbour of every channel
  int64_t count = 0;

  void place(Arena& arena, int64_t capacity, int64_t n_channels) {
    neighbors.place(arena, capacity);
    cutoff_slope.place(arena, capacity);
    weight.place(arena, capacity);
    pairs = arena.take<int32_t>(capacity);
    channels = arena.take<int64_t>(n_channels + 2);
    channel_of_ = arena.take<int32_t>(capacity);
  }

  // Gather the pairs [begin, end) that are closer than `radius`.
  void gather(const Neighborhoods<T>& atoms, const T* tangents, int64_t n_channels, int64_t begin,
              int64_t end, T radius) {
    std::fill(channels, channels + n_channels + 2, 0);
    for (int64_t p = begin; p < end; ++p) {
      const T* d = atoms.displacements + 3 * p;
      const bool inside = d[0] * d[0] + d[1] * d[1] + d[2] * d[2] < radius * radius;
      const int64_t channel = atoms.channels[atoms.types[atoms.neighbors[p]]];
      channel_of_[p - begin] = inside ? static_cast<int32_t>(channel) : -1;
      channels[channel + 2] += inside;
    }
    for (int64_t c = 0; c < n_channels; ++c) channels[c + 2] += channels[c + 1];
    for (int64_t p = begin; p < end; ++p) {
      const int32_t channel = channel_of_[p - begin];
      if (channel < 0) continue;
      const int64_t at = channels[channel + 1]++;
      const T* d = atoms.displacements + 3 * p;
      set(neighbors.unit.x, at, d, tangents, p, 0);
      set(neighbors.unit.y, at, d, tangents, p, 1);
      set(neighbors.unit.z, at, d, tangents, p, 2);
      weight.set(at, atoms.weights[atoms.types[atoms.neighbors[p]]]);
      pairs[at] = static_cast<int32_t>(p - begin);
    }
    count = channels[n_channels];
    pad_displacements(radius);
    for (int64_t i = 0; i < count; i += kLanes) {
      const Vec3<N> d = neighbors.unit.load(i);
      const N r = square_root(dot(d, d));
      neighbors.unit.store(i, (T(1) / r) * d);
      neighbors.distance.store(i, r);
    }
  }

  // Take over those neighbours of `from` that are closer than `radius`.
  void narrow(const Staging& from, int64_t n_channels, T radius) {
    int64_t at = 0;
    for (int64_t c = 0; c < n_channels; ++c) {
      channels[c] = at;
      for (int64_t i = from.channels[c]; i < from.channels[c + 1]; ++i) {
        if (!(distance_value(from.neighbors.distance, i) < radius)) continue;
        neighbors.copy(at, from.neighbors, i);
        weight.copy(at, from.weight, i);
        pairs[at] = static_cast<int32_t>(i);
        ++at;
      }
    }
    channels[n_channels] = count = at;
    for (int64_t i = count; i < count + kLanes; ++i) {
      neighbors.unit.x.set(i, T(0));
      neighbors.unit.y.set(i, T(0));
      neighbors.unit.z.set(i, T(0));
      neighbors.distance.set(i, T(1));
    }
  }

  void apply_cutoff(Cutoff<T> function) {
    for (int64_t i = 0; i < count; i += kLanes) {
      const auto fc = cutoff(neighbors.distance.load(i), function);
      neighbors.cutoff.store(i, fc.value * weight.load(i));
      cutoff_slope.store(i, fc.slope * weight.load(i));
    }
    // Runs of a channel are loaded a register at a time, also past the last neighbour.
    for (int64_t i = count; i < count + kLanes; ++i) neighbors.cutoff.set(i, T(0));
  }

 private:
  int32_t* channel_of_ = nullptr;

  static PYMLP_INLINE T distance_value(const Column<Lanes<T>>& c, int64_t i) { return c.value[i]; }
  static PYMLP_INLINE T distance_value(const Column<Dual<Lanes<T>>>& c, int64_t i) {
    return c.value.value[i];
  }
  static PYMLP_INLINE void set(const Column<Lanes<T>>& column, int64_t at, const T* d, const T*,
                               int64_t, int axis) {
    column.value[at] = d[axis];
  }
  static PYMLP_INLINE void set(const Column<Dual<Lanes<T>>>& column, int64_t at, const T* d,
                               const T* tangents, int64_t p, int axis) {
    column.value.value[at] = d[axis];
    column.slope.value[at] = tangents[3 * p + axis];
  }
  // Lanes past the end hold a neighbour beyond every cutoff.
  void pad_displacements(T radius) const {
    for (int64_t i = count; i < count + kLanes; ++i) {
      neighbors.unit.x.set(i, T(2) * radius);
      neighbors.unit.y.set(i, T(0));
      neighbors.unit.z.set(i, T(0));
    }
  }
};

}  // namespace pymlp::inline PYMLP_SIMD
