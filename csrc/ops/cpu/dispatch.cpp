#include "dispatch.h"

#include "../../numbers/simd_level.h"

namespace pymlp {

// Declared, not included: the kernels' headers belong to their own instruction sets.
#define PYMLP_LEVEL(level)                                                                       \
  namespace level {                                                                              \
  template <class T>                                                                             \
  int64_t behler_parrinello(const SymmetryPass<T>&, Pass, int64_t, int64_t, std::byte*);         \
  template <class T>                                                                             \
  int64_t ani(const SymmetryPass<T>&, Pass, int64_t, int64_t, std::byte*);                       \
  template <class T>                                                                             \
  void environment_matrix(const EnvironmentPass<T>&, Pass, int64_t, int64_t);                    \
  template <class T>                                                                             \
  int64_t contraction(const ContractionPass<T>&, Pass, int64_t, int64_t, std::byte*);            \
  template <class T>                                                                             \
  int64_t tabulated(const TablePass<T>&, Pass, int64_t, int64_t, std::byte*);                    \
  template <class T, class W>                                                                    \
  int64_t element_networks(const NetworkPass<T, W>&, int64_t, int64_t, std::byte*);              \
  template <class T>                                                                             \
  int64_t element_networks_gradient(const NetworkGradientPass<T>&, int64_t, int64_t, T*,         \
                                    std::byte*);                                                 \
  int64_t cell_search(const CellGrid&, int64_t, int64_t, CellSearch&);                           \
  template <class T>                                                                             \
  void table_gradient(const TablePass<T>&, const TableRows&, int64_t, int64_t);                  \
  template <class T>                                                                             \
  int64_t embedded(const EmbeddingPass<T>&, Pass, int64_t, int64_t, std::byte*);                 \
  template <class T>                                                                             \
  constexpr DeepPotSeKernels<T> deep_pot_se{environment_matrix<T>, contraction<T>, tabulated<T>, \
                                            table_gradient<T>, embedded<T>};                     \
  constexpr CpuKernels kernels{                                                                  \
      #level,                                                                                    \
      behler_parrinello<float>,                                                                  \
      ani<float>,                                                                                \
      behler_parrinello<double>,                                                                 \
      ani<double>,                                                                               \
      deep_pot_se<float>,                                                                        \
      deep_pot_se<double>,                                                                       \
      cell_search,                                                                               \
      {element_networks<float, float>, element_networks<float, double>,                          \
       element_networks<double, float>, element_networks<double, double>,                        \
       element_networks_gradient<float>, element_networks_gradient<double>}};                    \
  }
PYMLP_LEVEL(baseline)
#ifdef PYMLP_HAVE_AVX2
PYMLP_LEVEL(avx2)
#endif
#ifdef PYMLP_HAVE_AVX512
PYMLP_LEVEL(avx512)
#endif

namespace {

const CpuKernels& kernels_of(SimdLevel level) {
  switch (level) {
#ifdef PYMLP_HAVE_AVX512
    case SimdLevel::avx512:
      return avx512::kernels;
#endif
#ifdef PYMLP_HAVE_AVX2
    case SimdLevel::avx2:
      return avx2::kernels;
#endif
    default:
      return baseline::kernels;
  }
}

}  // namespace

const CpuKernels& cpu_kernels() {
  static const CpuKernels& picked = kernels_of(simd_level());
  return picked;
}

}  // namespace pymlp
