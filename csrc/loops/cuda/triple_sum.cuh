// Sums over pairs j < k of the neighbours of one centre, by one warp. Triples are numbered through
// all pairs of channels, so that also the few triples of a small molecule fill the lanes, and are
// taken a tile at a time. First a lane owns a triple: it computes angle and distance factors into
// the tile. Then, forward, a lane owns a feature and sums products of two factors over the triples;
// backward, the triple's lane contracts them with the gradients and leaves the adjoints of its two
// neighbours in the tile, and a lane that owns a neighbour collects these. No sum meets another
// lane's memory, so there are no atomics and the order of every sum is fixed.
#pragma once

#include "staging.cuh"

namespace pymlp::cuda {

// Pointers into the shared memory of a block and a warp.
template <class N>
struct TripleScratch {
  using T = Scalar<N>;
  const AngleParameters<T>* angles;        // [Z] of the block
  const DistanceParameters<T>* distances;  // [D] of the block
  Product* products;                       // [S] of the centre's set
  int* present;                            // channels with neighbours inside the angular cutoff
  N* tile;                                 // [tile, stride]
  NeighborPair<N>* triple_adjoints;        // [tile]
  int tile_size, stride;

  __device__ __forceinline__ TripleScratch(const SymmetryLayout& layout, std::byte* block,
                                           std::byte* warp)
      : angles(reinterpret_cast<AngleParameters<T>*>(block + layout.angles_at)),
        distances(reinterpret_cast<DistanceParameters<T>*>(block + layout.distances_at)),
        products(reinterpret_cast<Product*>(warp + layout.products_at)),
        present(reinterpret_cast<int*>(warp + layout.present_at)),
        tile(reinterpret_cast<N*>(warp + layout.tile_at)),
        triple_adjoints(reinterpret_cast<NeighborPair<N>*>(warp + layout.triple_adjoints_at)),
        tile_size(layout.tile),
        stride(layout.stride) {}
};

// By all threads of a block, before any centre is worked on.
template <class T>
__device__ __forceinline__ void load_angular_parameters(const SymmetryTables<T>& tables,
                                                        const SymmetryLayout& layout,
                                                        std::byte* block) {
  auto* angles = reinterpret_cast<AngleParameters<T>*>(block + layout.angles_at);
  auto* distances = reinterpret_cast<DistanceParameters<T>*>(block + layout.distances_at);
  const int thread = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
  if (tables.n_angular > 0) {
    for (int a = thread; a < static_cast<int>(tables.n_angles); a += n) {
      const T* row = tables.angles + 3 * a;
      angles[a] = make_angle_parameters(row[0], row[1], row[2]);
    }
    for (int d = thread; d < static_cast<int>(tables.n_distances); d += n) {
      distances[d] = {tables.distances[2 * d], tables.distances[2 * d + 1]};
    }
  }
  __syncthreads();
}

template <class Formula, class N>
class TripleSum {
 public:
  using T = Scalar<N>;

  __device__ __forceinline__ TripleSum(const Formula& formula, const Staging<N>& staged,
                                       const TripleScratch<N>& scratch,
                                       const SymmetryTables<T>& tables, int64_t set)
      : formula_(formula),
        staged_(staged),
        scratch_(scratch),
        n_channels_(static_cast<int>(tables.n_channels)),
        n_features_(static_cast<int>(tables.n_angular)),
        n_angles_(static_cast<int>(tables.n_angles)),
        n_distances_(static_cast<int>(tables.n_distances)) {
    const int64_t* products = tables.products + 2 * set * n_features_;
    for (int f = lane_index(); f < n_features_; f += kWarp) {
      scratch_.products[f] = {static_cast<int>(products[2 * f]),
                              static_cast<int>(products[2 * f + 1])};
    }
    n_present_ = 0;
    for (int base = 0; base < n_channels_; base += kWarp) {
      const int c = base + lane_index();
      const bool has = c < n_channels_ && staged_.n_angular(c) > 0;
      const unsigned mask = __ballot_sync(kAllLanes, has);
      if (has) scratch_.present[n_present_ + lanes_before(mask)] = c;
      n_present_ += __popc(mask);
    }
    __syncwarp();
  }

