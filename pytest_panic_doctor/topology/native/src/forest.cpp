#include "forest.hpp"

#include <algorithm>

namespace rips {

std::span<const Attached> Forests::of(Rank edge) {
  auto found = known_.find(edge);
  if (found == known_.end()) {
    if (pool_.size() + known_.size() > kMost) {
      known_.clear();
      pool_.clear();
    }
    const std::size_t begin = pool_.size();
    grow(edge);
    const Slice slice{static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(pool_.size() - begin)};
    found = known_.emplace(edge, slice).first;
  }
  return {pool_.data() + found->second.begin, found->second.size};
}

void Forests::grow(Rank edge) {
  const auto [high, low] = edges_[edge];
  const Vertex apex = links_.apex(edge);
  const std::size_t size = edges_.stride();
  std::size_t left =
      kernels_.part(edges_.row(high), edges_.row(low), edges_.row(apex), edge, outside_.data(), rest_.data(), size);
  outside_[apex] = 0;
  left = static_cast<std::size_t>(std::remove(rest_.data(), rest_.data() + left, apex) - rest_.data());
  control_.look(size);
  while (left > 0) {
    std::size_t kept = 0;
    for (std::size_t at = 0; at < left; ++at) {
      const Vertex vertex = rest_[at];
      const Rank nearest = kernels_.least(edges_.row(vertex), outside_.data(), size);
      control_.look(size);
      if (nearest < edge) {
        const auto [one, other] = edges_[nearest];
        pool_.push_back({vertex, one == vertex ? other : one});
        outside_[vertex] = 0;
      } else {
        rest_[kept++] = vertex;
      }
    }
    if (kept == left) {
      pool_.push_back({rest_[0], kNoVertex});
      outside_[rest_[0]] = 0;
      std::copy(rest_.data() + 1, rest_.data() + kept, rest_.data());
      --kept;
    }
    left = kept;
  }
}

}  // namespace rips
