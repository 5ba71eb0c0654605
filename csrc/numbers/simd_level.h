// Which of the SIMD levels that were built this machine runs. The build defines PYMLP_HAVE_AVX2 and
// PYMLP_HAVE_AVX512 where csrc/ops/cpu was compiled for them; the baseline is always there.
// No namespace per level here: this header is for the code that chooses between the levels.
#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace pymlp {

enum class SimdLevel : int { baseline = 0, avx2 = 1, avx512 = 2 };

constexpr const char* kSimdLevelNames[] = {"baseline", "avx2", "avx512"};

inline const char* name_of(SimdLevel level) { return kSimdLevelNames[static_cast<int>(level)]; }

// The highest level that was built and that the processor has.
inline SimdLevel best_simd_level() {
#ifdef PYMLP_HAVE_AVX512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
    return SimdLevel::avx512;
  }
#endif
#ifdef PYMLP_HAVE_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return SimdLevel::avx2;
#endif
  return SimdLevel::baseline;
}

// The level to use: the best one, or a lower one named by the environment variable PYMLP_SIMD_LEVEL
// (for tests, and for comparing machines). Throws std::invalid_argument for a name that is none, or
// for a level that was not built or that the processor lacks.
inline SimdLevel simd_level() {
  const SimdLevel best = best_simd_level();
  const char* wanted = std::getenv("PYMLP_SIMD_LEVEL");
  if (wanted == nullptr || *wanted == '\0') return best;
  for (int level = 0; level <= static_cast<int>(best); ++level) {
    if (kSimdLevelNames[level] == std::string(wanted)) return static_cast<SimdLevel>(level);
  }
  throw std::invalid_argument(
      std::string("PYMLP_SIMD_LEVEL must be a SIMD level of this machine ") +
      "and build, at most '" + name_of(best) + "', got '" + wanted + "'");
}

}  // namespace pymlp
