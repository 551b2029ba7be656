// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/wait_board.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/comm/world_state.h"

namespace trireme {
namespace {

// For an answer by way of rank 0. A rank that lives answers at once, whatever it computes.
constexpr std::chrono::milliseconds kHearTime{400};

}  // namespace

// A line each: the peer, a blank, the operation.
std::string encode_waits(const std::vector<Wait>& waits) {
  std::string text;
  for (const Wait& wait : waits) text += fmt::format("{} {}\n", wait.peer, wait.operation);
  return text;
}

std::vector<Wait> decode_waits(std::string_view text) {
  std::vector<Wait> waits;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    Wait wait;
    const auto [rest, error] = std::from_chars(line.data(), line.data() + line.size(), wait.peer);
    if (error != std::errc() || rest == line.data() + line.size() || *rest != ' ') continue;
    wait.operation = std::string(rest + 1, line.data() + line.size());
    waits.push_back(std::move(wait));
  }
  return waits;
}

WaitBoard::Posted::Posted(const GroupScope& scope, const OperationName& operation, int peer)
    : scope_(scope), operation_(operation), peer_(peer) {
  WaitBoard& board = scope.world->waits;
  const std::lock_guard lock(board.mutex_);
  place_ = board.posted_.insert(board.posted_.end(), this);
}

WaitBoard::Posted::~Posted() {
  WaitBoard& board = scope_.world->waits;
  const std::lock_guard lock(board.mutex_);
  board.posted_.erase(place_);
}

std::vector<Wait> WaitBoard::waits() const {
  const std::lock_guard lock(mutex_);
  return frozen_ ? *frozen_ : read();
}

void WaitBoard::freeze() {
  const std::lock_guard lock(mutex_);
  if (!frozen_) frozen_ = read();
}

std::vector<Wait> WaitBoard::read() const {
  std::vector<Wait> waits;
  for (const Posted* posted : posted_) {
    const GroupScope& scope = posted->scope_;
    waits.push_back({scope.world_ranks[static_cast<std::size_t>(posted->peer_)],
                     fmt::format("group {}: {}", scope.name, posted->operation_.text(scope))});
  }
  return waits;
}

Culprits find_culprits(const GroupScope& scope, const std::vector<int>& missing) {
  const WorldState& world = *scope.world;
  ControlPlane& control = *world.control;
  const std::string question = control.ask();
  // Nothing when the rank does not answer.
  const auto answer_of = [&](int rank, const Deadline& deadline) {
    std::optional<std::vector<Wait>> answer;
    try {
      answer = decode_waits(control.answer(question, rank, deadline));
    } catch (const TimeoutError&) {
      world.latch.throw_if_failed();
    }
    return answer;
  };
  std::vector<int> asked;
  asked.reserve(missing.size());
  for (const int rank : missing) {
    asked.push_back(scope.world_ranks[static_cast<std::size_t>(rank)]);
  }
  Culprits culprits;
  // Answers come through rank 0. When not even the own one does, it is rank 0 that is stuck.
  if (!answer_of(world.rank, Deadline::after(kHearTime))) {
    culprits.ranks = {0};
    return culprits;
  }
  const Deadline deadline = Deadline::after(kHearTime);
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const auto waits = answer_of(asked[i], deadline);
    if (!waits || waits->empty()) culprits.ranks.push_back(asked[i]);
    for (const Wait& wait : waits.value_or(std::vector<Wait>())) {
      culprits.waits.emplace_back(asked[i], wait);
      const bool known = wait.peer == world.rank || wait.peer < 0 ||
                         wait.peer >= static_cast<int>(world.members.size()) ||
                         std::find(asked.begin(), asked.end(), wait.peer) != asked.end();
      if (!known) asked.push_back(wait.peer);
    }
  }
  std::sort(culprits.ranks.begin(), culprits.ranks.end());
  return culprits;
}

}  // namespace trireme
