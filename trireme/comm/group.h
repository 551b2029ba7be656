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
// Collective contract: all ranks of the group call the same collectives in the same order with the
// same counts, dtypes and roots. Ranks that differ get a CommError that shows both sides. Several
// groups may work at the same time. Messages (send, recv, send_recv) are not part of that order:
// they are matched by pair of ranks and tag, and run beside collectives and one another.
//
// A vector of blocks is one buffer that holds a block for each rank, in rank order and without
// gaps; blocks of zero elements are fine. Where counts are given they are the elements of each
// rank's block, size() of them, the same on every rank; without them all blocks are equal.
//
// Reductions are associated in one fixed binary tree by rank, whatever the engine and the
// algorithm: ranks [a, b) are split at a + the largest power of two below b - a, left combined with
// right. bf16 and f16 are combined in f32 and rounded once. Integers wrap around; a mean of
// integers is refused. Min and max are NaN where an input is NaN.
//
// Buffers on a CUDA device travel by NCCL, where the world was joined with WorldOptions::cuda, and
// those on the host by engine(), in the same group and order. All buffers of one operation, or both
// ends of a message, lie on devices, or all on the host: ranks that differ wait for one another
// until the deadline. A call, or start_*(), begins at once, on streams of Trireme's own: work on
// other streams that writes the data, or still reads what will be overwritten, must be done
// (cudaStreamSynchronize). When it returns, or wait() does, the results are there for any stream.
//
// Errors: TimeoutError at the deadline (names the ranks that have not arrived, the operation and
// its sequence number), PeerLostError when a peer is gone (names it), CommError otherwise;
// ShapeError for arguments that cannot be, before anything is sent. A failure ends the world: the
// group that failed, every other group of that world and every rank throw its first cause from then
// on. Ranks are named as ranks of the world.
//
// Costs are per rank, for n ranks, where all share a host or none do; docs/collectives.md has the
// rest. Threads: one thread at a time per Group; Works may be waited for on any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/comm/buffer.h"
#include "trireme/comm/shared_buffer.h"

namespace trireme {

class Mesh;

enum class ReduceOp : std::uint8_t { kSum, kMean, kMin, kMax, kProduct };

class GroupImpl;

// One operation under way. Movable; dropping it without wait() is allowed and does not cancel it,
// but its buffers must outlive it. Any thread.
class Work {
 public:
  Work();
  Work(Work&&) noexcept;
  Work& operator=(Work&&) noexcept;
  ~Work();

  // Blocks until the operation is done, then its buffers are the caller's again. Throws what ended
  // it; the group's timeout, counted from the start of the operation, is the latest end.
  void wait();
  // The same for at most the given time. False when the operation is still under way.
  bool wait_for(std::chrono::milliseconds time);
  // True once wait() would return, or throw, at once. Never blocks.
  bool test() const;
  // What ended the operation; null while it is under way and after it succeeded. Never blocks.
  std::exception_ptr error() const;

  struct State;
  explicit Work(std::shared_ptr<State> state);

 private:
  std::shared_ptr<State> state_;
};

using Counts = std::span<const std::int64_t>;

class Group {
 public:
  explicit Group(std::unique_ptr<GroupImpl> impl);
  ~Group();  // does not communicate
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  const std::string& name() const;
  int rank() const;
  int size() const;
  // "shm", "gloo", "mpi", "shm+gloo" or "shm+mpi" (ranks on several hosts, several of them on one),
  // "self": what carries buffers on the host.
  std::string_view engine() const;
  // Ranks of the world, by rank of this group.
  const std::vector<int>& world_ranks() const;
  // The number of each rank's host, by rank of this group: hosts are numbered by their lowest rank.
  // Which ranks share one: see WorldOptions::host_id. The same on all ranks. Moves no bytes.
  std::vector<int> hosts() const;

  // Deadline of every later operation, from its start. Default 5 minutes.
  void set_timeout(std::chrono::milliseconds timeout);

  // Memory of this rank's own, zeros, from which collectives of any group of this world are several
  // times faster between ranks of one host; see shared_buffer.h. Where no other rank shares the
  // host, or the engine is gloo, it is memory like any other. Not collective. Throws CommError when
  // memory or descriptors are used up. Any thread.
  SharedBuffer allocate_shared(std::size_t bytes);

  // data becomes the reduction of all ranks' data, in place. Cost: 2 (n - 1) / n x bytes, two
  // exchanges.
  void all_reduce(Buffer data, ReduceOp op = ReduceOp::kSum);
  Work start_all_reduce(Buffer data, ReduceOp op = ReduceOp::kSum);
  // Several buffers of one dtype as one operation: one latency instead of many, the same bits.
  // Buffers are copied once each way.
  void all_reduce(std::span<const Buffer> data, ReduceOp op = ReduceOp::kSum);
  Work start_all_reduce(std::span<const Buffer> data, ReduceOp op = ReduceOp::kSum);

  // output becomes this rank's block of the reduction of all ranks' inputs, each a vector of
  // blocks. output may be this rank's block of input itself. Cost: (n - 1) / n x input bytes.
  void reduce_scatter(ConstBuffer input, Buffer output, ReduceOp op = ReduceOp::kSum,
                      Counts counts = {});
  Work start_reduce_scatter(ConstBuffer input, Buffer output, ReduceOp op = ReduceOp::kSum,
                            Counts counts = {});

