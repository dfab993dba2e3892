#include "edges.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>

namespace rips {

namespace {

using Key = std::uint64_t;

constexpr std::size_t kChunk = std::size_t{1} << 16;  // keys between two checks of the limits
constexpr int kDigits = 3;
constexpr int kBits = 11;
constexpr std::size_t kBins = std::size_t{1} << kBits;

constexpr char kChanged[] = "the matrix was written to while it was read";

std::size_t digit(Key key, int which) { return (key >> (32 + which * kBits)) & (kBins - 1); }

// Memory of another type that holds keys temporarily: read and written as bytes.
struct Scratch {
  std::byte *memory;

  Key operator[](std::size_t at) const {
    Key key;
    std::memcpy(&key, memory + at * sizeof key, sizeof key);
    return key;
  }
  void put(std::size_t at, Key key) { std::memcpy(memory + at * sizeof key, &key, sizeof key); }
};

// Sorts by the upper 32 bits, and keeps the order of equal ones: one pass for each digit, least significant first, except
// if all keys have the same. `room` is as large as the keys, and is overwritten.
void radix_sort(Block<Key> &keys, std::byte *room, Control &control) {
  const std::size_t size = keys.size();
  Scratch from{reinterpret_cast<std::byte *>(keys.data())}, to{room};
  Vector<std::size_t> counts(kDigits * kBins, 0, Counted<std::size_t>(control));
  for (std::size_t at = 0; at < size; ++at) {
    for (int which = 0; which < kDigits; ++which) ++counts[which * kBins + digit(keys[at], which)];
    if (at % kChunk == 0) control.look(kChunk);
  }
  for (int which = 0; which < kDigits; ++which) {
    std::size_t *const starts = counts.data() + which * kBins;
    if (std::any_of(starts, starts + kBins, [size](std::size_t count) { return count == size; })) continue;
    std::exclusive_scan(starts, starts + kBins, starts, std::size_t{0});
    for (std::size_t at = 0; at < size; ++at) {
      const Key key = from[at];
      to.put(starts[digit(key, which)]++, key);
      if (at % kChunk == 0) control.look(kChunk);
    }
    std::swap(from, to);
  }
  if (from.memory != room) return;
  for (std::size_t at = 0; at < size; ++at) {
    keys[at] = from[at];
    if (at % kChunk == 0) control.look(kChunk);
  }
}

}  // namespace

Edges::Edges(const Distances &distances, std::byte *room, Control &control)
    : vertices_(distances.count()),
      stride_(stride(vertices_)),
      keys_(keys(distances, by_centrality(distances, control), control)),
      own_(control, room == nullptr ? vertices_ * stride_ : 0),
      ranks_(room == nullptr ? own_.data() : reinterpret_cast<Rank *>(room)) {
  // Each edge is two entries of the matrix, of four bytes: its key of eight fits.
  radix_sort(keys_, reinterpret_cast<std::byte *>(ranks_), control);
  rank_all(control);
}

// The points, the most central one first.
Vector<Vertex> Edges::by_centrality(const Distances &distances, Control &control) {
  const std::size_t count = distances.count();
  Vector<double> total(count, 0.0, Counted<double>(control));
  for (std::size_t point = 0; point < count; ++point) {
    for (std::size_t other = 0; other < count; ++other)
      total[point] += std::bit_cast<float>(distances(point, other));
    control.look(count);
  }
  Vector<Vertex> points(count, 0, Counted<Vertex>(control));
  std::iota(points.begin(), points.end(), Vertex{0});
  std::stable_sort(points.begin(), points.end(), [&](Vertex one, Vertex other) { return total[one] < total[other]; });
  return points;
}

// The edges in the order of their ends; `points` are the points that the vertices stand for.
Block<Edges::Key> Edges::keys(const Distances &distances, const Vector<Vertex> &points, Control &control) {
  const std::size_t count = distances.count();
  Length radius = std::numeric_limits<Length>::max();
  for (std::size_t point = 0; point < count; ++point) {
    Length farthest = 0;
    for (std::size_t other = 0; other < count; ++other) farthest = std::max(farthest, distances(point, other));
    radius = std::min(radius, farthest);
    control.look(count);
  }
  std::size_t size = 0;
  for (std::size_t point = 0; point < count; ++point) {
    for (std::size_t other = 0; other < point; ++other) size += distances(point, other) <= radius;
    control.look(point);
  }
  Block<Key> found(control, size);
  std::size_t at = 0;
  for (std::size_t high = 0; high < count; ++high) {
    for (std::size_t low = 0; low < high; ++low) {
      const Length apart = distances(points[high], points[low]);
      if (apart > radius) continue;
      if (at == size) throw Unusable(kChanged);
      found[at++] = Key{apart} << 32 | Key{high} << 16 | low;
    }
    control.look(high);
  }
  if (at < size) throw Unusable(kChanged);
  return found;
}

void Edges::rank_all(Control &control) {
  for (std::size_t vertex = 0; vertex < vertices_; ++vertex) {
    std::fill_n(ranks_ + vertex * stride_, stride_, kNoEdge);
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
