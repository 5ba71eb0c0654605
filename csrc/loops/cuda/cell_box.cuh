// Atoms of periodic and of large structures put into cells, for the search in cell_list.cuh: a
// block owns a structure and lays its grid along the cell vectors, a thread owns an atom and finds
// its cell. Cells are columns as wide as the cutoff and flat along the third vector, whose atoms
// lie one after the other, so that a centre's neighbours are in a few long runs.
//
// A structure has at most as many cells as atoms (one, if there are none), so that the host knows
// where its cells begin without asking: at its first atom's index plus its own.
#pragma once

#include <cmath>
#include <limits>

#include "pair_list.cuh"

namespace pymlp::cuda {

template <class T>
struct CellInput {
  int64_t n_atoms, n_structures;
  const T* positions;                // [A, 3]
  const int64_t* structure_offsets;  // [B + 1]
  const T* cell;                     // [B, 3, 3]
  const bool* pbc;                   // [B, 3]
  double cutoff, same_place;         // atoms closer than the second coincide
};

// What kernels tell the host: whether something is wrong or too much for them, and whether any
// structure is periodic.
struct CellStatus {
  int trouble, periodic;
};

struct CellBox {
  Vec3<double> cell[3];    // vectors where periodic, elsewhere unit vectors across those
  Vec3<double> dual[3];    // fraction k of r is dual[k] . r
  double low[3], high[3];  // of fractions: 0 and 1 where periodic, those of the atoms elsewhere
  double per_fraction[3];  // cells per unit of fraction
  int n[3];                // cells along each vector
  int steps[3];            // cells on each side in which neighbours may be
  int periodic[3];
  int first_cell;
  // Squared distances in float32: below `near` a neighbour, from `far` on none, below `close`
  // perhaps the same atom twice; what is in doubt is calculated in float64.
  float near, far, close;
};

// 16 bytes each, for one access.
struct alignas(16) CellPoint {
  float x, y, z;  // of the atom wrapped into the cell, from the grid's corner
  int atom;
};
struct alignas(16) CellTurns {
  int x, y, z;  // cell vectors that were taken off
  int structure;
};

constexpr int kBoxThreads = 8 * kWarp;
constexpr int kBinThreads = 4 * kWarp;
// Rounding in turning bounds to whole numbers, and in float64 sums of positions.
constexpr double kCellSlack = 1e-9, kDoubleSlack = 1e-13;
// Rounding in float32 distances, of the size of the structure.
constexpr double kFloatSlack = 4e-6;
// How many cells outside their own atoms may be; how far images are counted, and in how many runs.
constexpr double kMostTurns = 2e6;
// Beyond all fractions.
constexpr double kFar = std::numeric_limits<double>::infinity();
constexpr int kMostImages = 511, kMostRuns = 1 << 22;

__device__ __forceinline__ Vec3<double> cross(Vec3<double> a, Vec3<double> b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
__device__ __forceinline__ double length(Vec3<double> a) { return square_root(dot(a, a)); }
__device__ __forceinline__ Vec3<double> unit(Vec3<double> a) { return (1.0 / length(a)) * a; }
__device__ __forceinline__ double magnitude(double x) { return x < 0 ? -x : x; }

// A unit vector across the axis that `a` is least along, so never parallel to `a`.
__device__ __forceinline__ Vec3<double> across(Vec3<double> a) {
  const double x = magnitude(a.x), y = magnitude(a.y), z = magnitude(a.z);
  if (x <= y && x <= z) return unit(cross(a, {1, 0, 0}));
  if (y <= z) return unit(cross(a, {0, 1, 0}));
  return unit(cross(a, {0, 0, 1}));
}

// Cell vectors, completed across where they are not periodic, and their duals. False: flat.
template <class T>
__device__ __forceinline__ bool make_lattice(const CellInput<T>& in, int64_t structure,
                                             CellBox& box) {
  const T* rows = in.cell + 9 * structure;
  int n_used = 0;
  for (int k = 0; k < 3; ++k) {
    box.periodic[k] = in.pbc[3 * structure + k];
    box.cell[k] = {double(rows[3 * k]), double(rows[3 * k + 1]), double(rows[3 * k + 2])};
    n_used += box.periodic[k];
  }
  if (n_used == 0) {
    box.cell[0] = {1, 0, 0};
    box.cell[1] = {0, 1, 0};
    box.cell[2] = {0, 0, 1};
  } else if (n_used == 1) {
    const int k = box.periodic[0] ? 0 : box.periodic[1] ? 1 : 2;
    box.cell[(k + 1) % 3] = across(box.cell[k]);
    box.cell[(k + 2) % 3] = unit(cross(box.cell[k], box.cell[(k + 1) % 3]));
  } else if (n_used == 2) {
    const int k = !box.periodic[0] ? 0 : !box.periodic[1] ? 1 : 2;
    box.cell[k] = unit(cross(box.cell[(k + 1) % 3], box.cell[(k + 2) % 3]));
  }
  const double volume = dot(box.cell[0], cross(box.cell[1], box.cell[2]));
  const double size = length(box.cell[0]) * length(box.cell[1]) * length(box.cell[2]);
  for (int k = 0; k < 3; ++k) {
    box.dual[k] = (1.0 / volume) * cross(box.cell[(k + 1) % 3], box.cell[(k + 2) % 3]);
    box.low[k] = 0;
    box.high[k] = box.periodic[k] ? 1 : 0;
  }
  return magnitude(volume) > 1e-12 * size;
}

// The grid of a lattice whose low and high are known. False: too many images.
__device__ __forceinline__ bool make_grid(CellBox& box, int64_t n_atoms, double cutoff,
                                          double same_place) {
  const double most = n_atoms > 1 ? static_cast<double>(n_atoms) : 1.0;
  double extent = 0, size = cutoff;
  for (int k = 0; k < 3; ++k) {
    const double along = length(box.cell[k]);
    const double low = magnitude(box.low[k]), high = magnitude(box.high[k]);
    extent += (box.high[k] - box.low[k]) * along;
    size += (box.periodic[k] ? kMostTurns : low < high ? high : low) * along;
  }
  const double rounding = kDoubleSlack * size;
  const double reach = cutoff * (1 + kCellSlack) + rounding;
  double cells = 1;
  for (int k = 0; k < 3; ++k) {
    const double span = (box.high[k] - box.low[k]) / length(box.dual[k]);
    const double n = std::floor(span / (k == 2 ? reach / 8 : reach));
    box.n[k] = static_cast<int>(n > 1 ? (n < most ? n : most) : 1);
    cells *= box.n[k];
  }
  while (cells > most) {
    int longest = box.n[1] > box.n[0] ? 1 : 0;
    if (box.n[2] > box.n[longest]) longest = 2;
    box.n[longest] = (box.n[longest] + 1) / 2;
    cells = double(box.n[0]) * box.n[1] * box.n[2];
  }
  double runs = 1;
  bool countable = true;
  for (int k = 0; k < 3; ++k) {
    const double range = box.high[k] - box.low[k];
    box.per_fraction[k] = range > 0 ? box.n[k] / range : 0;
    const double furthest = double(box.periodic[k] ? (kMostImages - 1) : 1) * box.n[k];
    const double steps = std::ceil(reach * length(box.dual[k]) * box.per_fraction[k]);
    countable = countable && (steps <= furthest || !box.periodic[k]);
    box.steps[k] = static_cast<int>(steps < furthest ? steps : furthest);
    runs *= k < 2 ? 2.0 * box.steps[k] + 1 : 2.0 * box.steps[k] / box.n[k] + 1;
  }
  const double slack = kFloatSlack * (extent + cutoff) + rounding;
  const double inner = cutoff > slack ? cutoff - slack : 0, outer = cutoff + slack;
  box.near = static_cast<float>(inner * inner * (1 - 1e-6));
  box.far = static_cast<float>(outer * outer * (1 + 1e-6));
  box.close = static_cast<float>((same_place + slack) * (same_place + slack) * (1 + 1e-6));
  return countable && runs <= kMostRuns;
}

constexpr LaunchShape box_shape(int64_t n_structures) {
  return {n_structures, kBoxThreads, 6 * kBoxThreads / kWarp * int(sizeof(double))};
}

// boxes [B]; status is zero before. One block owns a structure; its threads look through the atoms
// where the extent of the grid depends on them. 60 registers: 32 warps of a multiprocessor.
template <class T>
__global__ void __launch_bounds__(kBoxThreads)
    make_boxes(CellInput<T> in, CellBox* boxes, CellStatus* status) {
  const int64_t structure = blockIdx.x;
  CellBox& box = boxes[structure];
  const Range given{in.structure_offsets[structure], in.structure_offsets[structure + 1]};
  const Range atoms = atoms_of(in.structure_offsets, structure, in.n_atoms);
  const int64_t n_atoms = atoms.end > atoms.begin ? atoms.end - atoms.begin : 0;
  bool good = true;
  if (threadIdx.x == 0) {
    good = make_lattice(in, structure, box) && given.begin >= 0 && given.begin <= given.end &&
           given.end <= in.n_atoms && (structure > 0 || given.begin == 0) &&
           (structure + 1 < in.n_structures || given.end == in.n_atoms);
    box.first_cell =
        static_cast<int>((atoms.begin < in.n_atoms ? atoms.begin : in.n_atoms) + structure);
    if (box.periodic[0] || box.periodic[1] || box.periodic[2]) status->periodic = 1;
  }
  __syncthreads();
  if (!(box.periodic[0] && box.periodic[1] && box.periodic[2])) {
    double* bounds = reinterpret_cast<double*>(shared_memory());
    for (int k = 0; k < 3; ++k) {
      double low = kFar, high = -kFar;
      for (int64_t i = atoms.begin + threadIdx.x; i < atoms.end; i += kBoxThreads) {
        const T* r = in.positions + 3 * i;
        const double f = dot(box.dual[k], Vec3<double>{double(r[0]), double(r[1]), double(r[2])});
        low = f < low ? f : low;
        high = f > high ? f : high;
      }
      for (int step = 1; step < kWarp; step *= 2) {
        const double other_low = shuffle_xor(low, step), other_high = shuffle_xor(high, step);
        low = other_low < low ? other_low : low;
        high = other_high > high ? other_high : high;
      }
      if (lane_index() == 0) {
        bounds[6 * warp_index() + 2 * k] = low;
        bounds[6 * warp_index() + 2 * k + 1] = high;
      }
    }
    __syncthreads();
    for (int k = 0; threadIdx.x == 0 && n_atoms > 0 && k < 3; ++k) {
      if (box.periodic[k]) continue;
      double low = kFar, high = -kFar;
      for (int w = 0; w < kBoxThreads / kWarp; ++w) {
        const double* own = bounds + 6 * w + 2 * k;
        low = own[0] < low ? own[0] : low;
        high = own[1] > high ? own[1] : high;
      }
      box.low[k] = low < high ? low : high;
      box.high[k] = high;
    }
  }
  if (threadIdx.x != 0) return;
  good = make_grid(box, n_atoms, in.cutoff, in.same_place) && good;
  if (good) return;
  for (int k = 0; k < 3; ++k) {
    box.n[k] = 1;
    box.steps[k] = 0;
  }
  status->trouble = 1;
}

// cells [A]: the cell of each atom, points [A] and turns [A]. A thread owns an atom. 40 registers:
// 48 warps of a multiprocessor.
template <class T>
__global__ void __launch_bounds__(kBinThreads)
    bin_atoms(CellInput<T> in, const CellBox* boxes, int* cells, CellPoint* points,
              CellTurns* turns, CellStatus* status) {
  const int64_t i = int64_t(blockIdx.x) * kBinThreads + threadIdx.x;
  if (i >= in.n_atoms) return;
  const int64_t structure = structure_index(in.structure_offsets, in.n_structures, i);
  const CellBox& box = boxes[structure];
  const T* from = in.positions + 3 * i;
  Vec3<double> r{double(from[0]), double(from[1]), double(from[2])};
  const Vec3<double> original = r;
  const double sum = r.x + r.y + r.z;
  bool good = sum - sum == 0;  // neither NaN nor infinite
  int whole[3] = {}, cell = 0;
#pragma unroll
  for (int k = 0; k < 3; ++k) {
    double fraction = dot(box.dual[k], original);
    if (box.periodic[k]) {
      const double turn = std::floor(fraction);
      good = good && magnitude(turn) <= kMostTurns;
      whole[k] = good ? static_cast<int>(turn) : 0;
      fraction -= turn;
      r = r - turn * box.cell[k];
    } else {
      r = r - box.low[k] * box.cell[k];
    }
    const double at = (fraction - box.low[k]) * box.per_fraction[k];
    const int last = box.n[k] - 1;
    cell = cell * box.n[k] + (at > 0 ? (at < last ? static_cast<int>(at) : last) : 0);
  }
  if (!good) status->trouble = 1;
  cells[i] = box.first_cell + cell;
  points[i] = {static_cast<float>(r.x), static_cast<float>(r.y), static_cast<float>(r.z),
               static_cast<int>(i)};
  turns[i] = {whole[0], whole[1], whole[2], static_cast<int>(structure)};
}

// From the atoms' cells in ascending order, sorted [A], and the atoms in that order, order [A]:
// points in that order, and first [n_cells + 1], where each cell's begin. A thread owns a point and
// a cell.
template <int threads>
__global__ void __launch_bounds__(threads)
    lay_out_cells(int64_t n_atoms, int64_t n_cells, const int* sorted, const int64_t* order,
                  const CellPoint* points, CellPoint* points_by_cell, int* first) {
  const int64_t at = int64_t(blockIdx.x) * threads + threadIdx.x;
  if (at < n_atoms) points_by_cell[at] = points[order[at]];
  if (at > n_cells) return;
  int64_t low = 0, high = n_atoms;  // sorted[low - 1] < at <= sorted[high]
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (sorted[middle] < at) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  first[at] = static_cast<int>(low);
}

// Cells of all structures, used or not.
constexpr int64_t cells_for(int64_t n_atoms, int64_t n_structures) {
  return n_atoms + n_structures;
}

// boxes, cells, points and turns of all atoms.
template <class T>
cudaError_t bin_atoms(const CellInput<T>& in, CellBox* boxes, int* cells, CellPoint* points,
                      CellTurns* turns, CellStatus* status, cudaStream_t stream) {
  const cudaError_t error =
      launch(&make_boxes<T>, box_shape(in.n_structures), stream, in, boxes, status);
  if (error != cudaSuccess) return error;
  const LaunchShape shape{blocks_for(in.n_atoms, kBinThreads), kBinThreads, 0};
  return launch(&bin_atoms<T>, shape, stream, in, boxes, cells, points, turns, status);
}

inline cudaError_t lay_out_cells(int64_t n_atoms, int64_t n_structures, const int* sorted,
                                 const int64_t* order, const CellPoint* points,
                                 CellPoint* points_by_cell, int* first, cudaStream_t stream) {
  const int64_t n_cells = cells_for(n_atoms, n_structures);
  const LaunchShape shape{blocks_for(n_cells + 1, kBinThreads), kBinThreads, 0};
  return launch(&lay_out_cells<kBinThreads>, shape, stream, n_atoms, n_cells, sorted, order, points,
                points_by_cell, first);
}

}  // namespace pymlp::cuda
