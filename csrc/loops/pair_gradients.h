// Gradients of pairs carried back to their atoms: g_p pushes the neighbour of pair p and pulls its
// centre. A thread owns the atoms [begin, end), and adds to each in the order of the pairs.
#pragma once

#include <cstdint>

namespace pymlp {

// Pairs of A atoms: those of atom i are first[i] ... first[i + 1] - 1, pair p ends at other[p].
struct PairTopology {
  int64_t atoms, pairs;
  const int64_t* first;  // [A + 1]
  const int64_t* other;  // [P]
};

// Writes sums[3 i ...] of its atoms from gradients [P, 3].
template <class T>
void sum_pair_gradients(const PairTopology& topology, const T* gradients, int64_t begin,
                        int64_t end, T* sums) {
  for (int64_t i = begin; i < end; ++i) {
    T own[3] = {};
    for (int64_t p = topology.first[i]; p < topology.first[i + 1]; ++p) {
      for (int x = 0; x < 3; ++x) own[x] -= gradients[3 * p + x];
    }
    for (int x = 0; x < 3; ++x) sums[3 * i + x] = own[x];
  }
  // A thread looks at all pairs, and adds those that end at its atoms.
  for (int64_t p = 0; p < topology.pairs; ++p) {
    const int64_t j = topology.other[p];
    if (j < begin || j >= end) continue;
    for (int x = 0; x < 3; ++x) sums[3 * j + x] += gradients[3 * p + x];
  }
}

}  // namespace pymlp
