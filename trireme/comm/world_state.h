// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What all groups of one world share, and what an engine knows about the group it works for.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "trireme/comm/collective.h"
#include "trireme/comm/failure.h"
#include "trireme/comm/meeting/control_plane.h"
#include "trireme/comm/meeting/rendezvous.h"
#include "trireme/comm/wait_board.h"

namespace trireme {

class GlooMesh;
class MpiMesh;
class NcclMesh;
class ShmRegions;

// Constant after join_world(), but for what latch, waits and control guard themselves. A world of
// one has neither control plane nor meshes.
struct WorldState {
  int rank = 0;
  std::string engine;  // as asked for: see WorldOptions
  std::vector<Member> members;
  FailureLatch latch;
  WaitBoard waits;
  std::unique_ptr<ControlPlane> control;
  // Null when the world needs none.
  std::shared_ptr<GlooMesh> mesh;
  std::shared_ptr<MpiMesh> mpi;
  std::shared_ptr<NcclMesh> nccl;
  // Null when no other rank can reach this one's memory.
  std::shared_ptr<ShmRegions> regions;

  WorldState();
  ~WorldState();
};

// What a rank sent before its goodbye may come after it, by another way.
constexpr std::chrono::milliseconds kLastWordsTime = std::chrono::seconds(2);

struct GroupScope {
  std::shared_ptr<WorldState> world;
  std::string name;
  // Equal on the ranks of one group, different for every other group of the world.
  std::uint64_t id = 0;
  int rank = 0;
  std::vector<int> world_ranks;

  int size() const { return static_cast<int>(world_ranks.size()); }
  bool has_left(int group_rank) const;
  const Member& member(int group_rank) const;
  // Ranks with equal host_id share a host.
  bool is_local(int group_rank) const;
};

// An operation under way as errors call it. Cheap to make: the words are put together on demand.
class OperationName {
 public:
  explicit OperationName(const Signature& signature) : what_(signature) {}
  OperationName(const MessageKey& key, bool sends, std::int64_t count, DType dtype)
      : what_(Message{key, sends, count, dtype}) {}

  // "operation 12, all_reduce(sum of 3 x f32)"; "message 0, send(8 x f32 to rank 2, tag 7)".
  std::string text(const GroupScope& scope) const;

 private:
  struct Message {
    MessageKey key;
    bool sends;
    std::int64_t count;
    DType dtype;
  };
  std::variant<Signature, Message> what_;
};

// Throws: both signatures, with the ranks that asked for them (ranks of the group).
[[noreturn]] void mismatch_error(const GroupScope& scope, const Signature& mine, int peer,
                                 const Signature& theirs);
// Throws: what the two ends of a message say it is.
[[noreturn]] void message_mismatch_error(const GroupScope& scope, const MessageKey& key,
                                         bool this_rank_sends, const ConstBuffer& mine,
                                         std::int64_t their_count, DType their_dtype);
// Throws: what rank `from` sends to rank `to` in an all_to_all, and what `to` expects of it, both
// ranks of the group.
[[noreturn]] void pair_mismatch_error(const GroupScope& scope, const Signature& signature, int from,
                                      int to, std::int64_t sent, std::int64_t expected);
// Throws: names the ranks that keep this operation from going on. missing are those of the group
// that have not arrived; where these wait for others, it is the others. Takes up to a second.
[[noreturn]] void timeout_error(const GroupScope& scope, const OperationName& mine,
                                const std::vector<int>& missing);
// Throws: the peer said goodbye while this operation waits for it.
[[noreturn]] void left_error(const GroupScope& scope, const OperationName& mine, int peer);

}  // namespace trireme
