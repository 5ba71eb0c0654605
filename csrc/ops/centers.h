// Running a kernel over centres on the CPU, with scratch memory of each thread.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "checks.h"

namespace pymlp {

// Centres below which a second thread costs more than it saves.
constexpr int64_t kCentersPerThread = 64;

inline void check_offsets(const int64_t* offsets, int64_t n_centers, int64_t n_pairs) {
  require(offsets[0] == 0 && offsets[n_centers] == n_pairs,
          "pair_offsets: expected to begin with 0 and end with P = ", n_pairs, ", got ", offsets[0],
          " and ", offsets[n_centers]);
  bool ascending = true;
  for (int64_t i = 0; i < n_centers; ++i) ascending = ascending && offsets[i] <= offsets[i + 1];
  require(ascending, "pair_offsets: expected ascending values");
}

// Runs kernel(scratch), which with null scratch returns the size that it needs, in bytes.
template <class Kernel>
void with_scratch(Kernel kernel) {
  thread_local std::vector<std::byte> memory;
  const size_t needed = static_cast<size_t>(kernel(nullptr)) + 64;  // 64: to align
  if (memory.size() < needed) memory.resize(needed);
  void* scratch = memory.data();
  size_t space = memory.size();
  std::align(64, needed - 64, scratch, space);
  kernel(static_cast<std::byte*>(scratch));
}

// Runs kernel(begin, end, scratch) over all centres.
template <class Kernel>
void over_centers(int64_t n_centers, Kernel kernel) {
  torch::stable::parallel_for(0, n_centers, kCentersPerThread, [&](int64_t begin, int64_t end) {
    with_scratch([&](std::byte* scratch) { return kernel(begin, end, scratch); });
  });
}

}  // namespace pymlp
