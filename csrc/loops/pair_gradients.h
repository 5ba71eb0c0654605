// Between atoms and pairs: rows of three numbers, taken four at a time, the fourth without a
// meaning (46 310 pairs: differences 99 -> 59 us, forces 140 -> 90). A thread owns the atoms
// [begin, end): the pairs that begin there, or what is added to them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace pymlp {

// Pairs of A atoms: those of atom i are first[i] ... first[i + 1] - 1, pair p ends at other[p].
struct PairTopology {
  int64_t atoms, pairs;
  const int64_t* first;  // [A + 1]
  const int64_t* other;  // [P]
};

// Four numbers in registers of 16 bytes, which every machine has.
template <class T>
struct Row {
  typedef T Vector __attribute__((vector_size(16)));
  typedef T Unaligned __attribute__((vector_size(16), aligned(sizeof(T))));
  static constexpr int kParts = sizeof(T) / 4, kNumbers = 4 / kParts;

  Vector parts[kParts] = {};

  static Row load(const T* from) {
    Row row;
    for (int k = 0; k < kParts; ++k) {
      row.parts[k] = *reinterpret_cast<const Unaligned*>(from + k * kNumbers);
    }
    return row;
  }
  static Row load_three(const T* from) {
    const T four[4] = {from[0], from[1], from[2], T(0)};
    return load(four);
  }
  void store(T* to) const {
    for (int k = 0; k < kParts; ++k) *reinterpret_cast<Unaligned*>(to + k * kNumbers) = parts[k];
  }
  void store_three(T* to) const {
    T four[4];
    store(four);
    for (int x = 0; x < 3; ++x) to[x] = four[x];
  }
  friend Row operator+(Row a, const Row& b) {
    for (int k = 0; k < kParts; ++k) a.parts[k] += b.parts[k];
    return a;
  }
  friend Row operator-(Row a, const Row& b) {
    for (int k = 0; k < kParts; ++k) a.parts[k] -= b.parts[k];
    return a;
  }
  friend Row operator*(T factor, Row a) {
    for (int k = 0; k < kParts; ++k) a.parts[k] *= factor;
    return a;
  }
};

// Writes rows [P, 3] of the pairs of the atoms [begin, end): make(i) gives for atom i a function
// from a pair to its row. A row may run into the next one's place, but not into another thread's.
template <class T, class Make>
void write_pairs(const PairTopology& pairs, int64_t begin, int64_t end, T* rows, Make make) {
  if (begin >= end) return;
  const int64_t last = pairs.first[end] - 1;
  for (int64_t i = begin; i < end; ++i) {
    const auto row = make(i);
    for (int64_t p = pairs.first[i]; p < pairs.first[i + 1]; ++p) {
      if (p < last) {
        row(p).store(rows + 3 * p);
      } else {
        row(p).store_three(rows + 3 * p);
      }
    }
  }
}

// Gradients of pairs [P, 3] carried back to their atoms: g_p pushes the neighbour of pair p and
// pulls its centre. Writes sums[3 i ...] of the atoms [begin, end): first what pulls, then what
// pushes, in the order of the pairs, on any number of threads.
template <class T>
void sum_pair_gradients(const PairTopology& pairs, const T* gradients, int64_t begin, int64_t end,
                        T* sums) {
  std::vector<T> rows(static_cast<size_t>(4 * (end - begin)));
  const auto row_of = [&](int64_t i) { return rows.data() + 4 * (i - begin); };
  const auto gradient = [&](int64_t p) {
    const T* from = gradients + 3 * p;
    return p < pairs.pairs - 1 ? Row<T>::load(from) : Row<T>::load_three(from);
  };
  for (int64_t i = begin; i < end; ++i) {
    Row<T> own;
    for (int64_t p = pairs.first[i]; p < pairs.first[i + 1]; ++p) own = own - gradient(p);
    own.store(row_of(i));
  }
  // A thread looks at all pairs, and adds those that end at its atoms.
  for (int64_t p = 0; p < pairs.pairs; ++p) {
    if (pairs.other[p] < begin || pairs.other[p] >= end) continue;
    T* to = row_of(pairs.other[p]);
    (Row<T>::load(to) + gradient(p)).store(to);
  }
  for (int64_t i = begin; i < end; ++i) std::copy(row_of(i), row_of(i) + 3, sums + 3 * i);
}

}  // namespace pymlp
