// Where code runs. Everything in numbers/, formulas/ and loops/ lives in a namespace named after
// the instruction set that it is compiled for: the same headers are compiled several times into one
// library, and the linker must never merge an AVX-512 function with its baseline namesake.
#pragma once

#ifndef PYMLP_SIMD
#define PYMLP_SIMD portable
#endif

#ifdef __CUDACC__
#define PYMLP_INLINE __host__ __device__ __forceinline__
#else
#define PYMLP_INLINE inline __attribute__((always_inline))
#endif
