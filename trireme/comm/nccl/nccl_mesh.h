// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a rank has for buffers on its CUDA device: the libraries, the device, the kernels, and the
// communicators of all groups of the world. They live as long as the world, also those of groups
// that have ended: another rank may still be receiving what was sent.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "trireme/comm/meeting/control_plane.h"
#include "trireme/comm/message/memory.h"
#include "trireme/comm/nccl/cuda_device.h"
#include "trireme/comm/nccl/message_channel.h"
#include "trireme/comm/nccl/nccl_communicator.h"
#include "trireme/comm/nccl/reduction_kernels.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// Any thread, after meet().
class NcclMesh {
 public:
  // Loads the libraries, and compiles the kernels, which takes seconds; opens no socket. A world of
  // one needs the driver alone. Throws ConfigError when something is missing.
  NcclMesh(const CudaOptions& options, int world_size);
  ~NcclMesh();
  NcclMesh(const NcclMesh&) = delete;
  NcclMesh& operator=(const NcclMesh&) = delete;

  // "NCCL 2.28.9"
  std::string library() const;
  // Collective over the world. Throws ConfigError where two ranks have the same device: NCCL wants
  // one for each.
  void meet(int rank, const std::vector<Member>& members, ControlPlane& control,
            const FailureLatch& latch, const Deadline& deadline);

  int device() const { return device_.number(); }
  std::unique_ptr<Memory> make_memory() const;
  std::unique_ptr<CudaEvent> make_event() const { return std::make_unique<CudaEvent>(device_); }

  // That of a group's collectives; made, by all its ranks, at the first call.
  NcclCommunicator& group(const GroupScope& scope, Watch& watch);
  // A message between this rank and another, both of the world; see MessageChannel.
  std::uint64_t take_number(int from);
  NcclCommunicator& pass(int from, int to, std::uint64_t number, Transfer transfer, CudaEvent& done,
                         Watch& watch);

  // When all ranks have ended all operations.
  void leave(const Deadline& deadline);

 private:
  MessageChannel& channel(int from, int to);
  // The rank of the two, or of the group, that is first makes the id.
  NcclUniqueId share_id(const std::string& key, bool first, Watch& watch);
  NcclCommunicator::Libraries libraries() const { return {*nccl_, device_, *latch_}; }

  // Constant after construction.
  const CudaDevice device_;
  std::optional<NcclApi> nccl_;                // not in a world of one
  std::unique_ptr<ReductionKernels> kernels_;  // not in a world of one
  // Constant after meet().
  int rank_ = 0;
  ControlPlane* control_ = nullptr;
  const FailureLatch* latch_ = nullptr;

  std::mutex mutex_;
  // Guarded by mutex_.
  std::map<std::uint64_t, std::unique_ptr<NcclCommunicator>> groups_;  // by GroupScope::id
  std::map<std::pair<int, int>, MessageChannel> channels_;             // from, to
};

}  // namespace trireme
