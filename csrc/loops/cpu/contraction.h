// D = T T_2^T with T = G^T R (eq 11), one centre after the other. Lanes run over the embedding
// functions (the columns of G), neighbours are summed up in registers; a thread owns a range of
// centres with all their pairs, so that nobody else writes what it writes.
//
// G comes from a source: memory (`Stored` here, also as Dual numbers: that is the double backward)
// or a table (table.h), in which case it is never written anywhere.
#pragma once

#include <algorithm>
#include <type_traits>

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

// The sums over the lanes of four registers.
template <class T>
PYMLP_INLINE void four_sums(const Lanes<T> (&x)[4], T* to) {
  constexpr int count = Lanes<T>::count;
  if constexpr (count < 4) {
    for (int k = 0; k < 4; ++k) to[k] = sum_of_lanes(x[k]);
  } else {
    Lanes<T> group[count];
    T sums[count];
    for (int k = 0; k < count; ++k) group[k] = k < 4 ? x[k] : Lanes<T>(T(0));
    sums_of_lanes(group).store(sums);
    for (int k = 0; k < 4; ++k) to[k] = sums[k];
  }
}

template <class N>
struct FunctionSlope {
  N function, slope;
};

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
    const int64_t end = offsets_[center + 1];
    int64_t p = offsets_[center];
    bool first = true;
    do {
      typename Source::Row rows[kRows];
      const int n = static_cast<int>(std::min<int64_t>(kRows, end - p));
      for (int i = 0; i < n; ++i) rows[i] = source_.row(p + i);
      int64_t f = 0;
      for (; f + 2 * kLanes <= padded_; f += 2 * kLanes) sum_up_block<2>(rows, n, f, first);
      for (; f < padded_; f += kLanes) sum_up_block<1>(rows, n, f, first);
      first = false;
      p += n;
    } while (p < end);
  }

  // D [M, M2] of the moments.
  void contract(T* features) const {
    int64_t b = 0;
    if (n_axis_ % kLanes == 0) {
      for (; b + 2 * kLanes <= n_axis_; b += 2 * kLanes) contract_whole<2>(features, b);
      for (; b < n_axis_; b += kLanes) contract_whole<1>(features, b);
      return;
    }
    const int64_t size = n_functions_ * n_axis_;
    for (int64_t a = 0; a < n_functions_; ++a) {
      N left[4];
      for (int k = 0; k < 4; ++k) left[k] = moments_[k].broadcast(a);
      for (b = 0; b < n_axis_; b += kLanes) {
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
    take_transposed(grad_features);
    int64_t f = 0;
    for (; f + 2 * kLanes <= padded_; f += 2 * kLanes) pull_back_left<2>(f);
    for (; f < padded_; f += kLanes) pull_back_left<1>(f);
    for (int64_t b = 0; b < n_axis_; ++b) {
      N sum[4] = {N(T(0)), N(T(0)), N(T(0)), N(T(0))};
      for (f = 0; f < padded_; f += kLanes) {
        const auto g = Lanes<T>::load(grad_ + b * padded_ + f);
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) sum[k] = sum[k] + moments_[k].load(f) * g;
      }
      add_sums(sum, grad_moments_, b);
    }
  }

  // Gradients of the rows of G and R of one pair.
  void spread(int64_t p, T* grad_functions, T* grad_numbers) const {
    const auto row = source_.row(p);
    N number[4];
    Lanes<T> grad[4];
    for (int k = 0; k < 4; ++k) {
      number[k] = row.number(k);
      grad[k] = Lanes<T>(T(0));
    }
    for (int64_t f = 0; f < padded_; f += kLanes) {
      const N function = row.function(f);
      N sum{T(0)};
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        const N g = grad_moments_[k].load(f);
        sum = sum + g * number[k];
        grad[k] = grad[k] + reported(g * function);
      }
      store_first(reported(sum), grad_functions + f, n_functions_ - f);
    }
    four_sums(grad, grad_numbers);
  }

  // The gradient of a row of R where G is a function of its first number.
  void spread_along(int64_t p, T* grad_numbers) const {
    const auto row = source_.row(p);
    N number[4];
    Lanes<T> grad[4];
    for (int k = 0; k < 4; ++k) {
      number[k] = row.number(k);
      grad[k] = Lanes<T>(T(0));
    }
    for (int64_t f = 0; f < padded_; f += kLanes) {
      const auto [function, slope] = row.function_and_slope(f);
      N sum{T(0)};
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        const N g = grad_moments_[k].load(f);
        sum = sum + g * number[k];
        grad[k] = grad[k] + reported(g * function);
      }
      grad[0] = grad[0] + reported(sum * slope);
    }
    four_sums(grad, grad_numbers);
  }

  // The gradient of a row of G, and of its tangents, whole registers; that of R where wanted.
  void spread_rows(int64_t p, T* grad_functions, T* grad_tangents, T* grad_numbers) const {
    const auto row = source_.row(p);
    N number[4];
    Lanes<T> grad[4];
    for (int k = 0; k < 4; ++k) {
      number[k] = row.number(k);
      grad[k] = Lanes<T>(T(0));
    }
    for (int64_t f = 0; f < padded_; f += kLanes) {
      N sum{T(0)};
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) sum = sum + grad_moments_[k].load(f) * number[k];
      reported(sum).store(grad_functions + f);
      if constexpr (!std::is_same_v<N, Lanes<T>>) sum.value.store(grad_tangents + f);
    }
    if (grad_numbers == nullptr) return;
    for (int64_t f = 0; f < padded_; f += kLanes) {
      const N function = row.function(f);
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        grad[k] = grad[k] + reported(grad_moments_[k].load(f) * function);
      }
    }
    four_sums(grad, grad_numbers);
  }

  const Column<N> (&grad_moments() const)[4] { return grad_moments_; }

 private:
  static constexpr int kRows = 32;  // of a centre's pairs, looked up at a time

  template <int blocks>
  PYMLP_INLINE void sum_up_block(const typename Source::Row* rows, int n, int64_t f, bool first) {
    N sum[blocks][4];
    for (int i = 0; i < blocks; ++i) {
      for (int k = 0; k < 4; ++k) {
        sum[i][k] = first ? N(T(0)) : moments_[k].load(f + i * kLanes);
      }
    }
    for (int r = 0; r < n; ++r) {
#pragma GCC unroll 2
      for (int i = 0; i < blocks; ++i) {
        const N function = rows[r].function(f + i * kLanes);
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) sum[i][k] = sum[i][k] + function * rows[r].number(k);
      }
    }
    for (int i = 0; i < blocks; ++i) {
      for (int k = 0; k < 4; ++k) moments_[k].store(f + i * kLanes, sum[i][k]);
    }
  }

  // Columns b ... of D, where rows of D are whole registers.
  template <int blocks>
  PYMLP_INLINE void contract_whole(T* features, int64_t b) const {
    N right[blocks][4];
    for (int i = 0; i < blocks; ++i) {
      for (int k = 0; k < 4; ++k) right[i][k] = moments_[k].load(b + i * kLanes);
    }
    for (int64_t a = 0; a < n_functions_; ++a) {
      N left[4];
      for (int k = 0; k < 4; ++k) left[k] = moments_[k].broadcast(a);
#pragma GCC unroll 2
      for (int i = 0; i < blocks; ++i) {
        N sum = left[0] * right[i][0];
#pragma GCC unroll 4
        for (int k = 1; k < 4; ++k) sum = sum + left[k] * right[i][k];
        reported(sum).store(features + a * n_axis_ + b + i * kLanes);
      }
    }
  }

  // [M2][M] of the gradient of D [M, M2], zero past M.
  void take_transposed(const T* grad_features) {
    int64_t whole = 0;
    if (n_axis_ % kLanes == 0) {
      for (; whole + kLanes <= n_functions_; whole += kLanes) {
        for (int64_t b = 0; b < n_axis_; b += kLanes) {
          Lanes<T> tile[kLanes];
#pragma GCC unroll 16
          for (int i = 0; i < kLanes; ++i) {
            tile[i] = Lanes<T>::load(grad_features + (whole + i) * n_axis_ + b);
          }
          transpose(tile);
#pragma GCC unroll 16
          for (int i = 0; i < kLanes; ++i) tile[i].store(grad_ + (b + i) * padded_ + whole);
        }
      }
    }
    for (int64_t b = 0; b < n_axis_; ++b) {
      T* row = grad_ + b * padded_;
      for (int64_t a = whole; a < n_functions_; ++a) row[a] = grad_features[a * n_axis_ + b];
      std::fill(row + n_functions_, row + padded_, T(0));
    }
  }

  // The gradient of T as the left factor.
  template <int blocks>
  PYMLP_INLINE void pull_back_left(int64_t f) {
    N sum[blocks][4];
    for (auto& block : sum) {
      for (N& x : block) x = N(T(0));
    }
    for (int64_t b = 0; b < n_axis_; ++b) {
      N right[4];
      for (int k = 0; k < 4; ++k) right[k] = moments_[k].broadcast(b);
#pragma GCC unroll 2
      for (int i = 0; i < blocks; ++i) {
        const auto g = Lanes<T>::load(grad_ + b * padded_ + f + i * kLanes);
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) sum[i][k] = sum[i][k] + right[k] * g;
      }
    }
    for (int i = 0; i < blocks; ++i) {
      for (int k = 0; k < 4; ++k) grad_moments_[k].store(f + i * kLanes, sum[i][k]);
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

}  // namespace pymlp::inline PYMLP_SIMD
