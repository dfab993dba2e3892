// The loops that take the time, compiled for several processors and chosen at run time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edges.hpp"

namespace rips {

// 64 vertices of a set; rows of bits are a multiple of kWords long and aligned to a cache line.
using Word = std::uint64_t;
constexpr std::size_t kWords = 8;

// Rows of ranks are a multiple of Edges::kLanes long and aligned to a cache line; `size` is their length.
struct Kernels {
  const char *name;

  // both = one & other; returns whether it is not empty.
  bool (*meet)(const Word *one, const Word *other, Word *both, std::size_t words);

  // How many of `link` are not in `row`; if more than `most`, any larger number.
  std::size_t (*missing)(const Word *link, const Word *row, std::size_t most, std::size_t words);

  // set = set & ~row; returns whether anything is left.
  bool (*subtract)(Word *set, const Word *row, std::size_t words);

  // Whether `row` meets `link` outside `apart`.
  bool (*touches)(const Word *row, const Word *link, const Word *apart, std::size_t words);

  // Writes the places where the maximum of the rows is in [from, to] to `places`, and returns their number; `next` gets
  // the least maximum beyond `to`. `places` has room for `size`.
  std::size_t (*window2)(const Rank *one, const Rank *two, Rank from, Rank to, Rank &next, Vertex *places,
                         std::size_t size);
  std::size_t (*window3)(const Rank *one, const Rank *two, const Rank *three, Rank from, Rank to, Rank &next,
                         Vertex *places, std::size_t size);

  // The link of an edge of rank `edge` with end rows `one` and `two`, parted by the row of its apex: `outside` gets 0 for
  // the vertices of the link that the apex is joined to, kNoEdge for all others; the vertices of the link that it is not
  // joined to (itself among them) are written to `rest`, and their number is returned. `rest` has room for `size`.
  std::size_t (*part)(const Rank *one, const Rank *two, const Rank *apex, Rank edge, Rank *outside, Vertex *rest,
                      std::size_t size);

  // The least of the maxima of both rows.
  Rank (*least)(const Rank *one, const Rank *two, std::size_t size);
};

// The best for this processor, or the one called `name` (for tests), or nullptr if the processor does not support it.
const Kernels *kernels(const char *name = nullptr);

}  // namespace rips
