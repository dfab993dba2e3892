#include "cofacets.hpp"

#include <algorithm>

namespace rips {

Rank EdgeCofacets::collect(Simplex simplex, Rank from, Rank to, Keys &keys) {
  const Rank edge = simplex;
  if (from <= edge) {
    from = edge + 1;
    if (links_.apex(edge) != kNoVertex) keys.push_back(Key{edge} << 17);
    const auto &critical = links_.critical();
    auto root = std::lower_bound(critical.begin(), critical.end(), triangle(edge, 0));
    for (; root != critical.end() && rips::class_of(*root) == edge; ++root) keys.push_back(key_of(*root));
  }
  const auto [high, low] = edges_[edge];
  const Rank *const one = edges_.row(high), *const two = edges_.row(low);
  Rank next;
  const std::size_t count = kernels_.window2(one, two, from, to, next, places_.data(), edges_.stride());
  for (std::size_t at = 0; at < count; ++at) {
    const Vertex third = places_[at];
    if (one[third] > two[third])
      keep(one[third], low, keys);
    else
      keep(two[third], high, keys);
  }
  control_.look(edges_.stride() + 8 * count);
  return next;
}

void EdgeCofacets::keep(Rank edge, Vertex vertex, Keys &keys) const {
  const Vertex apex = links_.apex(edge);
  if (vertex == apex) {
    keys.push_back(Key{edge} << 17);
  } else if (edges_.rank(apex, vertex) > edge) {
    const auto &critical = links_.critical();
    const Triangle one = triangle(edge, vertex);
    if (std::binary_search(critical.begin(), critical.end(), one)) keys.push_back(key_of(one));
  }
}

TriangleCofacets::Simplex TriangleCofacets::partner(Key key) {
  const Rank edge = class_of(key);
  const auto place = static_cast<std::uint32_t>(key >> 16) & 0x1ffff;
  return triangle(edge, place < kAttached ? static_cast<Vertex>(place) : forests_.of(edge)[place - kAttached].vertex);
}

Rank TriangleCofacets::collect(Simplex simplex, Rank from, Rank to, Keys &keys) {
  const Rank edge = rips::class_of(simplex);
  const Vertex vertex = vertex_of(simplex);
  if (from <= edge) {
    from = edge + 1;
    collect_own(edge, vertex, keys);
  }
  const auto [high, low] = edges_[edge];
  const Rank *const one = edges_.row(high), *const two = edges_.row(low), *const three = edges_.row(vertex);
  Rank next;
  const std::size_t count = kernels_.window3(one, two, three, from, to, next, places_.data(), edges_.stride());
  for (std::size_t at = 0; at < count; ++at) {
    const Vertex fourth = places_[at];
    const Rank highest = std::max({one[fourth], two[fourth], three[fourth]});
    if (highest == one[fourth])
      keep(highest, low, vertex, keys);
    else if (highest == two[fourth])
      keep(highest, high, vertex, keys);
    else
      keep(highest, high, low, keys);
  }
  control_.look(edges_.stride() + 8 * count);
  return next;
}

// The cofacets in the class of the triangle itself. It is never that of the apex, which is paired with the edge.
void TriangleCofacets::collect_own(Rank edge, Vertex vertex, Keys &keys) {
  if (links_.cone(edge)) {
    keys.push_back(key(edge, vertex, 0));
    return;
  }
  if (edges_.rank(links_.apex(edge), vertex) < edge) {
    keys.push_back(key(edge, vertex, 0));
    for (const Attached &each : forests_.of(edge))
      if (edges_.rank(each.vertex, vertex) < edge) keep_attached(edge, vertex, each.vertex, keys);
    return;
  }
  const auto [high, low] = edges_[edge];
  Rank next;
  const std::size_t count = kernels_.window3(edges_.row(high), edges_.row(low), edges_.row(vertex), 0, edge - 1, next,
                                             places_.data(), edges_.stride());
  for (std::size_t at = 0; at < count; ++at) keep_attached(edge, vertex, places_[at], keys);
  control_.look(edges_.stride() + 8 * count);
}

void TriangleCofacets::keep(Rank edge, Vertex one, Vertex other, Keys &keys) {
  const Vertex apex = links_.apex(edge);
  if (one == apex) {
    keys.push_back(key(edge, other, 0));
  } else if (other == apex) {
    keys.push_back(key(edge, one, 0));
  } else {
    const Rank *const joined = edges_.row(apex);
    if (joined[one] > edge || joined[other] > edge) keep_attached(edge, one, other, keys);
  }
}

// The cofacets if at least one of the vertices is neither the apex nor joined to it.
void TriangleCofacets::keep_attached(Rank edge, Vertex one, Vertex other, Keys &keys) {
  const Rank *const joined = edges_.row(links_.apex(edge));
  Vertex parent = kNoVertex, parent_of_other = kNoVertex;
  std::uint32_t later = place(edge, one, joined[one] < edge, parent);
  const std::uint32_t place_of_other = place(edge, other, joined[other] < edge, parent_of_other);
  Vertex earlier = other;
  if (place_of_other > later) {
    later = place_of_other;
    parent = parent_of_other;
    earlier = one;
  }
  if (earlier == parent)
    keys.push_back(key(edge, later, 0));
  else if (edges_.rank(earlier, parent) > edge)
    keys.push_back(key(edge, later, std::uint32_t{earlier} + 1));
}

std::uint32_t TriangleCofacets::place(Rank edge, Vertex vertex, bool joined, Vertex &parent) {
  if (joined) return vertex;
  const std::span<const Attached> attached = forests_.of(edge);
  std::uint32_t at = 0;
  while (attached[at].vertex != vertex) ++at;
  parent = attached[at].parent;
  return kAttached + at;
}

}  // namespace rips
