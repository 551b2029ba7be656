// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The one way in which the library speaks: lines on stderr with time, level and rank.
//
//   set_log_rank(rank, world_size);
//   log_info("group {}: engine {}", group.name(), group.engine());
#pragma once

#include <fmt/core.h>

#include <string_view>
#include <utility>

namespace trireme {

enum class LogLevel { kDebug, kInfo, kWarn, kError, kOff };

// Lines below the level are dropped. The default is kInfo. May be called at any time, by any
// thread.
void set_log_level(LogLevel level);

// Adds "[rank/size]" to every line from now on; nothing is added while the size is 1.
void set_log_rank(int rank, int size);

// Writes one line. May be called by any thread; lines are never mixed.
void log_line(LogLevel level, std::string_view message);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kWarn, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace trireme
