// The DeepPot-SE ops on CUDA. Nothing is copied to the host or waited for, so calls can be captured
// in a CUDA graph; index values are therefore not looked at, and outside of a table there is NaN.
#include "../loops/cuda/contraction.cuh"
#include "../loops/cuda/environment_matrix.cuh"
#include "cuda_stream.cuh"
#include "deep_pot_se.h"

namespace pymlp {
namespace {

struct Cuda {
  template <class T>
  static void run(const EnvironmentPass<T>& pass, Pass kind, const Tensor& like) {
    const CudaScope scope(like);
    check_cuda(cuda::environment_matrix(pass, kind, scope.stream()));
  }

  template <class T>
  static void run(const ContractionPass<T>& pass, Pass kind, int64_t, const Tensor& like) {
    const bool dual = kind == Pass::double_backward;
    check_fits("embedding", pass.n_functions,
               dual ? cuda::contraction_bytes<Dual<T>>(pass.n_functions, true)
                    : cuda::contraction_bytes<T>(pass.n_functions, kind != Pass::forward));
    const CudaScope scope(like);
    check_cuda(cuda::contraction(pass, kind, scope.stream()));
  }

  template <class T>
  static void run(const TablePass<T>& pass, Pass kind, int64_t, int64_t, const Tensor& like) {
    check_fits("n_functions", pass.n_functions,
               cuda::contraction_bytes<T>(pass.n_functions, kind != Pass::forward));
    const CudaScope scope(like);
    check_cuda(cuda::contraction_from_table(pass, kind, scope.stream()));
  }

 private:
  static void check_fits(const char* name, int64_t n_functions, int64_t bytes) {
    require(bytes <= cuda::kSharedBytes, name,
            ": the moments of a centre must fit into the shared memory of a GPU block, ",
            cuda::kSharedBytes, " bytes; got M = ", n_functions, " functions, which need ", bytes);
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CUDA, m) { register_deep_pot_se_ops<Cuda>(m); }

}  // namespace pymlp
