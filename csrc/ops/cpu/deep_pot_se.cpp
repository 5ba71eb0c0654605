// eqs 8, 9 and 11 on the CPU, for one instruction set.
#include "../../loops/cpu/contraction.h"
#include "../../loops/cpu/embedded_sum.h"
#include "../../loops/cpu/environment_matrix.h"
#include "../../loops/cpu/table.h"

namespace pymlp::PYMLP_SIMD {

template <class T>
void environment_matrix(const EnvironmentPass<T>& pass, Pass kind, int64_t begin, int64_t end) {
  environment_matrix_of_pairs(pass, kind, begin, end);
}

template <class T>
int64_t contraction(const ContractionPass<T>& pass, Pass kind, int64_t begin, int64_t end,
                    std::byte* scratch) {
  return contraction_of_centers(pass, kind, begin, end, scratch);
}

template <class T>
int64_t tabulated(const TablePass<T>& pass, Pass kind, int64_t begin, int64_t end,
                  std::byte* scratch) {
  return table_of_centers(pass, kind, begin, end, scratch);
}

template <class T>
void table_gradient(const TablePass<T>& pass, const TableRows& rows, int64_t begin, int64_t end) {
  if (pass.environment_tangents != nullptr) {
    gradient_of_rows<T, true>(pass, rows, begin, end);
  } else {
    gradient_of_rows<T, false>(pass, rows, begin, end);
  }
}

template <class T>
int64_t embedded(const EmbeddingPass<T>& pass, Pass kind, int64_t begin, int64_t end,
                 std::byte* scratch) {
  return networks_of_centers(pass, kind, begin, end, scratch);
}

#define PYMLP_INSTANTIATE(T)                                                                   \
  template void environment_matrix(const EnvironmentPass<T>&, Pass, int64_t, int64_t);         \
  template int64_t contraction(const ContractionPass<T>&, Pass, int64_t, int64_t, std::byte*); \
  template int64_t tabulated(const TablePass<T>&, Pass, int64_t, int64_t, std::byte*);         \
  template void table_gradient(const TablePass<T>&, const TableRows&, int64_t, int64_t);       \
  template int64_t embedded(const EmbeddingPass<T>&, Pass, int64_t, int64_t, std::byte*);
PYMLP_INSTANTIATE(float)
PYMLP_INSTANTIATE(double)
#undef PYMLP_INSTANTIATE

}  // namespace pymlp::PYMLP_SIMD
