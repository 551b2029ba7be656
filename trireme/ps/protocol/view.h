// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// View: who lives, and which server holds which range. The coordinator makes one after the other
// (membership.h) and numbers them by term; servers and workers act in the newest that they know and
// say its term with all that they send, so that what belongs to another is seen and refused.
#pragma once

#include <compare>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace trireme::ps {

using Term = std::int64_t;

// One life of a process: numbered by the coordinator, never used again. A server or worker that
// comes back is a new one, who holds nothing.
using ServerId = std::int64_t;
using WorkerId = std::int64_t;
constexpr std::int64_t kNobody = -1;

// When gradients are applied, and how far workers may be apart.
struct Consistency {
  static constexpr std::int64_t kUnbounded = std::numeric_limits<std::int64_t>::max();

  // The contributions of all workers to a step are summed and applied once. Otherwise each is
  // applied when it arrives.
  bool sums = true;
  // No worker begins a step that is more than this many ahead of the slowest worker's.
  std::int64_t bound = 0;

  auto operator<=>(const Consistency&) const = default;

  static Consistency sync() { return {true, 0}; }
  static Consistency bounded(std::int64_t steps) { return {false, steps}; }
  static Consistency async() { return {false, kUnbounded}; }
  // "sync", "bounded(4)", "async", and back. Throws ConfigError.
  static Consistency parse(const std::string& text);
  std::string text() const;
};

// Who holds a range.
struct RangeView {
  ServerId primary = kNobody;
  ServerId backup = kNobody;
  // In which the backup was given the range by this primary, as one who has nothing unless it is
  // ready. Another one that it had before counts for nothing.
  Term backup_since = 0;
  // The backup has all that the primary ever acknowledged, and takes its place when it is lost.
  bool backup_ready = false;
  // Becomes the backup when it has everything. Until then the ready backup stays.
  ServerId successor = kNobody;
  Term successor_since = 0;
  // The primary changes nothing in this term: it and its ready backup are to change places.
  bool handover = false;

  auto operator<=>(const RangeView&) const = default;
};

struct ServerView {
  ServerId id = kNobody;
  int index = 0;  // its place among the servers, for messages
  std::string address;
  int port = 0;

  auto operator<=>(const ServerView&) const = default;
};

struct WorkerView {
  WorkerId id = kNobody;
  int rank = 0;  // its place in sums

  auto operator<=>(const WorkerView&) const = default;
};

struct View {
  Term term = 0;  // 0: nothing has begun
  std::vector<ServerView> servers;
  std::vector<WorkerView> workers;  // ascending by rank
  std::vector<RangeView> ranges;
  // Not empty: the job cannot go on, and why.
  std::string failure;

  auto operator<=>(const View&) const = default;
};

}  // namespace trireme::ps