  // features [n_channel_pairs, S], every element is written.
  __device__ __forceinline__ void forward(T* features) {
    // Few features: groups of lanes share the triples of a tile out and add up at the end.
    int width = 1;
    while (width < n_features_ && width < kWarp) width *= 2;
    const int own = lane_index() % width, group = lane_index() / width, n_groups = kWarp / width;
    for (int base = 0; base < n_features_; base += kWarp) {
      const int f = base + own;
      const Product product = f < n_features_ ? scratch_.products[f] : Product{-1, -1};
      const bool real = product.distance >= 0;
      const N* angle_column = scratch_.tile + (real ? product.angle : 0);
      const N* distance_column = scratch_.tile + n_angles_ + (real ? product.distance : 0);
      Cursor cursor = start();
      uint32_t tile_begin = 0, tile_end = 0, first = 0;
      T* out = features + f;
      for (int a = 0; a < n_channels_; ++a) {
        for (int b = a; b < n_channels_; ++b, out += n_features_) {
          const uint32_t begin = first, last = first + n_triples(a, b);
          N sum = T(0);
          while (first < last) {
            if (first == tile_end) {
              tile_begin = tile_end;
              tile_end += scratch_.tile_size;
              __syncwarp();  // everyone has read the previous tile
              fill_factors(cursor);
              __syncwarp();
            }
            const uint32_t stop = last < tile_end ? last : tile_end;
            const int from = static_cast<int>(first - tile_begin);
            const int to = static_cast<int>(stop - tile_begin);
#pragma unroll 4
            for (int t = from + group; t < to; t += n_groups) {
              const int row = t * scratch_.stride;
              sum = sum + angle_column[row] * distance_column[row];
            }
            first = stop;
          }
          for (int step = width; step < kWarp && begin < last; step *= 2) {
            sum = sum + shuffle_xor(sum, step);
          }
          if (f < n_features_ && group == 0) *out = real ? reported(sum) : T(0);
        }
      }
    }
  }

  // Sets the adjoints of all neighbours inside the angular cutoff.
  __device__ __forceinline__ void backward(const T* grad_features) {
    for (int i = lane_index(); i < staged_.n; i += kWarp) staged_.adjoints[i] = no_neighbor<N>();
    __syncwarp();
    Cursor cursor = start();
    while (__ballot_sync(kAllLanes, is_valid(cursor)) != 0) {
      const bool valid = is_valid(cursor);
      int j = -1, k = -1;
      if (valid) {
        decode(cursor, &j, &k);
        const Neighbor<N> nj = staged_.neighbors[j], nk = staged_.neighbors[k];
        const T* g = grad_features + block_of(cursor) * int64_t(n_features_);
        scratch_.triple_adjoints[lane_index()] =
            triple_adjoint(formula_, nj, nk, contract(make_triple(formula_, nj, nk), g));
      }
      __syncwarp();
      collect(j, k);
      __syncwarp();
      advance(cursor);
    }
  }

  // jacobian [n_channel_pairs, S, 3] of neighbour m of channel c, every element is written. `own`
  // is that neighbour; it is not looked at outside the angular cutoff, where all are zeros.
  __device__ __forceinline__ void jacobian(const NeighborSlopes<T>& own, int m, int c,
                                           T* jacobian) {
    const bool inside = m < staged_.middle(c);
    for (int base = 0; base < n_features_; base += kWarp) {
      const int f = base + lane_index();
      const Product product = f < n_features_ ? scratch_.products[f] : Product{-1, -1};
      const bool real = product.distance >= 0;
      T* out = jacobian + 3 * f;
      for (int a = 0; a < n_channels_; ++a) {
        for (int b = a; b < n_channels_; ++b, out += 3 * n_features_) {
          Vec3<T> sum{T(0), T(0), T(0)};
          if (inside && (a == c || b == c)) {
            const int other = a == c ? b : a;
            const int n = staged_.n_angular(other) - (other == c);
            for (int start = 0; start < n; start += scratch_.tile_size) {
              const int i = start + lane_index();
              int k = staged_.first(other) + i;
              if (other == c && k >= m) ++k;  // all but m itself
              __syncwarp();                   // everyone has read the previous tile
              if (i < n && lane_index() < scratch_.tile_size) fill_slopes(own, k);
              __syncwarp();
              const int end = n - start < scratch_.tile_size ? n - start : scratch_.tile_size;
              for (int t = 0; t < end && real; ++t) sum = sum + slope_of(t, product);
            }
          }
          if (f < n_features_) {
            out[0] = sum.x;
            out[1] = sum.y;
            out[2] = sum.z;
          }
        }
      }
    }
  }

 private:
  // A triple of a lane: channels present[x] <= present[y], number within their block.
  struct Cursor {
    int x, y;
    uint32_t number;
  };

