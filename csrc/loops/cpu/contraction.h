// D = T T_2^T with T = G^T R (eq 11), one centre after the other. Lanes run over the embedding
// functions (the columns of G), neighbours are summed up in registers; a thread owns a range of
// centres with all their pairs, so that nobody else writes what it writes.
//
// G comes from memory (`Stored`, also as Dual numbers: that is the double backward) or from a table
// (`Tabulated`), in which case it is never written anywhere.
#pragma once

#include <algorithm>

#include "../deep_pot_se.h"
#include "columns.h"

namespace pymlp::inline PYMLP_SIMD {

// The first n lanes; zeros in the others.
template <class T>
PYMLP_INLINE Lanes<T> load_first(const T* from, int64_t n) {
  if (n >= Lanes<T>::count) return Lanes<T>::load(from);
  alignas(kAlignment) T buffer[Lanes<T>::count] = {};
  for (int64_t i = 0; i < n; ++i) buffer[i] = from[i];
  return Lanes<T>::load(buffer);
}

// Rows of G and R as they stand in memory.
template <class T>
struct Stored {
  using N = Lanes<T>;
  const ContractionPass<T>& pass;

  struct Row {
    const T *functions, *environment;
    int64_t count;
    PYMLP_INLINE N function(int64_t f) const { return load_first(functions + f, count - f); }
    PYMLP_INLINE N number(int k) const { return environment[k]; }
  };
  PYMLP_INLINE Row row(int64_t p) const {
    return {pass.embedding + pass.pair_rows[p] * pass.n_functions, pass.environment + 4 * p,
            pass.n_functions};
  }
};

// The same, with the tangents as slopes.
template <class T>
struct StoredDual {
  using N = Dual<Lanes<T>>;
  const ContractionPass<T>& pass;

  struct Row {
    typename Stored<T>::Row value, slope;
    PYMLP_INLINE N function(int64_t f) const { return {value.function(f), slope.function(f)}; }
    PYMLP_INLINE N number(int k) const { return {value.number(k), slope.number(k)}; }
  };
  PYMLP_INLINE Row row(int64_t p) const {
    return {Stored<T>{pass}.row(p),
            {pass.embedding_tangents + pass.pair_rows[p] * pass.n_functions,
             pass.environment_tangents + 4 * p, pass.n_functions}};
  }
};

// Rows of R from memory, functions from the table of the pair's kind.
template <class T>
struct Tabulated {
  using N = Lanes<T>;
  const TablePass<T>& pass;

  struct Row {
    const T *coefficients, *environment;
    int64_t stride;
    T t, inverse_width;
    PYMLP_INLINE N coefficient(int order, int64_t f) const {
      return N::load(coefficients + order * stride + f);
    }
    PYMLP_INLINE N function(int64_t f) const {
      N sum = coefficient(kTableTerms - 1, f);
#pragma GCC unroll 8
      for (int k = kTableTerms - 2; k >= 0; --k) sum = sum * t + coefficient(k, f);
      return sum;
    }
    PYMLP_INLINE N slope(int64_t f) const {
      N sum = coefficient(kTableTerms - 1, f) * T(kTableTerms - 1);
#pragma GCC unroll 8
      for (int k = kTableTerms - 2; k >= 1; --k) sum = sum * t + coefficient(k, f) * T(k);
      return sum * inverse_width;
    }
    PYMLP_INLINE N number(int k) const { return environment[k]; }
  };
  PYMLP_INLINE Row row(int64_t p) const {
    const T* environment = pass.environment + 4 * p;
    const T inverse_width = T(1 / pass.width);
    const T x = (environment[0] - T(pass.first)) * inverse_width;
    const T last = T(pass.n_intervals - 1);
    const auto interval = static_cast<int64_t>(x < T(0) ? T(0) : x < last ? x : last);
    const int64_t at = pass.pair_kinds[p] * pass.n_intervals + interval;
    return {pass.table + at * kTableTerms * pass.stride, environment, pass.stride, x - T(interval),
            inverse_width};
  }
};

// The moments T of a centre, what becomes of them, and where their gradient goes.
template <class Source>
class Contraction {
 public:
  using N = typename Source::N;
  using T = Scalar<N>;
  static constexpr int kLanes = Lanes<T>::count;

