// Radial symmetry function (eq 1), one term of the sum over neighbours:
//
//   g(R) = exp(-eta (R - R_s)^2) f_c(R)
//
// R, R_s in Angstrom, eta in Angstrom^-2, g dimensionless.
#pragma once

#include "cutoff.h"

namespace pymlp::inline PYMLP_SIMD {

// `fc` is the cutoff at r; eta and shift may be one number or one number per lane.
template <class N, class Parameter>
PYMLP_INLINE ValueSlope<N> radial_symmetry(N r, ValueSlope<N> fc, Parameter eta, Parameter shift) {
  using T = Scalar<N>;
  const N difference = r - shift;
  const N scaled = difference * -eta;
  const N gaussian = exponential(scaled * difference);
  return {gaussian * fc.value, gaussian * (fc.slope + T(2) * scaled * fc.value)};
}

}  // namespace pymlp::inline PYMLP_SIMD
