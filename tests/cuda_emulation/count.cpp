// count FAMILY INPUT COST ...    the arithmetic of each pass of one case, as JSON; COST: of a sum,
// a product (not fused), a comparison, a quotient, a root, an exponential, a logarithm, cos and sin
#include "counted.h"
#include "symmetry.h"

namespace {

using counting::Counted;

// Takes the outputs of a pass in the place of a file; they end what has to be counted.
class Tally {
 public:
  explicit Tally(const std::array<double, counting::kinds>& costs) : costs_(costs) {}

  void array(const std::unique_ptr<Counted[]>& x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) counting::outputs.push_back(x[i].id);
  }
  void end_of_pass(const char* name) {
    static const char* names[] = {"",      "sums",         "products",   "comparisons", "quotients",
                                  "roots", "exponentials", "logarithms", "sines"};
    const counting::Count found = counting::count(costs_);
    std::printf("%s\"%s\": {", first_ ? "{" : ",\n", name);
    for (int kind = 1; kind < counting::kinds; ++kind) {
      std::printf("\"%s\": %lld, ", names[kind], static_cast<long long>(found.of[kind]));
    }
    std::printf("\"fused\": %lld, \"cost\": %.0f, \"slots\": %.0f}",
                static_cast<long long>(found.fused), found.cost, found.slots);
    first_ = false;
  }

 private:
  std::array<double, counting::kinds> costs_;
  bool first_ = true;
};

}  // namespace

int main(int n, char** arguments) {
  if (n != 3 + counting::kinds - 1) return 2;
  std::array<double, counting::kinds> costs{};
  for (int kind = 1; kind < counting::kinds; ++kind) costs[kind] = std::atof(arguments[2 + kind]);
  cuda_emulation::on_meeting = &counting::begin_segment;
  Reader in(arguments[2]);
  if (in.value<int64_t>() != 4) return 2;
  Tally out(costs);
  pymlp::run_symmetry<Counted>(std::string(arguments[1]) == "ani", false, in, out);
  std::printf("}\n");
  return 0;
}
