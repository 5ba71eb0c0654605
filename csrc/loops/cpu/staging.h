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
  Vec3Columns from(int64_t i) const { return {x.from(i), y.from(i), z.from(i)}; }
  PYMLP_INLINE void store(int64_t i, Vec3<N> v) const {
    x.store(i, v.x);
    y.store(i, v.y);
    z.store(i, v.z);
  }
};

// Columns of Neighbor<N> (see formulas/angular_symmetry.h).
template <class Mask, class N>
PYMLP_INLINE Neighbor<N> select(Mask mask, Neighbor<N> yes, Neighbor<N> no) {
  return {select(mask, yes.unit, no.unit), select(mask, yes.distance, no.distance),
          select(mask, yes.cutoff, no.cutoff)};
}

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
  NeighborColumns from(int64_t i) const { return {unit.from(i), distance.from(i), cutoff.from(i)}; }
  PYMLP_INLINE void store(int64_t i, Neighbor<N> v) const {
    unit.store(i, v.unit);
    distance.store(i, v.distance);
    cutoff.store(i, v.cutoff);
  }
  void clear(int64_t n) const {
    const N zero{Scalar<N>(0)};
    for (int64_t i = 0; i < n; i += kLanes) store(i, {{zero, zero, zero}, zero, zero});
  }

  static constexpr int kLanes = Lanes<Scalar<N>>::count;
};

// The same numbers in one row per neighbour: a sum over lanes is added to all five by one store.
template <class N>
class NeighborRows {
 public:
  static constexpr int kLanes = Lanes<Scalar<N>>::count;

  void place(Arena& arena, int64_t n) { values_.place(arena, rounded_up(n, kLanes) * kRow); }
  // The neighbours [first, last), and those that share a register with them.
  void clear(int64_t first, int64_t last) const {
    const int64_t end = rounded_up(last, kLanes) * kRow;
    for (int64_t at = first / kLanes * kLanes * kRow; at < end; at += kLanes) {
      values_.store(at, N(Scalar<N>(0)));
    }
  }
  // Add the sums over the lanes of v to neighbour i.
  PYMLP_INLINE void add_sums(int64_t i, Neighbor<N> v) const {
    // Not from an array, of which the compiler makes copies through memory.
    const auto part = [&](int k) {
      return k == 0   ? v.unit.x
             : k == 1 ? v.unit.y
             : k == 2 ? v.unit.z
             : k == 3 ? v.distance
             : k == 4 ? v.cutoff
                      : N(Scalar<N>(0));
    };
#pragma GCC unroll 4
    for (int k = 0; k < kRow; k += kLanes) {
      N group[kLanes];
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) group[l] = part(k + l);
      const int64_t at = i * kRow + k;
      values_.store(at, values_.load(at) + sums_of_lanes(group));
    }
  }
  // Add the same neighbours to their columns.
  void add_to(const NeighborColumns<N>& columns, int64_t first, int64_t last) const {
    const Column<N> to[] = {columns.unit.x, columns.unit.y, columns.unit.z, columns.distance,
                            columns.cutoff};
    for (int64_t i = first / kLanes * kLanes; i < last; i += kLanes) {
#pragma GCC unroll 4
      for (int k = 0; k < kRow; k += kLanes) {
        N group[kLanes];
        for (int l = 0; l < kLanes; ++l) group[l] = values_.load((i + l) * kRow + k);
        transpose(group);
        for (int l = 0; l < kLanes && k + l < kParts; ++l) {
          to[k + l].store(i, to[k + l].load(i) + group[l]);
        }
      }
    }
  }

 private:
  static constexpr int kParts = 5, kRow = (kParts + kLanes - 1) / kLanes * kLanes;
  Column<N> values_;
};

// The neighbours of one centre: by channel, and within a channel those inside the angular cutoff
// first, so that the triples of two channels come from two runs of the same columns (without a copy
// of the inner ones: ANI double backward, 256 x 14 atoms, 9.9 -> 8.9 ms).
template <class N>
class Staging {
 public:
  using T = Scalar<N>;
  static constexpr int kLanes = Lanes<T>::count;

  // Cutoff columns are times the element weight; that of `neighbors` is the angular one.
  NeighborColumns<N> neighbors;
  Column<N> cutoff_slope, radial_cutoff, radial_cutoff_slope;
  int32_t* pairs = nullptr;  // index of the neighbour among the pairs of the centres
  int64_t count = 0, n_centers = 0;

  void place(Arena& arena, int64_t capacity, int64_t max_centers, int64_t n_channels,
             bool one_cutoff) {
    one_cutoff_ = one_cutoff;
    neighbors.place(arena, capacity);
    cutoff_slope.place(arena, capacity);
    if (one_cutoff) {
      radial_cutoff = neighbors.cutoff;
      radial_cutoff_slope = cutoff_slope;
    } else {
      radial_cutoff.place(arena, capacity);
      radial_cutoff_slope.place(arena, capacity);
    }
    weight_.place(arena, capacity);
    pairs = arena.take<int32_t>(capacity);
    starts_ = arena.take<int64_t>(2 * n_channels * max_centers + 3);
    bin_of_ = arena.take<int32_t>(capacity);
  }

  // Channel c of centre i counts as i n_channels + c. It is first ... first of the next, its part
  // inside the angular cutoff ends at middle.
  PYMLP_INLINE int64_t first(int64_t c) const { return starts_[2 * c]; }
  PYMLP_INLINE int64_t middle(int64_t c) const { return starts_[2 * c + 1]; }

