// torch.ops.pymlp.cell_list on the CPU: the full neighbour list of periodic and of large
// structures. Pairs are found in the order that they have in the list, centre by centre, so that
// nothing is sorted but each centre's own neighbours: 1.1 us per atom of water at a cutoff of 5.2
// Angstrom and any size, where vesin takes 3.2-4 and putting its pairs in order 1.5-7.
#include "cell_list.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "allocation.h"
#include "cell_grid.h"
#include "checks.h"
#include "cpu/dispatch.h"

namespace pymlp {
namespace {

constexpr int64_t kAtomsPerTask = 512;

// Memory that grows, and is not filled with zeros first.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_) {
    other.data_ = nullptr;
    other.size_ = 0;
  }
  ~Buffer() { std::free(data_); }

  void grow(int64_t size) {
    if (size <= size_) return;
    auto* larger = static_cast<T*>(std::realloc(data_, static_cast<size_t>(size) * sizeof(T)));
    if (larger == nullptr) throw std::bad_alloc();
    data_ = larger;
    size_ = size;
  }
  T* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

struct Problem {
  Trouble trouble = Trouble::none;
  int64_t i = -1, j = -1;  // atoms of the structure
  double distance = -1.0;  // of atoms that coincide
  bool found() const { return trouble != Trouble::none || distance >= 0.0; }
};

// One structure and what the first step leaves for the second.
struct System {
  int64_t begin, n_atoms;
  const double* positions;  // of its first atom, as they were given
  std::array<Vector, 3> cell;
  int32_t* turns;   // of its first atom
  int64_t* counts;  // of its first atom
  Images images;
  Problem problem;
};

// A block of centres of one structure, and the neighbours that were found.
struct Task {
  int64_t system, begin, end;
  Buffer<Key> keys;
  Problem problem;
};

std::array<int32_t, 3> shift_of(const System& system, int64_t i, int64_t j, int64_t image) {
  auto shift = system.images.shift(image);
  for (int k = 0; k < 3; ++k) shift[k] += system.turns[3 * i + k] - system.turns[3 * j + k];
  return shift;
}

// The squared distance, calculated as displacements are: the same both ways, to the last bit.
double square_distance(const System& system, int64_t i, int64_t j, int64_t image) {
  const auto shift = shift_of(system, i, j, image);
  double square = 0.0;
  for (int x = 0; x < 3; ++x) {
    double d = system.positions[3 * j + x] - system.positions[3 * i + x];
    d += shift[0] * system.cell[0][x] + shift[1] * system.cell[1][x] + shift[2] * system.cell[2][x];
    square += d * d;
  }
  return square;
}

// Looks again at the neighbours of the centre that the search has just done.
void examine(const System& system, int64_t i, double cutoff, CellSearch& search, Problem& problem) {
  const int bits = system.images.image_bits;
  Key* own = search.found + search.n_found - search.counts[i];
  std::sort(own, own + search.counts[i]);
  int64_t kept = 0;
  for (int64_t p = 0; p < search.counts[i]; ++p) {
    const auto key = static_cast<int64_t>(own[p]);
    const int64_t j = key >> bits, image = key & ((int64_t(1) << bits) - 1);
    const double square = square_distance(system, i, j, image);
    if (square < kCoincident * kCoincident) problem = {Trouble::none, i, j, std::sqrt(square)};
    if (square < cutoff * cutoff) own[kept++] = own[p];
  }
  search.n_found -= search.counts[i] - kept;
  search.counts[i] = kept;
}

void search_task(const CellGrid& grid, const System& system, double cutoff, double doubt,
                 Task& task) {
  thread_local Buffer<Key> candidates;
  thread_local Buffer<double> squares;
  Buffer<Key>& found = task.keys;
  found.grow(64 * (task.end - task.begin));
  CellSearch search{};
  search.counts = system.counts;
  search.too_close = (kCoincident + doubt) * (kCoincident + doubt);
  search.surely_near = std::max(cutoff - doubt, 0.0) * std::max(cutoff - doubt, 0.0);
  const auto cell_search = cpu_kernels().cell_search;
  int64_t i = task.begin;
  while (i < task.end && !task.problem.found()) {
    // As many again as so far: the atoms that are left are not so different.
    if (search.needed > found.size() - search.n_found) {
      found.grow(found.size() + std::max(found.size() / 2, search.needed));
    }
    candidates.grow(std::max<int64_t>(1024, 2 * search.needed));
    squares.grow(candidates.size());
    search.found = found.data();
    search.room = found.size();
    search.candidates = candidates.data();
    search.squares = squares.data();
    search.width = std::min(candidates.size(), squares.size());
    search.needed = 0;
    search.doubtful = false;
    i = cell_search(grid, i, task.end, search);
    if (search.doubtful) examine(system, i - 1, cutoff, search, task.problem);
  }
}

void search_system(const Wrapped& atoms, System& system, double cutoff, double doubt,
                   std::vector<Task*> tasks) {
  CellGridMemory memory;
  if (!memory.build(atoms, cutoff + doubt, (cutoff + doubt) * (cutoff + doubt))) {
    system.problem.trouble = Trouble::too_many;
    return;
  }
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      search_task(memory.view(), system, cutoff, doubt, *tasks[static_cast<size_t>(t)]);
    }
  };
  const auto n_tasks = static_cast<int64_t>(tasks.size());
  if (n_tasks == 1) {
    run(0, 1);
  } else {
    torch::stable::parallel_for(0, n_tasks, 1, run);
  }
}

