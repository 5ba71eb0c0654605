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

  m.def("all_pairs(Tensor positions, Tensor structure_offsets, float cutoff) -> "
        "(Tensor pair_offsets, Tensor centers, Tensor neighbors)");
}
