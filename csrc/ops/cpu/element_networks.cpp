// Networks of eqs 12 and 13 on the CPU, for one instruction set.
#include "../../loops/cpu/element_networks.h"

#include "../../loops/cpu/network_gradient.h"

namespace pymlp::PYMLP_SIMD {

template <class T, class W>
int64_t element_networks(const NetworkPass<T, W>& pass, int64_t begin, int64_t end,
                         std::byte* scratch) {
  return networks_of_tiles(pass, begin, end, scratch);
}

#define PYMLP_INSTANTIATE(T, W) \
  template int64_t element_networks(const NetworkPass<T, W>&, int64_t, int64_t, std::byte*);
PYMLP_INSTANTIATE(float, float)
PYMLP_INSTANTIATE(float, double)
PYMLP_INSTANTIATE(double, float)
PYMLP_INSTANTIATE(double, double)
#undef PYMLP_INSTANTIATE

template <class T>
int64_t element_networks_gradient(const NetworkGradientPass<T>& pass, int64_t begin, int64_t end,
                                  T* sums, std::byte* scratch) {
  return network_gradient(pass, begin, end, sums, scratch);
}

template int64_t element_networks_gradient(const NetworkGradientPass<float>&, int64_t, int64_t,
                                           float*, std::byte*);
template int64_t element_networks_gradient(const NetworkGradientPass<double>&, int64_t, int64_t,
                                           double*, std::byte*);

}  // namespace pymlp::PYMLP_SIMD
