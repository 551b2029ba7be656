// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// PipelineProgress: where a rank is in its schedule, and what it knows of the others, for the one
// line that says so when a run fails.
//
// Internal to PipelineExecutor.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "trireme/plan/schedule.h"

namespace trireme {

class Group;

// Not thread-safe.
class PipelineProgress {
 public:
  // Both outlive it.
  PipelineProgress(const plan::Schedule& schedule, Group& group);

  // The next of this rank's, in order.
  void has_done(const plan::Instruction& instruction);

  // f(). What it throws is thrown on, a CommError with what this rank was at and, of a lost rank,
  // what that one was at, as far as is known here; other ranks get the same words.
  void guard(const std::function<void()>& f);

 private:
  void abandon(const std::string& reason);
  // "rank 3 (stages 3, 4)", by its number in the world.
  std::string name_of(int rank) const;
  std::string here() const;
  // What it waits for now; empty: nothing.
  std::string waits_for() const;
  // Instructions of another rank that are known to be done.
  std::size_t done_by(int rank) const;
  // Of another rank: what it had to do after these.
  std::string last_known_of(int rank) const;

  const plan::Schedule& schedule_;
  Group& group_;
  std::size_t at_ = 0;                                     // in this rank's instructions
  std::map<std::pair<plan::Action, int>, int> last_sent_;  // of others, by stage: micro-batch
};

}  // namespace trireme
