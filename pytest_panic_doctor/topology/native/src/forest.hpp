// Spanning forests of links, computed when the reduction needs one: most never are.
#pragma once

#include <span>

#include "edges.hpp"
#include "kernels.hpp"
#include "links.hpp"
#include "memory.hpp"

namespace rips {

// A vertex of a link beside the star of the apex, and the one that it was attached to: kNoVertex if it is a root.
struct Attached {
  Vertex vertex, parent;
};

// The forest of a link, as everything here understands it: first the apex; then all vertices joined to it, with it as
// their parent; then, repeatedly, the lowest vertex that is joined to one in the forest, with the nearest of those
// as its parent; if none is, the lowest remaining vertex, as a root.
//
// So the roots beside the apex are the lowest vertices of the other components, in ascending order, as in `Links`.
class Forests {
 public:
  Forests(const Edges &edges, const Links &links, const Kernels &kernels, Control &control)
      : edges_(edges),
        links_(links),
        kernels_(kernels),
        control_(control),
        known_(map_of<Rank, Slice>(control)),
        pool_(Counted<Attached>(control)),
        outside_(control, edges.stride()),
        rest_(control, edges.stride()) {}

  // What is attached in the link of an edge that has an apex, in its order. Valid until the next call for another edge.
  std::span<const Attached> of(Rank edge);

 private:
  struct Slice {
    std::uint32_t begin, size;
  };
  static constexpr std::size_t kMost = std::size_t{1} << 17;  // attached vertices that are remembered

  void grow(Rank edge);

  const Edges &edges_;
  const Links &links_;
  const Kernels &kernels_;
  Control &control_;
  Map<Rank, Slice> known_;
  Vector<Attached> pool_;
  Block<Rank> outside_;  // by vertex: 0 if it is in the forest, kNoEdge if not
  Block<Vertex> rest_;   // vertices of the link that are not in the forest, ascending
};

}  // namespace rips
