// formulas/: every hand-written slope against the central difference of its value, the slope's own
// derivative (Dual) against the central difference of the slope, and Lanes against plain numbers.

#include "check.h"
#include "formulas/angular_symmetry.h"
#include "formulas/cutoff.h"
#include "formulas/environment_matrix.h"
#include "formulas/radial_symmetry.h"
#include "numbers/dual.h"
#include "numbers/lanes.h"

using namespace pymlp;

namespace {

using D = Dual<double>;
constexpr double kStep = 1e-5;

// f(x) -> ValueSlope, for double, Dual<double> and Lanes<double>.
template <class F>
void value_and_slope(const char* what, F f, double x, double scale) {
  const auto here = f(x), above = f(x + kStep), below = f(x - kStep);
  check::close(here.slope, (above.value - below.value) / (2 * kStep), 1e-7, scale, what, x);
  const auto dual = f(D(x, 1.0));
  check::close(dual.value.value, here.value, 1e-13, scale, what, x);
  check::close(dual.value.slope, here.slope, 1e-12, scale, what, x);
  check::close(dual.slope.slope, (above.slope - below.slope) / (2 * kStep), 1e-6, scale, what, x);
  double value[Lanes<double>::count], slope[Lanes<double>::count];
  const auto lanes = f(Lanes<double>(x));
  lanes.value.store(value);
  lanes.slope.store(slope);
  for (int i = 0; i < Lanes<double>::count; ++i) {
    check::close(value[i], here.value, 1e-13, scale, what, x);
    check::close(slope[i], here.slope, 1e-12, scale, what, x);
  }
}

void cutoffs() {
  for (const auto function : {CutoffFunction::cosine, CutoffFunction::smooth}) {
    const Cutoff<double> c{5.2, function};
    const auto f = [c](auto r) { return cutoff(r, c); };
    for (double r = 0.05; r < 5.15; r += 0.05) value_and_slope("cutoff", f, r, 1);
    check::close(f(1e-9).value, 1, 1e-15, 1, "cutoff at 0", 0);
    for (double r : {5.2, 5.200001, 7.0, 10.4, 1e6}) {
      check::close(f(r).value, 0, 0, 1, "cutoff beyond", r);
      check::close(f(r).slope, 0, 0, 1, "slope of the cutoff beyond", r);
      check::close(f(D(r, 1.0)).slope.slope, 0, 0, 1, "curvature beyond", r);
    }
    // value and slope are continuous at R_c
    check::close(f(5.2 - 1e-7).value, 0, 1e-12, 1, "cutoff just inside", 5.2);
    check::close(f(5.2 - 1e-7).slope, 0, 1e-6, 1, "slope just inside", 5.2);
  }
}

void switches() {
  for (const auto function :
       {SwitchFunction::none, SwitchFunction::cosine, SwitchFunction::quintic}) {
    const Switch<double> w{1.5, 4.0, function};
    const auto f = [w](auto r) { return switched_inverse(r, w); };
    for (double r = 0.62; r < 3.98; r += 0.05) value_and_slope("switched 1/R", f, r, 2);
    check::close(f(1.2).value, 1 / 1.2, 1e-15, 1, "1/R below R_cs", 1.2);
    if (function == SwitchFunction::none) continue;
    for (double r : {4.0, 4.000001, 9.0, 1e6}) {
      check::close(f(r).value, 0, 0, 1, "switch beyond", r);
      check::close(f(D(r, 1.0)).slope.slope, 0, 0, 1, "curvature of the switch beyond", r);
    }
    check::close(f(4 - 1e-7).slope, 0, 1e-6, 1, "slope of the switch just inside", 4);
  }
}

void radial() {
  const Cutoff<double> c{6.0, CutoffFunction::cosine};
  for (const double eta : {0.0, 0.04, 1.79, 16.0}) {
    for (const double shift : {0.0, 0.9, 3.2}) {
      const auto f = [=](auto r) { return radial_symmetry(r, cutoff(r, c), eta, shift); };
      for (double r = 0.4; r < 5.9; r += 0.1) {
        value_and_slope("radial symmetry function", f, r, 1);
        const double expected = std::exp(-eta * (r - shift) * (r - shift)) * 0.5 *
                                (std::cos(3.14159265358979323846 * r / 6) + 1);
        check::close(f(r).value, expected, 1e-13, 1, "eq 1", r);
      }
    }
  }
}

void angles() {
  for (const double zeta : {1.0, 2.0, 14.1, 32.0}) {
    for (int k = 0; k <= 8; ++k) {
      // theta_s = 0 and pi have a sine of exactly 0, as the callers make it
      const double shift = 3.14159265358979323846 * k / 8;
      const auto p = make_angle_parameters(zeta, std::cos(shift), k % 8 == 0 ? 0 : std::sin(shift));
      const auto f = [p](auto c) { return angle_factor(make_angle(c), p); };
      for (double c = -0.98; c < 0.985; c += 0.02) {
        value_and_slope("angle factor", f, c, 1);
        const double expected = std::pow(0.5 * (1 + std::cos(std::acos(c) - shift)), zeta);
        check::close(f(c).value, expected, 1e-12, 1, "eq 3, angle", c);
      }
      for (const int multiple : {2, 3, 8}) {
        const auto direct = make_angle_parameters(multiple * zeta, p.cos_shift, p.sin_shift);
        for (double c = -0.9; c < 0.95; c += 0.1) {
          const ValueSlope<double> from = f(c), to = angle_factor(make_angle(c), direct);
          double value[1] = {from.value}, slope[1] = {from.slope}, alone[1] = {from.value};
          angle_factors_at_multiple(make_exponent(double(multiple)), value, slope);
          angle_values_at_multiple(make_exponent(double(multiple)), alone);
          check::close(value[0], to.value, 1e-12, 1, "angle factor at a multiple", c);
          check::close(alone[0], to.value, 1e-12, 1, "angle factor at a multiple, alone", c);
          check::close(slope[0], to.slope, 1e-11, 1, "slope at a multiple", c);
        }
      }
      for (const double c : {-1.0, 1.0}) {  // collinear: finite, whatever theta_s
        const auto g = f(D(c, 1.0));
        check::close(std::isfinite(g.slope.slope) && std::isfinite(g.value.slope), 1, 0, 1,
                     "finite at collinear", c);
      }
    }
  }
}

// A pair of neighbours from six coordinates x; d says along which one to differentiate.
template <class N>
NeighborPair<N> neighbors(const double (&x)[6], int d, Cutoff<double> c) {
  N v[6];
  for (int i = 0; i < 6; ++i) v[i] = N(x[i]);
  if constexpr (!std::is_same_v<N, double>) v[d].slope = 1;
  const auto one = [&](int i) -> Neighbor<N> {
    const N r = square_root(v[i] * v[i] + v[i + 1] * v[i + 1] + v[i + 2] * v[i + 2]);
    return {{v[i] / r, v[i + 1] / r, v[i + 2] / r}, r, cutoff(r, c).value};
  };
  return {one(0), one(3)};
}

// triple_adjoint is the transpose of the derivative of triple: <g, dT> = <adjoint(g), dneighbours>.
template <class Form>
void adjoints(const char* what, Form form, Cutoff<double> c) {
  const double points[][6] = {{1.1, 0.2, -0.3, 0.4, 1.3, 0.7}, {2.0, -1.0, 0.5, -0.7, 0.1, 1.9}};
  const Triple<double> g{0.7, -0.4, 1.3};
  for (const auto& x : points) {
    const auto [j, k] = neighbors<double>(x, 0, c);
    const NeighborPair<double> a = triple_adjoint(form, j, k, g);
    for (int d = 0; d < 6; ++d) {
      const auto [dj, dk] = neighbors<D>(x, d, c);
      const Triple<D> t = make_triple(form, dj, dk);
      const double forward =
          g.cosine * t.cosine.slope + g.distance * t.distance.slope + g.weight * t.weight.slope;
      const auto contract = [](Neighbor<double> a, Neighbor<D> b) {
        return a.unit.x * b.unit.x.slope + a.unit.y * b.unit.y.slope + a.unit.z * b.unit.z.slope +
               a.distance * b.distance.slope + a.cutoff * b.cutoff.slope;
      };
      check::close(contract(a.j, dj) + contract(a.k, dk), forward, 1e-12, 1, what, d);
      // and the Dual derivative of triple itself against a difference
      double above[6], below[6];
      for (int i = 0; i < 6; ++i) {
        above[i] = x[i] + (i == d) * kStep;
        below[i] = x[i] - (i == d) * kStep;
      }
      const auto up = neighbors<double>(above, 0, c), down = neighbors<double>(below, 0, c);
      const Triple<double> p = make_triple(form, up.j, up.k), m = make_triple(form, down.j, down.k);
      check::close(t.cosine.slope, (p.cosine - m.cosine) / (2 * kStep), 1e-8, 1, what, d);
      check::close(t.distance.slope, (p.distance - m.distance) / (2 * kStep), 1e-8, 1, what, d);
      check::close(t.weight.slope, (p.weight - m.weight) / (2 * kStep), 1e-8, 1, what, d);
    }
  }
}

void triples() {
  for (const auto function : {CutoffFunction::cosine, CutoffFunction::smooth}) {
    const Cutoff<double> c{4.0, function};
    adjoints("ANI triple", Ani<double>{0.95}, c);
    adjoints("eq 3 triple", BehlerParrinello<double>{c, true}, c);
    adjoints("G5 triple", BehlerParrinello<double>{c, false}, c);
  }
  for (const double eta : {0.0, 0.04, 1.79, 12.5}) {
    const DistanceParameters<double> p{eta, 1.55};
    const Ani<double> ani{1};
    const BehlerParrinello<double> bp{{6.0, CutoffFunction::cosine}, true};
    for (double q = 0.5; q < 5; q += 0.1) {
      value_and_slope("eq 6, distance", [=](auto x) { return ani.distance_factor(x, p); }, q, 1);
      value_and_slope("eq 3, distance", [=](auto x) { return bp.distance_factor(x, p); }, q, 1);
    }
  }
}

}  // namespace

int main() {
  cutoffs();
  switches();
  radial();
  angles();
  triples();
  return check::report();
}
