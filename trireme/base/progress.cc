// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/base/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

namespace trireme {
namespace {

using Seconds = std::chrono::duration<double>;

constexpr auto kTerminalInterval = std::chrono::milliseconds(100);
constexpr auto kPlainInterval = std::chrono::seconds(10);
// The rate is that of the last while: long enough to be steady, short enough to follow the job.
constexpr auto kRateWindow = std::chrono::seconds(30);

constexpr int kBarColumns = 20;
constexpr int kMinColumnsForBar = 80;
constexpr int kDefaultColumns = 80;

constexpr const char* kEraseLine = "\r\x1b[K";

bool starts_character(char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

// The first characters of a UTF-8 text.
std::string cut(const std::string& text, int characters) {
  int seen = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (starts_character(text[i]) && ++seen > characters) return text.substr(0, i);
  }
  return text;
}

double fraction_of(std::int64_t done, std::int64_t total) {
  return std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0);
}

// "500 of 1000 steps", "9.50 MB of 1.20 GB".
std::string done_of_total(std::int64_t done, std::int64_t total, const std::string& unit) {
  if (total <= 0) return detail::format_quantity(static_cast<double>(done), unit);
  return fmt::format("{} of {}",
                     detail::format_quantity(static_cast<double>(done), unit == "B" ? unit : ""),
                     detail::format_quantity(static_cast<double>(total), unit));
}

std::string bar(double fraction) {
  const auto full = static_cast<std::size_t>(fraction * kBarColumns);
  return fmt::format(" [{}{}]", std::string(full, '#'), std::string(kBarColumns - full, '-'));
}

std::string format_rate(double per_s, const std::string& unit) {
  return detail::format_quantity(per_s, unit) + "/s";
}

// Three significant digits, except that whole hundreds keep all of theirs.
std::string three_digits(double value) {
  const int decimals = value >= 99.95 ? 0 : value >= 9.995 ? 1 : value >= 0.9995 ? 2 : 3;
  return fmt::format("{:.{}f}", value, decimals);
}

int terminal_columns() {
  winsize size{};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : kDefaultColumns;
}

}  // namespace

namespace detail {

std::string format_quantity(double value, std::string_view unit) {
  constexpr std::array<std::string_view, 6> kPrefixes = {"", "k", "M", "G", "T", "P"};
  // 999.5 and more would be shown as 1000.
  constexpr double kNextPrefix = 999.5;
  const bool bytes = unit == "B";
  // Counts of things are told in full as long as they are short.
  const double limit = bytes ? kNextPrefix : 9999.5;
  std::size_t prefix = 0;
  if (value >= limit) {
    while (value >= kNextPrefix && prefix + 1 < kPrefixes.size()) {
      value /= 1000.0;
      ++prefix;
    }
  }
  const bool whole = prefix == 0 && value == static_cast<double>(static_cast<std::int64_t>(value));
  const std::string digits = whole ? fmt::format("{:.0f}", value) : three_digits(value);
  if (bytes) return fmt::format("{} {}{}", digits, kPrefixes[prefix], unit);
  return fmt::format("{}{}{}{}", digits, kPrefixes[prefix], unit.empty() ? "" : " ", unit);
}

std::string format_duration(std::chrono::seconds time) {
  const auto seconds = std::max<std::int64_t>(0, time.count());
  const auto minutes = seconds / 60;
  if (minutes < 60) return fmt::format("{}:{:02}", minutes, seconds % 60);
  return fmt::format("{}:{:02}:{:02}", minutes / 60, minutes % 60, seconds % 60);
}

}  // namespace detail

ProgressOutput ProgressOutput::standard_error() {
  ProgressOutput output;
  output.write = [](std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
  };
  output.now = [] { return Clock::now(); };
  output.terminal = ::isatty(STDERR_FILENO) != 0;
  output.columns = terminal_columns;
  return output;
}

Progress::Progress(std::string title, std::int64_t total, std::string unit, std::int64_t start,
                   ProgressOutput output)
    : title_(std::move(title)),
      total_(total),
      unit_(std::move(unit)),
      output_(std::move(output)),
      begin_{output_.now(), start},
      done_(start),
      samples_{begin_},
      next_line_(begin_.time) {}

