// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Messages under way between this rank and the others of its group, and waiting for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/comm/gloo/gloo_mesh.h"
#include "trireme/comm/world_state.h"

namespace trireme {

class GlooFlight;

// The gloo engine's way to its peers: slots, errors, and a wait that ends when the world fails. One
// thread at a time, but for the latch's wake.
class GlooPort {
 public:
  // What a message is for; messages for one purpose between two ranks keep their order.
  enum class Purpose : std::uint8_t { kMeet, kScatter, kGather };

  explicit GlooPort(const GroupScope& scope);
  ~GlooPort();
  GlooPort(const GlooPort&) = delete;
  GlooPort& operator=(const GlooPort&) = delete;

 private:
  friend class GlooFlight;

  std::uint64_t slot(Purpose purpose) const {
    return (scope_.id << 2) | static_cast<std::uint64_t>(purpose);
  }
  // One wait; false when it was interrupted. Throws gloo::Exception.
  bool wait_once(gloo::transport::UnboundBuffer& buffer, bool receive,
                 std::chrono::milliseconds time);
  void interrupt();

  const GroupScope& scope_;
  int subscription_ = -1;
  std::mutex mutex_;
  gloo::transport::UnboundBuffer* waiting_for_ = nullptr;  // guarded by mutex_
};

// A set of messages. Destroying it forgets those that have not arrived; their memory is then free.
class GlooFlight {
 public:
  explicit GlooFlight(GlooPort& port);
  ~GlooFlight();
  GlooFlight(const GlooFlight&) = delete;
  GlooFlight& operator=(const GlooFlight&) = delete;

  // Memory must stay until wait() has returned or the flight is destroyed. No message is made of no
  // bytes.
  void send(int peer, GlooPort::Purpose purpose, const void* data, std::size_t bytes);
  void receive(int peer, GlooPort::Purpose purpose, void* data, std::size_t bytes);

  // Blocks until all messages have arrived or gone, and empties the flight. Errors: Engine::run().
  void wait(const Signature& signature, const Deadline& deadline);

 private:
  struct Message {
    int peer;
    bool receive;
    std::unique_ptr<gloo::transport::UnboundBuffer> buffer;
    std::string refusal;  // why the connection did not take it; empty when it did
  };

  void add(int peer, bool receive, GlooPort::Purpose purpose, void* data, std::size_t bytes);
  void wait_for(const Message& message, const Signature& signature, const Deadline& deadline);
  [[noreturn]] void fail(std::size_t at, const Signature& signature, const Deadline& deadline,
                         const char* why);
  std::vector<int> missing_from(std::size_t at);
  std::vector<int> without_those_who_wait(const std::vector<int>& silent,
                                          const Signature& signature);

  GlooPort& port_;
  std::vector<Message> messages_;
};

}  // namespace trireme
