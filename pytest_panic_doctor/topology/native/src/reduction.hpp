// The reduction of coboundaries: persistent cohomology over Z/2, with every pair within a class left implicit.
#pragma once

#include <functional>

#include "cofacets.hpp"

namespace rips {

struct Bar {
  Length birth, death;
};
using Bars = Vector<Bar>;

constexpr Length kInfinity = 0x7f800000;

// Classes of the first window, in mean distances between the cofacets of a simplex.
constexpr std::uint32_t kPerRow = 8;

// The columns of one dimension, reduced from the youngest on.
//
// A working column is the coboundary of a set of simplices, the `members`, over Z/2. Only its cofacets up to class `reach_`
// are known, as keys in a heap, where two of the same cancel; the rest is looked for when these are used up.
//
// Invariant: the least key that the heap holds an odd number of times, if there is one, is the pivot of the column. Of each
// member `next` is a lower bound for its cofacets beyond `reach_`.
template <class Cofacets>
class Reduction {
 public:
  using Simplex = typename Cofacets::Simplex;

  Reduction(Cofacets &cofacets, const Edges &edges, Control &control);

  // Reduce the column of a simplex younger than all before it, and add its bar to `bars` if it has a length.
  void reduce(Simplex simplex, Bars &bars);

  bool is_pivot(Key key) const { return columns_.contains(key); }

 private:
  using Column = Vector<Simplex>;
  struct Member {
    Simplex simplex;
    Rank next;
  };
  static constexpr Key kNoKey = ~Key{0};

  Key pop_pivot();
  void push(Key key);
  void add(Simplex simplex, Rank from);
  bool reach_on();
  void cancel_members();
  void store(Key pivot);

  Cofacets &cofacets_;
  const Edges &edges_;
  Control &control_;
  Map<Key, std::uint32_t> columns_;  // by pivot, the place in `reduced_`
  Vector<Column> reduced_;           // the members of each column
  Vector<Member> members_;
  Keys heap_, fresh_;
  Rank reach_ = 0;
  std::uint64_t step_ = 0;
  const std::uint64_t first_step_;
};

template <class Cofacets>
Reduction<Cofacets>::Reduction(Cofacets &cofacets, const Edges &edges, Control &control)
    : cofacets_(cofacets),
      edges_(edges),
      control_(control),
      columns_(map_of<Key, std::uint32_t>(control)),
      reduced_(Counted<Column>(control)),
      members_(Counted<Member>(control)),
      heap_(Counted<Key>(control)),
      fresh_(Counted<Key>(control)),
      first_step_(std::uint64_t{kPerRow} * edges.count() / edges.vertices() + 1) {}

template <class Cofacets>
void Reduction<Cofacets>::reduce(Simplex simplex, Bars &bars) {
  const Rank birth = cofacets_.birth(simplex);
  members_.clear();
  heap_.clear();
  step_ = first_step_;
  reach_ = static_cast<Rank>(std::min<std::uint64_t>(birth + step_, edges_.count() - 1));
  add(simplex, birth);
  for (;;) {
    const Key pivot = pop_pivot();
    if (pivot == kNoKey) {
      if (reach_on()) continue;
      bars.push_back({edges_.length(birth), kInfinity});
      return;
    }
    const Rank death = Cofacets::class_of(pivot);
    if (Cofacets::matched(pivot)) {
      push(pivot);
      add(cofacets_.partner(pivot), death);
      continue;
    }
    const auto known = columns_.find(pivot);
    if (known == columns_.end()) {
      store(pivot);
      if (edges_.length(birth) != edges_.length(death)) bars.push_back({edges_.length(birth), edges_.length(death)});
      return;
    }
    push(pivot);
    for (const Simplex each : reduced_[known->second]) add(each, death);
  }
}

template <class Cofacets>
Key Reduction<Cofacets>::pop_pivot() {
  const auto pop = [this] {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<Key>());
    const Key key = heap_.back();
    heap_.pop_back();
    return key;
  };
  std::size_t popped = 0;
  Key pivot = kNoKey;
  while (pivot == kNoKey && !heap_.empty()) {
    pivot = pop();
    ++popped;
    if (heap_.empty() || heap_.front() != pivot) break;
    pop();
    pivot = kNoKey;
  }
  control_.look(16 * popped);
  return pivot;
}

template <class Cofacets>
void Reduction<Cofacets>::push(Key key) {
  heap_.push_back(key);
  std::push_heap(heap_.begin(), heap_.end(), std::greater<Key>());
}

// Adds the coboundary of a simplex, from class `from` on: what is below cancels.
template <class Cofacets>
void Reduction<Cofacets>::add(Simplex simplex, Rank from) {
  fresh_.clear();
  members_.push_back({simplex, cofacets_.collect(simplex, from, reach_, fresh_)});
  for (const Key key : fresh_) push(key);
}

// Extends the window to at least one more cofacet; false if there are none.
template <class Cofacets>
bool Reduction<Cofacets>::reach_on() {
  cancel_members();
  Rank next = kNoEdge;
  for (const Member &each : members_) next = std::min(next, each.next);
  if (next == kNoEdge) return false;
  const Rank from = reach_ + 1;
  step_ *= 2;
  reach_ = static_cast<Rank>(std::min<std::uint64_t>(next + step_, edges_.count() - 1));
  for (Member &each : members_) {
    if (each.next > reach_) continue;
    fresh_.clear();
    each.next = cofacets_.collect(each.simplex, from, reach_, fresh_);
    for (const Key key : fresh_) push(key);
  }
  return true;
}

// Members that occur twice cancel.
template <class Cofacets>
void Reduction<Cofacets>::cancel_members() {
  std::sort(members_.begin(), members_.end(), [](const Member &a, const Member &b) { return a.simplex < b.simplex; });
  std::size_t kept = 0;
  for (std::size_t at = 0; at < members_.size(); ++at) {
    if (at + 1 < members_.size() && members_[at].simplex == members_[at + 1].simplex)
      ++at;
    else
      members_[kept++] = members_[at];
  }
  members_.erase(members_.begin() + static_cast<std::ptrdiff_t>(kept), members_.end());
  control_.look(32 * members_.size());
}

template <class Cofacets>
void Reduction<Cofacets>::store(Key pivot) {
  cancel_members();
  columns_.emplace(pivot, static_cast<std::uint32_t>(reduced_.size()));
  Column &column = reduced_.emplace_back(Counted<Simplex>(control_));
  column.reserve(members_.size());
  for (const Member &each : members_) column.push_back(each.simplex);
}

}  // namespace rips
