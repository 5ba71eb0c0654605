// torch.ops.pymlp.ani on CUDA.
#include "symmetry_cuda.cuh"

namespace pymlp {
namespace {

struct AniCuda {
  using Variant = double;  // cos_scale

  template <class T>
  static void set_variant(SymmetryTables<T>& tables, Variant cosine_scale) {
    require(cosine_scale > 0 && cosine_scale <= 1, "cos_scale: expected 0 < cos_scale <= 1, got ",
            cosine_scale);
    tables.cosine_scale = cosine_scale;
  }
  template <class T>
  static void run(const SymmetryPass<T>& pass, Pass kind, int64_t n_pairs, int64_t,
                  const Tensor& like) {
    run_on_cuda(Ani<T>{T(pass.tables.cosine_scale)}, pass, kind, n_pairs, like);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CUDA, m) { register_symmetry_ops<AniCuda>(m, "ani"); }

}  // namespace pymlp
