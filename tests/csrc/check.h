// The few words that these test programs need: compare, report, count.
#pragma once

#include <cmath>
#include <cstdio>
#include <initializer_list>

namespace check {

inline int checks = 0;
inline int failures = 0;

// |value - expected| <= tolerance * max(|expected|, scale); NaN fails.
inline void close(double value, double expected, double tolerance, double scale, const char* what,
                  double at) {
  ++checks;
  const double size = std::fmax(std::fabs(expected), scale);
  if (std::fabs(value - expected) <= tolerance * size) return;
  if (++failures <= 20) {
    std::printf("%s at %.17g: got %.17g, expected %.17g (relative error %.2e, allowed %.2e)\n",
                what, at, value, expected, std::fabs(value - expected) / size, tolerance);
  }
}

// Prints the count; the program's exit code.
inline int report() {
  std::printf("%d checks, %d failures\n", checks, failures);
  return checks == 0 || failures > 0 ? 1 : 0;
}

}  // namespace check
