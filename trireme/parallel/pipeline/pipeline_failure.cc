// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/pipeline/pipeline_failure.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"

namespace trireme {
namespace {

using plan::Action;
using plan::Instruction;

// What another rank sends for this rank's instruction; nothing: it needs nothing of others.
std::optional<Instruction> sent_for(const plan::Schedule& schedule, const Instruction& i) {
  const int last = schedule.stages() - 1;
  const auto rank_of = [&](int stage) {
    return schedule.rank_of_stage[static_cast<std::size_t>(stage)];
  };
  const auto from = [&](Action action, int stage) -> std::optional<Instruction> {
    if (stage < 0 || stage > last || rank_of(stage) == rank_of(i.stage)) return std::nullopt;
    return Instruction{action, stage, i.micro_batch};
  };
  switch (i.action) {
    case Action::kForward:
      return from(Action::kSendActivation, i.stage - 1);
    case Action::kBackward:
    case Action::kBackwardInput:
      return from(Action::kSendGradient, i.stage + 1);
    case Action::kReceiveTied:
      return from(Action::kSendTied, 0);
    default:
      return std::nullopt;
  }
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

PipelineProgress::PipelineProgress(const plan::Schedule& schedule, Group& group)
    : schedule_(schedule), group_(group) {}

void PipelineProgress::has_done(const Instruction& instruction) {
  ++at_;
  const auto sent = sent_for(schedule_, instruction);
  if (sent) last_sent_[{sent->action, sent->stage}] = sent->micro_batch;
}

// What has come shows that all before it is done there.
std::size_t PipelineProgress::done_by(int rank) const {
  const auto& theirs = schedule_.of_rank[static_cast<std::size_t>(rank)];
  const auto last = std::find_if(theirs.rbegin(), theirs.rend(), [&](const Instruction& i) {
    const auto sent = last_sent_.find({i.action, i.stage});
    return sent != last_sent_.end() && sent->second == i.micro_batch;
  });
  return static_cast<std::size_t>(theirs.rend() - last);
}

std::string PipelineProgress::name_of(int rank) const {
  const std::vector<int> stages = plan::stages_of_rank(schedule_.rank_of_stage, rank);
  return fmt::format("rank {} (stage{} {})", group_.world_ranks()[static_cast<std::size_t>(rank)],
                     stages.size() == 1 ? "" : "s", fmt::join(stages, ", "));
}

std::string PipelineProgress::waits_for() const {
  const auto& own = schedule_.of_rank[static_cast<std::size_t>(group_.rank())];
  if (at_ >= own.size()) return {};
  const auto sent = sent_for(schedule_, own[at_]);
  if (!sent) return {};
  return fmt::format(", which needs {} of {}", to_string(*sent),
                     name_of(schedule_.rank_of_stage[static_cast<std::size_t>(sent->stage)]));
}

std::string PipelineProgress::here() const {
  const auto& own = schedule_.of_rank[static_cast<std::size_t>(group_.rank())];
  if (at_ >= own.size()) {
    return fmt::format("{} was at the end of its schedule", name_of(group_.rank()));
  }
  return fmt::format("{} was at {}, instruction {} of {}{}", name_of(group_.rank()),
                     to_string(own[at_]), at_ + 1, own.size(), waits_for());
}

std::string PipelineProgress::last_known_of(int rank) const {
  const auto& theirs = schedule_.of_rank[static_cast<std::size_t>(rank)];
  const std::size_t next = done_by(rank);
  if (next == 0) {
    return fmt::format("; {} had sent nothing here yet in this step", name_of(rank));
  }
  return next == theirs.size()
             ? fmt::format("; {} had done all", name_of(rank))
             : fmt::format("; {} had done {} and was to go on with {}, instruction {} of {}",
                           name_of(rank), to_string(theirs[next - 1]), to_string(theirs[next]),
                           next + 1, theirs.size());
}

// Abandoning does nothing where the group's own error has ended the world already.
void PipelineProgress::guard(const std::function<void()>& f) {
  try {
    f();
  } catch (const PeerLostError& error) {
    abandon(error.what());
    std::string lost;
    const std::vector<int>& world = group_.world_ranks();
    const auto found = std::find(world.begin(), world.end(), error.rank());
    if (found != world.end()) lost = last_known_of(static_cast<int>(found - world.begin()));
    throw PeerLostError(error.rank(), fmt::format("{}; {}{}", error.what(), here(), lost));
  } catch (const TimeoutError& error) {
    abandon(error.what());
    throw TimeoutError(fmt::format("{}; {}", error.what(), here()));
  } catch (const CommError& error) {
    abandon(error.what());
    throw CommError(fmt::format("{}; {}", error.what(), here()));
  } catch (const std::exception& error) {
    abandon(error.what());
    throw;
  } catch (...) {
    abandon("an exception of an unknown kind");
    throw;
  }
}

void PipelineProgress::abandon(const std::string& reason) {
  group_.abandon(fmt::format("{} and ended with: {}", here(), first_line(reason)));
}

}  // namespace trireme
