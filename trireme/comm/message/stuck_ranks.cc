// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/message/stuck_ranks.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <optional>
#include <sstream>

#include "trireme/base/error.h"

namespace trireme {
namespace {

// For ranks that time out in the same operation to say so: their deadlines differ by as much as
// they came to it at different times.
constexpr std::chrono::milliseconds kHearTime{300};

}  // namespace

std::vector<int> stuck_ranks(const GroupScope& scope, const std::vector<int>& silent,
                             const OperationName& what) {
  ControlPlane& control = *scope.world->control;
  const auto key = [&](int rank) {
    return fmt::format("late/{:016x}/{}/{}", scope.id, what.key(), rank);
  };
  // Whom the rank of the group misses; nothing when it says nothing.
  const auto missed_by = [&](int rank,
                             const Deadline& deadline) -> std::optional<std::vector<int>> {
    try {
      std::istringstream words(control.get(key(rank), deadline, "a sign of life"));
      return std::vector<int>(std::istream_iterator<int>(words), {});
    } catch (const TimeoutError&) {
      scope.world->latch.throw_if_failed();
      return std::nullopt;
    }
  };
  control.put(key(scope.rank), fmt::format("{}", fmt::join(silent, " ")));
  const bool rank_zero_lives = missed_by(scope.rank, Deadline::after(kHearTime)).has_value();
  std::vector<int> asked = silent;
  std::vector<int> stuck;
  const Deadline deadline = Deadline::after(kHearTime);
  for (std::size_t i = 0; i < asked.size(); ++i) {
    if (!rank_zero_lives) {
      if (scope.world_ranks[static_cast<std::size_t>(asked[i])] == 0) stuck.push_back(asked[i]);
      continue;
    }
    const std::optional<std::vector<int>> missed = missed_by(asked[i], deadline);
    if (!missed) stuck.push_back(asked[i]);
    for (const int rank : missed.value_or(std::vector<int>())) {
      const bool known = rank == scope.rank || rank < 0 || rank >= scope.size() ||
                         std::find(asked.begin(), asked.end(), rank) != asked.end();
      if (!known) asked.push_back(rank);
    }
  }
  std::sort(stuck.begin(), stuck.end());
  return stuck.empty() ? silent : stuck;
}

}  // namespace trireme
