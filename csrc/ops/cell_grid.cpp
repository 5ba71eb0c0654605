#include "cell_grid.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace pymlp {
namespace {

double dot(const Vector& a, const Vector& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

Vector cross(const Vector& a, const Vector& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

Vector scaled(const Vector& a, double factor) {
  return {a[0] * factor, a[1] * factor, a[2] * factor};
}

Vector unit(const Vector& a) { return scaled(a, 1.0 / std::sqrt(dot(a, a))); }

// A unit vector across the axis that `a` is least along, so never parallel to `a`.
Vector across(const Vector& a) {
  Vector axis{};
  const Vector size{std::abs(a[0]), std::abs(a[1]), std::abs(a[2])};
  axis[static_cast<size_t>(std::min_element(size.begin(), size.end()) - size.begin())] = 1.0;
  return unit(cross(a, axis));
}

// Room for rounding where a bound is turned into a whole number.
constexpr double kSlack = 1e-9;

}  // namespace

Lattice make_lattice(const Vector* cell, const bool* pbc) {
  Lattice lattice{{pbc[0], pbc[1], pbc[2]}, {}, {}, false};
  auto& box = lattice.cell;
  std::vector<int> used, free;
  for (int k = 0; k < 3; ++k) (pbc[k] ? used : free).push_back(k);
  for (const int k : used) box[k] = cell[k];
  if (used.empty()) {
    box = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  } else if (used.size() == 1) {
    box[free[0]] = across(box[used[0]]);
    box[free[1]] = unit(cross(box[used[0]], box[free[0]]));
  } else if (used.size() == 2) {
    box[free[0]] = unit(cross(box[used[0]], box[used[1]]));
  }
  const double volume = dot(box[0], cross(box[1], box[2]));
  double size = 1.0;
  for (const auto& vector : box) size *= std::sqrt(dot(vector, vector));
  lattice.singular = !(std::abs(volume) > 1e-12 * size);
  for (int k = 0; k < 3; ++k) {
    lattice.dual[k] = scaled(cross(box[(k + 1) % 3], box[(k + 2) % 3]), 1.0 / volume);
  }
  return lattice;
}

Wrapped wrap(const double* positions, int64_t n_atoms, const Lattice& lattice, double cutoff,
             int32_t* turns) {
  Wrapped out;
  out.lattice = lattice;
  out.positions.assign(positions, positions + 3 * n_atoms);
  out.fractions.assign(static_cast<size_t>(3 * n_atoms), 0.0);
  out.low.fill(std::numeric_limits<double>::infinity());
  out.high.fill(-std::numeric_limits<double>::infinity());
  for (int64_t i = 0; i < n_atoms; ++i) {
    const double* r = positions + 3 * i;
    const Vector point{r[0], r[1], r[2]};
    if (!std::isfinite(r[0] + r[1] + r[2])) {
      out.trouble = Trouble::not_finite;
      out.culprit = i;
      return out;
    }
    for (int k = 0; k < 3; ++k) {
      turns[3 * i + k] = 0;
      if (!lattice.periodic[k]) continue;
      double fraction = dot(lattice.dual[k], point);
      const double whole = std::floor(fraction);
      if (std::abs(whole) > 1e9) {
        out.trouble = Trouble::too_far_outside;
        out.culprit = i;
        return out;
      }
      if (whole != 0.0) {
        turns[3 * i + k] = static_cast<int32_t>(whole);
        fraction -= whole;
        for (int x = 0; x < 3; ++x) out.positions[3 * i + x] -= whole * lattice.cell[k][x];
      }
      out.fractions[3 * i + k] = fraction;
      out.low[k] = std::min(out.low[k], fraction);
      out.high[k] = std::max(out.high[k], fraction);
    }
  }
  double n_images = 1;
  for (int k = 0; k < 3; ++k) {
    if (!lattice.periodic[k] || n_atoms == 0) continue;
    // |dual| is one over the distance between the planes of whole fractions.
    out.reach[k] = cutoff * std::sqrt(dot(lattice.dual[k], lattice.dual[k])) * (1.0 + kSlack);
    const double far = std::floor(out.high[k] - out.low[k] + out.reach[k] + kSlack);
    n_images *= 2.0 * far + 1.0;
    if (n_images > 1e9) {
      out.trouble = Trouble::too_many;
      return out;
    }
    out.images.low[k] = -static_cast<int32_t>(far);
    out.images.count[k] = 2 * static_cast<int32_t>(far) + 1;
  }
  out.images.image_bits = std::bit_width(static_cast<uint64_t>(n_images) - 1);
  const int atom_bits = std::bit_width(static_cast<uint64_t>(std::max<int64_t>(n_atoms - 1, 0)));
  if (atom_bits + out.images.image_bits > kKeyBits) out.trouble = Trouble::too_many;
  return out;
}

namespace {

// Calls take(x, y, z, atom, image) for all atoms and their images that may be near an atom.
template <class Take>
void for_each_point(const Wrapped& atoms, const Vector& low, const Vector& high, Take take) {
  const auto& cell = atoms.lattice.cell;
  const auto& images = atoms.images;
  const auto n_atoms = static_cast<int64_t>(atoms.positions.size() / 3);
  for (int64_t i = 0; i < n_atoms; ++i) {
    const double* r = atoms.positions.data() + 3 * i;
    const double* f = atoms.fractions.data() + 3 * i;
    int32_t begin[3] = {}, end[3] = {};
    for (int k = 0; k < 3; ++k) {
      if (!atoms.lattice.periodic[k]) continue;
      begin[k] =
          std::max(images.low[k],
                   static_cast<int32_t>(std::ceil(atoms.low[k] - atoms.reach[k] - f[k] - kSlack)));
      end[k] = std::min(
          -images.low[k],
          static_cast<int32_t>(std::floor(atoms.high[k] + atoms.reach[k] - f[k] + kSlack)));
    }
    for (int32_t a = begin[0]; a <= end[0]; ++a) {
      for (int32_t b = begin[1]; b <= end[1]; ++b) {
        for (int32_t c = begin[2]; c <= end[2]; ++c) {
          Vector p;
          bool inside = true;
          for (int x = 0; x < 3; ++x) {
            p[x] = r[x] + (a * cell[0][x] + b * cell[1][x] + c * cell[2][x]);
            inside = inside && p[x] >= low[x] && p[x] <= high[x];
          }
          if (!inside) continue;
          const int64_t image =
              (static_cast<int64_t>(a - images.low[0]) * images.count[1] + (b - images.low[1])) *
                  images.count[2] +
              (c - images.low[2]);
          take(p, i, image);
        }
      }
    }
  }
}

}  // namespace

bool CellGridMemory::build(const Wrapped& atoms, double cutoff, double square_limit) {
  const auto n_atoms = static_cast<int64_t>(atoms.positions.size() / 3);
  Vector low{}, high{};
  for (int64_t i = 0; i < n_atoms; ++i) {
    for (int x = 0; x < 3; ++x) {
      const double value = atoms.positions[3 * i + x];
      low[x] = i == 0 ? value : std::min(low[x], value);
      high[x] = i == 0 ? value : std::max(high[x], value);
    }
  }
  const double margin = cutoff * (1.0 + kSlack);
  for (int x = 0; x < 3; ++x) {
    const double size = std::max(std::abs(low[x]), std::abs(high[x])) + cutoff;
    low[x] -= margin + kSlack * size;
    high[x] += margin + kSlack * size;
  }
  int64_t n_points = 0;
  for_each_point(atoms, low, high, [&](const Vector&, int64_t, int64_t) { ++n_points; });
  if (n_points > std::numeric_limits<int32_t>::max() - kGridPadding) return false;

  // Wide columns of flat cells: long runs of points for the lanes, few of them out of reach. Never
  // more cells than a few for each point.
  double width[3] = {cutoff, cutoff, cutoff / 8};
  const auto most_cells = static_cast<double>(8 * n_points + 64);
  double cells = 1;
  for (int x = 0; x < 3; ++x) {
    width[x] *= 1.0 + kSlack;
    cells *= std::ceil((high[x] - low[x]) / width[x]);
  }
  while (cells > most_cells) {
    // Wider cells where there are most of them.
    int longest = 0;
    for (int x = 1; x < 3; ++x) {
      if ((high[x] - low[x]) / width[x] > (high[longest] - low[longest]) / width[longest])
        longest = x;
    }
    width[longest] *= 2.0;
    cells = 1;
    for (int x = 0; x < 3; ++x) cells *= std::ceil((high[x] - low[x]) / width[x]);
  }
  int64_t n_cells = 1;
  for (int x = 0; x < 3; ++x) {
    grid_.n[x] = static_cast<int64_t>(std::ceil((high[x] - low[x]) / width[x]));
    grid_.origin[x] = low[x];
    grid_.inverse_width[x] = 1.0 / width[x];
    n_cells *= grid_.n[x];
  }

  columns_.clear();
  const auto steps = [&](int x, double distance) {
    return static_cast<int32_t>(std::floor(distance / width[x])) + 1;
  };
  const int32_t far_x = steps(0, cutoff), far_y = steps(1, cutoff);
  for (int32_t a = -far_x; a <= far_x; ++a) {
    for (int32_t b = -far_y; b <= far_y; ++b) {
      // The gap between two columns is a cell less than their distance.
      const double gap_x = std::max(std::abs(a) - 1, 0) * width[0];
      const double gap_y = std::max(std::abs(b) - 1, 0) * width[1];
      const double left = margin * margin - gap_x * gap_x - gap_y * gap_y;
      if (left > 0) columns_.push_back({a, b, steps(2, std::sqrt(left))});
    }
  }

  const auto cell_of = [&](const Vector& p) {
    int64_t cell = 0;
    for (int x = 0; x < 3; ++x) {
      const auto c = static_cast<int64_t>((p[x] - low[x]) * grid_.inverse_width[x]);
      cell = cell * grid_.n[x] + std::clamp<int64_t>(c, 0, grid_.n[x] - 1);
    }
    return cell;
  };
  first_.assign(static_cast<size_t>(n_cells + 2), 0);
  int32_t* begin = first_.data() + 1;
  for_each_point(atoms, low, high,
                 [&](const Vector& p, int64_t, int64_t) { ++begin[cell_of(p) + 1]; });
  for (int64_t c = 0; c < n_cells; ++c) begin[c + 1] += begin[c];
  const int64_t room = n_points + kGridPadding;
  coordinates_ = std::make_unique_for_overwrite<double[]>(static_cast<size_t>(3 * room));
  keys_ = std::make_unique_for_overwrite<Key[]>(static_cast<size_t>(room));
  double* coordinates = coordinates_.get();
  std::fill(coordinates, coordinates + 3 * room, 0.0);
  std::fill(keys_.get() + n_points, keys_.get() + room, Key(0));
  const int bits = atoms.images.image_bits;
  for_each_point(atoms, low, high, [&](const Vector& p, int64_t atom, int64_t image) {
    const int32_t place = begin[cell_of(p)]++;
    for (int x = 0; x < 3; ++x) coordinates[x * room + place] = p[x];
    keys_[static_cast<size_t>(place)] = static_cast<Key>((atom << bits) + image);
  });
  // Filling has moved every beginning to the next cell's: one element earlier they are right.
  grid_.first = first_.data();
  grid_.x = coordinates;
  grid_.y = coordinates + room;
  grid_.z = coordinates + 2 * room;
  grid_.keys = keys_.get();
  grid_.columns = columns_.data();
  grid_.n_columns = static_cast<int64_t>(columns_.size());
  grid_.centers = atoms.positions.data();
  grid_.image_bits = bits;
  const auto& count = atoms.images.count;
  grid_.own_image =
      (static_cast<int64_t>(count[0] / 2) * count[1] + count[1] / 2) * count[2] + count[2] / 2;
  grid_.square_cutoff = square_limit;
  return true;
}

}  // namespace pymlp
