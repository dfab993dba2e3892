// The caller's distances, compared by their bits.
//
// The bits of floats that are not negative are ordered as the floats are, so that nothing here computes with floats, and
// no mode of the processor (denormals as zero) can change an answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "control.hpp"

namespace rips {

using Length = std::uint32_t;  // the bits of a float32 that is finite and not negative

// Thrown for an invalid matrix; the text is a sentence.
struct Unusable : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// Invariant, from the constructor on: 1 to 65,535 points, symmetric, zeros on the diagonal, every entry finite and not
// negative. If another thread changes the matrix, results are wrong, but memory is safe. Once the ranks are
// written over the matrix, no member may be called.
class Distances {
 public:
  static constexpr std::size_t kMostPoints = 65'535;

  // `apart` has `count` rows, `stride` float32 apart from each other. Throws Unusable.
  Distances(const std::byte *apart, std::size_t count, std::size_t stride, Control &control);

  std::size_t count() const { return count_; }

  Length operator()(std::size_t one, std::size_t other) const {
    return bits(one, other) & kNoSign;
  }

 private:
  static constexpr Length kNoSign = 0x7fffffff;  // -0 is 0

  void check(Control &control) const;

  Length bits(std::size_t one, std::size_t other) const {
    Length bits;
    std::memcpy(&bits, apart_ + (one * stride_ + other) * sizeof bits, sizeof bits);
    return bits;
  }

  const std::byte *apart_;
  std::size_t count_, stride_;
};

}  // namespace rips
