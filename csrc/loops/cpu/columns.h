// Scratch memory of one thread: a bump allocator, and columns of numbers in it. A column of Dual
// numbers is two arrays, value and slope, so that both load as SIMD registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "../../numbers/dual.h"
#include "../../numbers/lanes.h"

namespace pymlp::inline PYMLP_SIMD {

constexpr int64_t kAlignment = 64;

constexpr int64_t rounded_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// With a null base it only counts: the same code that lays out the scratch memory tells its size.
class Arena {
 public:
  explicit Arena(std::byte* base) : base_(base) {}

  template <class T>
  T* take(int64_t n) {
    const int64_t at = used_;
    used_ += rounded_up(n * static_cast<int64_t>(sizeof(T)), kAlignment);
    return base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + at);
  }
  int64_t used() const { return used_; }

 private:
  std::byte* base_;
  int64_t used_ = 0;
};

template <class N>
struct Column;

template <class T>
struct Column<Lanes<T>> {
  T* value = nullptr;

  // Room past the end: the last register of a run may be loaded and stored whole.
  void place(Arena& arena, int64_t n) { value = arena.take<T>(n + 2 * Lanes<T>::count); }
  Column from(int64_t i) const { return {value + i}; }
  PYMLP_INLINE Lanes<T> load(int64_t i) const { return Lanes<T>::load(value + i); }
  PYMLP_INLINE Lanes<T> broadcast(int64_t i) const { return value[i]; }
  PYMLP_INLINE void store(int64_t i, Lanes<T> x) const { x.store(value + i); }
  PYMLP_INLINE void add_sum(int64_t i, Lanes<T> x) const { value[i] += sum_of_lanes(x); }
};

template <class T>
struct Column<Dual<Lanes<T>>> {
  using N = Dual<Lanes<T>>;
  Column<Lanes<T>> value, slope;

  void place(Arena& arena, int64_t n) {
    value.place(arena, n);
    slope.place(arena, n);
  }
  Column from(int64_t i) const { return {value.from(i), slope.from(i)}; }
  PYMLP_INLINE N load(int64_t i) const { return {value.load(i), slope.load(i)}; }
  PYMLP_INLINE N broadcast(int64_t i) const { return {value.broadcast(i), slope.broadcast(i)}; }
  PYMLP_INLINE void store(int64_t i, N x) const {
    value.store(i, x.value);
    slope.store(i, x.slope);
  }
  PYMLP_INLINE void add_sum(int64_t i, N x) const {
    value.add_sum(i, x.value);
    slope.add_sum(i, x.slope);
  }
};

// The column of the numbers without their slopes.
template <class T>
Column<Lanes<T>> value_of(const Column<Lanes<T>>& x) {
  return x;
}
template <class T>
Column<Lanes<T>> value_of(const Column<Dual<Lanes<T>>>& x) {
  return x.value;
}

// What a pass reports of a number: the number itself, or of a Dual its slope.
template <class T>
PYMLP_INLINE Lanes<T> reported(Lanes<T> x) {
  return x;
}
template <class T>
PYMLP_INLINE Lanes<T> reported(Dual<Lanes<T>> x) {
  return x.slope;
}

// Store the first n lanes.
template <class T>
PYMLP_INLINE void store_first(Lanes<T> x, T* to, int64_t n) {
  if (n >= Lanes<T>::count) {
    x.store(to);
  } else {
    T buffer[Lanes<T>::count];
    x.store(buffer);
    for (int64_t i = 0; i < n; ++i) to[i] = buffer[i];
  }
}

// Add the first n lanes.
template <class T>
PYMLP_INLINE void add_first(Lanes<T> x, T* to, int64_t n) {
  if (n >= Lanes<T>::count) {
    (Lanes<T>::load(to) + x).store(to);
  } else {
    T buffer[Lanes<T>::count];
    x.store(buffer);
    for (int64_t i = 0; i < n; ++i) to[i] += buffer[i];
  }
}

// One round of the tree below: lanes l of `a` and `b` with bit `width` of l unset and set.
template <int width, class T, size_t... lane>
PYMLP_INLINE Lanes<T> fold_lanes(Lanes<T> a, Lanes<T> b, std::index_sequence<lane...>) {
  constexpr int count = Lanes<T>::count;
  return Lanes<T>(__builtin_shufflevector(
             a.v, b.v, (lane & width ? count + int(lane & ~size_t(width)) : int(lane))...)) +
         Lanes<T>(__builtin_shufflevector(
             a.v, b.v, (lane & width ? count + int(lane) : int(lane) + width)...));
}

