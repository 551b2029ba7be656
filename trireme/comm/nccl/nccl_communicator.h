// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One communicator of NCCL, and the stream on which its groups of sends and receives run, one after
// the other. All calls return at once (a communicator that does not block), and whoever waits looks
// at what the world says: at a failure, or when a deadline passes, the communicator is aborted, so
// that nothing moves in memory that is the caller's again.
#pragma once

#include <cstddef>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "trireme/comm/failure.h"
#include "trireme/comm/nccl/cuda_device.h"
#include "trireme/comm/nccl/nccl_api.h"
#include "trireme/comm/nccl/watch.h"

namespace trireme {

// Bytes to or from a peer, a rank of the communicator.
struct Transfer {
  int peer = 0;
  bool receive = false;
  void* data = nullptr;
  std::size_t bytes = 0;
};

class NcclCommunicator {
 public:
  struct Libraries {
    const NcclApi& nccl;
    const CudaDevice& device;
    const FailureLatch& latch;
  };

  // Collective over its ranks. name is for errors: "group dp". Throws what watch does; CommError.
  NcclCommunicator(const Libraries& libraries, std::string name, const NcclUniqueId& id, int size,
                   int rank, Watch& watch);
  // Aborts it, unless it has left.
  ~NcclCommunicator();
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  // Starts the transfers as one group, behind all groups before it, and records done behind it. One
  // thread at a time. Between two ranks, the k-th send here meets the k-th receive there. The first
  // transfer with a peer waits for the peer's. Throws as above; the communicator is aborted then.
  void issue(std::span<const Transfer> transfers, CudaEvent& done, Watch& watch);
  // Blocks until the event has come. Any thread. Throws as above.
  void wait(const CudaEvent& done, Watch& watch);

  // Ends what is under way; later calls throw. Any thread.
  void abort();
  // When all ranks have waited for all they issued: flushes what NCCL still sends, at most until
  // the deadline.
  void leave(const Deadline& deadline);

 private:
  NcclResult state();
  void settle(NcclResult result, std::string_view call, Watch& watch);
  void issue_group(std::span<const Transfer> transfers, Watch& watch);
  [[noreturn]] void fail(NcclResult result, std::string_view call);
  void check_alive(std::string_view call) const;  // mutex_ held

  // Constant after construction.
  const Libraries libraries_;
  const std::string name_;

  CudaStream stream_;
  std::mutex mutex_;
  NcclComm comm_ = nullptr;  // guarded by mutex_; null when aborted or left
};

}  // namespace trireme
