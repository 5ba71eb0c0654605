// torch.ops.pymlp.cell_list on CUDA: atoms are put into cells and sorted by them, pairs counted and
// filled in. The host waits once, for the number of pairs and for whether all went well. Where it
// did not, the CPU's op is asked: it refuses in words what has to be refused, and serves what the
// kernels do not (images beyond 511 cells, atoms more than 2e6 cells outside).
#include <array>
#include <limits>
#include <tuple>

#include "../loops/cuda/cell_list.cuh"
#include "cell_list.h"
#include "pair_counts.cuh"

namespace pymlp {
namespace {

using List = std::tuple<Tensor, Tensor, Tensor>;
using torch::stable::new_empty;
using torch::stable::detail::from;

// The cells in ascending order, and the atoms in that order; of one cell by their index.
std::pair<Tensor, Tensor> sorted(const Tensor& cells) {
  std::array<StableIValue, 4> stack{from(cells), from(std::optional<bool>(true)), from(int64_t(0)),
                                    from(false)};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  using torch::stable::detail::to;
  return {to<Tensor>(stack[0]), to<Tensor>(stack[1])};
}

List on_the_cpu(const Tensor& positions, const Tensor& structure_offsets, const Tensor& cell,
                const Tensor& pbc, double cutoff) {
  const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU);
  using torch::stable::to;
  const auto [offsets, neighbors, shifts] = cell_list_on_cpu(
      to(positions, cpu), to(structure_offsets, cpu), to(cell, cpu), to(pbc, cpu), cutoff);
  const torch::stable::Device back = positions.device();
  return {to(offsets, back), to(neighbors, back), to(shifts, back)};
}

template <class Record>
Record* records(const Tensor& memory) {
  return static_cast<Record*>(memory.mutable_data_ptr());
}

template <class T>
List search_cells(const Tensor& positions, const Tensor& structure_offsets, const Tensor& cell,
                  const Tensor& pbc, double cutoff) {
  const CudaScope scope(positions);
  const cudaStream_t stream = scope.stream();
  const int64_t n_atoms = positions.size(0), n_structures = structure_offsets.size(0) - 1;
  const int64_t n_cells = cuda::cells_for(n_atoms, n_structures);
  if (n_structures == 0 || n_cells > std::numeric_limits<int>::max() / 4) {
    return on_the_cpu(positions, structure_offsets, cell, pbc, cutoff);
  }
  // Memory of records, which torch has no dtype for.
  const auto memory = [&](int64_t n, size_t size) {
    return new_empty(positions, {n * static_cast<int64_t>(size)}, ScalarType::Byte);
  };
  const auto ints = [&](int64_t n) { return new_empty(positions, {n}, ScalarType::Int); };
  const Tensor boxes = memory(n_structures, sizeof(cuda::CellBox));
  const Tensor points = memory(n_atoms, sizeof(cuda::CellPoint));
  const Tensor by_cell = memory(n_atoms, sizeof(cuda::CellPoint));
  const Tensor turns = memory(n_atoms, sizeof(cuda::CellTurns));
  const Tensor cells = ints(n_atoms), first = ints(n_cells + 1), flags = ints(2);
  static_assert(sizeof(cuda::CellStatus) == 2 * sizeof(int));
  cuda::CellStatus* status = records<cuda::CellStatus>(flags);
  check_cuda(cudaMemsetAsync(status, 0, sizeof(*status), stream));

  const cuda::CellInput<T> atoms{n_atoms,
                                 n_structures,
                                 positions.const_data_ptr<T>(),
                                 structure_offsets.const_data_ptr<int64_t>(),
                                 cell.const_data_ptr<T>(),
                                 pbc.const_data_ptr<bool>(),
                                 cutoff,
                                 kCoincident};
  check_cuda(cuda::bin_atoms(atoms, records<cuda::CellBox>(boxes), records<int>(cells),
                             records<cuda::CellPoint>(points), records<cuda::CellTurns>(turns),
                             status, stream));
  const auto [sorted_cells, order] = sorted(cells);
  check_cuda(cuda::lay_out_cells(n_atoms, n_structures, records<int>(sorted_cells),
                                 order.const_data_ptr<int64_t>(), records<cuda::CellPoint>(points),
                                 records<cuda::CellPoint>(by_cell), records<int>(first), stream));
  const cuda::CellListInput<T> search{atoms,
                                      records<cuda::CellBox>(boxes),
                                      records<int>(sorted_cells),
                                      records<cuda::CellPoint>(by_cell),
                                      records<int>(first),
                                      records<cuda::CellTurns>(turns)};
  const Tensor counts = new_empty(structure_offsets, {n_atoms + 1});
  check_cuda(cuda::count_images(search, counts.mutable_data_ptr<int64_t>(), status, stream));
  const Tensor pair_offsets = running_sums(counts);
  const int64_t* offsets = pair_offsets.const_data_ptr<int64_t>();

  int64_t n_pairs = 0;
  check_cuda(cudaMemcpyAsync(&n_pairs, offsets + n_atoms, sizeof(n_pairs), cudaMemcpyDeviceToHost,
                             stream));
  const cuda::CellStatus found = read_back(status, stream);
  if (found.trouble) return on_the_cpu(positions, structure_offsets, cell, pbc, cutoff);
  const Tensor neighbors = new_empty(structure_offsets, {n_pairs});
  const Tensor keys = new_empty(structure_offsets, {n_pairs});
  const Tensor shifts = new_empty(positions, {found.periodic ? n_pairs : 0, 3}, ScalarType::Int);
  check_cuda(cuda::fill_images(
      search, offsets, keys.mutable_data_ptr<int64_t>(), neighbors.mutable_data_ptr<int64_t>(),
      found.periodic ? shifts.mutable_data_ptr<int32_t>() : nullptr, status, stream));
  return {pair_offsets, neighbors, shifts};
}

List cell_list(Tensor positions, Tensor structure_offsets, Tensor cell, Tensor pbc, double cutoff) {
  check_cell_search(positions, structure_offsets, cell, pbc, cutoff);
  using torch::stable::contiguous;
  positions = contiguous(positions);
  structure_offsets = contiguous(structure_offsets);
  cell = contiguous(cell);
  pbc = contiguous(pbc);
  const auto search =
      positions.scalar_type() == ScalarType::Float ? &search_cells<float> : &search_cells<double>;
  return search(positions, structure_offsets, cell, pbc, cutoff);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CUDA, m) { m.impl("cell_list", TORCH_BOX(&cell_list)); }

}  // namespace pymlp
