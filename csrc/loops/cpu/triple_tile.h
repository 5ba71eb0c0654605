// Triples (pairs j < k of the neighbours of one centre) in the order of the pairs of channels that
// they count for, a tile that stays in L1 at a time. Lanes run over triples: rows (one j, a run of
// k) write the geometry of their triples one behind the other, so that also the few triples of a
// small molecule fill the registers of whatever is computed from the geometry (Claisen, 8 lanes: 97
// % of them where blocks that begin with a register of their own fill 74 to 84 %). The cutoff of
// R_jk is computed there, not in the rows (Behler-Parrinello backward, 256 x 14 atoms: 5.8 -> 4.7
// ms).
#pragma once

#include "staging.h"

namespace pymlp::inline PYMLP_SIMD {

template <class Formula, class N>
class TripleTile {
 public:
  using T = Scalar<N>;
  static constexpr int kLanes = Lanes<T>::count;
  // What is computed from the geometry may take as many triples at a time.
  static constexpr int kUnit = kLanes > 16 ? kLanes : 16;

  // The triples [begin, end) of the tile belong to the channels p and q.
  struct Segment {
    int64_t p, q, block;
    int32_t begin, end, first_row, last_row;
  };

  Column<N> cosine, distance, weight;                 // see Triple<N>
  Column<N> grad_cosine, grad_distance, grad_weight;  // their adjoints
  int64_t size = 0;                                   // triples
  int64_t capacity = 0;

  void place(Arena& arena, const Formula& formula, int64_t n_channels, int64_t wanted_capacity,
             bool forward) {
    capacity = wanted_capacity;
    with_jk_ = formula.with_cutoff_jk();
    with_slopes_ = !forward;
    const int64_t n_jk = with_jk_ ? capacity : 0;
    cosine.place(arena, capacity);
    distance.place(arena, capacity);
    weight.place(arena, capacity);
    square_jk_.place(arena, n_jk);
    present_ = arena.take<int32_t>(n_channels + 1);
    rows_ = arena.take<Row>(capacity);
    segments_ = arena.take<Segment>(capacity + 1);
    if (forward) return;
    grad_cosine.place(arena, capacity);
    grad_distance.place(arena, capacity);
    grad_weight.place(arena, capacity);
    cutoff_jk_.place(arena, n_jk);
    weight_slope_jk_.place(arena, n_jk);
  }

  const Segment* begin() const { return segments_; }
  const Segment* end() const { return segments_ + n_segments_; }

  // Calls flush whenever the tile is full, and at the end.
  template <class Flush>
  void for_each(const Formula& formula, const Staging<N>& s, int64_t n_channels,
                const Flush& flush) {
    clear();
    n_present_ = 0;
    for (int64_t c = 0; c < n_channels; ++c) {
      present_[n_present_] = static_cast<int32_t>(c);
      n_present_ += s.middle(c) > s.first(c);
    }
    for (int32_t a = 0; a < n_present_; ++a) {
      const int64_t p = present_[a], first_block = p * n_channels - p * (p - 1) / 2 - p;
      for (int32_t b = a; b < n_present_; ++b) {
        add_block(formula, s, p, present_[b], first_block + present_[b], flush);
      }
    }
    if (size > 0) close(formula, flush);
  }

  // From the adjoints of a segment's triples to those of their neighbours.
  void scatter(const Formula& formula, const Staging<N>& s, const Segment& segment,
               const NeighborColumns<N>& grad) const {
    const N zero{T(0)};
    int64_t t = segment.begin;
    for (int32_t r = segment.first_row; r < segment.last_row; ++r) {
      const Row row = rows_[r];
      const Neighbor<N> j = s.neighbors.broadcast(row.j);
      Neighbor<N> g_j{{zero, zero, zero}, zero, zero};
      for (int32_t i = 0; i < row.count; i += kLanes) {
        TripleSides<N> g{
            {grad_cosine.load(t + i), grad_distance.load(t + i), grad_weight.load(t + i)}, zero};
        if (with_jk_) {
          g = cutoff_adjoint({cutoff_jk_.load(t + i), weight_slope_jk_.load(t + i)}, g.triple);
        }
        // Past the row is another one, or memory that was never written.
        const auto mine = first_lanes<T>(row.count - i);
        g.triple.cosine = select(mine, g.triple.cosine, zero);
        g.triple.distance = select(mine, g.triple.distance, zero);
        g.triple.weight = select(mine, g.triple.weight, zero);
        g.square_jk = select(mine, g.square_jk, zero);
        const int64_t k = row.k + i;
        const NeighborPair<N> both = formula.sides_adjoint(j, s.neighbors.load(k), g);
        grad.store(k, grad.load(k) + both.k);
        g_j = g_j + both.j;
      }
      grad.add_sums(row.j, g_j);
      t += row.count;
    }
  }

