// The DeepPot-SE ops, the same on every device: arguments are checked and made contiguous, outputs
// allocated, and Device runs a pass. Device has
//
//   template <class T> static void run(EnvironmentPass<T>, Pass, Tensor like);
//   template <class T> static void run(ContractionPass<T>, Pass, n_pairs, Tensor like);
//   template <class T> static void run(TablePass<T>, Pass, n_pairs, n_kinds, Tensor like);
#pragma once

#include <cmath>
#include <tuple>

#include "../loops/deep_pot_se.h"
#include "allocation.h"
#include "checks.h"

namespace pymlp {

template <class Run>
void with_dtype(const Tensor& like, Run run) {
  if (like.scalar_type() == ScalarType::Float) {
    run(float{});
  } else {
    run(double{});
  }
}

// A tensor of the dtype and device of `like`, contiguous.
inline Tensor checked(const Tensor& tensor, const char* name, std::initializer_list<int64_t> shape,
                      const char* expected, const Tensor& like, const char* like_name) {
  require_shape(tensor, name, shape, expected);
  require_like(tensor, name, like, like_name);
  return torch::stable::contiguous(tensor);
}

inline Tensor checked_index(const Tensor& tensor, const char* name,
                            std::initializer_list<int64_t> shape, const char* expected,
                            const Tensor& like, const char* like_name) {
  require_shape(tensor, name, shape, expected);
  require_index(tensor, name, like, like_name);
  return torch::stable::contiguous(tensor);
}

template <class Device>
class EnvironmentOps {
 public:
  static Tensor forward(Tensor displacements, double switch_start, double cutoff,
                        int64_t switch_function) {
    const Arguments a = prepare(displacements, switch_start, cutoff, switch_function);
    const Tensor rows = allocate(a.displacements, "environment", {a.n_pairs(), 4});
    with_dtype(rows, [&]<class T>(T) {
      auto pass = a.template pass<T>();
      pass.rows = rows.template mutable_data_ptr<T>();
      Device::run(pass, Pass::forward, rows);
    });
    return rows;
  }

  static Tensor backward(Tensor grad_output, Tensor displacements, double switch_start,
                         double cutoff, int64_t switch_function) {
    const Arguments a = prepare(displacements, switch_start, cutoff, switch_function);
    const Tensor grad = a.gradient(grad_output);
    const Tensor out = allocate(a.displacements, "grad_displacements", {a.n_pairs(), 3});
    with_dtype(out, [&]<class T>(T) {
      auto pass = a.template pass<T>();
      pass.grad_rows = grad.template const_data_ptr<T>();
      pass.grad_displacements = out.template mutable_data_ptr<T>();
      Device::run(pass, Pass::backward, out);
    });
    return out;
  }

  static Tensor jvp(Tensor tangents, Tensor displacements, double switch_start, double cutoff,
                    int64_t switch_function) {
    const Arguments a = prepare(displacements, switch_start, cutoff, switch_function);
    const Tensor tangent = a.tangents(tangents, "tangents");
    const Tensor rows = allocate(a.displacements, "environment", {a.n_pairs(), 4});
    with_dtype(rows, [&]<class T>(T) {
      auto pass = a.template pass<T>();
      pass.tangents = tangent.template const_data_ptr<T>();
      pass.rows = rows.template mutable_data_ptr<T>();
      Device::run(pass, Pass::jvp, rows);
    });
    return rows;
  }

  static std::tuple<Tensor, Tensor> double_backward(Tensor grad_grad_displacements,
                                                    Tensor grad_output, Tensor displacements,
                                                    double switch_start, double cutoff,
                                                    int64_t switch_function) {
    const Arguments a = prepare(displacements, switch_start, cutoff, switch_function);
    const Tensor tangent = a.tangents(grad_grad_displacements, "grad_grad_displacements");
    const Tensor grad = a.gradient(grad_output);
    const Tensor rows = allocate(a.displacements, "environment", {a.n_pairs(), 4});
    const Tensor out = allocate(a.displacements, "grad_displacements", {a.n_pairs(), 3});
    with_dtype(out, [&]<class T>(T) {
      auto pass = a.template pass<T>();
      pass.tangents = tangent.template const_data_ptr<T>();
      pass.grad_rows = grad.template const_data_ptr<T>();
      pass.rows = rows.template mutable_data_ptr<T>();
      pass.grad_displacements = out.template mutable_data_ptr<T>();
      Device::run(pass, Pass::double_backward, out);
    });
    return {rows, out};
  }

