#include "rips.hpp"

#include <ranges>

namespace rips {

namespace {

Bars components(const Edges &edges, const Links &links, Control &control) {
  Bars bars{Counted<Bar>(control)};
  for (const Rank edge : links.merges())
    if (edges.length(edge) != 0) bars.push_back({0, edges.length(edge)});
  bars.push_back({0, kInfinity});
  return bars;
}

// Reduces the columns of `simplices`, youngest first.
template <class Cofacets, class Simplices>
void reduce_all(Reduction<Cofacets> &reduction, const Simplices &simplices, Bars &bars, Control &control) {
  std::size_t done = 0;
  for (const auto simplex : std::views::reverse(simplices)) {
    reduction.reduce(simplex, bars);
    control.progress(++done);
  }
}

}  // namespace

Diagram persistence(const Distances &distances, std::byte *room, int max_dim, const Kernels &kernels, Control &control) {
  const Counted<Bar> counted(control);
  Diagram diagram{Bars(counted), Bars(counted), Bars(counted)};
  const Edges edges(distances, room, control);
  const Links links(edges, max_dim > 0, kernels, control);
  diagram[0] = components(edges, links, control);
  if (max_dim < 1) return diagram;

  Forests forests(edges, links, kernels, control);
  Vector<Triangle> open{Counted<Triangle>(control)};
  {
    control.enter(Stage::h1, links.cycles().size());
    EdgeCofacets cofacets(edges, links, forests, kernels, control);
    Reduction reduction(cofacets, edges, control);
    reduce_all(reduction, links.cycles(), diagram[1], control);
    if (max_dim < 2) return diagram;
    // Clearing: a triangle that ends a class of H1 begins none of H2.
    for (const Triangle triangle : links.critical())
      if (!reduction.is_pivot(EdgeCofacets::key_of(triangle))) open.push_back(triangle);
  }
  control.enter(Stage::h2, open.size());
  TriangleCofacets cofacets(edges, links, forests, kernels, control);
  Reduction reduction(cofacets, edges, control);
  reduce_all(reduction, open, diagram[2], control);
  return diagram;
}

}  // namespace rips
