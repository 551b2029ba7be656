// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/nccl/nccl_mesh.h"

#include <cstring>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/comm/nccl/device_memory.h"

namespace trireme {

NcclMesh::NcclMesh(const CudaOptions& options, int world_size) : device_(options) {
  if (world_size == 1) return;
  nccl_.emplace(options.nccl_library);
  kernels_ = std::make_unique<ReductionKernels>(device_, NvrtcApi(options.compiler_library));
}

NcclMesh::~NcclMesh() = default;

std::string NcclMesh::library() const {
  const int version = nccl_->version;
  return fmt::format("NCCL {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

void NcclMesh::meet(int rank, const std::vector<Member>& members, ControlPlane& control,
                    const FailureLatch& latch, const Deadline& deadline) {
  rank_ = rank;
  control_ = &control;
  latch_ = &latch;
  const auto key = [](int of) { return fmt::format("nccl/device/{}", of); };
  control.put(key(rank), device_.bus_id());
  std::map<std::pair<std::string, std::string>, int> owners;  // by host and device
  for (const Member& member : members) {
    const std::string bus_id = control.get(
        key(member.rank), deadline, fmt::format("rank {} to say its CUDA device", member.rank));
    const auto [owner, is_new] = owners.try_emplace({member.host_id, bus_id}, member.rank);
    if (!is_new) {
      throw_error<ConfigError>(
          "ranks {} and {} both have the CUDA device at {} on {}, and NCCL wants one for each; "
          "give each rank of a host another WorldOptions::cuda.device",
          owner->second, member.rank, bus_id, member.host_name);
    }
  }
}

std::unique_ptr<Memory> NcclMesh::make_memory() const {
  return std::make_unique<DeviceMemory>(device_, kernels_.get());
}

NcclUniqueId NcclMesh::share_id(const std::string& key, bool first, Watch& watch) {
  NcclUniqueId id;
  if (first) {
    const CudaDevice::Current current(device_);
    const NcclResult result = nccl_->get_unique_id(&id);
    if (result != kNcclSuccess) {
      throw_error<CommError>("ncclGetUniqueId says {}", nccl_->error_string(result));
    }
    control_->put(key, std::string(id.bytes, sizeof(id.bytes)));
    return id;
  }
  const std::string text = control_->get(key, watch.deadline(), [&] { watch.look(); });
  TRIREME_CHECK_EQ(text.size(), sizeof(id.bytes), "bytes of {}", key);
  std::memcpy(id.bytes, text.data(), text.size());
  return id;
}

NcclCommunicator& NcclMesh::group(const GroupScope& scope, Watch& watch) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = groups_.find(scope.id);
    if (found != groups_.end()) return *found->second;
  }
  // Without the lock: other groups go on meanwhile. This group's collectives come one at a time.
  const NcclUniqueId id =
      share_id(fmt::format("nccl/group/{:016x}", scope.id), scope.rank == 0, watch);
  auto made = std::make_unique<NcclCommunicator>(libraries(), "group " + scope.name, id,
                                                 scope.size(), scope.rank, watch);
  const std::lock_guard lock(mutex_);
  return *(groups_[scope.id] = std::move(made));
}

MessageChannel& NcclMesh::channel(int from, int to) {
  const std::lock_guard lock(mutex_);
  return channels_[{from, to}];
}

std::uint64_t NcclMesh::take_number(int from) { return channel(from, rank_).take_number(); }

NcclCommunicator& NcclMesh::pass(int from, int to, std::uint64_t number, Transfer transfer,
                                 CudaEvent& done, Watch& watch) {
  // Of the two ranks of the channel's communicator the receiver is 0.
  const bool receives = to == rank_;
  transfer.peer = receives ? 1 : 0;
  transfer.receive = receives;
  const auto make = [&] {
    const NcclUniqueId id = share_id(fmt::format("nccl/messages/{}/{}", from, to), receives, watch);
    return std::make_unique<NcclCommunicator>(
        libraries(), fmt::format("messages from rank {} to rank {}", from, to), id, 2,
        receives ? 0 : 1, watch);
  };
  return channel(from, to).issue(number, transfer, done, make, watch);
}

void NcclMesh::leave(const Deadline& deadline) {
  const std::lock_guard lock(mutex_);
  for (auto& [id, communicator] : groups_) communicator->leave(deadline);
  for (auto& [ranks, channel] : channels_) channel.leave(deadline);
}

}  // namespace trireme