  static Tensor jacobian(Tensor displacements, double switch_start, double cutoff,
                         int64_t switch_function) {
    const Arguments a = prepare(displacements, switch_start, cutoff, switch_function);
    const Tensor out = allocate(a.displacements, "jacobian", {a.n_pairs(), 4, 3});
    with_dtype(out, [&]<class T>(T) {
      auto pass = a.template pass<T>();
      pass.jacobian = out.template mutable_data_ptr<T>();
      Device::run(pass, Pass::jacobian, out);
    });
    return out;
  }

 private:
  struct Arguments {
    Tensor displacements;
    double switch_start, cutoff;
    int64_t switch_function;

    int64_t n_pairs() const { return displacements.size(0); }
    Tensor gradient(const Tensor& grad) const {
      return checked(grad, "grad_output", {n_pairs(), 4}, "[P, 4]", displacements, "displacements");
    }
    Tensor tangents(const Tensor& tensor, const char* name) const {
      return checked(tensor, name, {n_pairs(), 3}, "[P, 3]", displacements, "displacements");
    }
    template <class T>
    EnvironmentPass<T> pass() const {
      EnvironmentPass<T> p{};
      p.n_pairs = n_pairs();
      p.displacements = displacements.template const_data_ptr<T>();
      p.switch_start = switch_start;
      p.cutoff = cutoff;
      p.switch_function = static_cast<int>(switch_function);
      return p;
    }
  };

  static Arguments prepare(const Tensor& displacements, double switch_start, double cutoff,
                           int64_t switch_function) {
    require_float(displacements, "displacements");
    require_shape(displacements, "displacements", {-1, 3}, "[P, 3]");
    require(switch_function >= 0 && switch_function <= 2,
            "switch_function: expected 0 (none), 1 (cosine) or 2 (quintic), got ", switch_function);
    require(switch_function == 0 ||
                (switch_start >= 0 && switch_start < cutoff && std::isfinite(cutoff)),
            "cutoff: expected 0 <= switch_start < cutoff, finite, got switch_start ", switch_start,
            " and cutoff ", cutoff);
    return {torch::stable::contiguous(displacements), switch_start, cutoff, switch_function};
  }
};

template <class Device>
class ContractionOps {
 public:
  static Tensor forward(Tensor embedding, Tensor environment, Tensor pair_offsets, Tensor pair_rows,
                        int64_t n_axis) {
    const Arguments a = prepare(embedding, environment, pair_offsets, pair_rows, n_axis);
    const Tensor out = allocate(a.embedding, "features", {a.n_centers(), a.size()});
    with_dtype(out, [&]<class T>(T) {
      auto pass = a.template pass<T>();
      pass.features = out.template mutable_data_ptr<T>();
      Device::run(pass, Pass::forward, a.n_pairs(), out);
    });
    return out;
  }

  static std::tuple<Tensor, Tensor> backward(Tensor grad_output, Tensor embedding,
                                             Tensor environment, Tensor pair_offsets,
                                             Tensor pair_rows, int64_t n_axis) {
    const Arguments a = prepare(embedding, environment, pair_offsets, pair_rows, n_axis);
    const Tensor grad = a.gradient(grad_output);
    const Tensor functions = allocate(a.embedding, "embedding", {a.n_pairs(), a.n_functions()});
    const Tensor numbers = allocate(a.embedding, "environment", {a.n_pairs(), 4});
    with_dtype(grad, [&]<class T>(T) {
      auto pass = a.template pass<T>();
      pass.grad_features = grad.template const_data_ptr<T>();
      pass.grad_embedding = functions.template mutable_data_ptr<T>();
      pass.grad_environment = numbers.template mutable_data_ptr<T>();
      Device::run(pass, Pass::backward, a.n_pairs(), grad);
    });
    return {functions, numbers};
  }

