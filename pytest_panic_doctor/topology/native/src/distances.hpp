// The distances that a caller gives, read as what orders them: their bits.
//
// The bits of floats that are not negative are ordered as the floats are, so that nothing here computes with floats, and
// no mode of the processor (denormals as zero) can change an answer.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "control.hpp"

namespace rips {

using Length = std::uint32_t;  // the bits of a float32 that is finite and not negative

// What is wrong with a matrix, in a sentence.
struct Unusable : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// Invariant, from the constructor on: 1 to 65,535 points, symmetric, zeros on the diagonal, every entry finite and not
// negative. Where another thread writes to the matrix meanwhile, answers are wrong, and nothing worse.
class Distances {
 public:
  static constexpr std::size_t kMostPoints = 65'535;

  // `apart` has `count` x `count` entries, row by row. Throws Unusable.
  Distances(const float *apart, std::size_t count, Control &control);

  std::size_t count() const { return count_; }

  Length operator()(std::size_t one, std::size_t other) const {
    return std::bit_cast<Length>(apart_[one * count_ + other]) & kNoSign;
  }

 private:
  static constexpr Length kNoSign = 0x7fffffff;  // -0 is 0

  void check(Control &control) const;

  const float *apart_;
  std::size_t count_;
};

}  // namespace rips
