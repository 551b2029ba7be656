// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What carries the bytes of one group. Order, latching and asynchrony are the group's
// (group_impl.h); an engine moves and reduces on whatever thread calls it.
//
// Contract of run():
// - One collective at a time, in the same order on all ranks.
// - All ranks' signatures are compared before any rank's result is given out; a difference is a
//   CommError with both sides on every rank that sees it (mismatch_error).
// - Reductions go through reduction_tree.h: the bits do not depend on the engine.
// - It returns or throws by the deadline: TimeoutError naming the ranks that have not arrived; the
//   latched failure of the world, soon after it falls; CommError when a rank that it waits for has
//   left.
// - After a throw the engine is only destroyed.
//
// Contract of send(), receive() and exchange(): any number of threads at once, beside run(). A
// message is identified by peer, tag and sequence, and matched by these alone: messages of one pair
// may be received in another order than sent. Counts and dtypes of both sides are compared; a
// difference is a CommError with both. Errors and deadlines as for run(). Both return when the
// buffer is the caller's again. A rank never sends to itself through an engine.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "trireme/base/deadline.h"
#include "trireme/comm/collective.h"
#include "trireme/comm/message/memory.h"
#include "trireme/comm/world_state.h"

namespace trireme {

class Engine {
 public:
  virtual ~Engine() = default;

  virtual std::string_view name() const = 0;
  virtual void run(const Collective& collective, const Deadline& deadline) = 0;
  virtual void send(const MessageKey& key, const ConstBuffer& data, const Deadline& deadline) = 0;
  virtual void receive(const MessageKey& key, const Buffer& data, const Deadline& deadline) = 0;
  // Both at once.
  virtual void exchange(const MessageKey& out_key, const ConstBuffer& out, const MessageKey& in_key,
                        const Buffer& in, const Deadline& deadline) = 0;

  // Payload that this rank has given to other ranks, counted once per receiver. Any thread.
  virtual std::int64_t bytes_sent() const = 0;
  // Of that, what went to ranks on other hosts (GroupScope::host_of).
  virtual std::int64_t bytes_sent_between_hosts() const = 0;
};

// scope must outlive the engine. Making one does not communicate.
//
// The one that the world was asked for, as far as the hosts of the group's ranks need it.
std::unique_ptr<Engine> make_engine(const GroupScope& scope);
// The group's engine for buffers on CUDA devices; null where its world takes none.
std::unique_ptr<Engine> make_device_engine(const GroupScope& scope);
// One rank, whose buffers lie in memory.
std::unique_ptr<Engine> make_self_engine(std::unique_ptr<Memory> memory);
// All ranks of the scope share a host.
std::unique_ptr<Engine> make_shm_engine(const GroupScope& scope);
// Any ranks. Their world has a GlooMesh, an MpiMesh.
std::unique_ptr<Engine> make_gloo_engine(const GroupScope& scope);
std::unique_ptr<Engine> make_mpi_engine(const GroupScope& scope);
// Buffers on CUDA devices, of several ranks. Their world has a GlooMesh and an NcclMesh.
std::unique_ptr<Engine> make_nccl_engine(const GroupScope& scope);
// Any ranks: shm inside each host, between hosts what between makes.
using EngineFactory = std::unique_ptr<Engine> (*)(const GroupScope& scope);
std::unique_ptr<Engine> make_hierarchical_engine(const GroupScope& scope, EngineFactory between);

}  // namespace trireme
