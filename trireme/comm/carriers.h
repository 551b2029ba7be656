// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What carries a group's buffers, by where they lie: one engine for the host's memory and, in a
// world that takes buffers on CUDA devices, another for those.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "trireme/base/deadline.h"
#include "trireme/comm/engine.h"
#include "trireme/comm/message/memory.h"
#include "trireme/comm/shared_buffer.h"
#include "trireme/comm/world_state.h"

namespace trireme {

class Carriers {
 public:
  // scope must outlive it.
  explicit Carriers(const GroupScope& scope);

  const Engine& host_engine() const { return *engine_; }
  // Throws ShapeError, with what to do, when the buffer lies where nothing is carried from.
  void check(const ConstBuffer& buffer) const;

  // Of buffers that lie there: a CUDA device's number or kHostMemory, checked before.
  Engine& engine(int cuda_device) const;
  Memory& memory(int cuda_device) const;
  // The collective on its buffers. Where there are coalesced ones, its output is packed from them
  // and unpacked to them. One at a time; errors are Engine::run()'s.
  void run(const Collective& collective, std::span<const Buffer> coalesced,
           const Deadline& deadline);

  SharedBuffer allocate_shared(std::size_t bytes) const;
  // As those of an engine.
  std::int64_t bytes_sent() const;
  std::int64_t bytes_sent_between_hosts() const;

 private:
  std::byte* pack_space(const Buffer& all);

  // Constant after construction.
  const GroupScope& scope_;
  const std::unique_ptr<Engine> engine_;
  const std::unique_ptr<Memory> memory_;
  // Null where the world takes no buffers on CUDA devices.
  const std::unique_ptr<Engine> device_engine_;
  const std::unique_ptr<Memory> device_memory_;

  // Used by run(). Kept, because new pages cost more than copying.
  SharedBuffer packed_;
  std::unique_ptr<Memory::Scratch> device_packed_;
};

}  // namespace trireme
