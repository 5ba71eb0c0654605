// Every op schema of torch.ops.pymlp. One rule for all descriptors, so that autograd, fake kernels
// and contract tests are generic (pymlp/ops.py):
//
//   <name>                 features [A, F]
//   <name>_backward        J^T g [P, 3]
//   <name>_jvp             J u [A, F]
//   <name>_double_backward J u and d(J^T g)/d(displacements) u
//   <name>_jacobian        J [P, F, 3]
//
// with A atoms, P pairs, F features, J the derivative of the features with respect to the
// displacements. Kernels are registered per device in ops/.
#include <torch/csrc/stable/library.h>

#include <string>

namespace {

void define_descriptor(torch::stable::detail::StableLibrary& library, const std::string& name,
                       const std::string& rest) {
  const std::string in = "Tensor displacements, " + rest + ") -> ";
  const auto define = [&](const std::string& schema) { library.def(schema.c_str()); };
  define(name + "(" + in + "Tensor");
  define(name + "_backward(Tensor grad_output, " + in + "Tensor");
  define(name + "_jvp(Tensor tangents, " + in + "Tensor");
  define(name + "_double_backward(Tensor grad_grad_displacements, Tensor grad_output, " + in +
         "(Tensor grad_grad_output, Tensor grad_displacements)");
  define(name + "_jacobian(" + in + "Tensor");
}

}  // namespace

STABLE_TORCH_LIBRARY(pymlp, m) {
  const std::string neighborhoods =
      "Tensor pair_offsets, Tensor neighbors, Tensor types, Tensor channels, Tensor weights, ";
  const std::string tables =
      "Tensor radial, Tensor distances, Tensor angles, Tensor products, int n_channels, "
      "float radial_cutoff, float angular_cutoff, int cutoff_function, ";
  define_descriptor(m, "behler_parrinello", neighborhoods + tables + "bool jk_factors");
  define_descriptor(m, "ani", neighborhoods + tables + "float cos_scale");

  // A row for each pair, not for each centre: [P, 4] in the place of [A, F]. DeepPot-SE beyond it
  // has other shapes: embedding [P, M] (row pair_rows[p] belongs to pair p) and environment [P, 4]
  // in, D [A, M * n_axis] out; the table holds [kinds, intervals, 6, M] coefficients.
  define_descriptor(m, "environment_matrix",
                    "float switch_start, float cutoff, int switch_function");
  const std::string contraction =
      "Tensor embedding, Tensor environment, Tensor pair_offsets, Tensor pair_rows, int n_axis) "
      "-> ";
  const std::string table =
      "Tensor environment, Tensor pair_offsets, Tensor pair_kinds, Tensor table, float first, "
      "float width, int n_functions, int n_axis";
  const std::string networks =
      "Tensor environment, Tensor pair_offsets, Tensor pair_kinds, Tensor parameters, "
      "Tensor standards, int[] widths, int n_axis";
  for (const std::string& schema :
       {"deep_pot_se(" + contraction + "Tensor",
        "deep_pot_se_backward(Tensor grad_output, " + contraction +
            "(Tensor grad_embedding, Tensor grad_environment)",
        "deep_pot_se_double_backward(Tensor grad_grad_embedding, Tensor grad_grad_environment, "
        "Tensor grad_output, " +
            contraction +
            "(Tensor grad_grad_output, Tensor grad_embedding, Tensor grad_environment)",
        "deep_pot_se_table(" + table + ") -> Tensor",
        "deep_pot_se_table_backward(Tensor grad_output, " + table + ") -> Tensor",
        "deep_pot_se_table_gradient(Tensor grad_output, " + table + ") -> Tensor",
        "deep_pot_se_table_double_backward(Tensor grad_grad_environment, Tensor grad_output, " +
            table +
            ", bool with_environment) -> (Tensor grad_grad_output, Tensor grad_environment, "
            "Tensor grad_table)",
        "deep_pot_se_networks(" + networks + ") -> Tensor",
        "deep_pot_se_networks_backward(Tensor grad_output, " + networks + ") -> Tensor",
        "deep_pot_se_networks_gradient(Tensor grad_output, " + networks + ") -> Tensor",
        "deep_pot_se_networks_double_backward(Tensor grad_grad_environment, Tensor grad_output, " +
            networks +
            ", bool with_environment) -> (Tensor grad_grad_output, Tensor grad_environment, "
            "Tensor grad_parameters)"}) {
    m.def(schema.c_str());
  }

  m.def(
      "all_pairs(Tensor positions, Tensor structure_offsets, float cutoff, int? n_pairs=None) -> "
      "(Tensor pair_offsets, Tensor centers, Tensor neighbors)");
  m.def(
      "cell_list(Tensor positions, Tensor structure_offsets, Tensor cell, Tensor pbc, float "
      "cutoff) "
      "-> (Tensor pair_offsets, Tensor neighbors, Tensor shifts)");
  m.def(
      "element_networks(Tensor features, Tensor types, Tensor order, Tensor weights, "
      "Tensor scalers, Tensor energy_scales, Tensor widths, int activation, bool residual, "
      "bool with_slopes) -> (Tensor energies, Tensor slopes)");
  const std::string to_train =
      "Tensor features, Tensor parameters, Tensor types, Tensor scalers, Tensor energy_scales, "
      "int[] widths, int activation, bool residual";
  m.def(
      ("element_networks_to_train(" + to_train + ") -> (Tensor energies, Tensor slopes)").c_str());
  m.def(("element_networks_to_train_backward(Tensor grad_energies, Tensor grad_slopes, " +
         to_train + ", bool with_features) -> (Tensor grad_features, Tensor grad_parameters)")
            .c_str());
  m.def(
      "committee_statistics(Tensor energies, Tensor structure_offsets, Tensor? pair_gradients, "
      "Tensor pair_offsets, Tensor neighbors) -> (Tensor energy, Tensor energy_std, "
      "Tensor atomic_energies, Tensor forces, Tensor forces_std)");
  m.def("pair_differences(Tensor positions, Tensor pair_offsets, Tensor neighbors) -> Tensor");
  m.def(
      "image_differences(Tensor positions, Tensor cell, Tensor structure_index, Tensor "
      "pair_offsets, "
      "Tensor neighbors, Tensor shifts) -> Tensor");
  m.def(
      "pair_differences_backward(Tensor grad_output, Tensor pair_offsets, Tensor neighbors) -> "
      "Tensor");
}