  Contraction(Source source, const int64_t* pair_offsets, int64_t n_functions, int64_t n_axis,
              bool with_gradients, Arena& arena)
      : source_(source), offsets_(pair_offsets), n_functions_(n_functions), n_axis_(n_axis) {
    padded_ = rounded_up(n_functions, kLanes);
    for (auto& column : moments_) column.place(arena, padded_);
    if (!with_gradients) return;
    for (auto& column : grad_moments_) column.place(arena, padded_);
    grad_ = arena.take<T>(n_axis * padded_);
  }

  // Fills the moments, [4][M], zero past M.
  void sum_up(int64_t center) {
    int64_t f = 0;
    for (; f + 2 * kLanes <= padded_; f += 2 * kLanes) sum_up_block<2>(center, f);
    for (; f < padded_; f += kLanes) sum_up_block<1>(center, f);
  }

  // D [M, M2] of the moments.
  void contract(T* features) const {
    const int64_t size = n_functions_ * n_axis_;
    for (int64_t a = 0; a < n_functions_; ++a) {
      N left[4];
      for (int k = 0; k < 4; ++k) left[k] = moments_[k].broadcast(a);
      for (int64_t b = 0; b < n_axis_; b += kLanes) {
        N sum = left[0] * moments_[0].load(b);
        for (int k = 1; k < 4; ++k) sum = sum + left[k] * moments_[k].load(b);
        const int64_t at = a * n_axis_ + b;
        // Whole registers: what stands past the row is written again by the next one.
        store_first(reported(sum), features + at,
                    at + kLanes <= size ? kLanes : std::min(n_axis_ - b, size - at));
      }
    }
  }

  // The gradient of the moments from that of D.
  void pull_back(const T* grad_features) {
    for (int64_t b = 0; b < n_axis_; ++b) {
      T* row = grad_ + b * padded_;
      for (int64_t a = 0; a < n_functions_; ++a) row[a] = grad_features[a * n_axis_ + b];
      std::fill(row + n_functions_, row + padded_, T(0));
    }
    for (int64_t f = 0; f < padded_; f += kLanes) {
      N sum[4] = {N(T(0)), N(T(0)), N(T(0)), N(T(0))};
      for (int64_t b = 0; b < n_axis_; ++b) {
        const auto g = Lanes<T>::load(grad_ + b * padded_ + f);
        for (int k = 0; k < 4; ++k) sum[k] = sum[k] + moments_[k].broadcast(b) * g;
      }
      for (int k = 0; k < 4; ++k) grad_moments_[k].store(f, sum[k]);
    }
    for (int64_t b = 0; b < n_axis_; ++b) {
      N sum[4] = {N(T(0)), N(T(0)), N(T(0)), N(T(0))};
      for (int64_t f = 0; f < padded_; f += kLanes) {
        const auto g = Lanes<T>::load(grad_ + b * padded_ + f);
        for (int k = 0; k < 4; ++k) sum[k] = sum[k] + moments_[k].load(f) * g;
      }
      for (int k = 0; k < 4; ++k) grad_moments_[k].add_sum(b, sum[k]);
    }
  }

  // Gradients of the rows of G and R of one pair.
  void spread(int64_t p, T* grad_functions, T* grad_numbers) const {
    const auto row = source_.row(p);
    N number[4], grad[4];
    for (int k = 0; k < 4; ++k) {
      number[k] = row.number(k);
      grad[k] = N(T(0));
    }
    for (int64_t f = 0; f < padded_; f += kLanes) {
      const N function = row.function(f);
      N sum{T(0)};
      for (int k = 0; k < 4; ++k) {
        const N g = grad_moments_[k].load(f);
        sum = sum + g * number[k];
        grad[k] = grad[k] + g * function;
      }
      store_first(reported(sum), grad_functions + f, n_functions_ - f);
    }
    for (int k = 0; k < 4; ++k) grad_numbers[k] = sum_of_lanes(reported(grad[k]));
  }

