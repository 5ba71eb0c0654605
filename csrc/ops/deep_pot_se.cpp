// The DeepPot-SE ops on the CPU.
#include "deep_pot_se.h"

#include <vector>

#include "centers.h"
#include "cpu/dispatch.h"

namespace pymlp {
namespace {

// Pairs below which a second thread costs more than it saves.
constexpr int64_t kPairsPerThread = 4096;

struct Cpu {
  template <class T>
  static void run(const EnvironmentPass<T>& pass, Pass kind, const Tensor&) {
    const auto kernel = cpu_kernels().deep_pot_se<T>().environment_matrix;
    torch::stable::parallel_for(0, pass.n_pairs, kPairsPerThread, [&](int64_t begin, int64_t end) {
      kernel(pass, kind, begin, end);
    });
  }

  template <class T>
  static void run(const ContractionPass<T>& pass, Pass kind, int64_t n_pairs, const Tensor&) {
    check_offsets(pass.pair_offsets, pass.n_centers, n_pairs);
    // A row that two pairs name would be written twice.
    std::vector<bool> seen(static_cast<size_t>(n_pairs), false);
    bool permutation = true;
    for (int64_t p = 0; p < n_pairs && permutation; ++p) {
      const int64_t row = pass.pair_rows[p];
      permutation = row >= 0 && row < n_pairs && !seen[row];
      if (permutation) seen[row] = true;
    }
    require(permutation, "pair_rows: expected a permutation of 0 ... P - 1 = ", n_pairs - 1);
    const auto kernel = cpu_kernels().deep_pot_se<T>().contraction;
    over_centers(pass.n_centers, [&](int64_t begin, int64_t end, std::byte* scratch) {
      return kernel(pass, kind, begin, end, scratch);
    });
  }

  template <class T>
  static void run(const TablePass<T>& pass, Pass kind, int64_t n_pairs, int64_t n_kinds,
                  const Tensor&) {
    check_offsets(pass.pair_offsets, pass.n_centers, n_pairs);
    const double end = pass.first + static_cast<double>(pass.n_intervals) * pass.width;
    // Half a rounding error of the end itself belongs to the table.
    const T low = T(pass.first), high = T(end);
    bool kinds = true, inside = true;
    for (int64_t p = 0; p < n_pairs; ++p) {
      const T s = pass.environment[4 * p];
      kinds = kinds && pass.pair_kinds[p] >= 0 && pass.pair_kinds[p] < n_kinds;
      inside = inside && s >= low && s <= high;
    }
    require(kinds, "pair_kinds: expected values in 0 ... ", n_kinds - 1);
    require(inside, "environment: expected s between ", pass.first, " and ", end,
            " 1/Angstrom, where the table is; a distance outside of it needs the networks");
    const auto kernel = cpu_kernels().deep_pot_se<T>().tabulated;
    over_centers(pass.n_centers, [&](int64_t begin, int64_t end_center, std::byte* scratch) {
      return kernel(pass, kind, begin, end_center, scratch);
    });
  }
};

// Training through a table: its gradient, and the double backward.
class TableTraining {
 public:
  static Tensor gradient(Tensor grad_output, Tensor environment, Tensor pair_offsets,
                         Tensor pair_kinds, Tensor table, double first, double width,
                         int64_t n_functions, int64_t n_axis) {
    const auto a = TableOps<Cpu>::prepare(environment, pair_offsets, pair_kinds, table, first,
                                          width, n_functions, n_axis);
    const Tensor grad = gradient_of(a, grad_output);
    const Tensor out = torch::stable::empty_like(a.table);
    with_dtype(out, [&]<class T>(T) {
      auto pass = a.template pass<T>();
      pass.grad_features = grad.template const_data_ptr<T>();
      run(a, pass, Pass::backward, out);
    });
    return out;
  }

