// The torch side of the symmetry-function descriptors, once for both families and both devices:
// checks, allocation, dtype dispatch. An Op says what differs:
//
//   struct Op {
//     using Variant = ...;                                  // type of the schema's last argument
//     template <class T> static void set_variant(SymmetryTables<T>&, Variant);
//     template <class T> static void run(const SymmetryPass<T>&, Pass, int64_t n_pairs, int64_t
//     n_types, const Tensor&);
//   };
#pragma once

#include "../loops/neighborhood.h"
#include "allocation.h"
#include "checks.h"

namespace pymlp {

// The arguments after `displacements`, contiguous and checked.
struct SymmetryArguments {
  Tensor displacements, pair_offsets, neighbors, types, channels, weights;
  Tensor radial, distances, angles, products;
  int64_t n_channels;
  double radial_cutoff, angular_cutoff;
  int64_t cutoff_function;

  void check() const {
    require_float(displacements, "displacements");
    require_shape(displacements, "displacements", {-1, 3}, "[P, 3]");
    const int64_t pairs = displacements.size(0);
    require_shape(pair_offsets, "pair_offsets", {-1}, "[A + 1]");
    require(pair_offsets.size(0) > 0, "pair_offsets: expected A + 1 >= 1 elements, got none");
    require_shape(neighbors, "neighbors", {pairs}, "[P], P rows of displacements");
    require_shape(types, "types", {pair_offsets.size(0) - 1},
                  "[A], A + 1 elements of pair_offsets");
    require_shape(channels, "channels", {-1}, "[n_types]");
    require_shape(weights, "weights", {channels.size(0)}, "[n_types], as channels");
    require_shape(radial, "radial", {-1, -1, 3}, "[n_sets, R, 3]");
    require_shape(distances, "distances", {-1, 2}, "[D, 2]");
    require_shape(angles, "angles", {-1, 3}, "[Z, 3]");
    require_shape(products, "products", {radial.size(0), -1, 2}, "[n_sets, S, 2]");
    require(radial.size(0) == 1 || radial.size(0) == channels.size(0),
            "radial: expected n_sets = 1 or n_types = ", channels.size(0), ", got ",
            radial.size(0));
    require(n_channels > 0, "n_channels: expected a positive number, got ", n_channels);
    require(radial_cutoff > 0, "radial_cutoff: expected a positive length, got ", radial_cutoff);
    require(angular_cutoff > 0, "angular_cutoff: expected a positive length, got ", angular_cutoff);
    require(cutoff_function == 0 || cutoff_function == 1,
            "cutoff_function: expected 0 (cosine) or 1 (smooth), got ", cutoff_function);
    for (const auto& [tensor, name] : {std::pair{pair_offsets, "pair_offsets"},
                                       {neighbors, "neighbors"},
                                       {types, "types"},
                                       {channels, "channels"},
                                       {products, "products"}}) {
      require_index(tensor, name, displacements);
    }
    for (const auto& [tensor, name] : {std::pair{weights, "weights"},
                                       {radial, "radial"},
                                       {distances, "distances"},
                                       {angles, "angles"}}) {
      require_like(tensor, name, displacements);
    }
  }

  void make_contiguous() {
    for (Tensor* tensor : {&displacements, &pair_offsets, &neighbors, &types, &channels, &weights,
                           &radial, &distances, &angles, &products}) {
      if (!tensor->is_contiguous()) *tensor = torch::stable::contiguous(*tensor);
    }
  }

  template <class T>
  SymmetryPass<T> pass() const {
    SymmetryPass<T> p{};
    p.atoms = {types.size(0),
               displacements.const_data_ptr<T>(),
               pair_offsets.const_data_ptr<int64_t>(),
               neighbors.const_data_ptr<int64_t>(),
               types.const_data_ptr<int64_t>(),
               channels.const_data_ptr<int64_t>(),
               weights.const_data_ptr<T>()};
    p.tables = {n_channels,
                radial.size(0),
                radial.size(1),
                distances.size(0),
                angles.size(0),
                products.size(1),
                radial.const_data_ptr<T>(),
                distances.const_data_ptr<T>(),
                angles.const_data_ptr<T>(),
                products.const_data_ptr<int64_t>(),
                radial_cutoff,
                angular_cutoff,
                static_cast<int>(cutoff_function),
                false,
                1.0};
    return p;
  }

