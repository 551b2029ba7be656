// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/world_state.h"

#include "trireme/base/error.h"
#include "trireme/comm/gloo/gloo_mesh.h"
#include "trireme/comm/nccl/nccl_mesh.h"
#include "trireme/comm/shm/shm_regions.h"

namespace trireme {
namespace {

std::string place(const GroupScope& scope, int group_rank) {
  const Member& member = scope.member(group_rank);
  return fmt::format("rank {} on {}", member.rank, member.host_name);
}

std::string describe_message(const GroupScope& scope, const MessageKey& key, bool sends,
                             std::int64_t count, DType dtype) {
  return fmt::format("{}({} x {} {} rank {}, tag {})", sends ? "send" : "recv", count,
                     dtype_name(dtype), sends ? "to" : "from", scope.member(key.peer).rank,
                     key.tag);
}

}  // namespace

WorldState::WorldState() = default;
WorldState::~WorldState() = default;

bool GroupScope::has_left(int group_rank) const {
  return world->control->has_left(world_ranks[static_cast<std::size_t>(group_rank)]);
}

const Member& GroupScope::member(int group_rank) const {
  const int world_rank = world_ranks[static_cast<std::size_t>(group_rank)];
  return world->members[static_cast<std::size_t>(world_rank)];
}

bool GroupScope::is_local(int group_rank) const {
  return member(group_rank).host_id == member(rank).host_id;
}

std::string OperationName::text(const GroupScope& scope) const {
  if (const auto* signature = std::get_if<Signature>(&what_)) {
    return fmt::format("operation {}, {}", signature->sequence, describe(*signature));
  }
  const Message& message = std::get<Message>(what_);
  return fmt::format(
      "message {}, {}", message.key.sequence,
      describe_message(scope, message.key, message.sends, message.count, message.dtype));
}

void mismatch_error(const GroupScope& scope, const Signature& mine, int peer,
                    const Signature& theirs) {
  throw_error<CommError>(
      "group {}: ranks do not call the same operation at number {}: {} calls {}, {} calls {}",
      scope.name, mine.sequence, place(scope, scope.rank), describe(mine), place(scope, peer),
      theirs.sequence == mine.sequence
          ? describe(theirs)
          : fmt::format("{} as its number {}", describe(theirs), theirs.sequence));
}

void message_mismatch_error(const GroupScope& scope, const MessageKey& key, bool this_rank_sends,
                            const ConstBuffer& mine, std::int64_t their_count, DType their_dtype) {
  throw_error<CommError>("group {}: the two ends of message {} differ: {} calls {}, {} calls {}",
                         scope.name, key.sequence, place(scope, scope.rank),
                         describe_message(scope, key, this_rank_sends, mine.count, mine.dtype),
                         place(scope, key.peer),
                         describe_message(scope, {scope.rank, key.tag, key.sequence},
                                          !this_rank_sends, their_count, their_dtype));
}

void pair_mismatch_error(const GroupScope& scope, const Signature& signature, int from, int to,
                         std::int64_t sent, std::int64_t expected) {
  throw_error<CommError>(
      "group {}: counts differ in operation {}, {}: {} sends {} elements to {}, which expects {}",
      scope.name, signature.sequence, describe(signature), place(scope, from), sent,
      place(scope, to), expected);
}

void timeout_error(const GroupScope& scope, const OperationName& mine,
                   const std::vector<int>& missing) {
  const WorldState& world = *scope.world;
  Culprits culprits;
  if (world.control != nullptr) {
    scope.world->waits.freeze();
    culprits = find_culprits(scope, missing);
    world.latch.throw_if_failed();
  }
  std::vector<int> late;
  for (const int group_rank : missing) late.push_back(scope.member(group_rank).rank);
  const std::vector<int>& ranks = culprits.ranks.empty() ? late : culprits.ranks;
  const std::string host =
      ranks.size() == 1 ? " on " + world.members[static_cast<std::size_t>(ranks[0])].host_name
                        : std::string();
  std::string others;
  for (const auto& [rank, wait] : culprits.waits) {
    others += fmt::format("; rank {} waits for rank {} in {}", rank, wait.peer, wait.operation);
  }
  throw_error<TimeoutError>(
      "group {}: {}{} did not arrive at {}, before its deadline (seen by rank {}{}); look at what "
      "they were doing, or raise the timeout",
      scope.name, detail::name_ranks(ranks), host, mine.text(scope), world.rank, others);
}

void left_error(const GroupScope& scope, const OperationName& mine, int peer) {
  throw_error<CommError>("group {}: {} has left, and {}, waits for it", scope.name,
                         place(scope, peer), mine.text(scope));
}

}  // namespace trireme
