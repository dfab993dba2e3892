// The persistence diagram of a Vietoris-Rips filtration, H0 to H2, with coefficients in Z/2.
#pragma once

#include <array>

#include "distances.hpp"
#include "kernels.hpp"
#include "reduction.hpp"

namespace rips {

using Diagram = std::array<Bars, 3>;

// Bars of positive length, in no particular order; dimensions above `max_dim` (0 to 2) stay empty. `room` as in Edges.
// Throws Reached.
Diagram persistence(const Distances &distances, std::byte *room, int max_dim, const Kernels &kernels, Control &control);

}  // namespace rips
