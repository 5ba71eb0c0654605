// What the DeepPot-SE ops are given: plain views of memory that torch owns. The same on CPU and
// GPU. A atoms, P pairs, M embedding functions (the first M2 of them a second time); pairs of one
// centre are contiguous (CSR).
#pragma once

#include <cstdint>

#include "neighborhood.h"

namespace pymlp {

// A row of four for each pair, from its displacement alone.
template <class T>
struct EnvironmentPass {
  int64_t n_pairs;
  const T* displacements;  // [P, 3] Angstrom
  double switch_start, cutoff;
  int switch_function;
  const T* grad_rows;     // [P, 4]     backward, double_backward
  const T* tangents;      // [P, 3]     jvp, double_backward
  T* rows;                // [P, 4]     forward; jvp and double_backward write J u here
  T* grad_displacements;  // [P, 3]     backward; double_backward: d(J^T g) / d(displacements) u
  T* jacobian;            // [P, 4, 3]
};

// D = (G^T R) (G_2^T R)^T of each centre, G [pairs of the centre, M], R [pairs of the centre, 4].
template <class T>
struct ContractionPass {
  int64_t n_centers;
  int64_t n_functions;            // M
  int64_t n_axis;                 // M2
  const T* embedding;             // [P, M]
  const T* environment;           // [P, 4]
  const int64_t* pair_offsets;    // [A + 1]
  const int64_t* pair_rows;       // [P] row of `embedding` that belongs to each pair, a permutation
  const T* grad_features;         // [A, M, M2]  backward, double_backward
  const T* embedding_tangents;    // [P, M]    double_backward
  const T* environment_tangents;  // [P, 4]    double_backward
  T* features;          // [A, M, M2]  forward; double_backward: the derivative along the tangents
  T* grad_embedding;    // [P, M]      backward; double_backward: its derivative along the tangents
  T* grad_environment;  // [P, 4]      likewise
};

// The same sum with G from a table: functions of s, the first number of a row, polynomials of
// degree five on intervals of one width, a table for each kind of pair.
template <class T>
struct TablePass {
  int64_t n_centers;
  int64_t n_functions;
  int64_t n_axis;
  int64_t n_intervals;
  double first, width;          // s at which the table begins; width of an interval
  const T* environment;         // [P, 4]
  const int64_t* pair_offsets;  // [A + 1]
  const int64_t* pair_kinds;    // [P]
  const T* table;               // [kinds, intervals, 6, stride]: coefficients, constant first
  int64_t stride;               // M, padded with zeros to a multiple of kTablePadding
  const T* grad_features;       // [A, M, M2]  backward
  T* features;                  // [A, M, M2]  forward; double_backward: along the tangents
  T* grad_environment;          // [P, 4]      backward; double_backward: along the tangents, if set
  // For training through a table, on the CPU alone:
  const T* environment_tangents;  // [P, 4]  double_backward
  // Gradient of T, if set; double_backward: and its derivative along the tangents.
  T* grad_moments;  // [A, 4 or 8, stride]
  T* grad_table;    // as table
};

// The layers of an embedding network, and where they lie in the weights of a kind, padded with
// zeros: weight [n_in][out], bias [out], and for all but the first the weight transposed,
// [n_out][in].
constexpr int kEmbeddingDepth = 8;
constexpr int64_t kEmbeddingPadding = 8;  // a multiple of the numbers in a register

struct EmbeddingLayer {
  int64_t n_in, n_out;
  int64_t in, out;  // padded
  int64_t weight, bias, transposed;
};

struct EmbeddingLayout {
  int n_layers;
  int64_t size;    // numbers of a kind
  int64_t widest;  // layer, padded
  EmbeddingLayer layers[kEmbeddingDepth];
};

// The sum of ContractionPass with G from networks of s, evaluated for blocks of pairs.
template <class T>
struct EmbeddingPass {
  int64_t n_centers;
  int64_t n_functions;
  int64_t n_axis;
  int64_t n_kinds;
  int64_t largest_block;  // pairs of a block, at least as many as one centre has
  EmbeddingLayout networks;
  const T* weights;               // [kinds, size]
  const T* standards;             // [kinds, 2]: the networks are given s * first + second
  const T* environment;           // [P, 4]
  const int64_t* pair_offsets;    // [A + 1]
  const int64_t* pair_kinds;      // [P]
  const T* grad_features;         // [A, M, M2]  backward, double_backward
  const T* environment_tangents;  // [P, 4]      double_backward
  T* features;                    // [A, M, M2]  forward; double_backward: along the tangents
  T* grad_environment;  // [P, 4]      backward; double_backward, if set: along the tangents
  T* grad_weights;      // as weights, added to: backward, if set; double_backward
};

constexpr int kTableTerms = 6;
constexpr int kTablePadding = 16;  // numbers in the largest register

// The pairs sorted by their rows of the table, row = kind x intervals + interval.
struct TableRows {
  const int64_t* offsets;  // [rows + 1]
  const int64_t* pairs;    // [P]
  const int64_t* centers;  // [P] of these pairs
};

template <class T>
struct TablePlace {
  int64_t interval;
  T t;  // 0 ... 1 within the interval
};

template <class T>
PYMLP_INLINE TablePlace<T> place_in_table(const TablePass<T>& pass, T s) {
  const T x = (s - T(pass.first)) * T(1 / pass.width);
  const T last = T(pass.n_intervals - 1);
  const auto interval = static_cast<int64_t>(x < T(0) ? T(0) : x < last ? x : last);
  return {interval, x - T(interval)};
}

}  // namespace pymlp