// Lane i of the result is the sum over the lanes of x[i], for a register's worth of registers: a
// transposing tree, 7 additions for 8 sums where separate sums take 24. After each round x[i] holds
// in lane l a partial sum of input i + (l mod 2 width).
template <int width = 1, class T, int count = Lanes<T>::count>
PYMLP_INLINE Lanes<T> sums_of_lanes(Lanes<T> (&x)[count]) {
  if constexpr (width < count) {
#pragma GCC unroll 16
    for (int i = 0; i < count; i += 2 * width) {
      x[i] = fold_lanes<width>(x[i], x[i + width], std::make_index_sequence<count>());
    }
    return sums_of_lanes<2 * width>(x);
  } else {
    return x[0];
  }
}

template <class T, int count = Lanes<T>::count>
PYMLP_INLINE Dual<Lanes<T>> sums_of_lanes(Dual<Lanes<T>> (&x)[count]) {
  Lanes<T> values[count], slopes[count];
  for (int i = 0; i < count; ++i) {
    values[i] = x[i].value;
    slopes[i] = x[i].slope;
  }
  return {sums_of_lanes(values), sums_of_lanes(slopes)};
}

// to[k][at] += sum over the lanes of x[k].
template <class T, size_t n>
PYMLP_INLINE void add_sums(const Lanes<T> (&x)[n], const Column<Lanes<T>> (&to)[n], int64_t at) {
  constexpr size_t count = Lanes<T>::count;
#pragma GCC unroll 4
  for (size_t k = 0; k < n; k += count) {
    Lanes<T> group[count];
    T sums[count];
    for (size_t i = 0; i < count; ++i) group[i] = k + i < n ? x[k + i] : Lanes<T>(T(0));
    sums_of_lanes(group).store(sums);
    for (size_t i = 0; i < count && k + i < n; ++i) to[k + i].value[at] += sums[i];
  }
}

template <class T, size_t n>
PYMLP_INLINE void add_sums(const Dual<Lanes<T>> (&x)[n], const Column<Dual<Lanes<T>>> (&to)[n],
                           int64_t at) {
  Lanes<T> values[n], slopes[n];
  Column<Lanes<T>> to_values[n], to_slopes[n];
  for (size_t k = 0; k < n; ++k) {
    values[k] = x[k].value;
    slopes[k] = x[k].slope;
    to_values[k] = to[k].value;
    to_slopes[k] = to[k].slope;
  }
  add_sums(values, to_values, at);
  add_sums(slopes, to_slopes, at);
}

// One round of the transposition below: blocks of `width` lanes change places.
template <int width, class T, size_t... lane>
PYMLP_INLINE void swap_blocks(Lanes<T>& a, Lanes<T>& b, std::index_sequence<lane...>) {
  constexpr int count = Lanes<T>::count;
  const auto x = a.v, y = b.v;
  a = __builtin_shufflevector(x, y,
                              (lane & width ? count + int(lane & ~size_t(width)) : int(lane))...);
  b = __builtin_shufflevector(x, y, (lane & width ? count + int(lane) : int(lane) + width)...);
}

// A register's worth of registers, transposed: lane i of x[j] and lane j of x[i] change places.
template <int width = 1, class T, int count = Lanes<T>::count>
PYMLP_INLINE void transpose(Lanes<T> (&x)[count]) {
  if constexpr (width < count) {
#pragma GCC unroll 16
    for (int i = 0; i < count; ++i) {
      if ((i & width) == 0) {
        swap_blocks<width>(x[i], x[i + width], std::make_index_sequence<count>());
      }
    }
    transpose<2 * width>(x);
  }
}

template <class T, int count = Lanes<T>::count>
PYMLP_INLINE void transpose(Dual<Lanes<T>> (&x)[count]) {
  Lanes<T> values[count], slopes[count];
  for (int i = 0; i < count; ++i) {
    values[i] = x[i].value;
    slopes[i] = x[i].slope;
  }
  transpose(values);
  transpose(slopes);
  for (int i = 0; i < count; ++i) x[i] = {values[i], slopes[i]};
}

}  // namespace pymlp::inline PYMLP_SIMD
