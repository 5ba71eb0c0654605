// torch.ops.pymlp.all_pairs on CUDA: the pairs are counted, the counts summed up, the list filled.
// The host waits, for the ends of structure_offsets, which are checked, and for the number of
// pairs, which the outputs are allocated for. It waits for nothing where it knows that number,
// which with cutoff = inf depends on the sizes of the structures alone: then a CUDA graph may hold
// the call, and structure_offsets are not looked at.
#include <cmath>
#include <optional>
#include <tuple>

#include "../loops/cuda/pair_list.cuh"
#include "pair_counts.cuh"

namespace pymlp {
namespace {

template <class T>
std::tuple<Tensor, Tensor, Tensor> search_pairs(const Tensor& positions,
                                                const Tensor& structure_offsets, double cutoff,
                                                std::optional<int64_t> known) {
  const CudaScope scope(positions);
  const int64_t n_atoms = positions.size(0), n_structures = structure_offsets.size(0) - 1;
  const int64_t* structures = structure_offsets.const_data_ptr<int64_t>();
  if (!known) {
    require(read_back(structures, scope.stream()) == 0 &&
                read_back(structures + n_structures, scope.stream()) == n_atoms,
            "structure_offsets: expected to ascend from 0 to A = ", n_atoms);
  }
  const cuda::PairSearch<T> search{n_atoms,    n_structures,       positions.const_data_ptr<T>(),
                                   structures, T(cutoff * cutoff), std::isinf(cutoff)};
  Tensor counts = torch::stable::new_empty(structure_offsets, {n_atoms + 1});
  check_cuda(cuda::count_pairs(search, counts.mutable_data_ptr<int64_t>(), scope.stream()));
  const Tensor pair_offsets = running_sums(counts);

  const int64_t* offsets = pair_offsets.const_data_ptr<int64_t>();
  const int64_t n_pairs = known ? *known : read_back(offsets + n_atoms, scope.stream());
  Tensor centers = torch::stable::new_empty(structure_offsets, {n_pairs});
  Tensor neighbors = torch::stable::new_empty(structure_offsets, {n_pairs});
  check_cuda(cuda::fill_pairs(search, offsets, n_pairs, centers.mutable_data_ptr<int64_t>(),
                              neighbors.mutable_data_ptr<int64_t>(), scope.stream()));
  return {pair_offsets, centers, neighbors};
}

std::tuple<Tensor, Tensor, Tensor> all_pairs(Tensor positions, Tensor structure_offsets,
                                             double cutoff, std::optional<int64_t> n_pairs) {
  check_pair_search(positions, structure_offsets, cutoff);
  require(!n_pairs || (std::isinf(cutoff) && *n_pairs >= 0),
          "n_pairs: expected none, or for cutoff = inf the number of pairs, got ",
          n_pairs.value_or(0), " for cutoff = ", cutoff);
  positions = torch::stable::contiguous(positions);
  structure_offsets = torch::stable::contiguous(structure_offsets);
  if (positions.scalar_type() == ScalarType::Float) {
    return search_pairs<float>(positions, structure_offsets, cutoff, n_pairs);
  }
  return search_pairs<double>(positions, structure_offsets, cutoff, n_pairs);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CUDA, m) { m.impl("all_pairs", TORCH_BOX(&all_pairs)); }

}  // namespace pymlp
