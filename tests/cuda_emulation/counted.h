// A number that writes down what is done with it, to count the arithmetic of a kernel that runs
// under emulation. Every operation becomes a node of a graph; what no output depends on, which a
// compiler leaves out, is not counted, and a product that goes into one sum alone is fused with it.
// Lanes of a warp wait for the busiest between two points where they meet: so idle lanes count too.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "loops/cuda/symmetry_sum.cuh"

namespace counting {

enum Kind : uint8_t {
  none,
  sum,
  product,
  comparison,
  quotient,
  root,
  exponent,
  logarithms,
  sine,
  kinds
};

struct Node {
  uint32_t a, b, segment;
  Kind kind;
  uint8_t lane;
};

inline std::vector<Node> nodes(1);  // the first is every constant and every input
inline std::vector<uint32_t> outputs;
inline std::array<uint32_t, 32> segment_of_warp{};  // of the block that runs
inline uint32_t segments = 0;

inline void begin_segment(std::size_t thread) { segment_of_warp[thread / 32] = segments++; }

inline uint32_t node(Kind kind, uint32_t a, uint32_t b = 0) {
  const unsigned thread = threadIdx.x;
  nodes.push_back({a, b, segment_of_warp[thread / 32], kind, static_cast<uint8_t>(thread % 32)});
  return static_cast<uint32_t>(nodes.size() - 1);
}

struct Counted {
  float value;
  uint32_t id;

  Counted() = default;
  template <class Plain>
    requires std::is_arithmetic_v<Plain>
  Counted(Plain x) : value(static_cast<float>(x)), id(0) {}
  Counted(float x, uint32_t from) : value(x), id(from) {}
  explicit operator int() const { return static_cast<int>(value); }

  // clang-format off
  friend Counted operator+(Counted x, Counted y) { return {x.value + y.value, node(sum, x.id, y.id)}; }
  friend Counted operator-(Counted x, Counted y) { return {x.value - y.value, node(sum, x.id, y.id)}; }
  friend Counted operator*(Counted x, Counted y) { return {x.value * y.value, node(product, x.id, y.id)}; }
  friend Counted operator/(Counted x, Counted y) { return {x.value / y.value, node(quotient, x.id, y.id)}; }
  friend Counted operator-(Counted x) { return {-x.value, x.id}; }  // a sign of the next instruction
  friend bool operator<(Counted x, Counted y) { return compared(x, y, x.value < y.value); }
  friend bool operator>(Counted x, Counted y) { return compared(x, y, x.value > y.value); }
  friend bool operator<=(Counted x, Counted y) { return compared(x, y, x.value <= y.value); }
  friend bool operator>=(Counted x, Counted y) { return compared(x, y, x.value >= y.value); }
  friend bool operator==(Counted x, Counted y) { return compared(x, y, x.value == y.value); }
  // clang-format on

 private:
  static bool compared(Counted x, Counted y, bool result) {
    outputs.push_back(node(comparison, x.id, y.id));
    return result;
  }
};

inline bool less(Counted x, Counted y) { return x < y; }
inline Counted select(bool condition, Counted yes, Counted no) { return condition ? yes : no; }
inline Counted square_root(Counted x) { return {std::sqrt(x.value), node(root, x.id)}; }
inline Counted exponential(Counted x) { return {std::exp(x.value), node(exponent, x.id)}; }
inline Counted logarithm(Counted x) { return {std::log(x.value), node(logarithms, x.id)}; }
inline pymlp::CosSin<Counted> cos_sin_pi(Counted x) {
  const auto plain = pymlp::cos_sin_pi(x.value);
  const uint32_t id = node(sine, x.id);
  return {{plain.cos, id}, {plain.sin, id}};
}
inline Counted shuffle_xor(Counted x, int with) {
  return __shfl_xor_sync(pymlp::cuda::kAllLanes, x, with);
}
inline Counted reported(Counted x) { return x; }

// What the outputs needed, since the last call.
struct Count {
  std::array<int64_t, kinds> of{};
  int64_t fused = 0;
  double cost = 0, slots = 0;  // by the costs that are given; slots: idle lanes too
};

inline Count count(const std::array<double, kinds>& costs) {
  std::vector<uint32_t> uses(nodes.size(), 0);
  const auto use = [&](uint32_t id) {
    if (id < uses.size()) ++uses[id];
  };
  for (const uint32_t id : outputs) use(id);
  // A node comes after those that it was made from.
  for (std::size_t i = nodes.size() - 1; i > 0; --i) {
    if (uses[i] == 0) continue;
    use(nodes[i].a);
    if (nodes[i].kind <= quotient) use(nodes[i].b);
  }
  Count result;
  std::vector<char> fused(nodes.size(), 0);
  for (std::size_t i = 1; i < nodes.size(); ++i) {
    if (uses[i] == 0 || nodes[i].kind != sum) continue;
    for (const uint32_t term : {nodes[i].a, nodes[i].b}) {
      if (term >= nodes.size() || nodes[term].kind != product || uses[term] != 1) continue;
      fused[term] = 1;
      ++result.fused;
      break;
    }
  }
  std::vector<std::array<float, 32>> work(segments);
  for (std::size_t i = 1; i < nodes.size(); ++i) {
    const Node& n = nodes[i];
    if (uses[i] == 0) continue;
    ++result.of[n.kind];
    if (fused[i]) continue;
    result.cost += costs[n.kind];
    work[n.segment][n.lane] += static_cast<float>(costs[n.kind]);
  }
  for (const auto& lanes : work) {
    float busiest = 0;
    for (const float lane : lanes) busiest = lane > busiest ? lane : busiest;
    result.slots += 32.0 * busiest;
  }
  nodes.resize(1);
  outputs.clear();
  segments = 0;
  segment_of_warp.fill(0);
  return result;
}

}  // namespace counting

namespace pymlp {

template <>
struct ScalarOf<counting::Counted> {
  using type = counting::Counted;
};
template <>
struct Limits<counting::Counted> : Limits<float> {};

namespace cuda {
template <>
struct Displacement<counting::Counted> {
  using T = counting::Counted;
  static Vec3<T> load(const T* d, const T*, int64_t p) {
    return {d[3 * p], d[3 * p + 1], d[3 * p + 2]};
  }
};
}  // namespace cuda

}  // namespace pymlp
