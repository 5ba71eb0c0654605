// The full list of neighbours in periodic and in large structures. One warp owns a centre and walks
// the runs of cells around it (cell_box.cuh), its lanes over 32 points at a time, first to count,
// then to list; what it lists it puts in order by counting, for each neighbour, how many come
// before it. Centres are taken cell by cell: warps of a block read the same points.
//
// Whether two atoms are neighbours is decided in float64 as displacements are calculated, the same
// both ways, where float32 cannot tell.
#pragma once

#include "cell_box.cuh"

namespace pymlp::cuda {

template <class T>
struct CellListInput {
  CellInput<T> atoms;
  const CellBox* boxes;     // [B]
  const int* sorted;        // [A] cells in ascending order
  const CellPoint* points;  // [A] in that order
  const int* first;         // [n_cells + 1]
  const CellTurns* turns;   // [A] in the order of the atoms
};

// A periodic image; a neighbour is (atom, image) in one number that sorts as neighbours do.
struct CellImage {
  int x, y, z;
};
constexpr int kImageBits = 10;
static_assert(2 * kMostImages + 1 < (1 << kImageBits));

__device__ __forceinline__ int64_t packed(int atom, CellImage image) {
  int64_t key = atom;
  key = (key << kImageBits) | (image.x + kMostImages);
  key = (key << kImageBits) | (image.y + kMostImages);
  return (key << kImageBits) | (image.z + kMostImages);
}
__device__ __forceinline__ int atom_of(int64_t key) {
  return static_cast<int>(key >> (3 * kImageBits));
}
__device__ __forceinline__ CellImage image_of(int64_t key) {
  constexpr int kMask = (1 << kImageBits) - 1;
  return {static_cast<int>(key >> (2 * kImageBits) & kMask) - kMostImages,
          static_cast<int>(key >> kImageBits & kMask) - kMostImages,
          static_cast<int>(key & kMask) - kMostImages};
}

// What a list says: cell vectors to add to the neighbour as it was given.
__device__ __forceinline__ CellImage shift_of(CellImage image, CellTurns center, CellTurns other) {
  return {image.x + center.x - other.x, image.y + center.y - other.y, image.z + center.z - other.z};
}

template <class T>
__device__ __forceinline__ double square_distance(const CellListInput<T>& in, const CellBox& box,
                                                  int64_t i, int64_t j, CellImage shift) {
  const T* a = in.atoms.positions + 3 * i;
  const T* b = in.atoms.positions + 3 * j;
  Vec3<double> d{double(b[0]) - double(a[0]), double(b[1]) - double(a[1]),
                 double(b[2]) - double(a[2])};
  d = d + (double(shift.x) * box.cell[0] + double(shift.y) * box.cell[1] +
           double(shift.z) * box.cell[2]);
  return dot(d, d);
}

// Where a cell stands along a vector, counted on into the periodic images.
struct CellPlace {
  int cell, image;
};
__device__ __forceinline__ CellPlace place_of(int cell, int n) {
  const int image = cell >= 0 ? cell / n : -((n - 1 - cell) / n);
  return {cell - image * n, image};
}

// Calls body(key, place) for all neighbours of the centre, which is the point at `at`, in an order
// that is always the same; returns how many there are. All lanes of the warp take part.
template <class T, class Body>
__device__ __forceinline__ int for_each_image(const CellListInput<T>& in, int64_t at,
                                              CellStatus* status, Body body) {
  const CellPoint own = in.points[at];
  const CellTurns turns = in.turns[own.atom];
  const CellBox& box = in.boxes[turns.structure];
  const double cutoff = in.atoms.cutoff, same_place = in.atoms.same_place;
  const int n_y = box.n[1], n_z = box.n[2];
  const int cell = in.sorted[at] - box.first_cell, column = cell / n_z;
  const int c_z = cell - column * n_z, c_x = column / n_y, c_y = column - c_x * n_y;
  int found = 0;
  for (int step_x = -box.steps[0]; step_x <= box.steps[0]; ++step_x) {
    const CellPlace x = place_of(c_x + step_x, box.n[0]);
    if (x.image != 0 && !box.periodic[0]) continue;
    for (int step_y = -box.steps[1]; step_y <= box.steps[1]; ++step_y) {
      const CellPlace y = place_of(c_y + step_y, n_y);
      if (y.image != 0 && !box.periodic[1]) continue;
      const CellPlace low = place_of(c_z - box.steps[2], n_z);
      const CellPlace high = place_of(c_z + box.steps[2], n_z);
      for (int image_z = low.image; image_z <= high.image; ++image_z) {
        if (image_z != 0 && !box.periodic[2]) continue;
        const CellImage image{x.image, y.image, image_z};
        const int line = box.first_cell + (x.cell * n_y + y.cell) * n_z;
        const int begin = in.first[line + (image_z == low.image ? low.cell : 0)];
        const int end = in.first[line + (image_z == high.image ? high.cell : n_z - 1) + 1];
        const Vec3<double> moved = double(image.x) * box.cell[0] + double(image.y) * box.cell[1] +
                                   double(image.z) * box.cell[2];
        const Vec3<float> center{own.x - static_cast<float>(moved.x),
                                 own.y - static_cast<float>(moved.y),
                                 own.z - static_cast<float>(moved.z)};
        const bool home = image.x == 0 && image.y == 0 && image.z == 0;
        for (int base = begin; base < end; base += kWarp) {
          bool near = false;
          int j = 0;
          if (base + lane_index() < end) {
            const CellPoint point = in.points[base + lane_index()];
            j = point.atom;
            const Vec3<float> d{point.x - center.x, point.y - center.y, point.z - center.z};
            const float square = dot(d, d);
            const bool self = home && j == own.atom;
            near = !self && square < box.near;
            if (!self && square < box.far && (!near || square < box.close)) {
              const CellImage shift = shift_of(image, turns, in.turns[j]);
              const double exact = square_distance(in, box, own.atom, j, shift);
              near = exact < cutoff * cutoff;
              if (exact < same_place * same_place) status->trouble = 1;
            }
          }
          const unsigned mask = __ballot_sync(kAllLanes, near);
          if (near) body(packed(j, image), found + lanes_before(mask));
          found += __popc(mask);
        }
      }
    }
  }
  return found;
}

// Neighbours of a centre that are put in order in shared memory; more are in global memory.
constexpr int kRowKeys = 256;

constexpr LaunchShape cell_list_shape(int64_t n_atoms) {
  return {blocks_for(n_atoms, 4), 4 * kWarp, 4 * kRowKeys * int(sizeof(int64_t))};
}

// counts [A + 1]: 0, then the number of neighbours of every atom. 64 registers: 32 warps of a
// multiprocessor.
template <class T>
__global__ void __launch_bounds__(4 * kWarp, 8)
    count_images(CellListInput<T> in, int64_t* counts, CellStatus* status) {
  const int64_t at = int64_t(blockIdx.x) * 4 + warp_index();
  if (blockIdx.x == 0 && threadIdx.x == 0) counts[0] = 0;
  if (at >= in.atoms.n_atoms) return;
  const int n = for_each_image(in, at, status, [](int64_t, int) {});
  if (lane_index() == 0) counts[in.points[at].atom + 1] = n;
}

// neighbors [P] and, where not null, shifts [P, 3], by centre, neighbour and shift; keys [P] is
// room for long rows. 80 registers: 24 warps of a multiprocessor; 8 KiB of shared memory for four.
template <class T>
__global__ void __launch_bounds__(4 * kWarp, 6)
    fill_images(CellListInput<T> in, const int64_t* pair_offsets, int64_t* keys, int64_t* neighbors,
                int32_t* shifts, CellStatus* status) {
  const int64_t at = int64_t(blockIdx.x) * 4 + warp_index();
  if (at >= in.atoms.n_atoms) return;
  const int64_t i = in.points[at].atom;
  const int64_t begin = pair_offsets[i];
  const int n = static_cast<int>(pair_offsets[i + 1] - begin);
  int64_t* row = n <= kRowKeys
                     ? reinterpret_cast<int64_t*>(shared_memory()) + kRowKeys * warp_index()
                     : keys + begin;
  for_each_image(in, at, status, [&](int64_t key, int place) { row[place] = key; });
  __syncwarp();
  const CellTurns turns = in.turns[i];
  for (int p = lane_index(); p < n; p += kWarp) {
    const int64_t key = row[p];
    int64_t to = begin;
    for (int q = 0; q < n; ++q) to += row[q] < key;
    const int j = atom_of(key);
    neighbors[to] = j;
    if (shifts == nullptr) continue;
    const CellImage shift = shift_of(image_of(key), turns, in.turns[j]);
    shifts[3 * to] = shift.x;
    shifts[3 * to + 1] = shift.y;
    shifts[3 * to + 2] = shift.z;
  }
}

template <class T>
cudaError_t count_images(const CellListInput<T>& in, int64_t* counts, CellStatus* status,
                         cudaStream_t stream) {
  LaunchShape shape = cell_list_shape(in.atoms.n_atoms);
  shape.shared = 0;
  if (shape.blocks == 0) shape.blocks = 1;  // for counts[0]
  return launch(&count_images<T>, shape, stream, in, counts, status);
}

template <class T>
cudaError_t fill_images(const CellListInput<T>& in, const int64_t* pair_offsets, int64_t* keys,
                        int64_t* neighbors, int32_t* shifts, CellStatus* status,
                        cudaStream_t stream) {
  return launch(&fill_images<T>, cell_list_shape(in.atoms.n_atoms), stream, in, pair_offsets, keys,
                neighbors, shifts, status);
}

}  // namespace pymlp::cuda
