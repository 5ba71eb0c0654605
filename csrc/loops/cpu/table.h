// The contraction of contraction.h with G from a table, never stored; its double backward, on Dual
// numbers; and the gradient of the table itself. That last one runs over the rows of the table,
// not over centres: all pairs of one row are added up in registers by the thread that owns the
// row, lanes over functions, so that the sum is the same on any number of threads.
#pragma once

#include "contraction.h"

namespace pymlp::inline PYMLP_SIMD {

// Value, first, and half of the second derivative of a polynomial of degree five, by t.
template <class N>
struct PolynomialJet {
  N value, slope, half_bend;
};

template <bool with_bend, class T>
PYMLP_INLINE PolynomialJet<Lanes<T>> polynomial_jet(const T* c, int64_t stride, T t) {
  using N = Lanes<T>;
  const auto coefficient = [&](int k) { return N::load(c + k * stride); };
  N value = coefficient(5), slope = value, bend{T(0)};
  value = value * t + coefficient(4);
  if constexpr (with_bend) bend = slope;
  slope = slope * t + value;
  value = value * t + coefficient(3);
#pragma GCC unroll 3
  for (int k = 2; k >= 0; --k) {
    if constexpr (with_bend) bend = bend * t + slope;
    slope = slope * t + value;
    value = value * t + coefficient(k);
  }
  return {value, slope, bend};
}

// Rows of R from memory, functions from the table of the pair's kind.
template <class T>
struct Tabulated {
  using N = Lanes<T>;
  const TablePass<T>& pass;

  struct Row {
    const T *coefficients, *environment;
    int64_t stride;
    T t, inverse_width;
    PYMLP_INLINE N function(int64_t f) const {
      N sum = N::load(coefficients + (kTableTerms - 1) * stride + f);
#pragma GCC unroll 8
      for (int k = kTableTerms - 2; k >= 0; --k) {
        sum = sum * t + N::load(coefficients + k * stride + f);
      }
      return sum;
    }
    PYMLP_INLINE FunctionSlope<N> function_and_slope(int64_t f) const {
      const auto jet = polynomial_jet<false>(coefficients + f, stride, t);
      return {jet.value, jet.slope * inverse_width};
    }
    PYMLP_INLINE N number(int k) const { return environment[k]; }
  };
  PYMLP_INLINE Row row(int64_t p) const {
    const T* environment = pass.environment + 4 * p;
    const auto [interval, t] = place_in_table(pass, environment[0]);
    const int64_t at = pass.pair_kinds[p] * pass.n_intervals + interval;
    return {pass.table + at * kTableTerms * pass.stride, environment, pass.stride, t,
            T(1 / pass.width)};
  }
};

// The same along the tangents of R.
template <class T>
struct TabulatedDual {
  using L = Lanes<T>;
  using N = Dual<L>;
  const TablePass<T>& pass;