  Formula formula_;
  const Staging<N>& staged_;
  TripleScratch<N> scratch_;
  int n_channels_, n_features_, n_angles_, n_distances_, n_present_;

  __device__ __forceinline__ uint32_t n_triples(int a, int b) const {
    const uint32_t n_a = staged_.n_angular(a), n_b = staged_.n_angular(b);
    if (a != b) return n_a * n_b;
    return (n_a & 1u) ? n_a * ((n_a - 1u) / 2u) : (n_a / 2u) * (n_a - 1u);
  }
  __device__ __forceinline__ bool is_valid(const Cursor& c) const { return c.x < n_present_; }

  __device__ __forceinline__ Cursor start() const {
    const bool works = lane_index() < scratch_.tile_size;
    Cursor cursor{works ? 0 : n_present_, 0, static_cast<uint32_t>(lane_index())};
    settle(cursor);
    return cursor;
  }
  __device__ __forceinline__ void advance(Cursor& c) const {
    c.number += scratch_.tile_size;
    settle(c);
  }
  // Move on to the block that the number falls into.
  __device__ __forceinline__ void settle(Cursor& c) const {
    while (c.x < n_present_) {
      const uint32_t n = n_triples(scratch_.present[c.x], scratch_.present[c.y]);
      if (c.number < n) return;
      c.number -= n;
      if (++c.y == n_present_) c.y = ++c.x;
    }
  }
  __device__ __forceinline__ int block_of(const Cursor& cursor) const {
    const int a = scratch_.present[cursor.x], b = scratch_.present[cursor.y];
    return a * n_channels_ - a * (a - 1) / 2 + (b - a);
  }

  // The two neighbours of a triple. Within one channel of n neighbours row d holds the pairs
  // (j, j + 1 + d mod n); rows 0 ... (n - 1) / 2 (the last one half, for even n) are all pairs.
  __device__ __forceinline__ void decode(const Cursor& cursor, int* j, int* k) const {
    const int a = scratch_.present[cursor.x], b = scratch_.present[cursor.y];
    const uint32_t n = staged_.n_angular(b);
    const uint32_t row = cursor.number / n, column = cursor.number - row * n;
    if (a != b) {
      *j = staged_.first(a) + static_cast<int>(row);
      *k = staged_.first(b) + static_cast<int>(column);
      return;
    }
    const uint32_t partner = column + 1 + row;
    *j = staged_.first(a) + static_cast<int>(column);
    *k = staged_.first(a) + static_cast<int>(partner < n ? partner : partner - n);
  }

  // Forward tile: row t holds A [Z] and weight * D [D] of the lane's triple.
  __device__ __forceinline__ void fill_factors(Cursor& cursor) {
    if (!is_valid(cursor)) return;
    int j, k;
    decode(cursor, &j, &k);
    const Triple<N> triple = make_triple(formula_, staged_.neighbors[j], staged_.neighbors[k]);
    N* row = scratch_.tile + lane_index() * scratch_.stride;
    const Angle<N> angle[1] = {make_angle(triple.cosine)};
    for (int a = 0; a < n_angles_; ++a) {
      N value[1];
      angle_values(angle, scratch_.angles[a], value);
      row[a] = value[0];
    }
    for (int d = 0; d < n_distances_; ++d) {
      row[n_angles_ + d] =
          triple.weight * formula_.distance_factor(triple.distance, scratch_.distances[d]).value;
    }
    advance(cursor);
  }

  // sum_f grad_f df/d(c, Q, weight). The tile's row of this lane holds A and dA/dc, alternating.
  __device__ __forceinline__ Triple<N> contract(const Triple<N>& triple, const T* grad) {
    N* row = scratch_.tile + lane_index() * scratch_.stride;
    const Angle<N> angle = make_angle(triple.cosine);
    for (int a = 0; a < n_angles_; ++a) {
      const ValueSlope<N> factor = angle_factor(angle, scratch_.angles[a]);
      row[2 * a] = factor.value;
      row[2 * a + 1] = factor.slope;
    }
    Triple<N> g{N(T(0)), N(T(0)), N(T(0))};
    int f = 0;
    while (f < n_features_ && scratch_.products[f].distance >= 0) {
      const int d = scratch_.products[f].distance;
      N values = T(0), slopes = T(0);  // sum_a g_da A_a and sum_a g_da dA_a/dc
      for (; f < n_features_ && scratch_.products[f].distance == d; ++f) {
        const int a = scratch_.products[f].angle;
        values = values + row[2 * a] * grad[f];
        slopes = slopes + row[2 * a + 1] * grad[f];
      }
      const auto factor = formula_.distance_factor(triple.distance, scratch_.distances[d]);
      g.cosine = g.cosine + factor.value * slopes;
      g.distance = g.distance + factor.slope * values;
      g.weight = g.weight + factor.value * values;
    }
    return {g.cosine * triple.weight, g.distance * triple.weight, g.weight};
  }

