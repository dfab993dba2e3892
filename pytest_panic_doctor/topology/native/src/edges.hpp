// The edges of the filtration by rank: by length, ties by their end points.
#pragma once

#include <cstddef>
#include <cstdint>

#include "distances.hpp"
#include "memory.hpp"

namespace rips {

using Vertex = std::uint16_t;
using Rank = std::uint32_t;

// The rank of a pair that is no edge, and of a vertex with itself. More than any rank, and positive as an int32, so that
// ranks may be compared as such (the baseline of x86 compares only signed ones).
constexpr Rank kNoEdge = 0x7fffffff;
constexpr Vertex kNoVertex = 0xffff;

struct Edge {
  Vertex high, low;  // high > low
};

// The pairs of points no farther apart than the enclosing radius, numbered from 0 by rank. From the enclosing radius on
// the complex is a cone, so that every class but one of H0 has died by then.
//
// Vertices are the points numbered anew, the most central one first, so that the lowest vertices of a set are those that
// are joined to most of it.
//
// Invariant: rank(x, y) = rank(y, x) = e if and only if {x, y} are the ends of edge e; else it is kNoEdge. Rows are
// `stride` long, a multiple of 16, and what is beyond the last vertex is kNoEdge.
class Edges {
 public:
  static constexpr std::size_t kLanes = 16;

  Edges(const Distances &distances, Control &control);

  std::size_t vertices() const { return vertices_; }
  std::size_t stride() const { return stride_; }
  Rank count() const { return static_cast<Rank>(ends_.size()); }

  Edge operator[](Rank edge) const {
    const std::uint32_t ends = ends_[edge];
    return {static_cast<Vertex>(ends >> 16), static_cast<Vertex>(ends)};
  }
  const Rank *row(Vertex vertex) const { return ranks_.data() + vertex * stride_; }
  Rank rank(Vertex one, Vertex other) const { return row(one)[other]; }
  Length length(Rank edge) const {
    const Edge ends = (*this)[edge];
    return distances_(points_[ends.high], points_[ends.low]);
  }

 private:
  using Key = std::uint64_t;  // length, then ends: 32 bits, 16, 16

  void number(Control &control);
  Block<Key> keys(Control &control) const;
  void rank_all(Block<Key> sorted, Control &control);

  const Distances &distances_;
  std::size_t vertices_, stride_;
  Vector<Vertex> points_;  // the point that each vertex stands for
  Block<std::uint32_t> ends_;
  Block<Rank> ranks_;
};

}  // namespace rips