  int64_t n_atoms() const { return types.size(0); }
  int64_t n_pairs() const { return displacements.size(0); }
  int64_t n_features() const { return pass_sizes().n_features(); }

 private:
  SymmetryTables<float> pass_sizes() const {
    SymmetryTables<float> sizes{};
    sizes.n_channels = n_channels;
    sizes.n_radial = radial.size(1);
    sizes.n_angular = products.size(1);
    return sizes;
  }
};

template <class Op>
class SymmetryOps {
 public:
  using Variant = typename Op::Variant;

  static Tensor forward(Tensor displacements, Tensor pair_offsets, Tensor neighbors, Tensor types,
                        Tensor channels, Tensor weights, Tensor radial, Tensor distances,
                        Tensor angles, Tensor products, int64_t n_channels, double radial_cutoff,
                        double angular_cutoff, int64_t cutoff_function, Variant variant) {
    const auto a = prepare({displacements, pair_offsets, neighbors, types, channels, weights,
                            radial, distances, angles, products, n_channels, radial_cutoff,
                            angular_cutoff, cutoff_function});
    return run(a, variant, Pass::forward, nullptr, nullptr).features;
  }

  static Tensor backward(Tensor grad_output, Tensor displacements, Tensor pair_offsets,
                         Tensor neighbors, Tensor types, Tensor channels, Tensor weights,
                         Tensor radial, Tensor distances, Tensor angles, Tensor products,
                         int64_t n_channels, double radial_cutoff, double angular_cutoff,
                         int64_t cutoff_function, Variant variant) {
    const auto a = prepare({displacements, pair_offsets, neighbors, types, channels, weights,
                            radial, distances, angles, products, n_channels, radial_cutoff,
                            angular_cutoff, cutoff_function});
    return run(a, variant, Pass::backward, &grad_output, nullptr).displacements;
  }

  static Tensor jvp(Tensor tangents, Tensor displacements, Tensor pair_offsets, Tensor neighbors,
                    Tensor types, Tensor channels, Tensor weights, Tensor radial, Tensor distances,
                    Tensor angles, Tensor products, int64_t n_channels, double radial_cutoff,
                    double angular_cutoff, int64_t cutoff_function, Variant variant) {
    const auto a = prepare({displacements, pair_offsets, neighbors, types, channels, weights,
                            radial, distances, angles, products, n_channels, radial_cutoff,
                            angular_cutoff, cutoff_function});
    return run(a, variant, Pass::jvp, nullptr, &tangents).features;
  }

  static std::tuple<Tensor, Tensor> double_backward(
      Tensor grad_grad_displacements, Tensor grad_output, Tensor displacements, Tensor pair_offsets,
      Tensor neighbors, Tensor types, Tensor channels, Tensor weights, Tensor radial,
      Tensor distances, Tensor angles, Tensor products, int64_t n_channels, double radial_cutoff,
      double angular_cutoff, int64_t cutoff_function, Variant variant) {
    const auto a = prepare({displacements, pair_offsets, neighbors, types, channels, weights,
                            radial, distances, angles, products, n_channels, radial_cutoff,
                            angular_cutoff, cutoff_function});
    const auto out = run(a, variant, Pass::double_backward, &grad_output, &grad_grad_displacements);
    return {out.features, out.displacements};
  }

  static Tensor jacobian(Tensor displacements, Tensor pair_offsets, Tensor neighbors, Tensor types,
                         Tensor channels, Tensor weights, Tensor radial, Tensor distances,
                         Tensor angles, Tensor products, int64_t n_channels, double radial_cutoff,
                         double angular_cutoff, int64_t cutoff_function, Variant variant) {
    const auto a = prepare({displacements, pair_offsets, neighbors, types, channels, weights,
                            radial, distances, angles, products, n_channels, radial_cutoff,
                            angular_cutoff, cutoff_function});
    return run(a, variant, Pass::jacobian, nullptr, nullptr).features;
  }

