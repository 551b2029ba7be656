// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/internal/schedule_index.h"

#include <fmt/format.h>

#include "trireme/base/check.h"
#include "trireme/base/error.h"

namespace trireme::plan {
namespace {

// Stages and micro-batches of a list that is in memory are below 2^28.
constexpr int kMaxNumber = 1 << 28;

std::uint64_t key(Action action, int stage, int micro_batch) {
  return (static_cast<std::uint64_t>(action) << 58U) |
         (static_cast<std::uint64_t>(stage + 1) << 29U) |
         static_cast<std::uint64_t>(micro_batch + 1);
}

}  // namespace

void refuse_instruction(const Schedule& schedule, int rank, std::size_t position,
                        const std::string& what) {
  throw_error<ConfigError>("schedule {}: rank {}, position {}, {}: {}", schedule.name, rank,
                           position, to_string(schedule.of_rank[index(rank)][position]), what);
}

ScheduleIndex::ScheduleIndex(const Schedule& schedule)
    : schedule_(schedule),
      backward_(has_backward(schedule)),
      only_compute_(plan::only_compute(schedule)) {
  check_shape();
  for (int rank = 0; rank < schedule.ranks; ++rank) {
    const std::vector<Instruction>& list = schedule.of_rank[index(rank)];
    for (std::size_t position = 0; position < list.size(); ++position) {
      const Instruction& instruction = list[position];
      check_instruction(rank, position, instruction);
      // A step gathers and releases as often as it likes, and each rank has its STEP.
      const Action action = instruction.action;
      if (!has_micro_batch(action) && action != Action::kReduce) continue;
      const auto [other, is_new] =
          positions_.emplace(key(action, instruction.stage, instruction.micro_batch), position);
      if (!is_new) {
        refuse_instruction(schedule, rank, position,
                           fmt::format("again, after position {}", other->second));
      }
    }
  }
}

void ScheduleIndex::check_shape() const {
  const Schedule& s = schedule_;
  if (s.ranks < 1 || s.of_rank.size() != index(s.ranks)) {
    throw_error<ConfigError>("schedule {}: of {} ranks, with instructions for {}", s.name, s.ranks,
                             s.of_rank.size());
  }
  if (s.micro_batches < 1 || s.micro_batches >= kMaxNumber || s.rank_of_stage.empty() ||
      s.rank_of_stage.size() >= index(kMaxNumber)) {
    throw_error<ConfigError>("schedule {}: {} stages and {} micro-batches, wanted 1 to {} of each",
                             s.name, s.rank_of_stage.size(), s.micro_batches, kMaxNumber - 1);
  }
  std::vector<bool> has_stage(index(s.ranks), false);
  for (int stage = 0; stage < s.stages(); ++stage) {
    const int rank = rank_of(stage);
    if (rank < 0 || rank >= s.ranks) {
      throw_error<ConfigError>("schedule {}: stage {} is on rank {}, but the ranks are 0 to {}",
                               s.name, stage, rank, s.ranks - 1);
    }
    has_stage[index(rank)] = true;
  }
  for (int rank = 0; rank < s.ranks; ++rank) {
    if (has_stage[index(rank)]) continue;
    throw_error<ConfigError>("schedule {}: rank {} has no stage; {} stages are on {} ranks", s.name,
                             rank, s.stages(), s.ranks);
  }
}

void ScheduleIndex::check_instruction(int rank, std::size_t position,
                                      const Instruction& instruction) const {
  const Schedule& s = schedule_;
  const bool has_stage = instruction.action != Action::kStep;
  const bool has_number = has_micro_batch(instruction.action);
  if (has_stage ? instruction.stage < 0 || instruction.stage >= s.stages()
                : instruction.stage != -1) {
    refuse_instruction(s, rank, position,
                       has_stage ? fmt::format("the stages are 0 to {}", s.stages() - 1)
                                 : "it is of the rank, not of a stage");
  }
  if (has_number ? instruction.micro_batch < 0 || instruction.micro_batch >= s.micro_batches
                 : instruction.micro_batch != -1) {
    refuse_instruction(s, rank, position,
                       has_number
                           ? fmt::format("the micro-batches are 0 to {}", s.micro_batches - 1)
                           : "it is of the step, not of a micro-batch");
  }
  if (has_stage && rank_of(instruction.stage) != rank) {
    refuse_instruction(
        s, rank, position,
        fmt::format("stage {} is on rank {}", instruction.stage, rank_of(instruction.stage)));
  }
}

std::optional<std::size_t> ScheduleIndex::find(Action action, int stage, int micro_batch) const {
  const auto found = positions_.find(key(action, stage, micro_batch));
  return found == positions_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::size_t> ScheduleIndex::find_backward(int stage, int micro_batch) const {
  const std::optional<std::size_t> whole = find(Action::kBackward, stage, micro_batch);
  return whole ? whole : find(Action::kBackwardInput, stage, micro_batch);
}

Instruction counterpart(const Instruction& message, int stages) {
  const int stage = message.stage;
  const int micro_batch = message.micro_batch;
  switch (message.action) {
    case Action::kSendActivation:
      return {Action::kReceiveActivation, stage + 1, micro_batch};
    case Action::kReceiveActivation:
      return {Action::kSendActivation, stage - 1, micro_batch};
    case Action::kSendGradient:
      return {Action::kReceiveGradient, stage - 1, micro_batch};
    case Action::kReceiveGradient:
      return {Action::kSendGradient, stage + 1, micro_batch};
    case Action::kSendTied:
      return {Action::kReceiveTied, stages - 1, micro_batch};
    case Action::kReceiveTied:
      return {Action::kSendTied, 0, micro_batch};
    default:
      TRIREME_ASSERT(false, "{} is no message", to_string(message));
      return message;
  }
}

}  // namespace trireme::plan