void search(System& system, const bool* pbc, double cutoff, std::vector<Task*> tasks) {
  const Lattice lattice = make_lattice(system.cell.data(), pbc);
  // What rounding may do to a distance, from the size of all numbers that go into it.
  double size = cutoff;
  for (int64_t x = 0; x < 3 * system.n_atoms; ++x) {
    size = std::max(size, std::abs(system.positions[x]));
  }
  for (const auto& vector : system.cell) {
    size = std::max({size, std::abs(vector[0]), std::abs(vector[1]), std::abs(vector[2])});
  }
  const double doubt = std::min(1e-9 + 1e-13 * size, cutoff);
  const Wrapped atoms =
      wrap(system.positions, system.n_atoms, lattice, cutoff + doubt, system.turns);
  system.images = atoms.images;
  if (atoms.trouble != Trouble::none) {
    system.problem = {atoms.trouble, atoms.culprit, -1, -1.0};
  } else {
    search_system(atoms, system, cutoff, doubt, std::move(tasks));
  }
}

void refuse_problem(const Problem& problem, int64_t structure, int64_t first_atom) {
  if (problem.distance >= 0.0) {
    refuse_coincident(structure, problem.i, problem.j, problem.distance);
  }
  if (problem.trouble == Trouble::not_finite) refuse_not_finite(first_atom + problem.i);
  if (problem.trouble == Trouble::too_far_outside) {
    refuse("positions: atom ", problem.i, " of structure ", structure,
           " is more than 1e9 cells away from its cell");
  }
  if (problem.trouble == Trouble::too_many) {
    refuse("cutoff: structure ", structure, " has too many atoms and periodic images within it");
  }
}

