// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Where each instruction of a schedule stands, and what it needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "trireme/plan/internal/index.h"
#include "trireme/plan/schedule.h"

namespace trireme::plan {

// A ConfigError about one instruction: "schedule zbv: rank 2, position 7, 2B3: " and what is wrong.
[[noreturn]] void refuse_instruction(const Schedule& schedule, int rank, std::size_t position,
                                     const std::string& what);

class ScheduleIndex {
 public:
  // Throws ConfigError: ranks, placement, stages or micro-batches that are not there; an
  // instruction on a rank that does not have its stage; one that the schedule has twice. The
  // schedule must outlive this.
  explicit ScheduleIndex(const Schedule& schedule);

  const Schedule& schedule() const { return schedule_; }
  bool backward() const { return backward_; }
  bool only_compute() const { return only_compute_; }
  int rank_of(int stage) const { return schedule_.rank_of_stage[index(stage)]; }
  // Whether the stage and the one after it are on different ranks.
  bool crosses(int stage) const { return rank_of(stage) != rank_of(stage + 1); }
  // Whether the first and the last stage are on different ranks.
  bool tied_crosses() const { return rank_of(0) != rank_of(schedule_.stages() - 1); }

  // Position in its rank's list.
  std::optional<std::size_t> find(Action action, int stage, int micro_batch) const;
  // Of I, or of B.
  std::optional<std::size_t> find_backward(int stage, int micro_batch) const;
  bool has(Action action, int stage, int micro_batch) const {
    return find(action, stage, micro_batch).has_value();
  }

 private:
  void check_shape() const;
  void check_instruction(int rank, std::size_t position, const Instruction& instruction) const;

  // Constant after construction.
  const Schedule& schedule_;
  bool backward_;
  bool only_compute_;
  std::unordered_map<std::uint64_t, std::size_t> positions_;
};

// What a send's data arrive at: the receive of the stage beside; of a receive, the send.
Instruction counterpart(const Instruction& message, int stages);

}  // namespace trireme::plan
