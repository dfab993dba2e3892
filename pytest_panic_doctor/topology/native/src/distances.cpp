#include "distances.hpp"

#include <algorithm>
#include <string>

namespace rips {

namespace {

constexpr Length kInfinity = 0x7f800000;
constexpr Length kNegativeZero = 0x80000000;
constexpr std::size_t kTile = 64;  // a tile and its mirror image fit into the first cache

std::string entry(std::size_t row, std::size_t column) {
  return "entry (" + std::to_string(row) + ", " + std::to_string(column) + ")";
}

}  // namespace

Distances::Distances(const std::byte *apart, std::size_t count, std::size_t stride, Control &control)
    : apart_(apart), count_(count), stride_(stride) {
  if (count == 0) throw Unusable("no points: a diagram needs at least one");
  if (count > kMostPoints) throw Unusable(std::to_string(count) + " points: the engine takes at most 65535");
  check(control);
}

void Distances::check(Control &control) const {
  control.enter(Stage::edges, count_);
  for (std::size_t top = 0; top < count_; top += kTile) {
    const std::size_t bottom = std::min(top + kTile, count_);
    for (std::size_t left = 0; left <= top; left += kTile) {
      for (std::size_t row = top; row < bottom; ++row) {
        const std::size_t right = std::min(left + kTile, row);
        for (std::size_t column = left; column < right; ++column) {
          const Length bits_here = bits(row, column);
          if ((bits_here & kNoSign) >= kInfinity) throw Unusable(entry(row, column) + " is NaN or infinity");
          if (bits_here > kNegativeZero) throw Unusable(entry(row, column) + " is negative");
          if ((*this)(column, row) != (bits_here & kNoSign))
            throw Unusable("not symmetric: " + entry(row, column) + " differs from " + entry(column, row));
        }
      }
      control.look(kTile * kTile);
    }
    for (std::size_t row = top; row < bottom; ++row)
      if ((*this)(row, row) != 0) throw Unusable(entry(row, row) + ", on the diagonal, is not 0");
  }
}

}  // namespace rips
