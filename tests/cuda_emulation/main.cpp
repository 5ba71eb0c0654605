// emulation SEED WHAT INPUT OUTPUT    what: ani, behler_parrinello, pairs, differences, cells,
//                                     environment, contraction, table; see tests/test_cuda_*.py
// emulation SEED fault NAME           a kernel with that mistake
#include <cstring>

#include "cells.h"
#include "deep_pot_se.h"
#include "faults.h"
#include "layout.h"
#include "pairs.h"
#include "symmetry.h"

int main(int n, char** arguments) {
  if (n < 4) return 2;
  cuda_emulation::seed = std::strtoull(arguments[1], nullptr, 10);
  const std::string what = arguments[2];
  if (what == "fault") return run_fault(arguments[3]);
  if (what == "layout") return pymlp::cuda::run_layouts();
  if (n != 5) return 2;
  Reader in(arguments[3]);
  Writer out(arguments[4]);
  const bool ani = what == "ani";
  const bool single = in.value<int64_t>() == 4;
  if (what == "pairs") {
    single ? pymlp::run_pairs<float>(in, out) : pymlp::run_pairs<double>(in, out);
  } else if (what == "cells") {
    single ? pymlp::run_cells<float>(in, out) : pymlp::run_cells<double>(in, out);
  } else if (what == "differences") {
    single ? pymlp::run_differences<float>(in, out) : pymlp::run_differences<double>(in, out);
  } else if (ani || what == "behler_parrinello") {
    single ? pymlp::run_symmetry<float>(ani, true, in, out)
           : pymlp::run_symmetry<double>(ani, true, in, out);
  } else if (what == "environment") {
    single ? pymlp::run_environment<float>(in, out) : pymlp::run_environment<double>(in, out);
  } else if (what == "contraction") {
    single ? pymlp::run_contraction<float>(in, out) : pymlp::run_contraction<double>(in, out);
  } else if (what == "table") {
    single ? pymlp::run_table<float>(in, out) : pymlp::run_table<double>(in, out);
  } else {
    return 2;
  }
  return 0;
}