  static std::tuple<Tensor, Tensor, Tensor> double_backward(Tensor grad_grad_environment,
                                                            Tensor grad_output, Tensor environment,
                                                            Tensor pair_offsets, Tensor pair_kinds,
                                                            Tensor table, double first,
                                                            double width, int64_t n_functions,
                                                            int64_t n_axis, bool with_environment) {
    const auto a = TableOps<Cpu>::prepare(environment, pair_offsets, pair_kinds, table, first,
                                          width, n_functions, n_axis);
    const Tensor grad = gradient_of(a, grad_output);
    const Tensor tangents =
        checked(grad_grad_environment, "grad_grad_environment", {a.n_pairs(), 4},
                "[P, 4], as environment", a.environment, "environment");
    const Tensor features = allocate(a.environment, "features", {a.n_centers(), a.size()});
    const Tensor second =
        allocate(a.environment, "environment", {with_environment ? a.n_pairs() : 0, 4});
    const Tensor out = torch::stable::empty_like(a.table);
    with_dtype(out, [&]<class T>(T) {
      auto pass = a.template pass<T>();
      pass.grad_features = grad.template const_data_ptr<T>();
      pass.environment_tangents = tangents.template const_data_ptr<T>();
      pass.features = features.template mutable_data_ptr<T>();
      if (with_environment) pass.grad_environment = second.template mutable_data_ptr<T>();
      run(a, pass, Pass::double_backward, out);
    });
    return {features, second, out};
  }

 private:
  using Arguments = TableOps<Cpu>::Arguments;

  static Tensor gradient_of(const Arguments& a, const Tensor& grad_output) {
    return checked(grad_output, "grad_output", {a.n_centers(), a.size()},
                   "[A, n_functions * n_axis]", a.environment, "environment");
  }

  template <class T>
  static void run(const Arguments& a, TablePass<T> pass, Pass kind, const Tensor& grad_table) {
    const int64_t parts = kind == Pass::double_backward ? 8 : 4;
    const Tensor moments = allocate(a.environment, "moments", {a.n_centers(), parts, pass.stride});
    pass.grad_moments = moments.template mutable_data_ptr<T>();
    Cpu::run(pass, kind, a.n_pairs(), a.table.size(0), grad_table);

    pass.grad_table = grad_table.template mutable_data_ptr<T>();
    const int64_t n_rows = a.table.size(0) * pass.n_intervals;
    std::vector<int64_t> offsets(static_cast<size_t>(n_rows) + 1, 0);
    std::vector<int64_t> pairs(static_cast<size_t>(a.n_pairs())), centers(pairs.size());
    std::vector<int64_t> row(pairs.size());
    for (int64_t p = 0; p < a.n_pairs(); ++p) {
      row[p] = pass.pair_kinds[p] * pass.n_intervals +
               place_in_table(pass, pass.environment[4 * p]).interval;
      ++offsets[row[p] + 1];
    }
    for (int64_t i = 0; i < n_rows; ++i) offsets[i + 1] += offsets[i];
    std::vector<int64_t> next(offsets.begin(), offsets.end() - 1);
    for (int64_t i = 0; i < pass.n_centers; ++i) {
      for (int64_t p = pass.pair_offsets[i]; p < pass.pair_offsets[i + 1]; ++p) {
        const int64_t at = next[row[p]]++;
        pairs[at] = p;
        centers[at] = i;
      }
    }
    const TableRows rows{offsets.data(), pairs.data(), centers.data()};
    const auto kernel = cpu_kernels().deep_pot_se<T>().table_gradient;
    torch::stable::parallel_for(
        0, n_rows, 16, [&](int64_t begin, int64_t end) { kernel(pass, rows, begin, end); });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) {
  register_deep_pot_se_ops<Cpu>(m);
  m.impl("deep_pot_se_table_gradient", TORCH_BOX(&TableTraining::gradient));
  m.impl("deep_pot_se_table_double_backward", TORCH_BOX(&TableTraining::double_backward));
}

}  // namespace pymlp
