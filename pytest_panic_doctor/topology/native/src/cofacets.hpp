// The coboundaries of edges and triangles, a window of classes at a time, without what can never be a pivot.
//
// Within a class the order is: each vertex of the forest in turn; with it, as a triangle, the tetrahedron of its edge to its
// parent, with which it is paired, and then the tetrahedra of its other edges to vertices before it. So simplices have
// keys, which order them: the class, and places within it.
#pragma once

#include "forest.hpp"
#include "links.hpp"

namespace rips {

using Key = std::uint64_t;
using Keys = Vector<Key>;

// Shared by both dimensions.
class Cofacets {
 public:
  Cofacets(const Edges &edges, const Links &links, Forests &forests, const Kernels &kernels, Control &control)
      : edges_(edges),
        links_(links),
        forests_(forests),
        kernels_(kernels),
        control_(control),
        places_(control, edges.stride()) {}

 protected:
  const Edges &edges_;
  const Links &links_;
  Forests &forests_;
  const Kernels &kernels_;
  Control &control_;
  Block<Vertex> places_;
};

// H1: a simplex is an edge, a cofacet a triangle. Only triangles of roots are written: any other is paired with a
// tetrahedron, and in the lowest class of a cocycle it is there if and only if the root of its component is.
// A key is the class (31 bits) and 0 for the apex, else 1 + the root (17 bits).
class EdgeCofacets : Cofacets {
 public:
  using Cofacets::Cofacets;
  using Simplex = Rank;

  static Rank class_of(Key key) { return static_cast<Rank>(key >> 17); }
  static Key key_of(Triangle triangle) { return Key{rips::class_of(triangle)} << 17 | (Key{vertex_of(triangle)} + 1); }
  Rank birth(Simplex simplex) const { return simplex; }
  static bool matched(Key key) { return (key & 0x1ffff) == 0; }
  // The edge that a matched triangle is paired with.
  Simplex partner(Key key) { return class_of(key); }

  // Adds the cofacets with a class in [from, to] to `keys`; returns the least class beyond `to`, or kNoEdge.
  Rank collect(Simplex simplex, Rank from, Rank to, Keys &keys);

 private:
  void keep(Rank edge, Vertex vertex, Keys &keys) const;
};

// H2: a simplex is a triangle, a cofacet a tetrahedron. Where x and y are joined to the apex, and neither is it, their
// tetrahedron is not written, nor where the earlier of them is joined to the parent of the later: if it is in the lowest
// class of a cocycle, then an edge before it is.
// A key is the class (31 bits), the place of the later vertex (17 bits: that of a vertex joined to the apex is its number,
// that of an attached one is beyond all these), and 0 for the edge to the parent, else 1 + the earlier vertex (16 bits).
class TriangleCofacets : Cofacets {
 public:
  using Cofacets::Cofacets;
  using Simplex = Triangle;

  static Rank class_of(Key key) { return static_cast<Rank>(key >> 33); }
  Rank birth(Simplex simplex) const { return rips::class_of(simplex); }
  static bool matched(Key key) { return (key & 0xffff) == 0; }
  Simplex partner(Key key);

  Rank collect(Simplex simplex, Rank from, Rank to, Keys &keys);

 private:
  static constexpr std::uint32_t kAttached = 1 << 16;

  static Key key(Rank edge, std::uint32_t later, std::uint32_t earlier) {
    return Key{edge} << 33 | Key{later} << 16 | earlier;
  }
  void collect_own(Rank edge, Vertex vertex, Keys &keys);
  void keep(Rank edge, Vertex one, Vertex other, Keys &keys);
  void keep_attached(Rank edge, Vertex one, Vertex other, Keys &keys);
  std::uint32_t place(Rank edge, Vertex vertex, bool joined, Vertex &parent);
};

}  // namespace rips
