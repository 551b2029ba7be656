// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Progress of one long job on stderr: how far, how fast, how long still.
//
//   Progress progress("tokenizing", total_bytes, "B");
//   while (...) progress.update(done_bytes, fmt::format("{} files", files));
//   progress.finish();
//
// On a terminal it is one line, redrawn at most 10 times a second:
//   tokenizing [#########-----------]  45%  1.21 GB of 2.70 GB  61.3 MB/s  0:24 left
// Elsewhere (a pipe, a log file) it is a plain line at the first update, then at most one every
// 10 seconds. finish() writes a last line either way. update() may be called as often as is
// convenient: between two lines it costs one look at the clock.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>

namespace trireme {

// Where progress goes, and by which clock. Tests give their own.
struct ProgressOutput {
  using Clock = std::chrono::steady_clock;

  std::function<void(std::string_view)> write;
  std::function<Clock::time_point()> now;
  // Whether a line can be drawn over; if so, how many columns it has now.
  bool terminal = false;
  std::function<int()> columns;

  static ProgressOutput standard_error();
};

// One thread at a time may call it.
class Progress {
 public:
  // total in units, 0 where it is not known. The unit is "B" for bytes, or a plural ("steps").
  // start is what was done before, by an earlier run: it counts as done, but not for the rate.
  Progress(std::string title, std::int64_t total, std::string unit, std::int64_t start = 0,
           ProgressOutput output = ProgressOutput::standard_error());
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  // Without finish(), only ends the terminal's line, so that what is written next has its own.
  ~Progress();

  // done counts from 0, not from the last call. The suffix is shown behind the rest.
  void update(std::int64_t done, std::string_view suffix = "");
  // Erases the terminal's line, so that another (of log.h, say) can be written; the next update()
  // redraws it. Elsewhere it does nothing.
  void clear();
  // Writes the last line: what was done, in which time, how fast. Calls after it do nothing.
  void finish();

 private:
  using Clock = ProgressOutput::Clock;
  struct Sample {
    Clock::time_point time;
    std::int64_t done;
  };

  void sample(Clock::time_point now);
  double rate_per_s(const Sample& since, Clock::time_point now) const;
  std::string plain_line(Clock::time_point now) const;
  std::string terminal_line(Clock::time_point now, int columns) const;
  std::string rate_left_and_suffix(Clock::time_point now, std::string_view gap) const;
  std::string time_left(Clock::time_point now) const;
  void erase_and_write(std::string_view text);

  // Constant after construction.
  std::string title_;
  std::int64_t total_;
  std::string unit_;
  ProgressOutput output_;
  Sample begin_;

  std::int64_t done_;
  std::string suffix_;
  std::deque<Sample> samples_;  // of the last while, for a rate that follows the job
  Clock::time_point next_line_;
  bool line_is_open_ = false;
  bool finished_ = false;
};

namespace detail {

// 3 digits and a prefix of 1000s: "812 steps", "1.21M tokens", "2.70 GB", "1.21M".
std::string format_quantity(double value, std::string_view unit);
// "0:24", "3:05:09". Never negative.
std::string format_duration(std::chrono::seconds time);

}  // namespace detail

}  // namespace trireme
