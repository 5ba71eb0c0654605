// torch.ops.pymlp.ani on the CPU.
#include "symmetry_cpu.h"

namespace pymlp {
namespace {

struct AniCpu {
  using Variant = double;  // cos_scale

  template <class T>
  static void set_variant(SymmetryTables<T>& tables, Variant cosine_scale) {
    require(cosine_scale > 0 && cosine_scale <= 1, "cos_scale: expected 0 < cos_scale <= 1, got ",
            cosine_scale);
    tables.cosine_scale = cosine_scale;
  }
  template <class T>
  static void run(const SymmetryPass<T>& pass, Pass kind, int64_t n_pairs, int64_t n_types,
                  const Tensor&) {
    check_indices(pass, n_pairs, n_types);
    if constexpr (sizeof(T) == 4) {
      run_on_cpu(cpu_kernels().ani_float, pass, kind);
    } else {
      run_on_cpu(cpu_kernels().ani_double, pass, kind);
    }
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) { register_symmetry_ops<AniCpu>(m, "ani"); }

}  // namespace pymlp