  // output, a vector of blocks, becomes the inputs of all ranks. input may be this rank's block of
  // output. Cost: (n - 1) x input bytes.
  void all_gather(ConstBuffer input, Buffer output, Counts counts = {});
  Work start_all_gather(ConstBuffer input, Buffer output, Counts counts = {});

  // data becomes the root's data. Cost: at most bytes for large data, log n or one exchange.
  void broadcast(Buffer data, int root);
  Work start_broadcast(Buffer data, int root);
  // Several buffers of one dtype as one operation.
  void broadcast(std::span<const Buffer> data, int root);
  Work start_broadcast(std::span<const Buffer> data, int root);

  // The root's data becomes the reduction of all ranks' data; the others' stays as it is. Cost: at
  // most 2 x bytes, two exchanges.
  void reduce(Buffer data, int root, ReduceOp op = ReduceOp::kSum);
  Work start_reduce(Buffer data, int root, ReduceOp op = ReduceOp::kSum);

  // The root's output, a vector of blocks, becomes the inputs of all ranks; output is not looked at
  // elsewhere. Cost: input bytes.
  void gather(ConstBuffer input, Buffer output, int root, Counts counts = {});
  Work start_gather(ConstBuffer input, Buffer output, int root, Counts counts = {});

  // output becomes this rank's block of the root's input, a vector of blocks; input is not looked
  // at elsewhere. Cost: root: input bytes, others: nothing.
  void scatter(ConstBuffer input, Buffer output, int root, Counts counts = {});
  Work start_scatter(ConstBuffer input, Buffer output, int root, Counts counts = {});

  // input and output are vectors of blocks: block j of input goes to rank j, block i of output
  // comes from rank i. They must not overlap. send_counts[j] elements leave for rank j and
  // receive_counts[i] come from rank i; these differ between ranks, and what i sends to j must be
  // what j receives from i (a CommError shows both). Cost: input bytes less the own block's.
  void all_to_all(ConstBuffer input, Buffer output);
  Work start_all_to_all(ConstBuffer input, Buffer output);
  void all_to_all(ConstBuffer input, Buffer output, Counts send_counts, Counts receive_counts);
  Work start_all_to_all(ConstBuffer input, Buffer output, Counts send_counts,
                        Counts receive_counts);

  // Returns once every rank has called it.
  void barrier();
  Work start_barrier();

  // Messages. The k-th send to a rank under a tag meets that rank's k-th recv from here under that
  // tag; counts and dtypes must be the same (a CommError shows both). A send may return before its
  // message is received; do not rely on it. Any number may be under way; each started one takes a
  // thread until it is done. tag >= 0.
  void send(ConstBuffer data, int to, int tag = 0);
  Work start_send(ConstBuffer data, int to, int tag = 0);
  void recv(Buffer data, int from, int tag = 0);
  Work start_recv(Buffer data, int from, int tag = 0);
  // Both at once, so that neighbours may exchange in any order. The buffers must not overlap.
  void send_recv(ConstBuffer out, int to, Buffer in, int from, int tag = 0);

  // A group of the given ranks of this one (ascending, this rank among them), with this one's
  // timeout. Collective over the ranks listed; name must be the same on each and new within this
  // group. Moves no bytes; memory is taken at the part's first operation. Throws ConfigError.
  std::unique_ptr<Group> split(const std::string& name, const std::vector<int>& ranks);
  // One group for each colour, of the ranks that gave it, named name/colour. A negative colour is
  // in no group and gets null. Collective over this group, through the control plane: for setting
  // up, not for every step. Throws TimeoutError; ConfigError.
  std::unique_ptr<Group> split_by_color(const std::string& name, int color);
  // The group of this rank along an axis of the mesh, named by the axis; several axes give the
  // group of their product ("dp+fsdp"). Collective over it, moves no bytes. Throws ConfigError,
  // also when the mesh is not of size() ranks.
  std::unique_ptr<Group> split(const Mesh& mesh, std::string_view axis);
  std::unique_ptr<Group> split(const Mesh& mesh, const std::vector<std::string>& axes);

  // A group of the same ranks with an order of operations of its own, for whoever communicates on
  // another thread meanwhile. Named purpose, or purpose#2 and so on where that is taken.
  // Collective, moves no bytes.
  std::unique_ptr<Group> duplicate(const std::string& purpose);

  // Bytes that this rank has sent to other ranks since construction, payload only, and those of
  // them that went to ranks on other hosts. Any thread.
  std::int64_t bytes_sent() const;
  std::int64_t bytes_sent_between_hosts() const;

  // Ends the world for all ranks, who throw a CommError with the reason: for one who will not come
  // to operations that others may wait in. No effect on a world of one, or that has ended, or after
  // close(). Any thread.
  void abandon(const std::string& reason);

  // Waits for pending work, then leaves. Idempotent. Other ranks see a clean goodbye, not a lost
  // peer; one that still waits for this rank gets a CommError. Closing the world closes its parts.
  // Rank 0 carries the control plane, so its close() returns when all others have closed or failed,
  // at the latest after the timeout; between hosts the others stay up to 2 s for last bytes.
  void close();

 private:
  std::unique_ptr<GroupImpl> impl_;
};

}  // namespace trireme