  static std::tuple<Tensor, Tensor, Tensor> double_backward(Tensor grad_grad_embedding,
                                                            Tensor grad_grad_environment,
                                                            Tensor grad_output, Tensor embedding,
                                                            Tensor environment, Tensor pair_offsets,
                                                            Tensor pair_rows, int64_t n_axis) {
    const Arguments a = prepare(embedding, environment, pair_offsets, pair_rows, n_axis);
    const Tensor grad = a.gradient(grad_output);
    const Tensor along_functions =
        checked(grad_grad_embedding, "grad_grad_embedding", {a.n_pairs(), a.n_functions()},
                "[P, M], as embedding", a.embedding, "embedding");
    const Tensor along_numbers = checked(grad_grad_environment, "grad_grad_environment",
                                         {a.n_pairs(), 4}, "[P, 4]", a.embedding, "embedding");
    const Tensor out = allocate(a.embedding, "features", {a.n_centers(), a.size()});
    const Tensor functions = allocate(a.embedding, "embedding", {a.n_pairs(), a.n_functions()});
    const Tensor numbers = allocate(a.embedding, "environment", {a.n_pairs(), 4});
    with_dtype(out, [&]<class T>(T) {
      auto pass = a.template pass<T>();
      pass.grad_features = grad.template const_data_ptr<T>();
      pass.embedding_tangents = along_functions.template const_data_ptr<T>();
      pass.environment_tangents = along_numbers.template const_data_ptr<T>();
      pass.features = out.template mutable_data_ptr<T>();
      pass.grad_embedding = functions.template mutable_data_ptr<T>();
      pass.grad_environment = numbers.template mutable_data_ptr<T>();
      Device::run(pass, Pass::double_backward, a.n_pairs(), out);
    });
    return {out, functions, numbers};
  }

 private:
  struct Arguments {
    Tensor embedding, environment, pair_offsets, pair_rows;
    int64_t n_axis;

    int64_t n_centers() const { return pair_offsets.size(0) - 1; }
    int64_t n_pairs() const { return embedding.size(0); }
    int64_t n_functions() const { return embedding.size(1); }
    int64_t size() const { return n_functions() * n_axis; }
    Tensor gradient(const Tensor& grad) const {
      return checked(grad, "grad_output", {n_centers(), size()}, "[A, M * n_axis]", embedding,
                     "embedding");
    }
    template <class T>
    ContractionPass<T> pass() const {
      ContractionPass<T> p{};
      p.n_centers = n_centers();
      p.n_functions = n_functions();
      p.n_axis = n_axis;
      p.embedding = embedding.template const_data_ptr<T>();
      p.environment = environment.template const_data_ptr<T>();
      p.pair_offsets = pair_offsets.const_data_ptr<int64_t>();
      p.pair_rows = pair_rows.const_data_ptr<int64_t>();
      return p;
    }
  };

  static Arguments prepare(const Tensor& embedding, const Tensor& environment,
                           const Tensor& pair_offsets, const Tensor& pair_rows, int64_t n_axis) {
    require_float(embedding, "embedding");
    require_shape(embedding, "embedding", {-1, -1}, "[P, M]");
    const int64_t pairs = embedding.size(0), functions = embedding.size(1);
    require(n_axis >= 1 && n_axis <= functions, "n_axis: expected 1 ... M = ", functions, ", got ",
            n_axis);
    const Tensor rows = checked(environment, "environment", {pairs, 4}, "[P, 4], P as in embedding",
                                embedding, "embedding");
    const Tensor offsets =
        checked_index(pair_offsets, "pair_offsets", {-1}, "[A + 1]", embedding, "embedding");
    require(offsets.size(0) > 0, "pair_offsets: expected A + 1 >= 1 elements, got none");
    return {torch::stable::contiguous(embedding), rows, offsets,
            checked_index(pair_rows, "pair_rows", {pairs}, "[P], P as in embedding", embedding,
                          "embedding"),
            n_axis};
  }
};

template <class Device>
class TableOps {
 public:
  static Tensor forward(Tensor environment, Tensor pair_offsets, Tensor pair_kinds, Tensor table,
                        double first, double width, int64_t n_functions, int64_t n_axis) {
    const Arguments a =
        prepare(environment, pair_offsets, pair_kinds, table, first, width, n_functions, n_axis);
    const Tensor out = allocate(a.environment, "features", {a.n_centers(), a.size()});
    with_dtype(out, [&]<class T>(T) {
      auto pass = a.template pass<T>();
      pass.features = out.template mutable_data_ptr<T>();
      Device::run(pass, Pass::forward, a.n_pairs(), a.table.size(0), out);
    });
    return out;
  }