  // Gather the pairs of the centres [begin, end) that are inside one of the cutoffs.
  void gather(const Neighborhoods<T>& atoms, const T* tangents, int64_t n_channels, int64_t begin,
              int64_t end, T radial_radius, T angular_radius) {
    const T radius = std::max(radial_radius, angular_radius);
    n_centers = end - begin;
    const int64_t n_bins = 2 * n_channels * n_centers;
    std::fill(starts_, starts_ + n_bins + 3, 0);
    const int64_t first_pair = atoms.pair_offsets[begin];
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first_bin = 2 * n_channels * (i - begin);
      for (int64_t p = atoms.pair_offsets[i]; p < atoms.pair_offsets[i + 1]; ++p) {
        const T* d = atoms.displacements + 3 * p;
        const T square = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
        const int64_t channel = atoms.channels[atoms.types[atoms.neighbors[p]]];
        const bool outside = !(square < radius * radius);
        const int64_t bin = first_bin + 2 * channel + !(square < angular_radius * angular_radius);
        bin_of_[p - first_pair] = static_cast<int32_t>(outside ? -1 : bin);
        starts_[bin + 2] += !outside;
      }
    }
    for (int64_t b = 0; b < n_bins; ++b) starts_[b + 2] += starts_[b + 1];
    for (int64_t p = first_pair; p < atoms.pair_offsets[end]; ++p) {
      const int32_t bin = bin_of_[p - first_pair];
      if (bin < 0) continue;
      const int64_t at = starts_[bin + 1]++;
      put(atoms, tangents, first_pair, p, atoms.weights[atoms.types[atoms.neighbors[p]]], at);
    }
    count = starts_[n_bins];
    // The last register is filled up with neighbours beyond every cutoff.
    const N zero{T(0)};
    neighbors.unit.store(count, {N(T(2) * radius), zero, zero});
    weight_.store(count, T(0));
  }

  // One neighbour: pair p of centres whose pairs begin at `begin`.
  PYMLP_INLINE void put(const Neighborhoods<T>& atoms, const T* tangents, int64_t begin, int64_t p,
                        T weight, int64_t at) const {
    const T* d = atoms.displacements + 3 * p;
    set(neighbors.unit.x, at, d, tangents, p, 0);
    set(neighbors.unit.y, at, d, tangents, p, 1);
    set(neighbors.unit.z, at, d, tangents, p, 2);
    weight_.value[at] = weight;
    pairs[at] = static_cast<int32_t>(p - begin);
  }
  // One that counts for nothing, and is no pair.
  void put_nothing(int64_t at, T distance) const {
    constexpr T zeros[3] = {};
    const T d[3] = {distance, T(0), T(0)};
    set(neighbors.unit.x, at, d, zeros, 0, 0);
    set(neighbors.unit.y, at, d, zeros, 0, 1);
    set(neighbors.unit.z, at, d, zeros, 0, 2);
    weight_.value[at] = T(0);
    pairs[at] = -1;
  }
  int64_t* starts() { return starts_; }
  // The n neighbours from i on, of one centre, with the same runs.
  Staging part(int64_t i, int64_t n) const {
    Staging result = *this;
    result.neighbors = neighbors.from(i);
    result.cutoff_slope = cutoff_slope.from(i);
    result.radial_cutoff = radial_cutoff.from(i);
    result.radial_cutoff_slope = radial_cutoff_slope.from(i);
    result.pairs = pairs + i;
    result.count = n;
    result.n_centers = 1;
    return result;
  }

  // From displacements to unit vectors, distances and cutoffs.
  void finish(Cutoff<T> radial, Cutoff<T> angular) {
    for (int64_t i = 0; i < count; i += kLanes) {
      const Vec3<N> d = neighbors.unit.load(i);
      const N r = square_root(dot(d, d));
      const Lanes<T> weight = weight_.load(i);
      neighbors.unit.store(i, (T(1) / r) * d);
      neighbors.distance.store(i, r);
      const auto fc = cutoff(r, angular);
      neighbors.cutoff.store(i, fc.value * weight);
      cutoff_slope.store(i, fc.slope * weight);
      if (one_cutoff_) continue;
      const auto radial_fc = cutoff(r, radial);
      radial_cutoff.store(i, radial_fc.value * weight);
      radial_cutoff_slope.store(i, radial_fc.slope * weight);
    }
    // Runs are loaded a register at a time, also past the last neighbour.
    const N zero{T(0)};
    neighbors.store(count, {{zero, zero, zero}, N(T(1)), zero});
  }

 private:
  Column<Lanes<T>> weight_;
  int64_t* starts_ =
      nullptr;  // [centres, n_channels, 2] first neighbour of every bin, and their end
  int32_t* bin_of_ = nullptr;
  bool one_cutoff_ = false;

  static PYMLP_INLINE void set(const Column<Lanes<T>>& column, int64_t at, const T* d, const T*,
                               int64_t, int axis) {
    column.value[at] = d[axis];
  }
  static PYMLP_INLINE void set(const Column<Dual<Lanes<T>>>& column, int64_t at, const T* d,
                               const T* tangents, int64_t p, int axis) {
    column.value.value[at] = d[axis];
    column.slope.value[at] = tangents[3 * p + axis];
  }
};

}  // namespace pymlp::inline PYMLP_SIMD
