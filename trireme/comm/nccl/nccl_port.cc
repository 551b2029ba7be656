// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/nccl/nccl_port.h"

#include <algorithm>
#include <exception>
#include <thread>
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
  if (!messages_.empty()) wait_for_messages(what, deadline);
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

// Each on a thread of its own: either end of an exchange may be the first that can go on.
void NcclFlight::wait_for_messages(const OperationName& what, const Deadline& deadline) {
  std::atomic<bool> given_up = false;
  std::vector<std::exception_ptr> errors(messages_.size());
  const auto run = [&](std::size_t i) {
    try {
      pass(messages_[i], what, deadline, given_up);
    } catch (...) {
      // What the others throw because of that is not the cause.
      if (!given_up.exchange(true)) errors[i] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < messages_.size(); ++i) others.emplace_back(run, i);
  run(0);
  for (std::thread& other : others) other.join();
  for (const std::exception_ptr& error : errors) {
    if (error != nullptr) std::rethrow_exception(error);
  }
  messages_.clear();
}

void NcclFlight::pass(const Message& message, const OperationName& what, const Deadline& deadline,
                      const std::atomic<bool>& given_up) {
  const std::uint64_t number = agree_on_number(message, what, deadline);
  NcclMesh& mesh = port_.mesh();
  const int own = port_.world_rank(port_.scope_.rank);
  const int peer = port_.world_rank(message.transfer.peer);
  const bool receive = message.transfer.receive;
  Watch watch(port_.scope_, what, deadline, {message.transfer.peer}, &given_up);
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
