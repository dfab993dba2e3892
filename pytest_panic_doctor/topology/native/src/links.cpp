#include "links.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

namespace rips {

namespace {

// Vertices of a link that are tried as its apex: the lowest, which are the most central. The first that reaches all is
// taken, else the one that reaches most.
constexpr std::size_t kTried = 4;

// Neighbours of an apex that are tried, all at once, to reach what the apex does not.
constexpr std::size_t kHubs = 6;

constexpr std::size_t kReport = 1024;  // edges between two reports of progress

// Calls `visit` with each vertex of a set, from the lowest on, until it returns false.
template <class Visit>
void for_each_vertex(const Word *set, std::size_t words, Visit visit) {
  for (std::size_t word = 0; word < words; ++word)
    for (Word left = set[word]; left != 0; left &= left - 1)
      if (!visit(static_cast<Vertex>(word * 64 + static_cast<std::size_t>(std::countr_zero(left))))) return;
}

bool has(const Word *set, Vertex vertex) { return (set[vertex / 64] >> (vertex % 64) & 1) != 0; }
void insert(Word *set, Vertex vertex) { set[vertex / 64] |= Word{1} << (vertex % 64); }
void remove(Word *set, Vertex vertex) { set[vertex / 64] &= ~(Word{1} << (vertex % 64)); }

}  // namespace

// The sweep, with its temporary data.
//
// Invariant, before edge e: `joined_` has the neighbours of each vertex by edges below e, and `component_` the components of
// the graph of these.
class Sweep {
 public:
  Sweep(const Edges &edges, Links &links, bool apexes, const Kernels &kernels, Control &control)
      : edges_(edges),
        links_(links),
        apexes_(apexes),
        kernels_(kernels),
        control_(control),
        words_((edges.vertices() + 64 * kWords - 1) / (64 * kWords) * kWords),
        joined_(control, edges.vertices() * words_),
        link_(control, words_),
        star_(control, words_),
        apart_(control, words_),
        component_(edges.vertices(), 0, Counted<Vertex>(control)),
        left_(Counted<Vertex>(control)),
        open_(Counted<Vertex>(control)) {
    for (std::size_t vertex = 0; vertex < edges.vertices(); ++vertex) {
      std::fill_n(joined_.data() + vertex * words_, words_, Word{0});
      control.look(words_);
    }
    std::iota(component_.begin(), component_.end(), Vertex{0});
  }

  void run() {
    control_.enter(Stage::links, edges_.count());
    for (Rank edge = 0; edge < edges_.count(); ++edge) {
      const auto [high, low] = edges_[edge];
      if (kernels_.meet(row(high), row(low), link_.data(), words_)) {
        if (apexes_) match(edge);
      } else {
        (merge(high, low) ? links_.merges_ : links_.cycles_).push_back(edge);
      }
      insert(row(high), low);
      insert(row(low), high);
      if (edge % kReport == 0) control_.progress(edge);
      control_.look(8 * words_);
    }
  }

 private:
  Word *row(Vertex vertex) { return joined_.data() + vertex * words_; }

  Vertex root(Vertex vertex) {
    while (component_[vertex] != vertex) vertex = component_[vertex] = component_[component_[vertex]];
    return vertex;
  }

  bool merge(Vertex one, Vertex other) {
    const Vertex kept = root(one), gone = root(other);
    component_[gone] = kept;
    return kept != gone;
  }

  // Choose the apex of an edge whose link is not empty, and find the components of the link that do not hold it.
  void match(Rank edge) {
    std::size_t fewest = edges_.vertices() + 1, tried = 0;
    Vertex apex = kNoVertex;
    for_each_vertex(link_.data(), words_, [&](Vertex vertex) {
      const std::size_t missing = kernels_.missing(link_.data(), row(vertex), fewest, words_);
      if (missing < fewest) {
        fewest = missing;
        apex = vertex;
      }
      return fewest > 1 && ++tried < kTried;  // one that is missing is the vertex itself
    });
    links_.apex_[edge] = apex;
    if (fewest == 1)
      links_.cone_[edge / 64] |= Word{1} << (edge % 64);
    else if (!connected(apex))
      add_components(edge);
  }

  // Whether all of the link is reached from the apex; if not, `left_` and `apart_` have what is not.
  bool connected(Vertex apex) {
    kernels_.meet(link_.data(), row(apex), star_.data(), words_);
    std::copy_n(link_.data(), words_, apart_.data());
    remove(apart_.data(), apex);
    bool more = kernels_.subtract(apart_.data(), row(apex), words_);
    std::size_t hubs = 0;
    for_each_vertex(star_.data(), words_, [&](Vertex hub) {
      more = kernels_.subtract(apart_.data(), row(hub), words_);
      return more && ++hubs < kHubs;
    });
    if (!more) return true;
    left_.clear();
    for_each_vertex(apart_.data(), words_, [&](Vertex vertex) {
      left_.push_back(vertex);
      return true;
    });
    for (bool changed = true; changed;) {
      const auto reached = std::remove_if(left_.begin(), left_.end(), [&](Vertex vertex) {
        if (!kernels_.touches(row(vertex), link_.data(), apart_.data(), words_)) return false;
        remove(apart_.data(), vertex);
        return true;
      });
      changed = reached != left_.end();
      control_.look(left_.size() * words_);
      left_.erase(reached, left_.end());
    }
    return left_.empty();
  }

  // A critical triangle for each component of `apart_`, of which `left_` are the vertices from the lowest on.
  void add_components(Rank edge) {
    for (const Vertex lowest : left_) {
      if (!has(apart_.data(), lowest)) continue;
      links_.critical_.push_back(triangle(edge, lowest));
      remove(apart_.data(), lowest);
      open_.assign(1, lowest);
      while (!open_.empty()) {
        const Vertex from = open_.back();
        open_.pop_back();
        kernels_.meet(apart_.data(), row(from), star_.data(), words_);
        for_each_vertex(star_.data(), words_, [&](Vertex vertex) {
          remove(apart_.data(), vertex);
          open_.push_back(vertex);
          return true;
        });
        control_.look(words_);
      }
    }
  }

  const Edges &edges_;
  Links &links_;
  const bool apexes_;
  const Kernels &kernels_;
  Control &control_;
  const std::size_t words_;
  Block<Word> joined_;             // a row of bits for each vertex
  Block<Word> link_;               // of the edge at hand
  Block<Word> star_, apart_;       // of its apex; not reached yet
  Vector<Vertex> component_;       // union-find
  Vector<Vertex> left_, open_;
};

Links::Links(const Edges &edges, bool apexes, const Kernels &kernels, Control &control)
    : merges_(Counted<Rank>(control)),
      cycles_(Counted<Rank>(control)),
      critical_(Counted<Triangle>(control)),
      apex_(apexes ? edges.count() : 0, kNoVertex, Counted<Vertex>(control)),
      cone_(apexes ? (edges.count() + 63) / 64 : 0, 0, Counted<Word>(control)) {
  Sweep(edges, *this, apexes, kernels, control).run();
}

}  // namespace rips
