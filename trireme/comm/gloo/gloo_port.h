// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Messages over the Gloo library's connections: slots, errors, and waits that end when the world
// fails.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/comm/gloo/gloo_mesh.h"
#include "trireme/comm/message/message_port.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// Any thread. scope must outlive it.
class GlooPort final : public MessagePort {
 public:
  explicit GlooPort(const GroupScope& scope);
  ~GlooPort() override;
  GlooPort(const GlooPort&) = delete;
  GlooPort& operator=(const GlooPort&) = delete;

  std::string_view name() const override { return "gloo"; }
  std::unique_ptr<Flight> make_flight() override;

 private:
  friend class GlooFlight;

  // Different for every lane of every group, but for an accident of 2^-64 per pair of lanes that
  // are in use between the same ranks at the same time.
  std::uint64_t slot(const Lane& lane) const;
  // One wait; false when it was interrupted. Throws gloo::Exception.
  bool wait_once(gloo::transport::UnboundBuffer& buffer, bool receive,
                 std::chrono::milliseconds time);
  void interrupt();

  const GroupScope& scope_;
  std::mutex mutex_;
  std::set<gloo::transport::UnboundBuffer*> waiting_for_;  // guarded by mutex_; one per thread
  int subscription_;                                       // last: may interrupt at once
};

class GlooFlight final : public Flight {
 public:
  explicit GlooFlight(GlooPort& port);
  ~GlooFlight() override;
  GlooFlight(const GlooFlight&) = delete;
  GlooFlight& operator=(const GlooFlight&) = delete;

  void send(int peer, const Lane& lane, const void* data, std::size_t bytes) override;
  void receive(int peer, const Lane& lane, void* data, std::size_t bytes) override;
  void wait(const OperationName& what, const Deadline& deadline) override;

 private:
  struct Message {
    int peer;
    bool receive;
    std::unique_ptr<gloo::transport::UnboundBuffer> buffer;
    std::string refusal;  // why the connection did not take it; empty when it did
  };

  void add(int peer, bool receive, const Lane& lane, void* data, std::size_t bytes);
  void wait_for(const Message& message, const OperationName& what, const Deadline& deadline);
  [[noreturn]] void fail(std::size_t at, const OperationName& what, const Deadline& deadline,
                         const char* why);
  std::vector<int> missing_from(std::size_t at);

  GlooPort& port_;
  std::vector<Message> messages_;
};

}  // namespace trireme
