// The neighbours of one centre, staged by one warp: lane i computes neighbour i, i + 32, ...;
// ballots and running sums give each its place, sorted by channel, within a channel those inside
// the angular cutoff first, then by pair index. A channel is then a contiguous run, and the order
// never varies.
#pragma once

#include "layout.cuh"
#include "warp.cuh"

namespace pymlp::cuda {

// A neighbour with what the chain rule back to its displacement needs. Cutoffs are times the
// weight.
template <class N>
struct NeighborSlopes {
  Neighbor<N> neighbor;
  N angular_slope;
  ValueSlope<N> radial;
};

// Displacement of pair p, for Dual numbers with its tangent.
template <class N>
struct Displacement;
template <class T>
  requires std::is_floating_point_v<T>
struct Displacement<T> {
  static PYMLP_INLINE Vec3<T> load(const T* d, const T*, int64_t p) {
    return {d[3 * p], d[3 * p + 1], d[3 * p + 2]};
  }
};
template <class T>
struct Displacement<Dual<T>> {
  static PYMLP_INLINE Vec3<Dual<T>> load(const T* d, const T* u, int64_t p) {
    return {{d[3 * p], u[3 * p]}, {d[3 * p + 1], u[3 * p + 1]}, {d[3 * p + 2], u[3 * p + 2]}};
  }
};

// E as a function of unit vector, distance and cutoff: its gradient in the displacement d, from
// R = |d|, u = d / R: dE/dd = (g_u - (g_u . u) u) / R + (g_R + g_fc dfc/dR) u.
template <class N>
PYMLP_INLINE Vec3<N> displacement_adjoint(Neighbor<N> n, N cutoff_slope, Neighbor<N> g) {
  using T = Scalar<N>;
  const N along = dot(g.unit, n.unit);
  const N inverse = T(1) / n.distance;
  return inverse * g.unit + (g.distance + g.cutoff * cutoff_slope - along * inverse) * n.unit;
}

template <class N>
PYMLP_INLINE Neighbor<N> no_neighbor() {
  const N zero = Scalar<N>(0);
  return {{zero, zero, zero}, zero, zero};
}

template <class N>
class Staging {
 public:
  using T = Scalar<N>;

  Neighbor<N>* neighbors;  // [n] sorted; only those inside a cutoff are set
  N* radial;               // [n] radial cutoff times weight (forward)
  Neighbor<N>* adjoints;   // [n] (backward)
  int* pairs;              // [n] index among the pairs of the centre
  int* slots;              // [2 n_channels + 2] see first() and middle()
  int64_t begin;           // first pair of the centre
  int n;                   // number of its pairs

  // Neighbours of channel c: [first(c), first(c + 1)); inside the angular cutoff: up to middle(c).
  // Those from first(n_channels) on are outside both cutoffs.
  __device__ __forceinline__ int first(int c) const { return slots[2 * c]; }
  __device__ __forceinline__ int middle(int c) const { return slots[2 * c + 1]; }
  __device__ __forceinline__ int n_angular(int c) const { return middle(c) - first(c); }

  __device__ __forceinline__ Staging(const SymmetryPass<T>& pass, const SymmetryLayout& layout,
                                     std::byte* shared, std::byte* workspace, Kernel kernel,
                                     int64_t center) {
    const int64_t* offsets = pass.atoms.pair_offsets;
    begin = offsets[center];
    n = static_cast<int>(offsets[center + 1] - begin);
    slots = reinterpret_cast<int*>(shared + layout.slots_at);
    if (n <= layout.capacity) {
      neighbors = reinterpret_cast<Neighbor<N>*>(shared + layout.neighbors_at);
      adjoints = reinterpret_cast<Neighbor<N>*>(shared + layout.adjoints_at);
      radial = reinterpret_cast<N*>(shared + layout.radial_at);
      pairs = reinterpret_cast<int*>(shared + layout.pairs_at);
      return;
    }
    const int64_t n_pairs = offsets[pass.atoms.n_centers];
    neighbors = reinterpret_cast<Neighbor<N>*>(workspace);
    adjoints = kernel == Kernel::backward ? neighbors + n_pairs : neighbors;
    radial = reinterpret_cast<N*>(adjoints + n_pairs);
    pairs = reinterpret_cast<int*>(kernel == Kernel::forward ? radial + n_pairs : radial) + begin;
    neighbors += begin;
    adjoints += begin;
    radial += begin;
  }

