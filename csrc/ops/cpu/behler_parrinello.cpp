// eqs 1-5 on the CPU, for one instruction set.
#include "../../loops/cpu/symmetry_sum.h"

namespace pymlp::PYMLP_SIMD {

template <class T>
int64_t behler_parrinello(const SymmetryPass<T>& pass, Pass kind, int64_t begin, int64_t end,
                          std::byte* scratch) {
  const SymmetryTables<T>& tables = pass.tables;
  const BehlerParrinello<T> formula{
      {T(tables.angular_cutoff), static_cast<CutoffFunction>(tables.cutoff_function)},
      tables.jk_factors};
  return symmetry_sum(formula, pass, kind, begin, end, scratch);
}

template int64_t behler_parrinello(const SymmetryPass<float>&, Pass, int64_t, int64_t, std::byte*);
template int64_t behler_parrinello(const SymmetryPass<double>&, Pass, int64_t, int64_t, std::byte*);

}  // namespace pymlp::PYMLP_SIMD