 private:
  struct Outputs {
    Tensor features, displacements;
  };

  static SymmetryArguments prepare(SymmetryArguments arguments) {
    arguments.check();
    arguments.make_contiguous();
    return arguments;
  }

  static Outputs run(const SymmetryArguments& a, Variant variant, Pass kind,
                     const Tensor* grad_output, const Tensor* tangents) {
    const Tensor& like = a.displacements;
    Tensor grad, tangent;
    Outputs out;
    // Several cotangents, [M, A, F], give as many gradients, [M, P, 3].
    const bool several = kind == Pass::backward && grad_output->dim() == 3;
    const int64_t repeats = several ? grad_output->size(0) : 1;
    if (grad_output != nullptr) {
      if (several) {
        require_shape(*grad_output, "grad_output", {-1, a.n_atoms(), a.n_features()}, "[M, A, F]");
        out.displacements = allocate(like, "grad_displacements", {repeats, a.n_pairs(), 3});
      } else {
        require_shape(*grad_output, "grad_output", {a.n_atoms(), a.n_features()}, "[A, F]");
        out.displacements = allocate(like, "grad_displacements", {a.n_pairs(), 3});
      }
      require_like(*grad_output, "grad_output", like);
      grad = torch::stable::contiguous(*grad_output);
    }
    if (tangents != nullptr) {
      const char* name = kind == Pass::jvp ? "tangents" : "grad_grad_displacements";
      require_shape(*tangents, name, {a.n_pairs(), 3}, "[P, 3]");
      require_like(*tangents, name, like);
      tangent = torch::stable::contiguous(*tangents);
    }
    if (kind == Pass::jacobian) {
      out.features = allocate(like, "jacobian", {a.n_pairs(), a.n_features(), 3});
    } else if (kind != Pass::backward) {
      out.features = allocate(like, "features", {a.n_atoms(), a.n_features()});
    }
    const auto run_as = [&]<class T>(T) {
      SymmetryPass<T> pass = a.template pass<T>();
      Op::set_variant(pass.tables, variant);
      if (grad_output != nullptr) {
        pass.grad_features = grad.template const_data_ptr<T>();
        pass.grad_displacements = out.displacements.template mutable_data_ptr<T>();
      }
      if (tangents != nullptr) pass.tangents = tangent.template const_data_ptr<T>();
      if (kind == Pass::jacobian) {
        pass.jacobian = out.features.template mutable_data_ptr<T>();
      } else if (kind != Pass::backward) {
        pass.features = out.features.template mutable_data_ptr<T>();
      }
      for (int64_t m = 0; m < repeats; ++m) {
        Op::template run<T>(pass, kind, a.n_pairs(), a.channels.size(0), like);
        if (!several) break;
        pass.grad_features += a.n_atoms() * a.n_features();
        pass.grad_displacements += 3 * a.n_pairs();
      }
    };
    if (like.scalar_type() == ScalarType::Float) {
      run_as(float{});
    } else {
      run_as(double{});
    }
    return out;
  }
};

// One registration block per family and device:
//   STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) { register_symmetry_ops<AniCpu>(m, "ani"); }
template <class Op>
void register_symmetry_ops(torch::stable::detail::StableLibrary& m, const std::string& name) {
  m.impl(name.c_str(), TORCH_BOX(&SymmetryOps<Op>::forward));
  m.impl((name + "_backward").c_str(), TORCH_BOX(&SymmetryOps<Op>::backward));
  m.impl((name + "_jvp").c_str(), TORCH_BOX(&SymmetryOps<Op>::jvp));
  m.impl((name + "_double_backward").c_str(), TORCH_BOX(&SymmetryOps<Op>::double_backward));
  m.impl((name + "_jacobian").c_str(), TORCH_BOX(&SymmetryOps<Op>::jacobian));
}

}  // namespace pymlp
