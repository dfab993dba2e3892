// The link of every edge at its birth: which simplices of an edge's class are matched within it, and which are left over.
//
// The class of edge e is all simplices whose edge of highest rank is e. Its link is the flag complex on the vertices that
// are joined to both ends by edges below e, with the edges below e between them.
#pragma once

#include "edges.hpp"
#include "kernels.hpp"
#include "memory.hpp"

namespace rips {

// A triangle by its class, and the vertex that is no end of its highest edge: its number orders it.
using Triangle = std::uint64_t;
constexpr Triangle triangle(Rank edge, Vertex vertex) { return Triangle{edge} << 16 | vertex; }
constexpr Rank class_of(Triangle triangle) { return static_cast<Rank>(triangle >> 16); }
constexpr Vertex vertex_of(Triangle triangle) { return static_cast<Vertex>(triangle); }

// The results of one sweep over the edges by rank.
//
// Invariant: an edge with an empty link is in `merges` (it joins two components) or in `cycles` (it closes a cycle), by
// rank. Any other is paired with the triangle of its apex, a vertex of its link. `critical` has, in order, one triangle for
// each component of a link that does not hold the apex: that of its lowest vertex. A link is marked as a cone only if
// its apex is joined to all other vertices of it.
class Links {
 public:
  // `apexes` false: only merges and cycles are wanted, and an edge with a link is not looked at further.
  Links(const Edges &edges, bool apexes, const Kernels &kernels, Control &control);

  const Vector<Rank> &merges() const { return merges_; }
  const Vector<Rank> &cycles() const { return cycles_; }
  const Vector<Triangle> &critical() const { return critical_; }

  // kNoVertex: the link is empty.
  Vertex apex(Rank edge) const { return apex_[edge]; }
  bool cone(Rank edge) const { return (cone_[edge / 64] >> (edge % 64) & 1) != 0; }

 private:
  friend class Sweep;

  Vector<Rank> merges_, cycles_;
  Vector<Triangle> critical_;
  Vector<Vertex> apex_;
  Vector<Word> cone_;
};

}  // namespace rips