  // The gradient of a row of R where G is a function of its first number.
  void spread_along(int64_t p, T* grad_numbers) const {
    const auto row = source_.row(p);
    N number[4], grad[4], along{T(0)};
    for (int k = 0; k < 4; ++k) {
      number[k] = row.number(k);
      grad[k] = N(T(0));
    }
    for (int64_t f = 0; f < padded_; f += kLanes) {
      const N function = row.function(f), slope = row.slope(f);
      N sum{T(0)};
      for (int k = 0; k < 4; ++k) {
        const N g = grad_moments_[k].load(f);
        sum = sum + g * number[k];
        grad[k] = grad[k] + g * function;
      }
      along = along + sum * slope;
    }
    grad[0] = grad[0] + along;
    for (int k = 0; k < 4; ++k) grad_numbers[k] = sum_of_lanes(grad[k]);
  }

 private:
  template <int blocks>
  PYMLP_INLINE void sum_up_block(int64_t center, int64_t f) {
    N sum[blocks][4];
    for (auto& block : sum) {
      for (N& x : block) x = N(T(0));
    }
    for (int64_t p = offsets_[center]; p < offsets_[center + 1]; ++p) {
      const auto row = source_.row(p);
#pragma GCC unroll 2
      for (int i = 0; i < blocks; ++i) {
        const N function = row.function(f + i * kLanes);
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) sum[i][k] = sum[i][k] + function * row.number(k);
      }
    }
    for (int i = 0; i < blocks; ++i) {
      for (int k = 0; k < 4; ++k) moments_[k].store(f + i * kLanes, sum[i][k]);
    }
  }

  Source source_;
  const int64_t* offsets_;
  int64_t n_functions_, n_axis_, padded_;
  Column<N> moments_[4], grad_moments_[4];
  T* grad_ = nullptr;  // [M2, M] of the gradient of D, transposed
};

// Centres [begin, end). With null scratch only its size is returned, in bytes.
template <class T>
int64_t contraction_of_centers(const ContractionPass<T>& pass, Pass kind, int64_t begin,
                               int64_t end, std::byte* scratch) {
  Arena arena(scratch);
  const int64_t size = pass.n_functions * pass.n_axis;
  const auto run = [&](auto source, bool with_features, bool with_gradients) -> int64_t {
    Contraction sum(source, pass.pair_offsets, pass.n_functions, pass.n_axis, with_gradients,
                    arena);
    if (scratch == nullptr) return arena.used();
    for (int64_t i = begin; i < end; ++i) {
      sum.sum_up(i);
      if (with_features) sum.contract(pass.features + i * size);
      if (!with_gradients) continue;
      sum.pull_back(pass.grad_features + i * size);
      for (int64_t p = pass.pair_offsets[i]; p < pass.pair_offsets[i + 1]; ++p) {
        sum.spread(p, pass.grad_embedding + pass.pair_rows[p] * pass.n_functions,
                   pass.grad_environment + 4 * p);
      }
    }
    return arena.used();
  };
  if (kind == Pass::forward) return run(Stored<T>{pass}, true, false);
  if (kind == Pass::backward) return run(Stored<T>{pass}, false, true);
  return run(StoredDual<T>{pass}, true, true);
}

template <class T>
int64_t table_of_centers(const TablePass<T>& pass, Pass kind, int64_t begin, int64_t end,
                         std::byte* scratch) {
  Arena arena(scratch);
  const int64_t size = pass.n_functions * pass.n_axis;
  const bool backward = kind == Pass::backward;
  Contraction sum(Tabulated<T>{pass}, pass.pair_offsets, pass.n_functions, pass.n_axis, backward,
                  arena);
  if (scratch == nullptr) return arena.used();
  for (int64_t i = begin; i < end; ++i) {
    sum.sum_up(i);
    if (!backward) {
      sum.contract(pass.features + i * size);
      continue;
    }
    sum.pull_back(pass.grad_features + i * size);
    for (int64_t p = pass.pair_offsets[i]; p < pass.pair_offsets[i + 1]; ++p) {
      sum.spread_along(p, pass.grad_environment + 4 * p);
    }
  }
  return arena.used();
}

}  // namespace pymlp::inline PYMLP_SIMD
