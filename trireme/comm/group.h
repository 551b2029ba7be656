// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Group: ranks that talk to one another. The collectives of Trireme, blocking and as Work.
//
//   const auto world = join_world(options);              // comm/world.h; size 1 when alone
//   world->all_reduce(buffer_of(std::span(gradients)));  // sum over ranks, in place
//
//   Work work = world->start_all_reduce(bucket);  // leaves now
//   ...                                           // compute meanwhile; leave bucket alone
//   work.wait();                                  // the sum is there, or this throws
//
// Collective contract, for every operation: all ranks of the group call the same operations in the
// same order with the same counts, dtypes and roots. Ranks that differ get a CommError that shows
// both sides. Several groups may work at the same time.
//
// Sums are associated in one fixed binary tree by rank, whatever the engine: ranks [a, b) are split
// at a + the largest power of two below b - a, left plus right. bf16 and f16 add up in f32.
//
// Errors: TimeoutError at the deadline (names the ranks that have not arrived, the operation and
// its sequence number), PeerLostError when a peer is gone (names it), CommError otherwise;
// ShapeError for arguments that cannot be, before anything is sent. A failure ends the world: the
// group that failed, every other group of that world and every rank throw its first cause from then
// on. Ranks are named as ranks of the world.
//
// Threads: one thread at a time per Group.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/comm/buffer.h"

namespace trireme {

enum class ReduceOp : std::uint8_t { kSum, kMean, kMin, kMax, kProduct };

class GroupImpl;

// One operation under way. Movable; dropping it without wait() is allowed and does not cancel it,
// but its buffers must outlive it.
class Work {
 public:
  Work();
  Work(Work&&) noexcept;
  Work& operator=(Work&&) noexcept;
  ~Work();

  // Blocks until the operation is done, then its buffers are the caller's again. Throws what ended
  // it.
  void wait();
  // True once wait() would return, or throw, at once. Never blocks.
  bool test();

  struct State;
  explicit Work(std::shared_ptr<State> state);

 private:
  std::shared_ptr<State> state_;
};

class Group {
 public:
  explicit Group(std::unique_ptr<GroupImpl> impl);
  ~Group();  // does not communicate
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  const std::string& name() const;
  int rank() const;
  int size() const;
  // "shm", "gloo" or "self" (a group of one).
  std::string_view engine() const;
  // Ranks of the world, by rank of this group.
  const std::vector<int>& world_ranks() const;

  // Deadline of every later operation, from its start. Default 5 minutes.
  void set_timeout(std::chrono::milliseconds timeout);

  // data becomes the reduction of all ranks' data, in place. Any dtype; mean of integers is
  // refused. Cost per rank: 2 (n - 1) / n x bytes, two exchanges.
  void all_reduce(Buffer data, ReduceOp op = ReduceOp::kSum);
  Work start_all_reduce(Buffer data, ReduceOp op = ReduceOp::kSum);

  // output (size() x input.count elements) becomes the inputs of all ranks, in rank order. input
  // may be this rank's part of output. Cost per rank: (n - 1) / n x output bytes.
  void all_gather(ConstBuffer input, Buffer output);
  Work start_all_gather(ConstBuffer input, Buffer output);

  // data becomes the root's data.
  void broadcast(Buffer data, int root);
  Work start_broadcast(Buffer data, int root);

  // Returns once every rank has called it.
  void barrier();

  // A group of the given ranks of this one (ascending, this rank among them), with this one's
  // timeout. Collective over the ranks listed; name must be the same on each and new within this
  // group. Moves no bytes; memory is taken at the part's first operation. Throws ConfigError.
  std::unique_ptr<Group> split(const std::string& name, const std::vector<int>& ranks);

  // Bytes that this rank has sent to other ranks since construction, payload only.
  std::int64_t bytes_sent() const;

  // Waits for pending work, then leaves. Idempotent. Other ranks see a clean goodbye, not a lost
  // peer; one that still waits for this rank gets a CommError. Closing the world closes its parts.
  // Rank 0 carries the control plane, so its close() returns when all others have closed or failed,
  // at the latest after the timeout; on the gloo engine the others stay up to 2 s for last bytes.
  void close();

 private:
  std::unique_ptr<GroupImpl> impl_;
};

}  // namespace trireme
