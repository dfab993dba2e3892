// Counted memory: every byte that depends on the input is accounted for in a Control.
#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <new>
#include <unordered_map>
#include <utility>
#include <vector>

#include "control.hpp"

namespace rips {

// An allocator for the standard containers.
template <class T>
class Counted {
 public:
  using value_type = T;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;

  explicit Counted(Control &control) : control_(&control) {}
  template <class U>
  Counted(const Counted<U> &other) : control_(other.control()) {}  // NOLINT: allocators convert

  T *allocate(std::size_t count) {
    if (count > std::numeric_limits<std::ptrdiff_t>::max() / sizeof(T)) throw std::bad_alloc();
    control_->take(count * sizeof(T));
    try {
      return static_cast<T *>(::operator new(count * sizeof(T)));
    } catch (...) {
      control_->give(count * sizeof(T));
      throw;
    }
  }

  void deallocate(T *memory, std::size_t count) noexcept {
    control_->give(count * sizeof(T));
    ::operator delete(memory);
  }

  Control *control() const { return control_; }

  template <class U>
  bool operator==(const Counted<U> &other) const {
    return control_ == other.control();
  }

 private:
  Control *control_;
};

// A cache line, on which rows of ranks and of bits begin.
constexpr std::size_t kRowAlignment = 64;

template <class T>
using Vector = std::vector<T, Counted<T>>;

template <class Key, class Value>
using Map = std::unordered_map<Key, Value, std::hash<Key>, std::equal_to<Key>, Counted<std::pair<const Key, Value>>>;

template <class Key, class Value>
Map<Key, Value> map_of(Control &control) {
  return Map<Key, Value>(0, std::hash<Key>(), std::equal_to<Key>(), Counted<std::pair<const Key, Value>>(control));
}

// An array of fixed size, aligned to a cache line, not initialised: large ones are filled row by row, with a
// check of the limits in between.
template <class T>
class Block {
 public:
  static constexpr std::align_val_t kAligned{kRowAlignment};

  explicit Block(Control &control) : control_(&control) {}
  Block(Control &control, std::size_t size) : control_(&control) {
    if (size > std::numeric_limits<std::ptrdiff_t>::max() / sizeof(T)) throw std::bad_alloc();
    control_->take(size * sizeof(T));
    try {
      memory_ = static_cast<T *>(::operator new(size * sizeof(T), kAligned));
    } catch (...) {
      control_->give(size * sizeof(T));
      throw;
    }
    size_ = size;
  }
  Block(Block &&other) noexcept
      : control_(other.control_), memory_(std::exchange(other.memory_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Block &operator=(Block &&other) noexcept {
    std::swap(control_, other.control_);
    std::swap(memory_, other.memory_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Block() { clear(); }

  void clear() noexcept {
    if (memory_ == nullptr) return;
    ::operator delete(memory_, kAligned);
    control_->give(size_ * sizeof(T));
    memory_ = nullptr;
    size_ = 0;
  }

  T *data() { return memory_; }
  const T *data() const { return memory_; }
  std::size_t size() const { return size_; }
  T &operator[](std::size_t at) { return memory_[at]; }
  const T &operator[](std::size_t at) const { return memory_[at]; }

 private:
  Control *control_;
  T *memory_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace rips
