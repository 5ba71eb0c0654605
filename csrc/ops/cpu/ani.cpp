// eqs 1 and 6 on the CPU, for one instruction set.
#include "../../loops/cpu/symmetry_sum.h"

namespace pymlp::PYMLP_SIMD {

template <class T>
int64_t ani(const SymmetryPass<T>& pass, Pass kind, int64_t begin, int64_t end,
            std::byte* scratch) {
  return symmetry_sum(Ani<T>{T(pass.tables.cosine_scale)}, pass, kind, begin, end, scratch);
}

template int64_t ani(const SymmetryPass<float>&, Pass, int64_t, int64_t, std::byte*);
template int64_t ani(const SymmetryPass<double>&, Pass, int64_t, int64_t, std::byte*);

}  // namespace pymlp::PYMLP_SIMD
