// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/carriers.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/nccl/nccl_mesh.h"
#include "trireme/comm/shm/shm_regions.h"

namespace trireme {
namespace {

constexpr std::size_t kPageBytes = 4096;

}  // namespace

Carriers::Carriers(const GroupScope& scope)
    : scope_(scope),
      engine_(make_engine(scope)),
      memory_(make_host_memory()),
      device_engine_(make_device_engine(scope)),
      device_memory_(scope.world->nccl != nullptr ? scope.world->nccl->make_memory() : nullptr) {}

void Carriers::check(const ConstBuffer& buffer) const {
  if (buffer.cuda_device == kHostMemory) return;
  if (device_engine_ == nullptr) {
    throw_error<ShapeError>(
        "group {}: a buffer on CUDA device {}, and this world takes none: join it with "
        "WorldOptions::cuda.device set on every rank, for NCCL, or copy the buffer to the host",
        scope_.name, buffer.cuda_device);
  }
  const int own = scope_.world->nccl->device();
  if (buffer.cuda_device != own) {
    throw_error<ShapeError>(
        "group {}: a buffer on CUDA device {}, and this rank joined with device {}; copy the "
        "buffer there",
        scope_.name, buffer.cuda_device, own);
  }
}

Engine& Carriers::engine(int cuda_device) const {
  return cuda_device == kHostMemory ? *engine_ : *device_engine_;
}

Memory& Carriers::memory(int cuda_device) const {
  return cuda_device == kHostMemory ? *memory_ : *device_memory_;
}

std::int64_t Carriers::bytes_sent() const {
  return engine_->bytes_sent() + (device_engine_ != nullptr ? device_engine_->bytes_sent() : 0);
}

std::int64_t Carriers::bytes_sent_between_hosts() const {
  return engine_->bytes_sent_between_hosts() +
         (device_engine_ != nullptr ? device_engine_->bytes_sent_between_hosts() : 0);
}

std::byte* Carriers::pack_space(const Buffer& all) {
  if (all.cuda_device == kHostMemory) {
    if (packed_.bytes() < all.bytes()) packed_ = allocate_shared(all.bytes());
    return static_cast<std::byte*>(packed_.data());
  }
  if (device_packed_ == nullptr) device_packed_ = device_memory_->make_scratch();
  return device_packed_->reserve(all.bytes());
}

void Carriers::run(const Collective& collective, std::span<const Buffer> coalesced,
                   const Deadline& deadline) {
  if (coalesced.empty()) return engine(device_of(collective)).run(collective, deadline);
  Collective whole = collective;
  std::byte* const space = pack_space(whole.output);
  whole.output.data = space;
  Memory& its_memory = memory(whole.output.cuda_device);
  std::byte* at = space;
  for (const Buffer& buffer : coalesced) {
    its_memory.copy(at, buffer.data, buffer.bytes());
    at += buffer.bytes();
  }
  engine(whole.output.cuda_device).run(whole, deadline);
  at = space;
  for (const Buffer& buffer : coalesced) {
    its_memory.copy(buffer.data, at, buffer.bytes());
    at += buffer.bytes();
  }
}

SharedBuffer Carriers::allocate_shared(std::size_t bytes) const {
  if (bytes == 0) return {};
  if (scope_.world->regions != nullptr) {
    return {scope_.world->regions->allocate(scope_, bytes), bytes};
  }
  const std::size_t pages = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  std::shared_ptr<void> memory(std::aligned_alloc(kPageBytes, pages), std::free);
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory.get(), 0, bytes);
  return {std::move(memory), bytes};
}

}  // namespace trireme