Progress::~Progress() {
  if (!line_is_open_) return;
  try {
    output_.write("\n");
  } catch (...) {  // the line stays as it is
  }
}

void Progress::update(std::int64_t done, std::string_view suffix) {
  if (finished_) return;
  done_ = done;
  suffix_ = suffix;
  const Clock::time_point now = output_.now();
  if (now < next_line_) return;
  sample(now);
  if (output_.terminal) {
    next_line_ = now + kTerminalInterval;
    erase_and_write(terminal_line(now, output_.columns()));
    line_is_open_ = true;
  } else {
    next_line_ = now + kPlainInterval;
    output_.write(plain_line(now) + "\n");
  }
}

void Progress::clear() {
  if (!line_is_open_) return;
  erase_and_write("");
  line_is_open_ = false;
  next_line_ = Clock::time_point::min();
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  const Clock::time_point now = output_.now();
  const auto elapsed = std::chrono::duration_cast<std::chrono::seconds>(now - begin_.time);
  std::string line =
      fmt::format("{}: {} in {}", title_,
                  detail::format_quantity(static_cast<double>(done_ - begin_.done), unit_),
                  detail::format_duration(elapsed));
  if (const double rate = rate_per_s(begin_, now); rate > 0.0) {
    line += fmt::format(", {}", format_rate(rate, unit_));
  }
  if (!suffix_.empty()) line += fmt::format(", {}", suffix_);
  line += '\n';
  if (output_.terminal) {
    erase_and_write(line);
  } else {
    output_.write(line);
  }
  line_is_open_ = false;
}

void Progress::sample(Clock::time_point now) {
  samples_.push_back({now, done_});
  while (samples_.size() > 2 && now - samples_[1].time >= kRateWindow) samples_.pop_front();
}

double Progress::rate_per_s(const Sample& since, Clock::time_point now) const {
  const double seconds = Seconds(now - since.time).count();
  if (seconds <= 0.0 || done_ <= since.done) return 0.0;
  return static_cast<double>(done_ - since.done) / seconds;
}

std::string Progress::time_left(Clock::time_point now) const {
  const double rate = rate_per_s(samples_.front(), now);
  if (rate <= 0.0 || total_ <= done_) return "";
  constexpr double kLongestToTell_s = 1e8;  // three years
  const double seconds = static_cast<double>(total_ - done_) / rate;
  if (seconds > kLongestToTell_s) return "";
  return detail::format_duration(std::chrono::seconds(static_cast<std::int64_t>(seconds + 0.5))) +
         " left";
}

// What both kinds of line tell after how much is done; what is not known is left out.
std::string Progress::rate_left_and_suffix(Clock::time_point now, std::string_view gap) const {
  std::string text;
  if (const double rate = rate_per_s(samples_.front(), now); rate > 0.0) {
    text += fmt::format("{}{}", gap, format_rate(rate, unit_));
  }
  if (const std::string left = time_left(now); !left.empty()) {
    text += fmt::format("{}{}", gap, left);
  }
  if (!suffix_.empty()) text += fmt::format("{}{}", gap, suffix_);
  return text;
}

std::string Progress::plain_line(Clock::time_point now) const {
  std::string line = fmt::format("{}: {}", title_, done_of_total(done_, total_, unit_));
  if (total_ > 0) line += fmt::format(" ({:.0f}%)", 100.0 * fraction_of(done_, total_));
  return line + rate_left_and_suffix(now, ", ");
}

std::string Progress::terminal_line(Clock::time_point now, int columns) const {
  std::string line = title_;
  if (total_ > 0) {
    const double fraction = fraction_of(done_, total_);
    if (columns >= kMinColumnsForBar) line += bar(fraction);
    line += fmt::format(" {:3.0f}%", 100.0 * fraction);
  }
  line += "  " + done_of_total(done_, total_, unit_) + rate_left_and_suffix(now, "  ");
  return cut(line, columns - 1);  // the last column would wrap on some terminals
}

void Progress::erase_and_write(std::string_view text) {
  output_.write(kEraseLine + std::string(text));
}

}  // namespace trireme
