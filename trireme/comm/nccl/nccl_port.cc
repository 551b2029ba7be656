// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/nccl/nccl_port.h"

#include <algorithm>
#include <utility>

namespace trireme {

NcclPort::NcclPort(const GroupScope& scope, std::shared_ptr<MessagePort> meeting)
    : scope_(scope), meeting_(std::move(meeting)) {}

std::unique_ptr<Flight> NcclPort::make_flight() { return std::make_unique<NcclFlight>(*this); }

NcclFlight::~NcclFlight() {
  if (transfers_.empty()) return;
  // Not waited for, because something failed.
  if (communicator_ != nullptr) {
    communicator_->abort();
  } else {
    std::erase(port_.filled_, this);
  }
}

void NcclFlight::send(int peer, const Lane& lane, const void* data, std::size_t bytes) {
  // One type of transfer serves both directions.
  add(lane, {peer, false, const_cast<void*>(data), bytes});
}

void NcclFlight::receive(int peer, const Lane& lane, void* data, std::size_t bytes) {
  add(lane, {peer, true, data, bytes});
}

void NcclFlight::add(const Lane& lane, const Transfer& transfer) {
  if (transfer.bytes == 0) return;
  if (lane.purpose == Lane::Purpose::kMessage) return messages_.push_back({lane, transfer});
  if (transfers_.empty()) port_.filled_.push_back(this);
  transfers_.push_back(transfer);
}

void NcclFlight::wait(const OperationName& what, const Deadline& deadline) {
  if (!transfers_.empty()) wait_for_transfers(what, deadline);
  // At most one: the halves of an exchange go by themselves (two_halves.h).
  for (const Message& message : messages_) pass(message, what, deadline);
  messages_.clear();
}

void NcclFlight::wait_for_transfers(const OperationName& what, const Deadline& deadline) {
  Watch watch(port_.scope_, what, deadline, peers());
  while (!port_.filled_.empty()) {
    NcclFlight* const next = port_.filled_.front();
    next->issue(watch);
    port_.filled_.pop_front();
  }
  communicator_->wait(*done_, watch);
  communicator_ = nullptr;
  transfers_.clear();
}

void NcclFlight::issue(Watch& watch) {
  NcclCommunicator& group = port_.mesh().group(port_.scope_, watch);
  if (done_ == nullptr) done_ = port_.mesh().make_event();
  group.issue(transfers_, *done_, watch);
  communicator_ = &group;
}

std::vector<int> NcclFlight::peers() const {
  std::vector<int> all;
  for (const Transfer& transfer : transfers_) all.push_back(transfer.peer);
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

void NcclFlight::pass(const Message& message, const OperationName& what, const Deadline& deadline) {
  const std::uint64_t number = agree_on_number(message, what, deadline);
  NcclMesh& mesh = port_.mesh();
  const int own = port_.world_rank(port_.scope_.rank);
  const int peer = port_.world_rank(message.transfer.peer);
  const bool receive = message.transfer.receive;
  Watch watch(port_.scope_, what, deadline, {message.transfer.peer});
  const std::unique_ptr<CudaEvent> done = mesh.make_event();
  NcclCommunicator& channel =
      mesh.pass(receive ? peer : own, receive ? own : peer, number, message.transfer, *done, watch);
  channel.wait(*done, watch);
}

std::uint64_t NcclFlight::agree_on_number(const Message& message, const OperationName& what,
                                          const Deadline& deadline) {
  const int peer = message.transfer.peer;
  const Lane lane{Lane::Purpose::kNumber, message.lane.tag, message.lane.sequence};
  std::uint64_t number = 0;
  const std::unique_ptr<Flight> flight = port_.meeting_->make_flight();
  if (message.transfer.receive) {
    number = port_.mesh().take_number(port_.world_rank(peer));
    flight->send(peer, lane, &number, sizeof(number));
  } else {
    flight->receive(peer, lane, &number, sizeof(number));
  }
  flight->wait(what, deadline);
  return number;
}

}  // namespace trireme
