#include "edges.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

namespace rips {

namespace {

using Key = std::uint64_t;

constexpr std::size_t kChunk = std::size_t{1} << 16;  // keys between two looks at the limits
constexpr int kDigits = 3;
constexpr int kBits = 11;
constexpr std::size_t kBins = std::size_t{1} << kBits;

constexpr char kChanged[] = "the matrix was written to while it was read";

std::size_t digit(Key key, int which) { return (key >> (32 + which * kBits)) & (kBins - 1); }

// Sorts by the upper 32 bits, and keeps the order of equal ones: one pass for each digit, least significant first, except
// where all keys have the same.
Block<Key> radix_sorted(Block<Key> keys, Control &control) {
  const std::size_t size = keys.size();
  Vector<std::size_t> counts(kDigits * kBins, 0, Counted<std::size_t>(control));
  for (std::size_t at = 0; at < size; ++at) {
    for (int which = 0; which < kDigits; ++which) ++counts[which * kBins + digit(keys[at], which)];
    if (at % kChunk == 0) control.look(kChunk);
  }
  Block<Key> other(control, size);
  for (int which = 0; which < kDigits; ++which) {
    std::size_t *const starts = counts.data() + which * kBins;
    if (std::any_of(starts, starts + kBins, [size](std::size_t count) { return count == size; })) continue;
    std::exclusive_scan(starts, starts + kBins, starts, std::size_t{0});
    for (std::size_t at = 0; at < size; ++at) {
      other[starts[digit(keys[at], which)]++] = keys[at];
      if (at % kChunk == 0) control.look(kChunk);
    }
    std::swap(keys, other);
  }
  return keys;
}

}  // namespace

Edges::Edges(const Distances &distances, Control &control)
    : distances_(distances),
      vertices_(distances.count()),
      stride_((vertices_ + kLanes - 1) / kLanes * kLanes),
      points_(vertices_, 0, Counted<Vertex>(control)),
      ends_(control),
      ranks_(control) {
  number(control);
  rank_all(radix_sorted(keys(control), control), control);
}

void Edges::number(Control &control) {
  Vector<double> total(vertices_, 0.0, Counted<double>(control));
  for (std::size_t point = 0; point < vertices_; ++point) {
    for (std::size_t other = 0; other < vertices_; ++other)
      total[point] += std::bit_cast<float>(distances_(point, other));
    control.look(vertices_);
  }
  std::iota(points_.begin(), points_.end(), Vertex{0});
  std::stable_sort(points_.begin(), points_.end(), [&](Vertex one, Vertex other) { return total[one] < total[other]; });
}

Block<Edges::Key> Edges::keys(Control &control) const {
  Length radius = std::numeric_limits<Length>::max();
  for (std::size_t point = 0; point < vertices_; ++point) {
    Length farthest = 0;
    for (std::size_t other = 0; other < vertices_; ++other) farthest = std::max(farthest, distances_(point, other));
    radius = std::min(radius, farthest);
    control.look(vertices_);
  }
  std::size_t size = 0;
  for (std::size_t point = 0; point < vertices_; ++point) {
    for (std::size_t other = 0; other < point; ++other) size += distances_(point, other) <= radius;
    control.look(point);
  }
  Block<Key> found(control, size);
  std::size_t at = 0;
  for (std::size_t high = 0; high < vertices_; ++high) {
    for (std::size_t low = 0; low < high; ++low) {
      const Length apart = distances_(points_[high], points_[low]);
      if (apart > radius) continue;
      if (at == size) throw Unusable(kChanged);
      found[at++] = Key{apart} << 32 | Key{high} << 16 | low;
    }
    control.look(high);
  }
  if (at < size) throw Unusable(kChanged);
  return found;
}

void Edges::rank_all(Block<Key> sorted, Control &control) {
  ends_ = Block<std::uint32_t>(control, sorted.size());
  for (std::size_t at = 0; at < sorted.size(); ++at) {
    ends_[at] = static_cast<std::uint32_t>(sorted[at]);
    if (at % kChunk == 0) control.look(kChunk);
  }
  sorted.clear();
  ranks_ = Block<Rank>(control, vertices_ * stride_);
  for (std::size_t vertex = 0; vertex < vertices_; ++vertex) {
    std::fill_n(ranks_.data() + vertex * stride_, stride_, kNoEdge);
    control.look(stride_);
  }
  for (Rank edge = 0; edge < count(); ++edge) {
    const Edge ends = (*this)[edge];
    ranks_[ends.high * stride_ + ends.low] = edge;
    ranks_[ends.low * stride_ + ends.high] = edge;
    if (edge % kChunk == 0) control.look(kChunk);
  }
}

}  // namespace rips