 private:
  struct Row {
    int32_t j, k, count;
  };

  // R_jk^2, f_c(R_jk), and the weight without the latter times its slope.
  Column<N> square_jk_, cutoff_jk_, weight_slope_jk_;
  bool with_jk_ = false, with_slopes_ = false;
  int32_t* present_ = nullptr;  // channels with neighbours
  int32_t n_present_ = 0;
  Row* rows_ = nullptr;
  Segment* segments_ = nullptr;
  int32_t n_rows_ = 0, n_segments_ = 0;

  void clear() {
    size = 0;
    n_rows_ = n_segments_ = 0;
  }

  void close_segment(int64_t p, int64_t q, int64_t block, int64_t begin, int32_t first_row) {
    segments_[n_segments_] = {
        p, q, block, static_cast<int32_t>(begin), static_cast<int32_t>(size), first_row, n_rows_};
    n_segments_ += begin < size;
  }

  template <class Flush>
  PYMLP_INLINE void add_block(const Formula& formula, const Staging<N>& s, int64_t p, int64_t q,
                              int64_t block, const Flush& flush) {
    // A triple is symmetric in j and k: few long rows fill more lanes than many short ones.
    if (s.middle(p) - s.first(p) > s.middle(q) - s.first(q)) std::swap(p, q);
    int64_t begin = size;
    int32_t first_row = n_rows_;
    const int64_t end = s.middle(q);
    for (int64_t j = s.first(p), last = s.middle(p) - (p == q); j < last; ++j) {
      const Neighbor<N> first = s.neighbors.broadcast(j);
      int64_t k = p == q ? j + 1 : s.first(q);
      for (;;) {
        const int64_t n = std::min(end - k, capacity - size);
        int64_t i = 0;
        do {
          const TripleSides<N> sides = formula.sides(first, s.neighbors.load(k + i));
          cosine.store(size + i, sides.triple.cosine);
          distance.store(size + i, sides.triple.distance);
          weight.store(size + i, sides.triple.weight);
          if (with_jk_) square_jk_.store(size + i, sides.square_jk);
          i += kLanes;
        } while (i < n);
        rows_[n_rows_++] = {static_cast<int32_t>(j), static_cast<int32_t>(k),
                            static_cast<int32_t>(n)};
        size += n;
        k += n;
        if (size < capacity) break;
        close_segment(p, q, block, begin, first_row);
        close(formula, flush);
        begin = first_row = 0;
        if (k == end) break;
      }
    }
    close_segment(p, q, block, begin, first_row);
  }

  PYMLP_INLINE void apply_cutoff_jk(const Formula& formula, int64_t t) const {
    const ValueSlope<N> fc = formula.cutoff_jk(square_jk_.load(t));
    const N own = weight.load(t);
    weight.store(t, own * fc.value);
    if (with_slopes_) {
      cutoff_jk_.store(t, fc.value);
      weight_slope_jk_.store(t, own * fc.slope);
    }
  }

  template <class Flush>
  void close(const Formula& formula, const Flush& flush) {
    // Lanes past the last triple have weight 0, hence no part in any sum.
    const N zero{T(0)};
    for (int64_t t = size; t < rounded_up(size, kUnit); t += kLanes) {
      cosine.store(t, zero);
      distance.store(t, zero);
      weight.store(t, zero);
      if (with_jk_) square_jk_.store(t, N(T(1)));
    }
    if (with_jk_) {
      for (int64_t t = 0; t < size; t += kLanes) apply_cutoff_jk(formula, t);
    }
    flush();
    clear();
  }
};

}  // namespace pymlp::inline PYMLP_SIMD
