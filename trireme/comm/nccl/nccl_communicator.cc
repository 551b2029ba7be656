// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/nccl/nccl_communicator.h"

#include <chrono>
#include <exception>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/nccl/backoff.h"

namespace trireme {
NcclCommunicator::NcclCommunicator(const Libraries& libraries, std::string name,
                                   const NcclUniqueId& id, int size, int rank, Watch& watch)
    : libraries_(libraries), name_(std::move(name)), stream_(libraries.device) {
  const CudaDevice::Current current(libraries_.device);
  try {
    NcclConfig config;
    NcclResult result = kNcclSuccess;
    {
      const std::lock_guard lock(mutex_);
      result = libraries_.nccl.init(&comm_, size, id, rank, &config);
    }
    settle(result, "ncclCommInitRankConfig", watch);
  } catch (...) {
    abort();
    throw;
  }
}

NcclCommunicator::~NcclCommunicator() { abort(); }

void NcclCommunicator::check_alive(std::string_view call) const {
  if (comm_ != nullptr) return;
  libraries_.latch.throw_if_failed();
  throw_error<CommError>("{}: {} after NCCL's communicator was aborted", name_, call);
}

void NcclCommunicator::fail(NcclResult result, std::string_view call) {
  libraries_.latch.throw_cause_of_a_break();
  const std::lock_guard lock(mutex_);
  const char* last = comm_ != nullptr ? libraries_.nccl.last_error(comm_) : nullptr;
  throw_error<CommError>("{}: {} says {} ({})", name_, call, libraries_.nccl.error_string(result),
                         last != nullptr ? last : "no more is known");
}

NcclResult NcclCommunicator::state() {
  const std::lock_guard lock(mutex_);
  check_alive("ncclCommGetAsyncError");
  NcclResult error = kNcclSuccess;
  const NcclResult result = libraries_.nccl.async_error(comm_, &error);
  return result == kNcclSuccess ? error : result;
}

// Until what the call began is done, on this side.
void NcclCommunicator::settle(NcclResult result, std::string_view call, Watch& watch) {
  Backoff backoff;
  while (result == kNcclInProgress) {
    watch.look();
    backoff.rest();
    result = state();
  }
  if (result != kNcclSuccess) fail(result, call);
}

void NcclCommunicator::issue(std::span<const Transfer> transfers, CudaEvent& done, Watch& watch) {
  const CudaDevice::Current current(libraries_.device);
  try {
    issue_group(transfers, watch);
    done.record(stream_);
  } catch (...) {
    abort();
    throw;
  }
}

void NcclCommunicator::issue_group(std::span<const Transfer> transfers, Watch& watch) {
  const NcclApi& nccl = libraries_.nccl;
  const auto started = [](NcclResult result) {
    return result == kNcclSuccess || result == kNcclInProgress;
  };
  NcclResult result = kNcclSuccess;
  NcclResult ended = kNcclSuccess;
  {
    const std::lock_guard lock(mutex_);
    check_alive("a group");
    result = nccl.group_start();
    for (const Transfer& transfer : transfers) {
      if (!started(result)) break;
      result = transfer.receive ? nccl.receive(transfer.data, transfer.bytes, kNcclInt8,
                                               transfer.peer, comm_, stream_.get())
                                : nccl.send(transfer.data, transfer.bytes, kNcclInt8, transfer.peer,
                                            comm_, stream_.get());
    }
    ended = nccl.group_end();
  }
  if (!started(result)) fail(result, "ncclSend or ncclRecv");
  settle(ended, "ncclGroupEnd", watch);
}

void NcclCommunicator::wait(const CudaEvent& done, Watch& watch) {
  const CudaDevice::Current current(libraries_.device);
  try {
    Backoff backoff;
    while (!done.done()) {
      const NcclResult error = state();
      if (error != kNcclSuccess && error != kNcclInProgress) fail(error, "a transfer");
      watch.look();
      backoff.rest();
    }
  } catch (...) {
    abort();
    throw;
  }
}

void NcclCommunicator::abort() {
  const CudaDevice::Current current(libraries_.device);
  const std::lock_guard lock(mutex_);
  if (comm_ == nullptr) return;
  libraries_.nccl.abort(std::exchange(comm_, nullptr));
  try {
    CudaEvent end(libraries_.device);
    finish(libraries_.device, stream_, end, "what NCCL has aborted");
  } catch (const CommError& error) {
    // Whoever aborts has an error to throw that says why.
    log_error("{}: {}", name_, error.what());
  }
}

void NcclCommunicator::leave(const Deadline& deadline) {
  const CudaDevice::Current current(libraries_.device);
  NcclResult result = kNcclSuccess;
  {
    const std::lock_guard lock(mutex_);
    if (comm_ == nullptr) return;
    result = libraries_.nccl.finalize(comm_);
  }
  Backoff backoff;
  while (result == kNcclInProgress && !deadline.expired()) {
    backoff.rest();
    result = state();
  }
  if (result != kNcclSuccess) return abort();
  const std::lock_guard lock(mutex_);
  libraries_.nccl.destroy(std::exchange(comm_, nullptr));
}

}  // namespace trireme
