// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Messages of one group over MPI: errors, and waits that end when the world fails.
//
// MPI has no wait that could be interrupted, so whoever waits looks again and again. It begins at
// once, where every rank has a core, then lets others run between two looks, then sleeps, longer
// the longer it has waited: at most a sixteenth of that time is lost, and a rank that waits for
// long costs next to nothing.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/comm/message/message_port.h"
#include "trireme/comm/mpi/mpi_mesh.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// Any thread. scope must outlive it.
class MpiPort final : public MessagePort {
 public:
  explicit MpiPort(const GroupScope& scope);

  std::string_view name() const override { return "mpi"; }
  std::unique_ptr<Flight> make_flight() override;

  const GroupScope& scope() const { return scope_; }
  MpiMesh& mesh() const { return *scope_.world->mpi; }
  bool may_spin() const { return may_spin_; }

 private:
  const GroupScope& scope_;
  const bool may_spin_;
};

class MpiFlight final : public Flight {
 public:
  explicit MpiFlight(const MpiPort& port) : port_(port) {}
  ~MpiFlight() override;
  MpiFlight(const MpiFlight&) = delete;
  MpiFlight& operator=(const MpiFlight&) = delete;

  void send(int peer, const Lane& lane, const void* data, std::size_t bytes) override;
  void receive(int peer, const Lane& lane, void* data, std::size_t bytes) override;
  void wait(const OperationName& what, const Deadline& deadline) override;

 private:
  struct Entry {
    int peer;
    bool receive;
    std::shared_ptr<MpiMessage> message;
  };

  int world_rank(int peer) const {
    return port_.scope().world_ranks[static_cast<std::size_t>(peer)];
  }
  // The first that is not done, receives before sends; null when all are. Throws when one was lost.
  const Entry* first_pending(const OperationName& what) const;
  [[noreturn]] void lost(const Entry& entry, const OperationName& what) const;
  std::vector<int> missing() const;

  const MpiPort& port_;
  std::vector<Entry> entries_;
};

}  // namespace trireme
