// torch.ops.pymlp.behler_parrinello on CUDA.
#include "symmetry_cuda.cuh"

namespace pymlp {
namespace {

struct BehlerParrinelloCuda {
  using Variant = bool;  // jk_factors

  template <class T>
  static void set_variant(SymmetryTables<T>& tables, Variant jk_factors) {
    tables.jk_factors = jk_factors;
  }
  template <class T>
  static void run(const SymmetryPass<T>& pass, Pass kind, int64_t n_pairs, int64_t,
                  const Tensor& like) {
    const auto& tables = pass.tables;
    const Cutoff<T> pair_cutoff{T(tables.angular_cutoff),
                                static_cast<CutoffFunction>(tables.cutoff_function)};
    run_on_cuda(BehlerParrinello<T>{pair_cutoff, tables.jk_factors}, pass, kind, n_pairs, like);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CUDA, m) {
  register_symmetry_ops<BehlerParrinelloCuda>(m, "behler_parrinello");
}

}  // namespace pymlp
