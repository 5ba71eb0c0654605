// numbers/: the polynomials of Lanes against libm, Dual against finite differences.

#include <random>

#include "check.h"
#include "numbers/dual.h"
#include "numbers/lanes.h"

using namespace pymlp;

namespace {

// One number through a function of Lanes, in every lane; all lanes must agree bit for bit.
template <class T, class F>
double through_lanes(F f, T x) {
  T out[Lanes<T>::count];
  f(Lanes<T>(x)).store(out);
  for (T lane : out) check::close(lane, out[0], 0, 1, "lanes differ", x);
  return out[0];
}

template <class T>
void exponential_and_logarithm(T tolerance) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> exponent(-80, 0), decade(-25, 25);
  for (int i = 0; i < 20000; ++i) {
    const T x = T(exponent(random));
    check::close(through_lanes<T>([](auto v) { return exponential(v); }, x), std::exp(double(x)),
                 tolerance, 0, "exp", x);
    const T y = T(std::exp(decade(random)));
    check::close(through_lanes<T>([](auto v) { return logarithm(v); }, y), std::log(double(y)),
                 tolerance, 1, "log", y);
  }
  // far below the smallest number: no NaN, no wrap-around
  check::close(through_lanes<T>([](auto v) { return exponential(v); }, T(-1e4)), 0, 1, 1e-36, "exp",
               -1e4);
}

template <class T>
void cosine_and_sine(T tolerance) {
  for (int i = 0; i <= 10000; ++i) {
    const T x = T(i) / T(10000);
    const double angle = 3.14159265358979323846 * double(x);
    check::close(through_lanes<T>([](auto v) { return cos_sin_pi(v).cos; }, x), std::cos(angle),
                 tolerance, 1, "cos(pi x)", x);
    check::close(through_lanes<T>([](auto v) { return cos_sin_pi(v).sin; }, x), std::sin(angle),
                 tolerance, 1, "sin(pi x)", x);
  }
}

template <class T>
void powers(T tolerance) {
  for (T e : {T(0), T(1), T(2), T(3), T(4), T(14.1), T(31), T(32), T(0.5)}) {
    for (int i = 1; i <= 200; ++i) {
      const T x = T(i) / T(200);
      const double expected = std::pow(double(x), double(e));
      const auto f = [e](auto v) { return power(v, make_exponent(e)); };
      check::close(through_lanes<T>(f, x), expected, tolerance, 1e-12, "power", x);
      check::close(f(x), expected, tolerance, 1e-12, "scalar power", x);
    }
  }
  // the derivative of x^2 at 0 is 0, of x^1 is 1: no 0 * infinity
  const Dual<T> zero(T(0), T(1));
  check::close(power(zero, make_exponent(T(2))).slope, 0, 0, 1, "slope of x^2", 0);
  check::close(power(zero, make_exponent(T(1))).slope, 1, 0, 1, "slope of x", 0);
}

template <class T>
void masks_and_sums() {
  constexpr int n = Lanes<T>::count;
  for (int used = 0; used <= n; ++used) {
    const auto chosen = select(first_lanes<T>(used), Lanes<T>(T(1)), Lanes<T>(T(0)));
    check::close(sum_of_lanes(chosen), used, 0, 1, "sum of the first lanes", used);
  }
  T values[n];
  for (int i = 0; i < n; ++i) values[i] = T(i + 1);
  check::close(sum_of_lanes(Lanes<T>::load(values)), n * (n + 1) / 2, 0, 1, "sum of lanes", n);
  check::close(through_lanes<T>([](auto v) { return square_root(v); }, T(2)), std::sqrt(T(2)), 0, 1,
               "square root", 2);
}

// f on Dual numbers against the central difference of f.
template <class F>
void slope(const char* what, F f, double x) {
  const double h = 1e-6;
  const double difference = (f(x + h) - f(x - h)) / (2 * h);
  check::close(f(Dual<double>(x, 1.0)).slope, difference, 1e-8, 1, what, x);
  // 4e-15: x^e of a Dual is x^(e-1) x
  check::close(f(Dual<double>(x, 1.0)).value, f(x), 4e-15, 0, what, x);
}

void dual() {
  for (double x : {0.1, 0.37, 0.5, 0.8, 0.99}) {
    slope("sqrt", [](auto v) { return square_root(v); }, x);
    slope("exp", [](auto v) { return exponential(v); }, x);
    slope("log", [](auto v) { return logarithm(v); }, x);
    slope("cos", [](auto v) { return cos_sin_pi(v).cos; }, x);
    slope("sin", [](auto v) { return cos_sin_pi(v).sin; }, x);
    slope("product", [](auto v) { return v * v * 3.0 - v; }, x);
    slope("quotient", [](auto v) { return 2.0 / (v * v + 1.0) + v / (v + 2.0); }, x);
    slope("whole power", [](auto v) { return power(v, make_exponent(7.0)); }, x);
    slope("power", [](auto v) { return power(v, make_exponent(14.1)); }, x);
    slope("maximum", [](auto v) { return maximum(v * v, 0.2); }, x);
  }
}

}  // namespace

int main() {
  exponential_and_logarithm<float>(3e-7f);
  exponential_and_logarithm<double>(1e-15);
  cosine_and_sine<float>(3e-7f);
  cosine_and_sine<double>(1e-15);
  powers<float>(4e-6f);
  powers<double>(1e-14);
  masks_and_sums<float>();
  masks_and_sums<double>();
  dual();
  return check::report();
}
