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
  T* features;                  // [A, M, M2]  forward
  T* grad_environment;          // [P, 4]      backward
};

constexpr int kTableTerms = 6;
constexpr int kTablePadding = 16;  // numbers in the largest register

}  // namespace pymlp
