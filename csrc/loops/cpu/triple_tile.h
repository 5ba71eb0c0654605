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

  // The triples [begin, end) of the tile belong to the channels p and q; their features begin at
  // `features`.
  struct Segment {
    int64_t features;
    int32_t p, q, begin, end, first_piece, last_piece;
  };

  Column<N> cosine, distance, weight;                 // see Triple<N>
  Column<N> grad_cosine, grad_distance, grad_weight;  // their adjoints
  int64_t size = 0;                                   // triples
  int64_t capacity = 0;

  void place(Arena& arena, const Formula& formula, int64_t n_channels, int64_t max_pairs,
             int64_t wanted_capacity, bool forward) {
    capacity = wanted_capacity;
    with_slopes_ = !forward;
    const int64_t n_jk = formula.with_cutoff_jk() ? capacity : 0;
    cosine.place(arena, capacity);
    distance.place(arena, capacity);
    weight.place(arena, capacity);
    square_jk_.place(arena, n_jk);
    runs_ = arena.take<Run>(n_channels + 1);
    pieces_ = arena.take<Piece>(capacity);
    segments_ = arena.take<Segment>(capacity + 1);
    if (forward) return;
    grad_cosine.place(arena, capacity);
    grad_distance.place(arena, capacity);
    grad_weight.place(arena, capacity);
    cutoff_jk_.place(arena, n_jk);
    weight_slope_jk_.place(arena, n_jk);
    grad_rows_.place(arena, max_pairs);
  }

  const Segment* begin() const { return segments_; }
  const Segment* end() const { return segments_ + n_segments_; }

  // Calls flush whenever the tile is full, and at the end. The features of a centre lie `stride`
  // behind those of the one before, those of a pair of channels `block` behind those before.
  template <class Flush>
  void for_each(const Formula& formula, const Staging<N>& s, int64_t n_channels, int64_t stride,
                int64_t block, const Flush& flush) {
    clear();
    for (int64_t i = 0; i < s.n_centers; ++i) {
      int32_t n_runs = 0, n = 0;
      for (int64_t c = 0; c < n_channels; ++c) {
        const int64_t at = i * n_channels + c;
        runs_[n_runs] = {static_cast<int32_t>(c), static_cast<int32_t>(s.first(at)),
                         static_cast<int32_t>(s.middle(at))};
        n += runs_[n_runs].count();
        n_runs += runs_[n_runs].count() > 0;
      }
      // Where a centre is cut must not depend on those before it: the same bits in every company.
      if (size > 0 && size + int64_t{n} * (n - 1) / 2 + kLanes > capacity) close(formula, flush);
      for (int32_t a = 0; a < n_runs; ++a) {
        const int64_t p = runs_[a].channel;
        const int64_t row = i * stride + (p * n_channels - p * (p - 1) / 2 - p) * block;
        add_block<true>(formula, s, runs_[a], runs_[a], row + p * block, flush);
        for (int32_t b = a + 1; b < n_runs; ++b) {
          // A triple is symmetric in j and k: few long rows fill more lanes than many short ones.
          const bool swapped = runs_[a].count() > runs_[b].count();
          add_block<false>(formula, s, runs_[swapped ? b : a], runs_[swapped ? a : b],
                           row + runs_[b].channel * block, flush);
        }
      }
    }
    if (size > 0) close(formula, flush);
  }

  // From the adjoints of a segment's triples to those of their neighbours: of k in the columns
  // `grad`, of j in one row each. finish_scatter() adds the rows to the columns.
  void begin_scatter(const Staging<N>& s) const { grad_rows_.clear(0, s.count); }
  void finish_scatter(const Staging<N>& s, const NeighborColumns<N>& grad) const {
    grad_rows_.add_to(grad, 0, s.count);
  }
  void scatter(const Formula& formula, const Staging<N>& s, const NeighborColumns<N>& grad) const {
    scatter_pieces(formula, s, 0, n_pieces_, 0, grad);
  }
  // One segment from begin to finish.
  void scatter(const Formula& formula, const Staging<N>& s, const Segment& segment,
               const NeighborColumns<N>& grad) const {
    int32_t first = pieces_[segment.first_piece].j, last = first;
    for (int32_t i = segment.first_piece; i < segment.last_piece; ++i) {
      first = std::min(first, pieces_[i].j);
      last = std::max(last, pieces_[i].last);
    }
    grad_rows_.clear(first, last);
    scatter_pieces(formula, s, segment.first_piece, segment.last_piece, segment.begin, grad);
    grad_rows_.add_to(grad, first, last);
  }

 private:
  // Neighbours of one channel inside the angular cutoff.
  struct Run {
    int32_t channel, first, last;

    PYMLP_INLINE int32_t count() const { return last - first; }
  };

  // The rows j ... last - 1 of a register of neighbours k, k + 1, ... Of two channels all rows are
  // `width` long, of one (width 0) they end before j.
  struct Piece {
    int32_t j, last, k, width;

    template <bool one_channel>
    PYMLP_INLINE int32_t count(int32_t row) const {
      return one_channel ? std::min(row - k, kLanes) : width;
    }
    PYMLP_INLINE int32_t size() const {
      return width > 0 ? (last - j) * width : before(last - k) - before(j - k);
    }
    // Triples of the rows before the n-th one of a channel with itself.
    static PYMLP_INLINE int32_t before(int32_t n) {
      const int32_t short_rows = std::min(n, kLanes);
      return short_rows * (short_rows - 1) / 2 + (n - short_rows) * kLanes;
    }
  };

  // R_jk^2, f_c(R_jk), and the weight without the latter times its slope.
  Column<N> square_jk_, cutoff_jk_, weight_slope_jk_;
  NeighborRows<N> grad_rows_;
  bool with_slopes_ = false;
  Run* runs_ = nullptr;
  Piece* pieces_ = nullptr;
  Segment* segments_ = nullptr;
  int32_t n_pieces_ = 0, n_segments_ = 0;

  void clear() {
    size = 0;
    n_pieces_ = n_segments_ = 0;
  }

  void open_segment(int32_t p, int32_t q, int64_t features) {
    segments_[n_segments_] = {features, p, q, static_cast<int32_t>(size), 0, n_pieces_, 0};
  }
  void close_segment() {
    Segment& segment = segments_[n_segments_];
    segment.end = static_cast<int32_t>(size);
    segment.last_piece = n_pieces_;
    n_segments_ += segment.begin < segment.end;
  }

  // Out of line: inlined, its variables would not fit into the registers.
  template <bool one_channel, class Flush>
  [[gnu::noinline]] void add_block(const Formula& formula, const Staging<N>& s, const Run& rows,
                                   const Run& columns, int64_t features, const Flush& flush) {
    open_segment(rows.channel, columns.channel, features);
    for (int32_t k = columns.first; k < columns.last; k += kLanes) {
      for (int32_t j = one_channel ? k + 1 : rows.first; j < rows.last;) {
        Piece piece{j, rows.last, k, one_channel ? 0 : std::min(columns.last - k, kLanes)};
        if (size + piece.size() + kLanes > capacity) {
          const auto room = static_cast<int32_t>(static_cast<uint32_t>(capacity - size) / kLanes);
          if (room == 0) {
            close_segment();
            close(formula, flush);
            open_segment(rows.channel, columns.channel, features);
            continue;
          }
          piece.last = std::min(rows.last, j + room);
        }
        pieces_[n_pieces_++] = piece;
        add_piece<one_channel>(formula, s, piece);
        j = piece.last;
      }
    }
    close_segment();
  }

  template <bool one_channel>
  PYMLP_INLINE void add_piece(const Formula& formula, const Staging<N>& s, Piece piece) {
    const NeighborColumns<N> neighbors = s.neighbors;
    const Column<N> cosines = cosine, distances = distance, weights = weight;
    const Neighbor<N> k = neighbors.load(piece.k);
    int64_t t = size;
    for (int32_t j = piece.j; j < piece.last; ++j) {
      const TripleSides<N> sides = formula.sides(neighbors.broadcast(j), k);
      cosines.store(t, sides.triple.cosine);
      distances.store(t, sides.triple.distance);
      weights.store(t, sides.triple.weight);
      if (formula.with_cutoff_jk()) square_jk_.store(t, sides.square_jk);
      t += piece.template count<one_channel>(j);
    }
    size = t;
  }

  [[gnu::noinline]] void scatter_pieces(const Formula& formula, const Staging<N>& s, int32_t first,
                                        int32_t last, int64_t t,
                                        const NeighborColumns<N>& grad) const {
    for (const Piece* piece = pieces_ + first; piece < pieces_ + last; ++piece) {
      t = piece->width == 0 ? scatter_piece<true>(formula, s, *piece, t, grad)
                            : scatter_piece<false>(formula, s, *piece, t, grad);
    }
  }

  // Returns where the next piece begins.
  template <bool one_channel>
  PYMLP_INLINE int64_t scatter_piece(const Formula& formula, const Staging<N>& s, Piece piece,
                                     int64_t t, const NeighborColumns<N>& grad) const {
    const N zero{T(0)};
    const NeighborColumns<N> neighbors = s.neighbors;
    const Column<N> cosines = grad_cosine, distances = grad_distance, weights = grad_weight;
    const Neighbor<N> k = neighbors.load(piece.k);
    Neighbor<N> g_k{{zero, zero, zero}, zero, zero};
    for (int32_t j = piece.j; j < piece.last; ++j) {
      const int32_t count = piece.template count<one_channel>(j);
      TripleSides<N> g{{cosines.load(t), distances.load(t), weights.load(t)}, zero};
      if (formula.with_cutoff_jk()) {
        g = cutoff_adjoint({cutoff_jk_.load(t), weight_slope_jk_.load(t)}, g.triple);
      }
      // Past the row is another one, or memory that was never written.
      const auto mine = first_lanes<T>(count);
      g.triple.cosine = select(mine, g.triple.cosine, zero);
      g.triple.distance = select(mine, g.triple.distance, zero);
      g.triple.weight = select(mine, g.triple.weight, zero);
      g.square_jk = select(mine, g.square_jk, zero);
      const NeighborPair<N> both = formula.sides_adjoint(neighbors.broadcast(j), k, g);
      g_k = g_k + both.k;
      grad_rows_.add_sums(j, both.j);
      t += count;
    }
    grad.store(piece.k, grad.load(piece.k) + g_k);
    return t;
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
      if (formula.with_cutoff_jk()) square_jk_.store(t, N(T(1)));
    }
    if (formula.with_cutoff_jk()) {
      for (int64_t t = 0; t < size; t += kLanes) apply_cutoff_jk(formula, t);
    }
    flush();
    clear();
  }
};

}  // namespace pymlp::inline PYMLP_SIMD
