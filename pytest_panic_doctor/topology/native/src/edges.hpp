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
// The ranks may overwrite the distances, since only the lengths of the edges are needed later.
//
// Invariant: rank(x, y) = rank(y, x) = e if and only if {x, y} are the ends of edge e; else it is kNoEdge. Rows are
// `stride` long, a multiple of 16, and what is beyond the last vertex is kNoEdge.
class Edges {
 public:
  static constexpr std::size_t kLanes = 16;

  // The length of the rows of ranks of so many vertices.
  static std::size_t stride(std::size_t vertices) { return (vertices + kLanes - 1) / kLanes * kLanes; }

  // `room` is where the ranks go: `count` rows of `stride(count)`, on a cache line; nullptr: memory of their own. It may
  // be where the distances are.
  Edges(const Distances &distances, std::byte *room, Control &control);

  std::size_t vertices() const { return vertices_; }
  std::size_t stride() const { return stride_; }
  Rank count() const { return static_cast<Rank>(keys_.size()); }

  Edge operator[](Rank edge) const {
    const Key ends = keys_[edge];
    return {static_cast<Vertex>(ends >> 16), static_cast<Vertex>(ends)};
  }
  const Rank *row(Vertex vertex) const { return ranks_ + vertex * stride_; }
  Rank rank(Vertex one, Vertex other) const { return row(one)[other]; }
  Length length(Rank edge) const { return static_cast<Length>(keys_[edge] >> 32); }

 private:
  using Key = std::uint64_t;  // length, then ends: 32 bits, 16, 16

  static Vector<Vertex> by_centrality(const Distances &distances, Control &control);
  static Block<Key> keys(const Distances &distances, const Vector<Vertex> &points, Control &control);
  void rank_all(Control &control);

  std::size_t vertices_, stride_;
  Block<Key> keys_;  // by rank
  Block<Rank> own_;  // the ranks, if they have memory of their own
  Rank *ranks_;
};

}  // namespace rips
