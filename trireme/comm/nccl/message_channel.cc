// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/nccl/message_channel.h"

#include "trireme/comm/nccl/backoff.h"

namespace trireme {

std::uint64_t MessageChannel::take_number() {
  const std::lock_guard lock(mutex_);
  return next_number_++;
}

NcclCommunicator& MessageChannel::issue(std::uint64_t number, const Transfer& transfer,
                                        CudaEvent& done, const Make& make, Watch& watch) {
  const auto is_due = [&] {
    const std::lock_guard lock(mutex_);
    return turn_ == number;
  };
  for (Backoff backoff; !is_due(); backoff.rest()) watch.look();
  if (communicator_ == nullptr) communicator_ = make();
  communicator_->issue({&transfer, 1}, done, watch);
  const std::lock_guard lock(mutex_);
  ++turn_;
  return *communicator_;
}

void MessageChannel::leave(const Deadline& deadline) {
  if (communicator_ != nullptr) communicator_->leave(deadline);
}

}  // namespace trireme