  static Tensor backward(Tensor grad_output, Tensor environment, Tensor pair_offsets,
                         Tensor pair_kinds, Tensor table, double first, double width,
                         int64_t n_functions, int64_t n_axis) {
    const Arguments a =
        prepare(environment, pair_offsets, pair_kinds, table, first, width, n_functions, n_axis);
    const Tensor grad = checked(grad_output, "grad_output", {a.n_centers(), a.size()},
                                "[A, n_functions * n_axis]", a.environment, "environment");
    const Tensor out = allocate(a.environment, "grad_environment", {a.n_pairs(), 4});
    with_dtype(out, [&]<class T>(T) {
      auto pass = a.template pass<T>();
      pass.grad_features = grad.template const_data_ptr<T>();
      pass.grad_environment = out.template mutable_data_ptr<T>();
      Device::run(pass, Pass::backward, a.n_pairs(), a.table.size(0), out);
    });
    return out;
  }

  struct Arguments {
    Tensor environment, pair_offsets, pair_kinds, table;
    double first, width;
    int64_t n_functions, n_axis;

    int64_t n_centers() const { return pair_offsets.size(0) - 1; }
    int64_t n_pairs() const { return environment.size(0); }
    int64_t size() const { return n_functions * n_axis; }
    template <class T>
    TablePass<T> pass() const {
      TablePass<T> p{};
      p.n_centers = n_centers();
      p.n_functions = n_functions;
      p.n_axis = n_axis;
      p.n_intervals = table.size(1);
      p.first = first;
      p.width = width;
      p.environment = environment.template const_data_ptr<T>();
      p.pair_offsets = pair_offsets.const_data_ptr<int64_t>();
      p.pair_kinds = pair_kinds.const_data_ptr<int64_t>();
      p.table = table.template const_data_ptr<T>();
      p.stride = table.size(3);
      return p;
    }
  };

  static Arguments prepare(const Tensor& environment, const Tensor& pair_offsets,
                           const Tensor& pair_kinds, const Tensor& table, double first,
                           double width, int64_t n_functions, int64_t n_axis) {
    require_float(environment, "environment");
    require_shape(environment, "environment", {-1, 4}, "[P, 4]");
    const Tensor offsets =
        checked_index(pair_offsets, "pair_offsets", {-1}, "[A + 1]", environment, "environment");
    require(offsets.size(0) > 0, "pair_offsets: expected A + 1 >= 1 elements, got none");
    const Tensor kinds = checked_index(pair_kinds, "pair_kinds", {environment.size(0)},
                                       "[P], P rows of environment", environment, "environment");
    require(n_axis >= 1 && n_axis <= n_functions,
            "n_axis: expected 1 ... n_functions = ", n_functions, ", got ", n_axis);
    const int64_t stride = (n_functions + kTablePadding - 1) / kTablePadding * kTablePadding;
    const Tensor values = checked(table, "table", {-1, -1, kTableTerms, stride},
                                  "[kinds, intervals, 6, n_functions padded to a multiple of 16]",
                                  environment, "environment");
    require(values.size(0) > 0 && values.size(1) > 0,
            "table: expected at least one kind and one interval, got ", shape_of(values));
    require(std::isfinite(first) && std::isfinite(width) && width > 0,
            "width: expected a positive width of an interval, got ", width, ", first ", first);
    return {torch::stable::contiguous(environment),
            offsets,
            kinds,
            values,
            first,
            width,
            n_functions,
            n_axis};
  }
};

template <class Device>
void register_deep_pot_se_ops(torch::stable::detail::StableLibrary& m) {
  m.impl("environment_matrix", TORCH_BOX(&EnvironmentOps<Device>::forward));
  m.impl("environment_matrix_backward", TORCH_BOX(&EnvironmentOps<Device>::backward));
  m.impl("environment_matrix_jvp", TORCH_BOX(&EnvironmentOps<Device>::jvp));
  m.impl("environment_matrix_double_backward", TORCH_BOX(&EnvironmentOps<Device>::double_backward));
  m.impl("environment_matrix_jacobian", TORCH_BOX(&EnvironmentOps<Device>::jacobian));
  m.impl("deep_pot_se", TORCH_BOX(&ContractionOps<Device>::forward));
  m.impl("deep_pot_se_backward", TORCH_BOX(&ContractionOps<Device>::backward));
  m.impl("deep_pot_se_double_backward", TORCH_BOX(&ContractionOps<Device>::double_backward));
  m.impl("deep_pot_se_table", TORCH_BOX(&TableOps<Device>::forward));
  m.impl("deep_pot_se_table_backward", TORCH_BOX(&TableOps<Device>::backward));
}

}  // namespace pymlp
