// torch.ops.pymlp.behler_parrinello on the CPU.
#include "symmetry_cpu.h"

namespace pymlp {
namespace {

struct BehlerParrinelloCpu {
  using Variant = bool;  // jk_factors

  template <class T>
  static void set_variant(SymmetryTables<T>& tables, Variant jk_factors) {
    tables.jk_factors = jk_factors;
  }
  template <class T>
  static void run(const SymmetryPass<T>& pass, Pass kind, int64_t n_pairs, int64_t n_types,
                  const Tensor&) {
    check_indices(pass, n_pairs, n_types);
    if constexpr (sizeof(T) == 4) {
      run_on_cpu(cpu_kernels().behler_parrinello_float, pass, kind);
    } else {
      run_on_cpu(cpu_kernels().behler_parrinello_double, pass, kind);
    }
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) {
  register_symmetry_ops<BehlerParrinelloCpu>(m, "behler_parrinello");
}

}  // namespace pymlp
