// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Messages from one rank to another, of all groups of the world and all tags, on a communicator of
// the two. NCCL matches a send and a receive by nothing but their order, and a transfer that waits
// for its peer holds up all behind it, so each direction has a channel of its own, and the receiver
// says which message comes when: it numbers them as it comes to receive them, and tells the sender
// the number, over the meeting port. Both ends then issue them in the order of the numbers. The
// sender of number k has been heard of before the receiver gives k away, and the sender hears k
// from a receiver that is about to issue it, so nobody waits for a message that may not come.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "trireme/comm/nccl/nccl_communicator.h"

namespace trireme {

// Any thread.
class MessageChannel {
 public:
  using Make = std::function<std::unique_ptr<NcclCommunicator>()>;

  // At the receiver: the number of the message that it now receives.
  std::uint64_t take_number();
  // Issues the transfer when all with lower numbers have been; the first one makes the
  // communicator. Returns it when the transfer is issued. Throws as NcclCommunicator::issue().
  NcclCommunicator& issue(std::uint64_t number, const Transfer& transfer, CudaEvent& done,
                          const Make& make, Watch& watch);
  void leave(const Deadline& deadline);

 private:
  std::mutex mutex_;
  // Guarded by mutex_.
  std::uint64_t next_number_ = 0;
  std::uint64_t turn_ = 0;

  // Made by whoever has turn 0.
  std::unique_ptr<NcclCommunicator> communicator_;
};

}  // namespace trireme