// Writes neighbours and shifts of a task's centres from their first pair on.
void unpack(const System& system, Task& task, int64_t* neighbors, int32_t* shifts) {
  const Key* keys = task.keys.data();
  const int bits = system.images.image_bits;
  const int64_t mask = (int64_t(1) << bits) - 1;
  int64_t p = 0;
  for (int64_t i = task.begin; i < task.end; ++i) {
    const int64_t end = p + system.counts[i];
    for (; p < end; ++p) {
      const auto key = static_cast<int64_t>(keys[p]);
      const int64_t j = key >> bits;
      neighbors[p] = system.begin + j;
      if (shifts == nullptr) continue;
      const auto shift = shift_of(system, i, j, key & mask);
      std::memcpy(shifts + 3 * p, shift.data(), sizeof(shift));
    }
  }
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> cell_list_on_cpu(Tensor positions, Tensor structure_offsets,
                                                    Tensor cell, Tensor pbc, double cutoff) {
  check_cell_search(positions, structure_offsets, cell, pbc, cutoff);
  const int64_t n_atoms = positions.size(0), n_structures = structure_offsets.size(0) - 1;
  positions = torch::stable::contiguous(positions);
  structure_offsets = torch::stable::contiguous(structure_offsets);
  cell = torch::stable::contiguous(cell);
  pbc = torch::stable::contiguous(pbc);
  const int64_t* offsets = structure_offsets.const_data_ptr<int64_t>();
  check_structures(offsets, n_structures, n_atoms);

  std::vector<double> own_positions, own_cells(static_cast<size_t>(9 * n_structures));
  const double* r = nullptr;
  if (positions.scalar_type() == ScalarType::Double) {
    r = positions.const_data_ptr<double>();
    std::copy_n(cell.const_data_ptr<double>(), own_cells.size(), own_cells.begin());
  } else {
    const float* from = positions.const_data_ptr<float>();
    own_positions.assign(from, from + 3 * n_atoms);
    r = own_positions.data();
    std::copy_n(cell.const_data_ptr<float>(), own_cells.size(), own_cells.begin());
  }

  const bool* periodic = pbc.const_data_ptr<bool>();
  bool any_periodic = false;
  std::vector<int32_t> turns(static_cast<size_t>(3 * n_atoms));
  Tensor pair_offsets = torch::stable::new_empty(structure_offsets, {n_atoms + 1});
  int64_t* counts = pair_offsets.mutable_data_ptr<int64_t>() + 1;
  std::vector<System> systems;
  std::vector<Task> tasks;
  std::vector<int64_t> first_task{0};
  for (int64_t b = 0; b < n_structures; ++b) {
    const int64_t begin = offsets[b], length = offsets[b + 1] - begin;
    System system{begin, length, r + 3 * begin, {}, turns.data() + 3 * begin, counts + begin,
                  {},    {}};
    for (int k = 0; k < 3; ++k) {
      any_periodic = any_periodic || periodic[3 * b + k];
      for (int x = 0; x < 3; ++x) system.cell[k][x] = own_cells[9 * b + 3 * k + x];
    }
    bool some = periodic[3 * b] || periodic[3 * b + 1] || periodic[3 * b + 2];
    require(
        !some || !make_lattice(system.cell.data(), periodic + 3 * b).singular,
        "cell: expected linearly independent vectors where pbc is true, got those of structure ",
        b);
    for (int64_t i = 0; i < length; i += kAtomsPerTask) {
      tasks.push_back({b, i, std::min(i + kAtomsPerTask, length), {}, {}});
    }
    systems.push_back(system);
    first_task.push_back(static_cast<int64_t>(tasks.size()));
  }

  const auto tasks_of = [&](int64_t b) {
    std::vector<Task*> own;
    for (int64_t t = first_task[b]; t < first_task[b + 1]; ++t) own.push_back(&tasks[t]);
    return own;
  };
  // Small structures each belong to one thread; large ones are shared.
  torch::stable::parallel_for(0, n_structures, 8, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      if (first_task[b + 1] - first_task[b] == 1) {
        search(systems[b], periodic + 3 * b, cutoff, tasks_of(b));
      }
    }
  });
  for (int64_t b = 0; b < n_structures; ++b) {
    if (first_task[b + 1] - first_task[b] > 1) {
      search(systems[b], periodic + 3 * b, cutoff, tasks_of(b));
    }
  }
  for (const System& system : systems) {
    refuse_problem(system.problem, &system - systems.data(), system.begin);
  }
  for (const Task& task : tasks) {
    refuse_problem(task.problem, task.system, systems[task.system].begin);
  }

  int64_t n_pairs = 0;
  std::vector<int64_t> first_pair;
  for (const Task& task : tasks) {
    first_pair.push_back(n_pairs);
    for (int64_t i = task.begin; i < task.end; ++i) n_pairs += systems[task.system].counts[i];
  }
  Tensor neighbors = allocate(structure_offsets, "neighbors", {n_pairs});
  Tensor shifts =
      allocate(structure_offsets, "shifts", {any_periodic ? n_pairs : 0, 3}, ScalarType::Int);
  int64_t* neighbor = neighbors.mutable_data_ptr<int64_t>();
  int32_t* shift = any_periodic ? shifts.mutable_data_ptr<int32_t>() : nullptr;
  torch::stable::parallel_for(
      0, static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          const System& system = systems[tasks[t].system];
          int32_t* own = shift == nullptr ? nullptr : shift + 3 * first_pair[t];
          unpack(system, tasks[t], neighbor + first_pair[t], own);
        }
      });
  counts[-1] = 0;
  for (int64_t i = 0; i < n_atoms; ++i) counts[i] += counts[i - 1];
  return {pair_offsets, neighbors, shifts};
}

STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) { m.impl("cell_list", TORCH_BOX(&cell_list_on_cpu)); }

}  // namespace pymlp
