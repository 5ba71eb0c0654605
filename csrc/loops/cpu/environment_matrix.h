// The environment matrix (eq 8) of a range of pairs; lanes run over pairs. The double backward is
// the row and its adjoint on Dual numbers.
#pragma once

#include "../../formulas/environment_matrix.h"
#include "../deep_pot_se.h"
#include "pair_map.h"

namespace pymlp::inline PYMLP_SIMD {

template <class T>
class EnvironmentMatrix {
 public:
  using L = Lanes<T>;
  using D = Dual<L>;

  explicit EnvironmentMatrix(const EnvironmentPass<T>& pass)
      : pass_(pass),
        switch_{T(pass.switch_start), T(pass.cutoff),
                static_cast<SwitchFunction>(pass.switch_function)} {}

  void forward(int64_t p, int64_t count) const {
    const auto [x, y, z] = displacement(p, count);
    const auto row = environment_row(Vec3<L>{x, y, z}, switch_);
    const L columns[4] = {row.s, row.v.x, row.v.y, row.v.z};
    store_rows(columns, pass_.rows + 4 * p, count);
  }

  void jvp(int64_t p, int64_t count) const {
    const auto row = environment_row(moving(p, count), switch_);
    const L columns[4] = {row.s.slope, row.v.x.slope, row.v.y.slope, row.v.z.slope};
    store_rows(columns, pass_.rows + 4 * p, count);
  }

  void backward(int64_t p, int64_t count) const {
    const auto g = environment_row_adjoint(displacement(p, count), gradient(p, count), switch_);
    const L columns[3] = {g.x, g.y, g.z};
    store_rows(columns, pass_.grad_displacements + 3 * p, count);
  }

  void double_backward(int64_t p, int64_t count) const {
    jvp(p, count);
    const auto g = environment_row_adjoint(moving(p, count), gradient(p, count), switch_);
    const L columns[3] = {g.x.slope, g.y.slope, g.z.slope};
    store_rows(columns, pass_.grad_displacements + 3 * p, count);
  }

  void jacobian(int64_t p, int64_t count) const {
    const auto d = displacement(p, count);
    for (int row = 0; row < 4; ++row) {
      const auto unit = [&](int which) { return L(T(row == which ? 1 : 0)); };
      const EnvironmentRow<L> g{unit(0), {unit(1), unit(2), unit(3)}};
      const auto slope = environment_row_adjoint(d, g, switch_);
      const L columns[3] = {slope.x, slope.y, slope.z};
      store_rows(columns, pass_.jacobian + 12 * p + 3 * row, count, 12);
    }
  }

 private:
  PYMLP_INLINE Vec3<L> displacement(int64_t p, int64_t count) const {
    L d[3];
    load_rows(pass_.displacements + 3 * p, count, d);
    return {d[0], d[1], d[2]};
  }
  PYMLP_INLINE Vec3<D> moving(int64_t p, int64_t count) const {
    const auto d = displacement(p, count);
    L u[3];
    load_rows(pass_.tangents + 3 * p, count, u);
    return {{d.x, u[0]}, {d.y, u[1]}, {d.z, u[2]}};
  }
  PYMLP_INLINE EnvironmentRow<L> gradient(int64_t p, int64_t count) const {
    L g[4];
    load_rows(pass_.grad_rows + 4 * p, count, g);
    return {g[0], {g[1], g[2], g[3]}};
  }

  EnvironmentPass<T> pass_;
  Switch<T> switch_;
};

template <class T>
void environment_matrix_of_pairs(const EnvironmentPass<T>& pass, Pass kind, int64_t begin,
                                 int64_t end) {
  const EnvironmentMatrix<T> rows(pass);
  switch (kind) {
    case Pass::forward:
      return for_each_register<T>(begin, end, [&](int64_t p, int64_t n) { rows.forward(p, n); });
    case Pass::jvp:
      return for_each_register<T>(begin, end, [&](int64_t p, int64_t n) { rows.jvp(p, n); });
    case Pass::backward:
      return for_each_register<T>(begin, end, [&](int64_t p, int64_t n) { rows.backward(p, n); });
    case Pass::double_backward:
      return for_each_register<T>(begin, end,
                                  [&](int64_t p, int64_t n) { rows.double_backward(p, n); });
    case Pass::jacobian:
      return for_each_register<T>(begin, end, [&](int64_t p, int64_t n) { rows.jacobian(p, n); });
  }
}

}  // namespace pymlp::inline PYMLP_SIMD
