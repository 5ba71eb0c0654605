// pymlp._C: what was built, and what of it this machine uses. Free of torch, so that it can be
// asked when the op library does not load.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <sstream>
#include <string>
#include <vector>

#include "numbers/simd_level.h"

namespace py = pybind11;

extern const char* const pymlp_git_commit;

namespace {

std::vector<std::string> split(const std::string& text) {
  std::istringstream words(text);
  std::vector<std::string> result;
  for (std::string word; words >> word;) result.push_back(word);
  return result;
}

py::dict build_info() {
  std::vector<std::string> levels{"baseline"};
#ifdef PYMLP_HAVE_AVX2
  levels.emplace_back("avx2");
#endif
#ifdef PYMLP_HAVE_AVX512
  levels.emplace_back("avx512");
#endif
  py::dict info;
  info["version"] = PYMLP_VERSION;
  info["commit"] = pymlp_git_commit;
  info["build_type"] = PYMLP_BUILD_TYPE;
  info["compiler"] = PYMLP_COMPILER;
  info["flags"] = PYMLP_CXX_FLAGS;
  info["torch"] = PYMLP_TORCH_VERSION;
  info["simd_levels"] = levels;
  info["best_simd_level"] = pymlp::name_of(pymlp::best_simd_level());
  info["simd_level"] = pymlp::name_of(pymlp::simd_level());
#ifdef PYMLP_NVCC_VERSION
  info["nvcc"] = PYMLP_NVCC_VERSION;
  info["cuda_architectures"] = split(PYMLP_CUDA_ARCHITECTURES);
#else
  info["nvcc"] = py::none();
  info["cuda_architectures"] = split("");
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "What was built: free of torch.";
  m.def("build_info", &build_info, R"(Describe this build of pymlp.

Returns a dict: version, commit ("unknown" outside a git checkout; a "+" behind it: with changes),
build_type, compiler, flags, torch (the version whose headers were used), simd_levels (built),
best_simd_level (of this machine), simd_level (in use: the best one, or PYMLP_SIMD_LEVEL), nvcc
(version, or None for a build without CUDA), cuda_architectures ("80-real": code for that GPU,
"90": code, and PTX that later GPUs compile).

Raises ValueError when PYMLP_SIMD_LEVEL names no level of this machine and build.)");
}