  struct Row {
    typename Tabulated<T>::Row value;
    const T* tangents;
    PYMLP_INLINE N function(int64_t f) const {
      const auto jet = polynomial_jet<false>(value.coefficients + f, value.stride, value.t);
      return {jet.value, jet.slope * (value.inverse_width * tangents[0])};
    }
    PYMLP_INLINE FunctionSlope<N> function_and_slope(int64_t f) const {
      const auto jet = polynomial_jet<true>(value.coefficients + f, value.stride, value.t);
      const L slope = jet.slope * value.inverse_width;
      const T along = tangents[0];
      return {{jet.value, slope * along},
              {slope, jet.half_bend * (T(2) * value.inverse_width * value.inverse_width * along)}};
    }
    PYMLP_INLINE N number(int k) const { return {value.number(k), L(tangents[k])}; }
  };
  PYMLP_INLINE Row row(int64_t p) const {
    return {Tabulated<T>{pass}.row(p), pass.environment_tangents + 4 * p};
  }
};

template <class T>
PYMLP_INLINE void store_column(const Column<Lanes<T>>& column, int64_t n, int64_t stride, T* to) {
  std::copy(column.value, column.value + n, to);
  std::fill(to + n, to + stride, T(0));
}

// Centres [begin, end). With null scratch only its size is returned, in bytes. What has no place in
// the pass is not computed.
template <class T>
int64_t table_of_centers(const TablePass<T>& pass, Pass kind, int64_t begin, int64_t end,
                         std::byte* scratch) {
  Arena arena(scratch);
  const int64_t size = pass.n_functions * pass.n_axis;
  const int64_t padded = rounded_up(pass.n_functions, Lanes<T>::count);
  const auto run = [&]<class Source>(Source source, bool with_gradients) -> int64_t {
    Contraction sum(source, pass.pair_offsets, pass.n_functions, pass.n_axis, with_gradients,
                    arena);
    if (scratch == nullptr) return arena.used();
    for (int64_t i = begin; i < end; ++i) {
      sum.sum_up(i);
      if (pass.features != nullptr) sum.contract(pass.features + i * size);
      if (!with_gradients) continue;
      sum.pull_back(pass.grad_features + i * size);
      if (pass.grad_environment != nullptr) {
        for (int64_t p = pass.pair_offsets[i]; p < pass.pair_offsets[i + 1]; ++p) {
          sum.spread_along(p, pass.grad_environment + 4 * p);
        }
      }
      if (pass.grad_moments == nullptr) continue;
      constexpr bool dual = std::is_same_v<Source, TabulatedDual<T>>;
      T* to = pass.grad_moments + i * (dual ? 8 : 4) * pass.stride;
      for (int k = 0; k < 4; ++k) {
        const auto& column = sum.grad_moments()[k];
        if constexpr (dual) {
          store_column(column.value, padded, pass.stride, to + k * pass.stride);
          store_column(column.slope, padded, pass.stride, to + (4 + k) * pass.stride);
        } else {
          store_column(column, padded, pass.stride, to + k * pass.stride);
        }
      }
    }
    return arena.used();
  };
  if (kind == Pass::double_backward) return run(TabulatedDual<T>{pass}, true);
  return run(Tabulated<T>{pass}, kind == Pass::backward);
}

// What one pair adds to the gradient of its row of the table: to coefficient k of function f
//   t^k sum_j g_j[f] R_j,
// where g is the gradient of the moments of its centre; or, where there are tangents,
//   t^k sum_j (g'_j[f] R_j + g_j[f] R'_j) + k t^(k-1) t' sum_j g_j[f] R_j.
template <class T, bool dual>
struct RowTerm {
  const T* grad_moments;  // of the centre, [4][stride], with tangents [8][stride]
  T power[kTableTerms], slope[kTableTerms];
  T number[4], tangent[4];
};

template <class T, bool dual, int blocks>
PYMLP_INLINE void add_row_terms(const RowTerm<T, dual>* terms, int n, int64_t stride, int64_t f,
                                T* to) {
  using N = Lanes<T>;
  N sum[kTableTerms][blocks];
  for (int k = 0; k < kTableTerms; ++k) {
    for (int i = 0; i < blocks; ++i) sum[k][i] = N::load(to + k * stride + f + i * N::count);
  }
  for (int r = 0; r < n; ++r) {
    const auto& term = terms[r];
    N value[blocks], slope[blocks];
#pragma GCC unroll 2
    for (int i = 0; i < blocks; ++i) {
      const T* at = term.grad_moments + f + i * N::count;
      value[i] = N::load(at) * term.number[0];
      for (int j = 1; j < 4; ++j) value[i] = value[i] + N::load(at + j * stride) * term.number[j];
      if constexpr (dual) {
        slope[i] = N::load(at) * term.tangent[0];
        for (int j = 1; j < 4; ++j) {
          slope[i] = slope[i] + N::load(at + j * stride) * term.tangent[j];
        }
        for (int j = 0; j < 4; ++j) {
          slope[i] = slope[i] + N::load(at + (4 + j) * stride) * term.number[j];
        }
      }
    }
#pragma GCC unroll 8
    for (int k = 0; k < kTableTerms; ++k) {
#pragma GCC unroll 2
      for (int i = 0; i < blocks; ++i) {
        if constexpr (dual) {
          sum[k][i] = sum[k][i] + slope[i] * term.power[k];
          if (k > 0) sum[k][i] = sum[k][i] + value[i] * term.slope[k];
        } else {
          sum[k][i] = sum[k][i] + value[i] * term.power[k];
        }
      }
    }
  }
  for (int k = 0; k < kTableTerms; ++k) {
    for (int i = 0; i < blocks; ++i) sum[k][i].store(to + k * stride + f + i * N::count);
  }
}

template <class T, bool dual>
void gradient_of_rows(const TablePass<T>& pass, const TableRows& rows, int64_t begin, int64_t end) {
  constexpr int kTerms = 32;
  constexpr int kLanes = Lanes<T>::count;
  const T inverse_width = T(1 / pass.width);
  const int64_t stride = pass.stride;
  for (int64_t row = begin; row < end; ++row) {
    T* to = pass.grad_table + row * kTableTerms * stride;
    std::fill(to, to + kTableTerms * stride, T(0));
    for (int64_t at = rows.offsets[row]; at < rows.offsets[row + 1]; at += kTerms) {
      const int n = static_cast<int>(std::min<int64_t>(kTerms, rows.offsets[row + 1] - at));
      RowTerm<T, dual> terms[kTerms];
      for (int r = 0; r < n; ++r) {
        auto& term = terms[r];
        const int64_t p = rows.pairs[at + r];
        term.grad_moments = pass.grad_moments + rows.centers[at + r] * (dual ? 8 : 4) * stride;
        const T* numbers = pass.environment + 4 * p;
        const T t = place_in_table(pass, numbers[0]).t;
        term.power[0] = T(1);
        for (int k = 1; k < kTableTerms; ++k) term.power[k] = term.power[k - 1] * t;
        for (int k = 0; k < 4; ++k) term.number[k] = numbers[k];
        if constexpr (dual) {
          const T* tangents = pass.environment_tangents + 4 * p;
          for (int k = 0; k < 4; ++k) term.tangent[k] = tangents[k];
          const T along = tangents[0] * inverse_width;
          for (int k = 1; k < kTableTerms; ++k) term.slope[k] = T(k) * term.power[k - 1] * along;
        }
      }
      int64_t f = 0;
      for (; f + 2 * kLanes <= stride; f += 2 * kLanes) {
        add_row_terms<T, dual, 2>(terms, n, stride, f, to);
      }
      for (; f < stride; f += kLanes) add_row_terms<T, dual, 1>(terms, n, stride, f, to);
    }
  }
}

}  // namespace pymlp::inline PYMLP_SIMD
