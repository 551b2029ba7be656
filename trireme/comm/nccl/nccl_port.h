// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Payload between the devices of a group's ranks, by NCCL.
//
// NCCL matches transfers by their order, so both ends must issue them in the same one. Collectives:
// a flight is one group of transfers, and flights are issued in the order in which they were
// filled, before the first wait() of any that comes later. Every operation of the message engine
// fills the same flights in the same order on all ranks (scatter 0, scatter 1, gather 0, scatter 2,
// gather 1, ... in reductions and broadcasts; one in the others), and both ends of a transfer in
// the same flight, in the order of vectors where there are several; ranks that have no part in a
// flight leave it out. So the first flight that is not done has been, or will be, issued by all who
// have a part in it, and none waits for ever. Messages have channels of their own (MessageChannel).
#pragma once

#include <deque>
#include <memory>
#include <string_view>
#include <vector>

#include "trireme/comm/message/message_port.h"
#include "trireme/comm/nccl/nccl_mesh.h"

namespace trireme {

// Flights of messages by any threads; those of collectives by one at a time. scope must outlive it.
class NcclPort final : public MessagePort {
 public:
  // meeting carries the numbers of messages.
  NcclPort(const GroupScope& scope, std::shared_ptr<MessagePort> meeting);

  std::string_view name() const override { return "nccl"; }
  std::unique_ptr<Flight> make_flight() override;

 private:
  friend class NcclFlight;

  NcclMesh& mesh() const { return *scope_.world->nccl; }
  int world_rank(int peer) const { return scope_.world_ranks[static_cast<std::size_t>(peer)]; }

  const GroupScope& scope_;
  const std::shared_ptr<MessagePort> meeting_;
  // Of collectives: filled and not issued, in order.
  std::deque<class NcclFlight*> filled_;
};

class NcclFlight final : public Flight {
 public:
  explicit NcclFlight(NcclPort& port) : port_(port) {}
  ~NcclFlight() override;
  NcclFlight(const NcclFlight&) = delete;
  NcclFlight& operator=(const NcclFlight&) = delete;

  void send(int peer, const Lane& lane, const void* data, std::size_t bytes) override;
  void receive(int peer, const Lane& lane, void* data, std::size_t bytes) override;
  void wait(const OperationName& what, const Deadline& deadline) override;

 private:
  struct Message {
    Lane lane;
    Transfer transfer;
  };

  void add(const Lane& lane, const Transfer& transfer);
  void wait_for_transfers(const OperationName& what, const Deadline& deadline);
  void issue(Watch& watch);
  void pass(const Message& message, const OperationName& what, const Deadline& deadline);
  // Between the two ends, over the meeting port.
  std::uint64_t agree_on_number(const Message& message, const OperationName& what,
                                const Deadline& deadline);
  std::vector<int> peers() const;

  NcclPort& port_;
  std::vector<Transfer> transfers_;
  std::vector<Message> messages_;
  std::unique_ptr<CudaEvent> done_;           // made at the first issue
  NcclCommunicator* communicator_ = nullptr;  // from issue to the end of wait
};

}  // namespace trireme
