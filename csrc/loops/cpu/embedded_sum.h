// Embedding networks and contraction as one (eqs 10 and 11), for blocks of centres: G and its
// tangents are made for the pairs of a block, used, and forgotten, so that nothing of the size
// [P, M] is ever in memory. As G is a function of one number, forces need no way back through the
// networks: its slope goes through them beside it.
//
// Against torch's matrix products over chunks of 1024 pairs and a contraction of stored G
// (25-50-100, m2 = 16, float32, one thread of a Zen 4): 256 Claisen structures 27 -> 16 ms forward,
// 81 -> 47 ms with gradients; the training step of 32 structures with 24-48 24 -> 18 ms. Two thirds
// of the forward pass are products at 0.8 of the machine's peak, the rest is mostly tanh.
#pragma once

#include "contraction.h"
#include "embedding.h"

namespace pymlp::inline PYMLP_SIMD {

// Rows of G, and of its slope in s, from a block.
template <class T>
struct Embedded {
  using N = Lanes<T>;
  const EmbeddingPass<T>& pass;
  const EmbeddingBlock<T>& block;

  struct Row {
    const T *functions, *slopes, *environment;
    PYMLP_INLINE N function(int64_t f) const { return N::load(functions + f); }
    PYMLP_INLINE FunctionSlope<N> function_and_slope(int64_t f) const {
      return {N::load(functions + f), N::load(slopes + f)};
    }
    PYMLP_INLINE N number(int k) const { return environment[k]; }
  };
  PYMLP_INLINE Row row(int64_t p) const {
    const int64_t at = block.at(p);
    return {block.functions() + at, block.slopes() + at, pass.environment + 4 * p};
  }
};

// The same along tangents of R; those of G are in the block.
template <class T>
struct EmbeddedDual {
  using L = Lanes<T>;
  using N = Dual<L>;
  const EmbeddingPass<T>& pass;
  const EmbeddingBlock<T>& block;

  struct Row {
    const T *functions, *slopes, *environment, *tangents;
    PYMLP_INLINE N function(int64_t f) const {
      return {L::load(functions + f), L::load(slopes + f)};
    }
    PYMLP_INLINE N number(int k) const { return {L(environment[k]), L(tangents[k])}; }
  };
  PYMLP_INLINE Row row(int64_t p) const {
    const int64_t at = block.at(p);
    return {block.functions() + at, block.slopes() + at, pass.environment + 4 * p,
            pass.environment_tangents + 4 * p};
  }
};

// Centres [begin, end), a block after the other; what has no place in the pass is not computed.
// With null scratch only its size is returned, in bytes.
//   forward:          features
//   backward:         grad_environment, or grad_weights
//   double_backward:  features along the tangents, grad_weights, and grad_environment if wanted
template <class T>
int64_t networks_of_centers(const EmbeddingPass<T>& pass, Pass kind, int64_t begin, int64_t end,
                            std::byte* scratch) {
  Arena arena(scratch);
  const int64_t size = pass.n_functions * pass.n_axis;
  const bool by_weights = pass.grad_weights != nullptr;
  const bool dual = kind == Pass::double_backward;
  EmbeddingBlock<T> block(pass, dual || (kind == Pass::backward && !by_weights), by_weights, arena);
  const auto run = [&](auto source) -> int64_t {
    constexpr bool with_tangents = !std::is_same_v<typename decltype(source)::N, Lanes<T>>;
    Contraction sum(source, pass.pair_offsets, pass.n_functions, pass.n_axis, kind != Pass::forward,
                    arena);
    if (scratch == nullptr) return arena.used();
    for (int64_t from = begin, to; from < end; from = to) {
      const int64_t first = pass.pair_offsets[from];
      to = from + 1;
      while (to < end && pass.pair_offsets[to + 1] - first <= pass.largest_block) ++to;
      const int64_t last = pass.pair_offsets[to];
      block.take(first, last, [&](int64_t p) {
        return with_tangents ? pass.environment_tangents[4 * p] : T(1);
      });
      block.forward();
      for (int64_t i = from; i < to; ++i) {
        sum.sum_up(i);
        if (pass.features != nullptr) sum.contract(pass.features + i * size);
        if (kind == Pass::forward) continue;
        sum.pull_back(pass.grad_features + i * size);
        for (int64_t p = pass.pair_offsets[i]; p < pass.pair_offsets[i + 1]; ++p) {
          T* numbers = pass.grad_environment == nullptr ? nullptr : pass.grad_environment + 4 * p;
          if (by_weights) {
            const int64_t at = block.at(p);
            sum.spread_rows(p, block.grad_functions() + at, block.grad_slopes() + at, numbers);
          } else if constexpr (!with_tangents) {
            sum.spread_along(p, numbers);
          }
        }
      }
      if (!by_weights) continue;
      block.backward(pass.grad_weights);
      if (pass.grad_environment == nullptr) continue;
      for (int64_t p = first; p < last; ++p) pass.grad_environment[4 * p] += block.grad_input(p);
    }
    return arena.used();
  };
  if (dual) return run(EmbeddedDual<T>{pass, block});
  return run(Embedded<T>{pass, block});
}

}  // namespace pymlp::inline PYMLP_SIMD
