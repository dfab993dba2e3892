// Limits and progress of a computation.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace rips {

// Why a computation was ended.
enum class Limit : int { deadline = 1, memory = 2, stop = 3, signal = 4 };

// Thrown when a limit is reached. Unwinding frees all memory.
struct Reached {
  Limit limit;
};

enum class Stage : std::int64_t { edges = 0, links = 1, h1 = 2, h2 = 3 };

// Words shared by caller and computation; other threads may read and write them at any time.
struct State {
  std::int64_t stop;   // written by the caller: a value other than 0 ends the computation
  std::int64_t stage;  // a Stage
  std::int64_t done;   // of `to_do` rows, edges or columns in this stage
  std::int64_t to_do;
  std::int64_t bytes;  // allocated now
  std::int64_t peak;   // the most that was allocated
};

// Invariant: `bytes` of the state is what is allocated now, and never more than the limit.
class Control {
 public:
  using Clock = std::chrono::steady_clock;
  // Called every few hundredths of a second; true ends the computation. May be nullptr.
  using Signal = bool (*)(void *context);

  // `seconds` and `memory` (bytes) below 0: no limit.
  Control(State *state, double seconds, std::int64_t memory, Signal signal = nullptr, void *context = nullptr);
  Control(const Control &) = delete;
  Control &operator=(const Control &) = delete;

  // To be called after each piece of work, with the machine words it read; checks the limits about every
  // millisecond. Throws Reached.
  void look(std::size_t work) {
    work_ += work;
    if (work_ >= kWork) look_now();
  }

  // Account for memory before it is allocated. Throws Reached.
  void take(std::size_t bytes);
  void give(std::size_t bytes) noexcept;

  void enter(Stage stage, std::size_t to_do);
  void progress(std::size_t done);

 private:
  static constexpr std::size_t kWork = std::size_t{1} << 20;

  void look_now();

  State *state_;
  std::int64_t memory_;
  std::int64_t bytes_ = 0;
  std::int64_t peak_ = 0;
  std::size_t work_ = 0;
  bool timed_;
  Signal signal_;
  void *context_;
  Clock::time_point deadline_;
  Clock::time_point next_signal_;
};

}  // namespace rips