  // Add the adjoints that this tile's triples (j, k of this lane) left, each neighbour by one lane.
  __device__ __forceinline__ void collect(int j, int k) {
    const int lane = lane_index();
    const int end = staged_.first(n_channels_);
    for (int base = 0; base < end; base += kWarp) {
      const bool touched = (j >= base && j < base + kWarp) || (k >= base && k < base + kWarp);
      if (__ballot_sync(kAllLanes, touched) == 0) continue;
      unsigned as_j = 0, as_k = 0;
      const int n = end - base < kWarp ? end - base : kWarp;
      for (int i = 0; i < n; ++i) {
        const unsigned mask_j = __ballot_sync(kAllLanes, j == base + i);
        const unsigned mask_k = __ballot_sync(kAllLanes, k == base + i);
        if (i == lane) {
          as_j = mask_j;
          as_k = mask_k;
        }
      }
      if ((as_j | as_k) == 0) continue;
      Neighbor<N> sum = staged_.adjoints[base + lane];
      for (; as_j != 0; as_j &= as_j - 1) {
        sum = sum + scratch_.triple_adjoints[__ffs(static_cast<int>(as_j)) - 1].j;
      }
      for (; as_k != 0; as_k &= as_k - 1) {
        sum = sum + scratch_.triple_adjoints[__ffs(static_cast<int>(as_k)) - 1].k;
      }
      staged_.adjoints[base + lane] = sum;
    }
  }

  // Jacobian tile: row t holds A, dA/dc [2 Z], D, dD/dQ [2 D], then three vectors: weight dc/dd,
  // weight dQ/dd, dweight/dd, d being the displacement of `own`.
  __device__ __forceinline__ void fill_slopes(const NeighborSlopes<T>& own, int k) {
    T* row = scratch_.tile + lane_index() * scratch_.stride;
    T* vectors = row + 2 * (n_angles_ + n_distances_);
    const Neighbor<T> n = own.neighbor, other = staged_.neighbors[k];
    const Triple<T> triple = make_triple(formula_, n, other);
    const Angle<T> angle = make_angle(triple.cosine);
    for (int a = 0; a < n_angles_; ++a) {
      const ValueSlope<T> factor = angle_factor(angle, scratch_.angles[a]);
      row[2 * a] = factor.value;
      row[2 * a + 1] = factor.slope;
    }
    for (int d = 0; d < n_distances_; ++d) {
      const ValueSlope<T> factor = formula_.distance_factor(triple.distance, scratch_.distances[d]);
      row[2 * (n_angles_ + d)] = factor.value;
      row[2 * (n_angles_ + d) + 1] = factor.slope;
    }
    const Triple<T> directions[3] = {
        {triple.weight, T(0), T(0)}, {T(0), triple.weight, T(0)}, {T(0), T(0), T(1)}};
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      const Vec3<T> v = displacement_adjoint(n, own.angular_slope,
                                             triple_adjoint(formula_, n, other, directions[i]).j);
      vectors[3 * i] = v.x;
      vectors[3 * i + 1] = v.y;
      vectors[3 * i + 2] = v.z;
    }
  }

  __device__ __forceinline__ Vec3<T> slope_of(int t, Product product) const {
    const T* row = scratch_.tile + t * scratch_.stride;
    const T* vectors = row + 2 * (n_angles_ + n_distances_);
    const T a = row[2 * product.angle], a_slope = row[2 * product.angle + 1];
    const T d = row[2 * (n_angles_ + product.distance)];
    const T d_slope = row[2 * (n_angles_ + product.distance) + 1];
    const Vec3<T> of_cosine{vectors[0], vectors[1], vectors[2]};
    const Vec3<T> of_distance{vectors[3], vectors[4], vectors[5]};
    const Vec3<T> of_weight{vectors[6], vectors[7], vectors[8]};
    return (a_slope * d) * of_cosine + (a * d_slope) * of_distance + (a * d) * of_weight;
  }
};

}  // namespace pymlp::cuda
