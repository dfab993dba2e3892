#include "control.hpp"

#include <algorithm>

namespace rips {

namespace {

constexpr auto kSignalEvery = std::chrono::milliseconds(40);

// A year: longer than any computation, and far from the end of the clock.
constexpr double kLongest = 3.2e7;

void write(std::int64_t &word, std::int64_t value) { __atomic_store_n(&word, value, __ATOMIC_RELAXED); }

std::int64_t read(const std::int64_t &word) { return __atomic_load_n(&word, __ATOMIC_RELAXED); }

}  // namespace

Control::Control(State *state, double seconds, std::int64_t memory, Signal signal, void *context)
    : state_(state), memory_(memory), timed_(seconds >= 0), signal_(signal), context_(context) {
  const auto now = Clock::now();
  const std::chrono::duration<double> allowed(timed_ ? std::min(seconds, kLongest) : kLongest);
  deadline_ = now + std::chrono::duration_cast<Clock::duration>(allowed);
  next_signal_ = now + kSignalEvery;
  write(state_->bytes, 0);
  write(state_->peak, 0);
}

void Control::look_now() {
  work_ = 0;
  if (read(state_->stop) != 0) throw Reached{Limit::stop};
  if (!timed_ && signal_ == nullptr) return;
  const auto now = Clock::now();
  if (timed_ && now >= deadline_) throw Reached{Limit::deadline};
  if (signal_ != nullptr && now >= next_signal_) {
    if (signal_(context_)) throw Reached{Limit::signal};
    next_signal_ = Clock::now() + kSignalEvery;
  }
}

void Control::take(std::size_t bytes) {
  const auto more = static_cast<std::int64_t>(bytes);
  if (memory_ >= 0 && more > memory_ - bytes_) throw Reached{Limit::memory};
  bytes_ += more;
  peak_ = std::max(peak_, bytes_);
  write(state_->bytes, bytes_);
  write(state_->peak, peak_);
}

void Control::give(std::size_t bytes) noexcept {
  bytes_ -= static_cast<std::int64_t>(bytes);
  write(state_->bytes, bytes_);
}

void Control::enter(Stage stage, std::size_t to_do) {
  write(state_->stage, static_cast<std::int64_t>(stage));
  write(state_->done, 0);
  write(state_->to_do, static_cast<std::int64_t>(to_do));
  work_ = kWork;
  look(0);
}

void Control::progress(std::size_t done) { write(state_->done, static_cast<std::int64_t>(done)); }

}  // namespace rips