  __device__ __forceinline__ NeighborSlopes<N> evaluate(const SymmetryPass<T>& pass,
                                                        int64_t p) const {
    const Neighborhoods<T>& atoms = pass.atoms;
    const Vec3<N> d = Displacement<N>::load(atoms.displacements, pass.tangents, p);
    const T weight = atoms.weights[atoms.types[atoms.neighbors[p]]];
    const N r = square_root(dot(d, d));
    const auto angular = cutoff(r, angular_cutoff(pass.tables));
    const auto radial_fc = cutoff(r, radial_cutoff(pass.tables));
    return {{(T(1) / r) * d, r, angular.value * weight},
            angular.slope * weight,
            {radial_fc.value * weight, radial_fc.slope * weight}};
  }

  __device__ __forceinline__ void gather(const SymmetryPass<T>& pass, bool keep_radial) {
    const int lane = lane_index();
    const int n_keys = 2 * static_cast<int>(pass.tables.n_channels) + 1;
    int* ends = slots + 1;
    int key = key_of(pass, lane);
    // Count the neighbours of every key at ends[key], sum up, and shift by one while placing.
    for (int i = lane; i < n_keys + 1; i += kWarp) slots[i] = 0;
    __syncwarp();
    for (int base = 0; base < n; base += kWarp) {
      if (base > 0) key = key_of(pass, base + lane);
      for_each_key(key, [&](int shared_key, unsigned mask) {
        if (lane == 0) ends[shared_key] += __popc(mask);
      });
    }
    __syncwarp();
    running_sums(slots, n_keys + 1);
    for (int base = 0; base < n; base += kWarp) {
      if (n > kWarp) key = key_of(pass, base + lane);
      int at = 0;
      for_each_key(key, [&](int shared_key, unsigned mask) {
        int start = 0;
        if (lane == 0) {  // the only lane that touches the slots meanwhile
          start = slots[shared_key];
          slots[shared_key] = start + __popc(mask);
        }
        start = __shfl_sync(kAllLanes, start, 0);
        if (key == shared_key) at = start + lanes_before(mask);
      });
      if (key < 0) continue;
      pairs[at] = base + lane;
      if (key == n_keys - 1) continue;
      const NeighborSlopes<N> found = evaluate(pass, begin + base + lane);
      neighbors[at] = found.neighbor;
      if (keep_radial) radial[at] = found.radial.value;
    }
    __syncwarp();
    // slots[key] is now the end of key's run, which is the start of the next one.
    shift_slots(n_keys);
  }

  static __device__ __forceinline__ Cutoff<T> radial_cutoff(const SymmetryTables<T>& t) {
    return {T(t.radial_cutoff), static_cast<CutoffFunction>(t.cutoff_function)};
  }
  static __device__ __forceinline__ Cutoff<T> angular_cutoff(const SymmetryTables<T>& t) {
    return {T(t.angular_cutoff), static_cast<CutoffFunction>(t.cutoff_function)};
  }

 private:
  // 2 c inside the angular cutoff, 2 c + 1 inside the radial one alone, 2 n_channels outside both;
  // -1 for lanes without a neighbour.
  __device__ __forceinline__ int key_of(const SymmetryPass<T>& pass, int i) const {
    if (i >= n) return -1;
    const Neighborhoods<T>& atoms = pass.atoms;
    const SymmetryTables<T>& tables = pass.tables;
    const T* d = atoms.displacements + 3 * (begin + i);
    const T r = square_root(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
    const int channel = static_cast<int>(atoms.channels[atoms.types[atoms.neighbors[begin + i]]]);
    if (tables.n_angular > 0 && r < T(tables.angular_cutoff)) return 2 * channel;
    if (tables.n_radial > 0 && r < T(tables.radial_cutoff)) return 2 * channel + 1;
    return 2 * static_cast<int>(tables.n_channels);
  }

  // Calls body(key, lanes that have it) once for every key that occurs in the warp.
  template <class Body>
  static __device__ __forceinline__ void for_each_key(int key, Body body) {
    unsigned remaining = __ballot_sync(kAllLanes, key >= 0);
    while (remaining != 0) {
      const int common = __shfl_sync(kAllLanes, key, __ffs(static_cast<int>(remaining)) - 1);
      const unsigned mask = __ballot_sync(kAllLanes, key == common);
      body(common, mask);
      remaining &= ~mask;
    }
  }

  __device__ __forceinline__ void shift_slots(int n_keys) {
    const int lane = lane_index();
    int before = 0;
    for (int base = 0; base < n_keys; base += kWarp) {
      const int i = base + lane;
      const int mine = i < n_keys ? slots[i] : 0;
      const int left = __shfl_up_sync(kAllLanes, mine, 1);
      const int last = __shfl_sync(kAllLanes, mine, kWarp - 1);
      __syncwarp();
      if (i < n_keys) slots[i] = lane == 0 ? before : left;
      before = last;
    }
    __syncwarp();
  }
};

}  // namespace pymlp::cuda
