// One case of the list of neighbours in cells.
#pragma once

#include <algorithm>
#include <vector>

#include "cases.h"
#include "loops/cuda/cell_list.cuh"

namespace pymlp {

template <class T>
void run_cells(Reader& in, Writer& out) {
  cuda::CellInput<T> atoms{};
  atoms.n_atoms = in.value<int64_t>();
  atoms.n_structures = in.value<int64_t>();
  atoms.cutoff = in.value<double>();
  atoms.same_place = in.value<double>();
  const auto positions = in.array<T>(3 * atoms.n_atoms);
  const auto structure_offsets = in.array<int64_t>(atoms.n_structures + 1);
  const auto cell = in.array<T>(9 * atoms.n_structures);
  const auto pbc = in.array<bool>(3 * atoms.n_structures);
  atoms.positions = positions.get();
  atoms.structure_offsets = structure_offsets.get();
  atoms.cell = cell.get();
  atoms.pbc = pbc.get();
  const int64_t n = atoms.n_atoms, n_cells = cuda::cells_for(n, atoms.n_structures);

  const auto boxes = unwritten<cuda::CellBox>(atoms.n_structures);
  const auto points = unwritten<cuda::CellPoint>(n), by_cell = unwritten<cuda::CellPoint>(n);
  const auto turns = unwritten<cuda::CellTurns>(n);
  const auto cells = unwritten<int>(n), first = unwritten<int>(n_cells + 1);
  const auto order = unwritten<int64_t>(n), counts = unwritten<int64_t>(n + 1);
  cuda::CellStatus status{};
  cuda::bin_atoms(atoms, boxes.get(), cells.get(), points.get(), turns.get(), &status, nullptr);
  for (int64_t i = 0; i < n; ++i) order[i] = i;
  std::stable_sort(order.get(), order.get() + n,
                   [&](int64_t a, int64_t b) { return cells[a] < cells[b]; });
  std::stable_sort(cells.get(), cells.get() + n);
  cuda::lay_out_cells(n, atoms.n_structures, cells.get(), order.get(), points.get(), by_cell.get(),
                      first.get(), nullptr);
  const cuda::CellListInput<T> search{atoms,         boxes.get(), cells.get(),
                                      by_cell.get(), first.get(), turns.get()};
  cuda::count_images(search, counts.get(), &status, nullptr);
  for (int64_t i = 0; i < n; ++i) counts[i + 1] += counts[i];
  const int64_t n_pairs = counts[n];
  const auto keys = unwritten<int64_t>(n_pairs), neighbors = unwritten<int64_t>(n_pairs);
  const auto shifts = unwritten<int32_t>(status.periodic ? 3 * n_pairs : 0);
  cuda::fill_images(search, counts.get(), keys.get(), neighbors.get(),
                    status.periodic ? shifts.get() : nullptr, &status, nullptr);
  const std::unique_ptr<int64_t[]> flags(new int64_t[2]{status.trouble, status.periodic});
  out.array(flags, 2);
  out.array(counts, n + 1);
  out.array(neighbors, n_pairs);
  out.array(shifts, status.periodic ? 3 * n_pairs : 0);
}

}  // namespace pymlp
