// The DeepPot-SE ops on the CPU.
#include "deep_pot_se.h"

#include <memory>
#include <vector>

#include "cpu/dispatch.h"

namespace pymlp {
namespace {

// Pairs or centres below which a second thread costs more than it saves.
constexpr int64_t kPairsPerThread = 4096;
constexpr int64_t kCentersPerThread = 64;

void check_offsets(const int64_t* offsets, int64_t n_centers, int64_t n_pairs) {
  require(offsets[0] == 0 && offsets[n_centers] == n_pairs,
          "pair_offsets: expected to begin with 0 and end with P = ", n_pairs, ", got ", offsets[0],
          " and ", offsets[n_centers]);
  bool ascending = true;
  for (int64_t i = 0; i < n_centers; ++i) ascending = ascending && offsets[i] <= offsets[i + 1];
  require(ascending, "pair_offsets: expected ascending values");
}

// Runs kernel(begin, end, scratch) over all centres, with scratch memory of each thread.
template <class Kernel>
void over_centers(int64_t n_centers, Kernel kernel) {
  torch::stable::parallel_for(0, n_centers, kCentersPerThread, [&](int64_t begin, int64_t end) {
    thread_local std::vector<std::byte> memory;
    const size_t needed = static_cast<size_t>(kernel(begin, end, nullptr)) + 64;  // 64: to align
    if (memory.size() < needed) memory.resize(needed);
    void* scratch = memory.data();
    size_t space = memory.size();
    std::align(64, needed - 64, scratch, space);
    kernel(begin, end, static_cast<std::byte*>(scratch));
  });
}

struct Cpu {
  template <class T>
  static void run(const EnvironmentPass<T>& pass, Pass kind, const Tensor&) {
    const auto kernel = cpu_kernels().deep_pot_se<T>().environment_matrix;
    torch::stable::parallel_for(0, pass.n_pairs, kPairsPerThread, [&](int64_t begin, int64_t end) {
      kernel(pass, kind, begin, end);
    });
  }

  template <class T>
  static void run(const ContractionPass<T>& pass, Pass kind, int64_t n_pairs, const Tensor&) {
    check_offsets(pass.pair_offsets, pass.n_centers, n_pairs);
    // A row that two pairs name would be written twice.
    std::vector<bool> seen(static_cast<size_t>(n_pairs), false);
    bool permutation = true;
    for (int64_t p = 0; p < n_pairs && permutation; ++p) {
      const int64_t row = pass.pair_rows[p];
      permutation = row >= 0 && row < n_pairs && !seen[row];
      if (permutation) seen[row] = true;
    }
    require(permutation, "pair_rows: expected a permutation of 0 ... P - 1 = ", n_pairs - 1);
    const auto kernel = cpu_kernels().deep_pot_se<T>().contraction;
    over_centers(pass.n_centers, [&](int64_t begin, int64_t end, std::byte* scratch) {
      return kernel(pass, kind, begin, end, scratch);
    });
  }

  template <class T>
  static void run(const TablePass<T>& pass, Pass kind, int64_t n_pairs, int64_t n_kinds,
                  const Tensor&) {
    check_offsets(pass.pair_offsets, pass.n_centers, n_pairs);
    const double end = pass.first + static_cast<double>(pass.n_intervals) * pass.width;
    // Half a rounding error of the end itself belongs to the table.
    const T low = T(pass.first), high = T(end);
    bool kinds = true, inside = true;
    for (int64_t p = 0; p < n_pairs; ++p) {
      const T s = pass.environment[4 * p];
      kinds = kinds && pass.pair_kinds[p] >= 0 && pass.pair_kinds[p] < n_kinds;
      inside = inside && s >= low && s <= high;
    }
    require(kinds, "pair_kinds: expected values in 0 ... ", n_kinds - 1);
    require(inside, "environment: expected s between ", pass.first, " and ", end,
            " 1/Angstrom, where the table is; a distance outside of it needs the networks");
    const auto kernel = cpu_kernels().deep_pot_se<T>().tabulated;
    over_centers(pass.n_centers, [&](int64_t begin, int64_t end_center, std::byte* scratch) {
      return kernel(pass, kind, begin, end_center, scratch);
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) { register_deep_pot_se_ops<Cpu>(m); }

}  // namespace pymlp
