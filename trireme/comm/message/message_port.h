// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Messages between this rank and the other ranks of a group: what the message engine
// (message_engine.h) needs from a transport. Gloo, MPI and NCCL each implement it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "trireme/base/deadline.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// Messages of one lane between two ranks arrive in the order in which they were sent; lanes are
// independent of one another.
struct Lane {
  // kNumber goes against kMessage, from its receiver to its sender: see nccl/message_channel.h.
  enum class Purpose : std::uint8_t { kMeet, kScatter, kGather, kMessage, kNumber };
  Purpose purpose = Purpose::kMeet;
  int tag = 0;  // kMessage and kNumber only, as their sequence
  std::uint64_t sequence = 0;
};

// A set of messages under way. Used by one thread at a time; several flights of a port may be used
// at once. Destroying it forgets those that have not arrived; their memory is then free.
class Flight {
 public:
  virtual ~Flight() = default;

  // Memory must stay until wait() has returned or the flight is destroyed. Messages of no bytes are
  // not made, on either side. A receive may be longer than what comes.
  virtual void send(int peer, const Lane& lane, const void* data, std::size_t bytes) = 0;
  virtual void receive(int peer, const Lane& lane, void* data, std::size_t bytes) = 0;

  // Blocks until all messages have arrived or gone, and empties the flight. what describes the
  // operation for errors, which are those of Engine::run().
  virtual void wait(const OperationName& what, const Deadline& deadline) = 0;
};

class MessagePort {
 public:
  virtual ~MessagePort() = default;

  virtual std::string_view name() const = 0;
  virtual std::unique_ptr<Flight> make_flight() = 0;
};

}  // namespace trireme
